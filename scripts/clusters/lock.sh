#!/usr/bin/env bash
# Updates scripts/clusters/NAME/jars.sha256 from its pom.xml: checksum and path of each jar, in the order of the class
# path.
#   scripts/clusters/lock.sh flink|spark
set -euo pipefail
cd "$(dirname "$0")/$1"
maven=$(realpath --canonicalize-missing "${CLUSTERS_CACHE:-../../../.clusters/cache}")/maven
class_path=$(mktemp)
trap 'rm -f "$class_path"' EXIT
mvn --batch-mode --strict-checksums --quiet -Dmaven.repo.local="$maven" dependency:build-classpath \
  -DincludeScope=runtime -Dmdep.outputFile="$class_path"
cd "$maven"
tr : '\n' <"$class_path" | sed "s|^$maven/||" | xargs sha256sum >"$OLDPWD/jars.sha256"
