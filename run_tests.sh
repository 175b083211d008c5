#!/usr/bin/env bash
# Installs the dependencies into .venv, and the clients of exports into .venv-clients; then checks style and types and
# runs every test:
#   ./run_tests.sh
#   ./run_tests.sh -m 'not slow'
#   ./run_tests.sh -m cluster        # on Flink, Spark and Prism; the first time, downloads them
#   ./run_tests.sh tests/dataset/test_plan.py -k list
# All arguments go to pytest. With arguments, the script neither checks style and types nor installs the browser of the
# tests of pages; scripts/install_browser.sh does.
set -euo pipefail
cd "$(dirname "$0")"

scripts/install.sh requirements-test.lock
scripts/install.sh requirements-clients.lock .venv-clients
if [ $# -gt 0 ]; then
  exec .venv/bin/python -m pytest "$@"
fi
scripts/install_browser.sh

# The slow tests of whole runs are in tests/test_*.py. They run in parallel with the other checks and with the slow tests
# of single folders: so both halves take about as long. Their report comes last.
report=$(mktemp)
set -m # puts the slow tests into one process group, so that an interruption ends all of them
.venv/bin/python -m pytest -p no:cacheprovider -m 'slow and not cluster' --durations=25 tests/test_*.py \
  </dev/null >"$report" 2>&1 &
slow=$!
set +m
trap 'kill -- -"$slow" 2>/dev/null || true; rm -f "$report"' EXIT
trap 'exit 130' INT TERM

status=0
scripts/check.sh || status=1
.venv/bin/python -m pytest -m 'not slow' --durations=10 || status=1
.venv/bin/python -m pytest -m 'slow and not cluster' --durations=25 --ignore-glob='tests/test_*.py' || status=1
echo "The slow tests:"
wait "$slow" || status=1
cat "$report"
# Last and alone: an engine takes the memory and the cores that it finds.
echo "The tests on clusters:"
.venv/bin/python -m pytest -m cluster --durations=25 || status=1
exit "$status"
