#!/usr/bin/env bash
# Installs the dependencies into .venv, then checks style and types and runs every test:
#   ./run_tests.sh
#   ./run_tests.sh -m 'not slow'
#   ./run_tests.sh -m cluster        # on Flink, Spark and Prism; the first time, downloads them
#   ./run_tests.sh tests/dataset/test_plan.py -k list
# All arguments go to pytest. With arguments, the script does not check style and types.
set -euo pipefail
cd "$(dirname "$0")"

scripts/install.sh requirements-test.lock
if [ $# -gt 0 ]; then
  exec .venv/bin/python -m pytest "$@"
fi

# Most slow tests run in parallel with the other checks; their report comes last. Those of Dataflow wait for the answers
# of a service most of the time, and follow the fast tests: so both halves take about as long.
report=$(mktemp)
set -m # puts the slow tests into one process group, so that an interruption ends all of them
.venv/bin/python -m pytest -p no:cacheprovider -m 'slow and not cluster' --ignore=tests/dataflow --durations=25 \
  </dev/null >"$report" 2>&1 &
slow=$!
set +m
trap 'kill -- -"$slow" 2>/dev/null || true; rm -f "$report"' EXIT
trap 'exit 130' INT TERM

status=0
scripts/check.sh || status=1
.venv/bin/python -m pytest -m 'not slow' --durations=10 || status=1
.venv/bin/python -m pytest -m slow --durations=10 tests/dataflow || status=1
echo "The slow tests:"
wait "$slow" || status=1
cat "$report"
# Last and alone: an engine takes the memory and the cores that it finds.
echo "The tests on clusters:"
.venv/bin/python -m pytest -m cluster --durations=25 || status=1
exit "$status"
