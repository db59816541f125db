#!/usr/bin/env bash
# What only installing needs, on top of runtime.sh: uv, pinned by its hash, and a compiler, because one dependency,
# pyfarmhash, has no wheel. The image's last stage has none of it.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends g++ python3-dev python3-venv
rm -rf /var/lib/apt/lists/*

python3 -m venv /opt/uv
/opt/uv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --only-binary :all: --require-hashes \
  --requirement "$(dirname "$0")/uv.txt"
ln -sf /opt/uv/bin/uv /usr/local/bin/uv
