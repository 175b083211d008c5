#!/usr/bin/env bash
# Checks style and types, and the Dockerfile. Needs the tools that `scripts/install.sh requirements-test.lock` installs.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
.venv/bin/hadolint Dockerfile
