#!/usr/bin/env bash
# Makes .venv and installs a lock file into it, unless that is done already.
# Usage: scripts/install.sh LOCK_FILE
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1

find_python() {
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.10 to 3.13 found (python3 is $(python3 --version 2>&1)); install one, or set PYTHON" >&2
  return 1
}

if [ ! -x .venv/bin/python ]; then
  "$(find_python)" -m venv .venv
fi
installed=.venv/installed-$(basename "$lock")
if ! cmp --silent "$lock" "$installed"; then
  echo "Installing $lock into .venv (about a minute and a half, 3 GB)" >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
  cp "$lock" "$installed"
fi
