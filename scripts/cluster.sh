#!/usr/bin/env bash
# Starts and stops a cluster on this machine; docs/clusters.md has more.
#   scripts/cluster.sh flink|spark|prism up|down|status
# The first `up` downloads the engine to .clusters/cache; state and logs are in .clusters/ENGINE. Linux only.
# CLUSTERS names another directory for the state and logs, CLUSTERS_CACHE another cache; the ports of each engine are
# variables in scripts/clusters/ENGINE.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
readonly START_TIMEOUT_S=300 STOP_TIMEOUT_S=30

fail() { # fail MESSAGE: ends the script
  echo "error: $1" >&2
  exit 1
}

usage() {
  fail "'$*' arrived; expected: scripts/cluster.sh flink|spark|prism up|down|status"
}

# Every process of a cluster, and so every SDK worker, has the variable EMBEDDING_CLUSTER=HOME in its environment.
cluster_pids() {
  grep --files-with-matches --null-data --line-regexp --fixed-strings "EMBEDDING_CLUSTER=$home" \
    /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 || true
}

pid_of() { # pid_of NAME: its pid if the process runs
  local pid
  pid=$(cat "$home/pids/$1" 2>/dev/null) && cluster_pids | grep --line-regexp "$pid"
}

start() { # start NAME COMMAND...: in the background and in a session of its own, unless the process runs already
  local name=$1
  shift
  if ! pid_of "$name" >/dev/null; then
    EMBEDDING_CLUSTER=$home TMPDIR=$home/tmp SDK_WORKER_LOGS=$home/logs PATH=$repository/scripts/clusters/bin:$PATH \
      setsid "$@" >>"$home/logs/$name.log" 2>&1 </dev/null 9>&- &
    echo $! >"$home/pids/$name"
  fi
}

stop_all() {
  local pids signal=TERM deadline=$((SECONDS + STOP_TIMEOUT_S))
  while pids=$(cluster_pids) && [ -n "$pids" ]; do
    if ((SECONDS > deadline)); then fail "these processes do not end: ${pids//$'\n'/ }"; fi
    if ((SECONDS > deadline - STOP_TIMEOUT_S / 2)); then signal=KILL; fi
    xargs kill -s "$signal" <<<"$pids" 2>/dev/null || true
    sleep 0.2
  done
  rm -rf "$home/tmp" "$home/pids"
}

require_free_ports() { # require_free_ports VARIABLE...: ends the script if another process listens on one of them
  local name
  for name in "$@"; do
    if (exec 3<>"/dev/tcp/127.0.0.1/${!name}") 2>/dev/null; then
      fail "port ${!name} is taken; name a free one: $name=PORT scripts/cluster.sh $engine up"
    fi
  done
}

wait_until_ready() {
  local name deadline=$((SECONDS + START_TIMEOUT_S))
  until engine_is_ready; do
    for name in "${ENGINE_PROCESSES[@]}"; do
      if ! pid_of "$name" >/dev/null; then
        stop_all
        fail "the $name ended at its start; see $home/logs/$name.log"
      fi
    done
    if ((SECONDS > deadline)); then
      stop_all
      fail "the cluster took no jobs within $START_TIMEOUT_S s; see the logs in $home/logs"
    fi
    sleep 0.2
  done
}

is_ready() { # is_ready ARGUMENT...: of scripts/clusters/ready.py
  .venv/bin/python scripts/clusters/ready.py "$@"
}

up() {
  if [ -z "$(cluster_pids)" ]; then
    require_free_ports "${ENGINE_PORTS[@]}"
    rm -rf "$home/logs" "$home/tmp"
  fi
  if [ ! -x .venv/bin/python ]; then scripts/install.sh requirements.lock; fi
  # shellcheck source=scripts/clusters/fetch.sh
  source scripts/clusters/fetch.sh
  engine_fetch
  mkdir -p "$home/logs" "$home/pids" "$home/tmp"
  trap 'stop_all; exit 130' INT TERM
  engine_start
  wait_until_ready
  local endpoint=localhost:$job_port option=
  if [ "$job_port" != "$ENGINE_DEFAULT_JOB_PORT" ]; then option="--job_endpoint=$endpoint "; fi
  cat <<TEXT
$engine takes jobs on $endpoint. Logs: $home/logs. Run:
  .venv/bin/python -m pipeline.run --config=configs/$engine.yaml $option--input=INPUT --module=MODULE --output=OUTPUT --temp_location=DIRECTORY
TEXT
}

status() {
  local name pid missing=0 workers
  for name in "${ENGINE_PROCESSES[@]}"; do
    if pid=$(pid_of "$name"); then
      echo "$name: runs, pid $pid"
    else
      echo "$name: does not run"
      missing=1
    fi
  done
  workers=$(comm -23 <(cluster_pids | sort) <(cat "$home"/pids/* 2>/dev/null | sort) | tr '\n' ' ')
  echo "SDK workers: ${workers:-none}"
  return "$missing"
}

if [ $# -ne 2 ]; then usage "$@"; fi
engine=$1
case $engine in flink | spark | prism) ;; *) usage "$@" ;; esac
home=$(realpath --canonicalize-missing "${CLUSTERS:-.clusters}")/$engine
cache=$(realpath --canonicalize-missing "${CLUSTERS_CACHE:-.clusters/cache}")
# shellcheck source=scripts/clusters/flink.sh
source "scripts/clusters/$engine.sh"
case $2 in
  up | down)
    mkdir -p "$home"
    exec 9>"$home/lock"
    flock 9
    if [ "$2" = up ]; then up; else stop_all; fi
    ;;
  status) status ;;
  *) usage "$@" ;;
esac
