#!/usr/bin/env bash
# Makes .venv: the locked environment of uv.lock with compiled bytecode. Leaves the system's Python alone.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "make setup: $*" >&2
  exit 1
}

uv_is_new() {
  [[ $(printf '%s\n' 0.8.0 "$("$1" --version 2>/dev/null | cut -d' ' -f2)" | sort -V | head -1) == 0.8.0 ]]
}

# uv from PATH if it is 0.8 or newer, else in a virtual environment of its own, as PEP 668 asks.
find_uv() {
  local python
  if uv_is_new uv; then
    command -v uv
    return
  fi
  if [[ ! -x .uv/bin/uv ]]; then
    for python in python3.10 python3.11 python3.12 python3.13 python3; do
      if command -v "$python" && "$python" -m venv --clear .uv && .uv/bin/pip install --quiet 'uv>=0.8,<1'; then break; fi
    done &>/dev/null
  fi
  [[ -x .uv/bin/uv ]] && echo .uv/bin/uv
}

# TFX 1.21, for Python 3.11 and newer, has wheels for this glibc.
has_new_glibc() {
  local version
  version=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)
  [[ $(printf '%s\n' 2.39 "$version" | sort -V | head -1) == 2.39 ]]
}

# One dependency has no wheel and is compiled.
has_headers() {
  "$1" -c 'import pathlib, sys, sysconfig; sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())'
}

# The Python that .python-version asks for; else a newer one that is here; else the first by download.
find_python() {
  local wanted candidates version python
  wanted=$(cat .python-version)
  candidates=("$wanted")
  if has_new_glibc; then candidates+=(3.13 3.12 3.11); fi
  for version in "${candidates[@]}"; do
    if python=$("$uv" python find --no-python-downloads "$version" 2>/dev/null) && has_headers "$python"; then
      echo "$python"
      return
    fi
  done
  "$uv" python install --quiet "$wanted" &>/dev/null && "$uv" python find "$wanted"
}

[[ $(uname -sm) == "Linux x86_64" ]] || fail "TFX has wheels for Linux on x86-64 only, and this is $(uname -sm)"
uv=$(find_uv) ||
  fail "uv is not here and could not be installed by any Python 3; install uv, https://docs.astral.sh/uv/"
python=$(find_python) ||
  fail "found no Python 3.10 with its headers (nor, with glibc 2.39 or newer, 3.11 to 3.13) and could not download one; install Python 3.10 and its development package"

echo "Installing the locked environment into .venv with $python"
"$uv" sync --locked --all-extras --compile-bytecode --python "$python"
