#!/usr/bin/env bash
# Makes .venv: the locked environment of uv.lock with compiled bytecode. Leaves the system's Python alone.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "make setup: $*" >&2
  exit 1
}

# uv from PATH, else from a virtual environment of its own, as PEP 668 asks.
find_uv() {
  local own=build/uv python
  if command -v uv; then return; fi
  if [[ ! -x $own/bin/uv ]]; then
    for python in python3.10 python3.11 python3.12 python3.13 python3; do
      if command -v "$python" >/dev/null && "$python" -m venv "$own" >&2 && "$own/bin/pip" install -q 'uv>=0.8,<1' >&2; then
        break
      fi
    done
  fi
  [[ -x $own/bin/uv ]] && echo "$own/bin/uv"
}

uv=$(find_uv) || fail "neither uv nor a Python with venv and pip can be had; install uv (https://docs.astral.sh/uv/) or Python 3.10 to 3.13"

# .python-version asks for 3.10; any of 3.11 to 3.13 will do where that is neither here nor to be downloaded.
python=""
for version in "$(cat .python-version)" 3.13 3.12 3.11 3.10; do
  if python=$("$uv" python find --no-python-downloads "$version" 2>/dev/null); then break; fi
done
if [[ -z $python ]]; then
  "$uv" python install "$(cat .python-version)" >&2 ||
    fail "no Python 3.10 to 3.13 is here and uv could not download one; install Python 3.10"
  python=$("$uv" python find "$(cat .python-version)")
fi

echo "Installing the locked environment into .venv with $python"
"$uv" sync --locked --compile-bytecode --python "$python"
