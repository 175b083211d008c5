#!/usr/bin/env bash
# Checks style and types with what scripts/install.sh requirements-test.lock installed.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
