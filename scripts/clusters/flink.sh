# Apache Flink: a job server, a JobManager and two TaskManagers. Sourced by scripts/cluster.sh.
# shellcheck shell=bash disable=SC2034,SC2154
ENGINE_DEFAULT_JOB_PORT=8099
ENGINE_PROCESSES=(job-manager task-manager-1 task-manager-2 job-server)
ENGINE_PORTS=(FLINK_JOB_PORT FLINK_RPC_PORT FLINK_REST_PORT)
: "${FLINK_JOB_PORT:=$ENGINE_DEFAULT_JOB_PORT}" "${FLINK_RPC_PORT:=6123}" "${FLINK_REST_PORT:=8081}"
job_port=$FLINK_JOB_PORT

engine_fetch() {
  require_java
  fetch_maven_jars flink
  fetch_python_package flink '*/deps/lib/flink-dist-*.jar' '*/deps/lib/log4j-*.jar'
}

engine_start() {
  local number java=(java "${JAVA_OPTIONS[@]}" -Xmx512m)
  # Flink keeps SDK workers for the next stage of a job only if Beam is on its own class path.
  local beam flink=("${java[@]}" "-Dlog4j.configurationFile=$repository/scripts/clusters/flink/log4j.properties")
  beam=$(tr : '\n' <<<"$jars" | grep --invert-match --extended-regexp '/org/(apache/flink|slf4j)/' | paste --serial --delimiters=:)
  flink+=(-cp "$package/jars/*:$beam")
  local main=org.apache.flink.runtime
  mkdir -p "$home/conf"
  sed "s|RPC_PORT|$FLINK_RPC_PORT|; s|REST_PORT|$FLINK_REST_PORT|; s|TEMPORARY|$home/tmp|" \
    scripts/clusters/flink/config.yaml >"$home/conf/config.yaml"
  start job-manager "${flink[@]}" "$main.entrypoint.StandaloneSessionClusterEntrypoint" \
    --configDir "$home/conf" --executionMode cluster
  for number in 1 2; do
    start "task-manager-$number" "${flink[@]}" -XX:MaxDirectMemorySize=768m "$main.taskexecutor.TaskManagerRunner" \
      --configDir "$home/conf" -D "taskmanager.resource-id=task-manager-$number"
  done
  start job-server "${java[@]}" -cp "$jars" org.apache.beam.runners.flink.FlinkJobServerDriver \
    --job-host=127.0.0.1 --job-port="$FLINK_JOB_PORT" --artifact-port=0 --expansion-port=0 \
    --artifacts-dir="$home/tmp/artifacts" --flink-master="127.0.0.1:$FLINK_REST_PORT"
}

engine_is_ready() {
  is_ready "127.0.0.1:$FLINK_JOB_PORT" "http://127.0.0.1:$FLINK_REST_PORT/overview" taskmanagers 2
}
