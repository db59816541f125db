#!/usr/bin/env bash
# What the image needs besides its Python environment: Debian's Python, the certificates that Google Cloud's clients
# check, and an unprivileged user. Dockerfile runs it in a slim Debian 13, infra/newest.sh in a root that it made.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends ca-certificates libstdc++6 python3
rm -rf /var/lib/apt/lists/*

# A fixed number, so that volumes and Kubernetes' runAsUser can name it.
if ! id tfx &>/dev/null; then
  useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin tfx
fi
