#!/usr/bin/env bash
# Installs what is needed into .venv, then checks style and types and runs every test:
#   ./run_tests.sh
#   ./run_tests.sh -m 'not slow'
#   ./run_tests.sh tests/dataset/test_plan.py -k list
# All arguments go to pytest; with any, style and types are not checked.
set -euo pipefail
cd "$(dirname "$0")"

scripts/install.sh requirements-test.lock
if [ $# -gt 0 ]; then
  exec .venv/bin/python -m pytest "$@"
fi

# The slow tests run beside all else, on a second core; their report is shown last.
report=$(mktemp)
set -m # gives them a process group, which an interruption ends as a whole
.venv/bin/python -m pytest -p no:cacheprovider -m slow </dev/null >"$report" 2>&1 &
slow=$!
set +m
trap 'kill -- -"$slow" 2>/dev/null || true; rm -f "$report"' EXIT
trap 'exit 130' INT TERM

status=0
scripts/check.sh || status=1
.venv/bin/python -m pytest -m 'not slow' || status=1
echo "The slow tests:"
wait "$slow" || status=1
cat "$report"
exit "$status"
