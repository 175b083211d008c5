#!/usr/bin/env bash
# Makes .venv and installs a lock file into it. Does nothing if .venv has this lock file already.
# Usage: scripts/install.sh LOCK_FILE
# PYTHON names the interpreter for .venv; default: the first of python3, python3.13, ... with a supported version.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
  for candidate in "$@"; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: none of $* is a Python 3.11 to 3.13; install one, or set PYTHON to its path" >&2
  return 1
}

# An interrupted set-up leaves an environment without pip.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  "$python" -m venv --clear .venv
fi
installed=.venv/installed-$(basename "$lock")
if ! cmp -s "$lock" "$installed"; then
  echo "Installing $lock into .venv (a few minutes, 3 GB)" >&2
  # --no-deps: the lock file is complete, and pip before 23.1 fails on packages with extras.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 --no-deps --require-hashes -r "$lock"
  problems=$(.venv/bin/python -m pip check --disable-pip-version-check) || { echo "error: $problems" >&2; exit 1; }
  cp "$lock" "$installed"
fi
