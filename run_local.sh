#!/usr/bin/env bash
# Installs the dependencies into .venv and embeds a small sample data set, or the input in the arguments:
#   ./run_local.sh
#   ./run_local.sh --input="$HOME/photos" --module=https://.../module.tar.gz --output=embeddings
# All arguments go to `python -m pipeline.run`. With --config, the script adds none of its defaults.
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")"
here=$PWD
# A trained MobileNetV2, its newer version in another format, and a network that needs no download.
CARD=https://storage.googleapis.com/tfhub-test-modules/google/imagenet/mobilenet_v2_050_160/feature_vector/1.tar.gz
SUCCESSOR=https://tfhub.dev/google/imagenet/mobilenet_v2_050_160/feature_vector/5
BUILT_IN=untrained:mobilenet_v2_050_160

has_flag() { # has_flag NAME ARGUMENT...: whether --NAME is among the arguments
  local name=$1 argument
  shift
  for argument in "$@"; do
    case $argument in "--$name" | "--$name="*) return 0 ;; esac
  done
  return 1
}

choose_module() { # prints the first of the modules that can be had, and says on stderr which it is
  local module
  for module in "$CARD" "$SUCCESSOR"; do
    if "$python" scripts/serves_archive.py "$module?tf-hub-format=compressed"; then
      echo "using the module $module" >&2
      echo "$module"
      return
    fi
    echo "$module does not answer" >&2
  done
  echo "using the built-in network with random weights instead: $BUILT_IN" >&2
  echo "$BUILT_IN"
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
    module=$(choose_module)
    arguments+=(--module="$module")
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
