# Prism, Beam's own portable runner, one process. Sourced by scripts/cluster.sh.
# shellcheck shell=bash disable=SC2034,SC2154
ENGINE_DEFAULT_JOB_PORT=8073
ENGINE_PROCESSES=(prism)
ENGINE_PORTS=(PRISM_JOB_PORT)
: "${PRISM_JOB_PORT:=$ENGINE_DEFAULT_JOB_PORT}"
job_port=$PRISM_JOB_PORT

# Builds the version in scripts/clusters/prism/go.mod; go.sum there has the checksums of all its source.
engine_fetch() {
  prism=$cache/prism-$(cat scripts/clusters/prism/go.{mod,sum} | sha256sum | cut -c1-16)
  if [ ! -x "$prism" ]; then
    require_command go golang-go
    echo "Building Prism with Go (a few minutes)" >&2
    mkdir -p "$cache"
    export GOPATH=$cache/go GOCACHE=$cache/go-build GOFLAGS=-modcacherw
    (cd scripts/clusters/prism && go mod download) >"$home/go.log" 2>&1 \
      || fail "Go could not download Prism's source; see $home/go.log"
    (cd scripts/clusters/prism && go build -mod=readonly -trimpath -ldflags='-s -w' -o "$prism.new" \
      github.com/apache/beam/sdks/v2/go/cmd/prism) >"$home/go.log" 2>&1 || fail "Prism could not be built; see $home/go.log"
    mv "$prism.new" "$prism"
    rm -rf "$GOPATH" "$GOCACHE"
  fi
}

engine_start() {
  start prism "$prism" -job_port="$PRISM_JOB_PORT" -serve_http=false
}

engine_is_ready() {
  is_ready "127.0.0.1:$PRISM_JOB_PORT"
}
