#!/usr/bin/env bash
# Installs what is needed into .venv, then checks style and types and runs every test:
#   ./run_tests.sh
#   ./run_tests.sh -m 'not slow'
#   ./run_tests.sh tests/test_plan.py -k list
# All arguments go to pytest; with any, style and types are not checked.
set -euo pipefail
cd "$(dirname "$0")"

scripts/install.sh requirements-test.lock
if [ $# -eq 0 ]; then
  scripts/check.sh
fi
exec .venv/bin/python -m pytest "$@"
