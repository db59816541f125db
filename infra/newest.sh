#!/usr/bin/env bash
# Runs the tests on the newest stack of uv.lock, TFX 1.21 and TensorFlow 2.21 on Python 3.13, wherever glibc is too old
# for it: in a Debian 13 root, as an unprivileged user, on a copy of the work tree. Before, it installs there what the
# image installs, by the image's own scripts, and checks what the containers start.
#
#   infra/newest.sh [TARGET]     TARGET is a target of make, by default `test`
#
# The root lies in NEWEST_ROOT, by default build/newest-root, and is used again by the next run. It needs root, debootstrap
# (installed if it is missing) and the network; DEBIAN_MIRROR says where Debian's packages come from.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "make test-newest: $*" >&2
  exit 1
}

root=$(realpath --canonicalize-missing "${NEWEST_ROOT:-build/newest-root}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

# Everything is mounted in a mount namespace of this run: however it ends, nothing stays mounted, and removing the root
# can never reach through a mount. No process outlives the run either.
if [[ ${1:-} != --inside ]]; then
  [[ $(uname -sm) == "Linux x86_64" ]] || fail "TFX has wheels for Linux on x86-64 only, and this is $(uname -sm)"
  [[ $EUID == 0 ]] || fail "making and entering a Debian 13 root needs root; run it with sudo"
  git rev-parse --is-inside-work-tree &>/dev/null || fail "git does not answer here, and what to test is what it knows or does not ignore; run it in a clone of yours"
  unshare --mount true 2>/dev/null || fail "this container may not mount anything; start it with CAP_SYS_ADMIN"
  mkdir -p "$(dirname "$root")"
  exec 9>"$root.lock"
  flock --nonblock 9 || fail "another run uses $root; wait for it, or set NEWEST_ROOT"
  exec unshare --mount --propagation private --pid --fork --kill-child "$0" --inside "$@"
fi
shift
target=${1:-test}

times=() name=
step() { # step NAME: ends the step before and keeps its time
  if [[ -n ${name:-} ]]; then times+=("$(printf '%5d s  %s' $((SECONDS - started)) "$name")"); fi
  name=$1
  started=$SECONDS
}

# The environment is written out: nothing of the caller's but its way to the network comes in.
environment=(LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt)
for variable in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  if [[ -n ${!variable:-} ]]; then environment+=("$variable=${!variable}"); fi
done

as_root() { # as_root DIRECTORY COMMAND...
  chroot "$base" /usr/bin/env --ignore-environment --chdir "$1" HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin \
    "${environment[@]}" "${@:2}"
}

as_user() { # as_user PATH DIRECTORY COMMAND...
  chroot --userspec=tfx:tfx "$base" /usr/bin/env --ignore-environment --chdir "$2" HOME=/home/tfx PATH="$1" \
    "${environment[@]}" "${@:3}"
}

enter() { # enter ROOT: mounts what programs need, hands in the network
  base=$1
  mount --types proc proc "$base/proc"
  mount --rbind /dev "$base/dev"
  cp --dereference --remove-destination /etc/resolv.conf /etc/hosts "$base/etc/"
  if [[ -s /etc/ssl/certs/ca-certificates.crt ]]; then
    mkdir -p "$base/etc/ssl/certs"
    cp --dereference /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/"
  fi
}

make_root() { # under a name of its own until it is complete
  local partial=$root.partial
  [[ ! -e $root || -e $root/.made-from ]] || fail "$root is there and was not made by this; choose another NEWEST_ROOT"
  rm -rf "$partial" "$root"
  if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || fail "debootstrap is not here; install it"
    { apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends debootstrap >/dev/null; } ||
      fail "debootstrap is not here and apt-get could not install it; install it"
  fi
  mkdir -p "$(dirname "$root")"
  debootstrap --variant=minbase --include=ca-certificates trixie "$partial" "$mirror" >"$root.log" 2>&1 ||
    fail "debootstrap failed, see $root.log; is $mirror reached? DEBIAN_MIRROR names another"
  enter "$partial"
  mkdir -p "$partial/mnt/image"
  mount --bind infra/image "$partial/mnt/image"
  as_root / /mnt/image/runtime.sh >>"$root.log" 2>&1 || fail "runtime.sh failed, see $root.log"
  as_root / /mnt/image/build_tools.sh >>"$root.log" 2>&1 || fail "build_tools.sh failed, see $root.log"
  as_root / sh -c 'apt-get update -qq && apt-get install -qq -y --no-install-recommends git make &&
    rm -rf /var/lib/apt/lists/*' >>"$root.log" 2>&1 || fail "git and make could not be installed, see $root.log"
  umount --lazy "$partial/mnt/image" "$partial/dev" "$partial/proc"
  made_from >"$partial/.made-from"
  mv "$partial" "$root"
}

made_from() { # a root is used again as long as this is what it was made from
  echo "trixie $mirror"
  sha256sum infra/image/runtime.sh infra/image/build_tools.sh infra/image/uv.txt
}

copy_work_tree() { # what git tracks or does not ignore; the environment of the run before stays
  mkdir -p "$base/src/tfx-qat"
  find "$base/src/tfx-qat" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
  git ls-files -z --cached --others --exclude-standard --deduplicate |
    while IFS= read -r -d '' file; do if [[ -e $file || -L $file ]]; then printf '%s\0' "$file"; fi; done |
    tar --create --no-recursion --null --files-from=- | tar --extract --no-same-owner --directory "$base/src/tfx-qat"
  if [[ -d ../shared ]]; then
    mkdir -p "$base/src/shared"
    mount --bind ../shared "$base/src/shared"
    mount --options remount,bind,ro "$base/src/shared"
  fi
  # Files keep their times, so make could take an environment of another work tree for new enough.
  rm -f "$base/src/tfx-qat/.venv/.ready"
  find "$base/tmp" "$base/var/tmp" -mindepth 1 -delete
}

show_stack() {
  as_root /src/tfx-qat .venv/bin/python -c '
import platform
from importlib.metadata import version
print("Python " + platform.python_version(), *(f"{name} {version(name)}" for name in ("tfx", "tensorflow")), sep=", ")'
}

if ! cmp --silent <(made_from) "$root/.made-from"; then
  step "making the Debian 13 root"
  make_root
fi

step "installing what the image installs"
enter "$root"
copy_work_tree
as_root /src/tfx-qat infra/image/install.sh dependencies /opt/tfx-qat
as_root /src/tfx-qat infra/image/install.sh project /opt/tfx-qat

step "checking it"
install --mode=644 infra/image/check.py "$root/tmp/"
as_user /opt/tfx-qat/bin:/usr/bin /home/tfx python /tmp/check.py || fail "the image would not work, see above"
echo "The image's environment works and takes $(as_root / du --summarize --human-readable /opt/tfx-qat | cut -f1)"

step "make setup"
as_root /src/tfx-qat make --no-print-directory setup
# All but the environment belongs to who runs the tests.
find "$root/src/tfx-qat" -mindepth 1 -maxdepth 1 ! -name .venv -exec chown --recursive 10001:10001 {} +
chown 10001:10001 "$root/src/tfx-qat"

step "make $target"
echo "Running make $target on $(show_stack)"
status=0
as_user /usr/local/bin:/usr/bin /src/tfx-qat env TFX_QAT_IMAGE_ENVIRONMENT=/opt/tfx-qat \
  make --no-print-directory "$target" || status=$?

step end
echo
echo "make $target on Debian $(cat "$root/etc/debian_version"), $(show_stack):"
printf '%s\n' "${times[@]}"
exit "$status"
