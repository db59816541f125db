#!/usr/bin/env bash
# Installs the environment of the image: what uv.lock pins and nothing else, hashes checked, bytecode compiled, and
# tfx-qat itself as a wheel, so that nothing of the repository is needed afterwards. Run it in the repository's root:
#
#   install.sh dependencies ENVIRONMENT     everything but tfx-qat; changes only with pyproject.toml and uv.lock
#   install.sh project ENVIRONMENT [COPY]   tfx-qat; also lays its files below COPY, a layer of the image of their own
#
# PYTHON names another interpreter than the system's, as the tests do.
set -euo pipefail

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

[[ $# -ge 2 ]] || fail "say what and where to, as in: install.sh dependencies /opt/tfx-qat"
[[ -f uv.lock ]] || fail "there is no uv.lock here; run it in the repository's root"
command -v uv >/dev/null || fail "uv is not here; run build_tools.sh first"

unset PYTHONDONTWRITEBYTECODE
export UV_PROJECT_ENVIRONMENT=$2
sync=(uv sync --quiet --locked --no-default-groups --group image --all-extras --no-editable --compile-bytecode
  --no-python-downloads --python "${PYTHON:-/usr/bin/python3}")

case $1 in
  dependencies)
    "${sync[@]}" --no-install-project
    # Headers for compiling ops of one's own, 430 MB, which nothing here does.
    rm -rf "$2"/lib/python3*/site-packages/tensorflow/include
    ;;
  project)
    # uv would reuse a wheel that it built before: the version stays the same when the code changes.
    "${sync[@]}" --reinstall-package tfx-qat
    if [[ $# -ge 3 ]]; then
      cd "$2"
      mkdir -p "$3"
      cp --archive --parents lib/python3*/site-packages/{components,pipelines,tfx_qat-*.dist-info} "$3"
    fi
    ;;
  *) fail "'$1' is neither 'dependencies' nor 'project'" ;;
esac
