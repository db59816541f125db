#!/usr/bin/env bash
# Installs Google's Edge TPU compiler from Google's apt repository, if its licence was accepted; does nothing otherwise.
#
# The compiler is proprietary, comes without source, for x86-64 only, and under Google's terms: see
# https://coral.ai/docs/edgetpu/compiler/ and, once it is installed, /usr/share/doc/edgetpu-compiler/. Whoever sets
# EDGETPU_COMPILER_LICENCE_ACCEPTED=yes says that they have read and accepted them; check them before you publish an
# image that contains it. Without the compiler, models are analysed instead and marked as not compiled.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

if [[ ${EDGETPU_COMPILER_LICENCE_ACCEPTED:-} != yes ]]; then
  echo "edgetpu_compiler is not installed: its licence was not accepted with EDGETPU_COMPILER_LICENCE_ACCEPTED=yes"
  exit
fi

fail() {
  echo "edgetpu_compiler.sh: $*" >&2
  exit 1
}

[[ $(dpkg --print-architecture) == amd64 ]] || fail "Google offers the compiler for x86-64 only; build without it"

repository=https://packages.cloud.google.com/apt
key=/usr/share/keyrings/google-cloud
list=/etc/apt/sources.list.d/coral-edgetpu.list
python3 -c 'import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], timeout=60).read())' \
  "$repository/doc/apt-key.gpg" 2>/dev/null >"$key" ||
  fail "could not get the key of $repository; build where it can be reached, or without the compiler"
# apt tells an armoured key from a binary one by its name.
if grep --quiet --text '^-----BEGIN' "$key"; then suffix=asc; else suffix=gpg; fi
mv "$key" "$key.$suffix"
key=$key.$suffix
echo "deb [arch=amd64 signed-by=$key] $repository coral-edgetpu-stable main" >"$list"
apt-get update --quiet=2 || fail "apt takes nothing from $repository, see above; build without the compiler"
apt-get install --quiet=2 --yes --no-install-recommends edgetpu-compiler=16.0
# Nothing else is ever to come from there.
rm -rf "$list" "$key" /var/lib/apt/lists/*
edgetpu_compiler --version
