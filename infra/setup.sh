#!/usr/bin/env bash
# Makes .venv: the locked environment of uv.lock with compiled bytecode. Leaves the system's Python alone.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "make setup: $*" >&2
  exit 1
}

# uv from PATH, else in a virtual environment of its own, as PEP 668 asks.
find_uv() {
  local python
  if command -v uv; then return; fi
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

# The Python that .python-version asks for; else a newer one that is here; else the first by download.
find_python() {
  local wanted candidates version
  wanted=$(cat .python-version)
  candidates=("$wanted")
  if has_new_glibc; then candidates+=(3.13 3.12 3.11); fi
  for version in "${candidates[@]}"; do
    if "$uv" python find --no-python-downloads "$version" 2>/dev/null; then return; fi
  done
  "$uv" python install --quiet "$wanted" &>/dev/null && "$uv" python find "$wanted"
}

uv=$(find_uv) ||
  fail "uv is not here and could not be installed by any Python 3; install uv, https://docs.astral.sh/uv/"
python=$(find_python) ||
  fail "found no Python 3.10 (nor, with glibc 2.39 or newer, 3.11 to 3.13) and could not download one; install Python 3.10"

echo "Installing the locked environment into .venv with $python"
"$uv" sync --locked --compile-bytecode --python "$python"
