#!/usr/bin/env bash
# Installs the dependencies into .venv and embeds a small sample data set, or the input in the arguments:
#   ./run_local.sh
#   ./run_local.sh --input="$HOME/photos" --module=https://.../module.tar.gz --output=embeddings
# All arguments go to `python -m pipeline.run`. With --config, the script adds none of its defaults.
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")"
here=$PWD
CARD=https://storage.googleapis.com/tfhub-test-modules/google/imagenet/mobilenet_v2_050_160/feature_vector/1.tar.gz

has_flag() { # has_flag NAME ARGUMENT...: whether --NAME is among the arguments
  local name=$1 argument
  shift
  for argument in "$@"; do
    case $argument in "--$name" | "--$name="*) return 0 ;; esac
  done
  return 1
}

scripts/install.sh requirements.lock
python=$here/.venv/bin/python
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1 # ignore a folder `pipeline` in the caller's directory

if has_flag help "$@" || [ "${1:-}" = -h ]; then
  exec "$python" -m pipeline.run --help
fi
arguments=()
if ! has_flag config "$@"; then
  arguments+=(--runner=DirectRunner)
  output=(--output="$here/local_run/own")
  if ! has_flag input "$@"; then
    output=(--output="$here/local_run/embeddings" --overwrite)
    "$python" scripts/make_sample.py local_run/sample
    arguments+=(--input="$here/local_run/sample" --key_feature=image/key --passthrough=image/label,image/size)
  fi
  if ! has_flag module "$@"; then
    if "$python" scripts/url_answers.py "$CARD"; then
      arguments+=(--module="$CARD")
    else
      echo "$CARD does not answer; using the built-in network with random weights instead" >&2
      arguments+=(--module=untrained:mobilenet_v2_050_160)
    fi
  fi
  if ! has_flag output "$@"; then
    arguments+=("${output[@]}")
  fi
fi
arguments+=("$@")

cd "$caller" # relative paths in the arguments start there
status=0
"$python" -m pipeline.run "${arguments[@]}" || status=$?
if { [ "$status" -eq 0 ] || [ "$status" -eq 3 ]; } && ! has_flag dry_run "$@"; then
  echo
  "$python" "$here/scripts/show_embeddings.py" "${arguments[@]}"
fi
exit "$status"
