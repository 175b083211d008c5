#!/usr/bin/env bash
# Makes a virtual environment and installs a lock file into it. Does nothing if it has this lock file already.
# Usage: scripts/install.sh LOCK_FILE [ENVIRONMENT]
# ENVIRONMENT is .venv by default. PYTHON names its interpreter; default: the first of python3, python3.13, ... with a supported version.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1
environment=${2:-.venv}

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
if ! "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  "$python" -m venv --clear "$environment"
fi
installed=$environment/installed-$(basename "$lock")
if ! cmp -s "$lock" "$installed"; then
  size="a few minutes, 3 GB"
  if [ "$environment" != .venv ]; then size="a minute, 0.7 GB"; fi
  echo "Installing $lock into $environment ($size)" >&2
  # --no-deps: the lock file is complete, and pip before 23.1 fails on packages with extras.
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 --no-deps --require-hashes -r "$lock"
  # The lock file of the clients leaves out what their tests do not use.
  if [ "$environment" = .venv ]; then
    problems=$(.venv/bin/python -m pip check --disable-pip-version-check) || { echo "error: $problems" >&2; exit 1; }
  fi
  cp "$lock" "$installed"
fi
