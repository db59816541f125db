#!/usr/bin/env bash
# Installs PostgreSQL and MariaDB by Debian's packages for `make test-databases`, where they are missing and root runs
# this; where that cannot be, it says so, and the tests that need them are skipped. No service is started.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
  .venv/bin/python -c 'from infra import metadata_servers as servers
print(*filter(None, map(servers.missing, servers.kinds())))'
}
without() {
  echo "make test-databases: $*; the tests that need them are skipped"
  exit 0
}

lacking=$(missing)
[[ -n $lacking ]] || exit 0
[[ $EUID == 0 ]] || without "$lacking not installed, and only root can: apt-get install postgresql mariadb-server"
command -v apt-get >/dev/null || without "$lacking not installed, and there is no apt-get here"
log=$(mktemp)
# Debian's own way to keep packages from starting what they install.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
{ apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends \
  postgresql mariadb-server; } >"$log" 2>&1 || without "apt-get could not install $lacking, see $log"
rm -f "$log"
