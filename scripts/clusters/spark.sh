# Apache Spark: a job server, a standalone master and two workers. Sourced by scripts/cluster.sh.
# shellcheck shell=bash disable=SC2034,SC2154
ENGINE_DEFAULT_JOB_PORT=8199
ENGINE_PROCESSES=(master worker-1 worker-2 job-server)
ENGINE_PORTS=(SPARK_JOB_PORT SPARK_MASTER_PORT SPARK_WEB_PORT)
: "${SPARK_JOB_PORT:=$ENGINE_DEFAULT_JOB_PORT}" "${SPARK_MASTER_PORT:=7077}" "${SPARK_WEB_PORT:=8080}"
job_port=$SPARK_JOB_PORT

engine_fetch() {
  require_java
  fetch_maven_jars spark
  fetch_python_package spark '*/deps/jars/*.jar'
}

engine_start() {
  local number master=spark://127.0.0.1:$SPARK_MASTER_PORT
  # Beam's jars come first: Spark has an older version of some of them.
  local java=(java "${JAVA_OPTIONS[@]}" -Xmx512m -cp "$jars:$package/jars/*")
  export SPARK_LOCAL_IP=127.0.0.1 SPARK_HOME=$package SPARK_SCALA_VERSION=2.12
  start master "${java[@]}" org.apache.spark.deploy.master.Master \
    --host 127.0.0.1 --port "$SPARK_MASTER_PORT" --webui-port "$SPARK_WEB_PORT"
  for number in 1 2; do
    start "worker-$number" "${java[@]}" -Dspark.worker.cleanup.{enabled=true,interval=60,appDataTtl=60} \
      org.apache.spark.deploy.worker.Worker \
      --host 127.0.0.1 --cores 1 --memory 1g --webui-port 0 --work-dir "$home/tmp/worker-$number" "$master"
  done
  local executor="-XX:+UseSerialGC -XX:-UsePerfData -XX:TieredStopAtLevel=1 -Djava.io.tmpdir=$home/tmp"
  executor+=" -Dlog4j2.configurationFile=$repository/scripts/clusters/spark/log4j.properties"
  executor+=" -Dexecutor.log=$home/logs/executor-{{APP_ID}}-{{EXECUTOR_ID}}.log"
  # The job server runs Spark's driver.
  start job-server "${java[@]}" -Dspark.ui.enabled=false -Dspark.local.dir="$home/tmp" \
    -Dspark.driver.{host,bindAddress}=127.0.0.1 -Dspark.executor.memory=512m \
    -Dspark.executor.extraClassPath="$jars" \
    -Dspark.executor.extraJavaOptions="$executor" \
    org.apache.beam.runners.spark.SparkJobServerDriver \
    --job-host=127.0.0.1 --job-port="$SPARK_JOB_PORT" --artifact-port=0 --expansion-port=0 \
    --artifacts-dir="$home/tmp/artifacts" --spark-master-url="$master"
}

engine_is_ready() {
  is_ready "127.0.0.1:$SPARK_JOB_PORT" "http://127.0.0.1:$SPARK_WEB_PORT/json/" aliveworkers 2
}
