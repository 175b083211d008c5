#!/usr/bin/env bash
# Updates the lock files from pyproject.toml: requirements.lock for ./run_local.sh and the Dockerfile,
# requirements-gpu.lock for images of workers with a GPU, requirements-test.lock for ./run_tests.sh, and
# requirements-clients.lock for the clients of exports that its tests start in their own environment; all with hashes and
# for every supported version of Python. Needs uv (pip install uv).
set -euo pipefail
cd "$(dirname "$0")/.."
export CUSTOM_COMPILE_COMMAND=scripts/lock.sh UV_CUSTOM_COMPILE_COMMAND=scripts/lock.sh
options=(--quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links)
uv pip compile "${options[@]}" --extra test pyproject.toml --output-file requirements-test.lock "$@"
uv pip compile "${options[@]}" pyproject.toml --constraint requirements-test.lock \
  --output-file requirements.lock "$@"
uv pip compile "${options[@]}" --extra gpu pyproject.toml --constraint requirements-test.lock \
  --output-file requirements-gpu.lock "$@"
# Chroma uses these only in servers on Kubernetes and for its own model.
unused=(kubernetes onnxruntime tokenizers huggingface-hub hf-xet flatbuffers sympy mpmath oauthlib requests-oauthlib
  websocket-client durationpy)
uv pip compile "${options[@]}" "${unused[@]/#/--no-emit-package=}" requirements-clients.in \
  --output-file requirements-clients.lock "$@"
