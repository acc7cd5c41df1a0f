#!/usr/bin/env bash
# A real Apache Kafka cluster (KRaft, N combined controller+broker nodes) on loopback, for tests.
#
#   kafka.sh jars                       fetch the jars below $KELPIE_CACHE (default .cache), once, and hold them against
#                                       kafka-VERSION.sha256 (needs maven; MVN_OPTS=-o: from its own store, offline); then
#                                       one throw-away broker writes a class data archive and formatted storage, which
#                                       make later starts two to three times as fast: a minute in all
#   kafka.sh ready                      exit status 0 when the jars and a Java runtime are there
#   kafka.sh start DIR [N] [PORT]       format (first time) and start nodes 1..N (default 1, port 19100);
#                                       prints "bootstrap=127.0.0.1:PORT+1,..." when all are ready
#   kafka.sh up    DIR ID               start one node again        kafka.sh kill DIR ID   kill -9 one node
#   kafka.sh pause DIR ID | cont DIR ID SIGSTOP / SIGCONT one node  kafka.sh status DIR    which nodes run
#   kafka.sh user  DIR NAME PASSWORD    let NAME log in with SCRAM-SHA-512
#   kafka.sh wipe  DIR ID               of a node that is killed: a new disk, formatted for the same cluster
#   kafka.sh stop  DIR                  stop all (SIGTERM, after 5 s SIGKILL)
#   kafka.sh destroy DIR                kill -9 all and remove DIR
#
# Node i listens on PORT+i (clients) and PORT+20+i (controller).  Everything is under DIR.
# Environment: KAFKA_JARS (another folder with jars), KAFKA_TTL (600: seconds after which a node is killed
# whatever happens), KAFKA_HEAP (256m), KAFKA_CONF (extra server.properties lines, at the first start; @ID@ is the node),
# KAFKA_WAIT (60: seconds to become ready), JAVA (java), KAFKA_JAVA_OPTS (more flags), KAFKA_HOST (127.0.0.1: a node's address;
# @ID@ is the node), KAFKA_WITHIN (a command that nodes are started by, as nsenter; @ID@ is the node).
# Idempotent: start on a running cluster starts what is down and prints the addresses again.
set -eu

die() { echo "kafka.sh: $*" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
JAVA=${JAVA:-java}
HOST=${KAFKA_HOST:-127.0.0.1}
version=3.9.2
# Absolute: the class data archive is used only with the same class path.
KAFKA_JARS=${KAFKA_JARS:-${KELPIE_CACHE:-$(cd "$here/../.." && pwd)/.cache}/kafka-$version}

# ours DIR ID: prints the pid when the node of DIR runs (the pid file may be stale: check the command line)
ours() {
    local p
    p=$(cat "$1/n$2/pid" 2>/dev/null) || return 1
    [ -n "$p" ] && { tr '\0' ' ' <"/proc/$p/cmdline" | grep -qF -- "-Dnode.home=$1/n$2 "; } 2>/dev/null || return 1
    echo "$p"
}

cmd_ready() { [ -e "$KAFKA_JARS/fmt/meta.properties" ] && command -v "$JAVA" >/dev/null; }

cmd_jars() {
    local new=$KAFKA_JARS.new
    mkdir -p "$(dirname "$KAFKA_JARS")"
    exec 9>"$KAFKA_JARS.lock"
    flock 9
    if [ ! -e "$KAFKA_JARS/kafka-clients-$version.jar" ]; then
        echo "kafka.sh: fetching Kafka $version into $KAFKA_JARS, once; half a minute"
        rm -rf "$new"
        mkdir "$new"
        # shellcheck disable=SC2086
        mvn -B -q -C -f "$here/pom.xml" -Dkafka.version="$version" ${MVN_OPTS:-} \
            org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$new" >"$new/mvn.log" 2>&1 ||
            { tail -5 "$new/mvn.log" >&2; die "the jars could not be fetched"; }
        (cd "$new" && sha256sum --quiet --check "$here/kafka-$version.sha256") || die "the jars are not the pinned ones"
        mv "$new" "$KAFKA_JARS"
    fi
    cmd_fast 9>&-
}

write_conf() {
    local dir=$1 i=$2 n=$3 port=$4 voters="" k rf=3 isr=2 host=${HOST//@ID@/$2}
    for k in $(seq 1 "$n"); do voters="$voters,$k@${HOST//@ID@/$k}:$((port + 20 + k))"; done
    [ "$n" -ge 3 ] || { rf=$n; isr=1; }
    mkdir -p "$dir/n$i"
    cat >"$dir/n$i/server.properties" <<END
process.roles=broker,controller
node.id=$i
controller.quorum.voters=${voters#,}
listeners=PLAINTEXT://$host:$((port + i)),CONTROLLER://$host:$((port + 20 + i))
advertised.listeners=PLAINTEXT://$host:$((port + i))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/n$i/data
auto.create.topics.enable=false
unclean.leader.election.enable=false
default.replication.factor=$rf
min.insync.replicas=$isr
offsets.topic.replication.factor=$rf
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=$rf
transaction.state.log.min.isr=$isr
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.dedupe.buffer.size=2097152
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
controller.quorum.election.timeout.ms=500
controller.quorum.election.backoff.max.ms=500
controller.quorum.fetch.timeout.ms=1500
log.retention.check.interval.ms=5000
log.initial.task.delay.ms=1000
log.segment.delete.delay.ms=1000
END
    [ -z "${KAFKA_CONF:-}" ] || printf '%s\n' "${KAFKA_CONF//@ID@/$i}" >>"$dir/n$i/server.properties"
}

uuid() { head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | tr -d '='; }

# format_all DIR N: the format tool runs once per cluster (or once per JARDIR, see fast); every node then gets a
# copy of its output with its own node.id and directory.id and the cluster's cluster.id
format_all() {
    local dir=$1 n=$2 i src cid
    src=$KAFKA_JARS/fmt
    cid=$(uuid)
    if [ ! -e "$src/meta.properties" ]; then
        src=$dir/fmt
        rm -rf "$src" "$dir/n1/data"
        "$JAVA" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xmx128m -cp "$KAFKA_JARS/*" \
            -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.tools.StorageTool format \
            -t "$cid" -c "$dir/n1/server.properties" \
            >"$dir/n1/format.log" 2>&1 || { cat "$dir/n1/format.log" >&2; die "format failed"; }
        mv "$dir/n1/data" "$src"
    fi
    for i in $(seq 1 "$n"); do format_one "$dir" "$i" "$src" "$cid"; done
}

format_one() { # DIR ID SOURCE CLUSTER_ID
    rm -rf "$1/n$2/data"
    mkdir -p "$1/n$2/data"
    cp -r "$3/." "$1/n$2/data/"
    sed -i -e "s/^node.id=.*/node.id=$2/" -e "s/^cluster.id=.*/cluster.id=$4/" \
        -e "s/^directory.id=.*/directory.id=$(uuid)/" "$1/n$2/data/meta.properties"
}

cmd_wipe() {
    local dir src=$KAFKA_JARS/fmt cid
    dir=$(cd "$1" && pwd)
    if ours "$dir" "$2" >/dev/null; then die "node $2 runs"; fi
    [ -e "$src/meta.properties" ] || src=$dir/fmt
    cid=$(sed -n 's/^cluster.id=//p' "$dir/n$2/data/meta.properties")
    format_one "$dir" "$2" "$src" "$cid"
}

launch() {
    local dir=$1 i=$2 cds="" p within=${KAFKA_WITHIN:-}
    ours "$dir" "$i" >/dev/null && return 0
    [ ! -e "$KAFKA_JARS/kafka.jsa" ] || cds="-XX:SharedArchiveFile=$KAFKA_JARS/kafka.jsa -Xlog:cds=off -Xlog:class+path=off"
    : >"$dir/n$i/log"
    # shellcheck disable=SC2086
    ${within//@ID@/$i} setsid "$JAVA" -Dnode.home="$dir/n$i" -Xms64m -Xmx"${KAFKA_HEAP:-256m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -XX:-UsePerfData -Xss512k -XX:MaxDirectMemorySize=128m -XX:+ExitOnOutOfMemoryError $cds ${KAFKA_JAVA_OPTS:-} \
        -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info \
        -Dorg.slf4j.simpleLogger.showDateTime=true -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS \
        -cp "$KAFKA_JARS/*" kafka.Kafka "$dir/n$i/server.properties" </dev/null >>"$dir/n$i/log" 2>&1 &
    p=$!
    echo "$p" >"$dir/n$i/pid"
    # time limit: ends by itself with the node
    setsid sh -c "timeout ${KAFKA_TTL:-600} tail --pid=$p -f /dev/null || kill -9 $p" </dev/null >/dev/null 2>&1 &
}

wait_ready() {
    local dir=$1 i=$2 t
    for t in $(seq 1 $((${KAFKA_WAIT:-60} * 20))); do
        if grep -q 'Kafka Server started' "$dir/n$i/log" 2>/dev/null; then return 0; fi
        ours "$dir" "$i" >/dev/null || { tail -20 "$dir/n$i/log" >&2; die "node $i died at start"; }
        sleep 0.05
    done
    tail -20 "$dir/n$i/log" >&2
    die "node $i not ready after ${KAFKA_WAIT:-60} s"
}

cmd_start() {
    local dir=$1 n=${2:-1} port=${3:-19100} i b=""
    [ -e "$KAFKA_JARS/kafka-clients-$version.jar" ] || die "no jars in $KAFKA_JARS: kafka.sh jars"
    mkdir -p "$dir"; dir=$(cd "$dir" && pwd)
    if [ -e "$dir/cluster" ]; then read -r n port <"$dir/cluster"; fi
    if [ ! -e "$dir/cluster" ]; then
        for i in $(seq 1 "$n"); do rm -rf "$dir/n$i"; write_conf "$dir" "$i" "$n" "$port"; done
        format_all "$dir" "$n"
        echo "$n $port" >"$dir/cluster"
    fi
    for i in $(seq 1 "$n"); do launch "$dir" "$i"; b="$b,${HOST//@ID@/$i}:$((port + i))"; done
    for i in $(seq 1 "$n"); do wait_ready "$dir" "$i"; done
    echo "bootstrap=${b#,}"
}

cmd_fast() {
    local jars=$KAFKA_JARS t
    [ ! -e "$jars/fmt/meta.properties" ] || return 0
    t=$(mktemp -d)
    rm -rf "$jars/fmt" "$jars/kafka.jsa"
    KAFKA_JAVA_OPTS="-XX:ArchiveClassesAtExit=$jars/kafka.jsa.new" cmd_start "$t/c" 1 "${KAFKA_FAST_PORT:-19150}" >/dev/null
    # the archive is written at exit: wait for the broker to end by itself
    local p n=0
    p=$(ours "$t/c" 1) && kill -TERM "$p"
    while ours "$t/c" 1 >/dev/null && [ $n -lt 600 ]; do sleep 0.05; n=$((n + 1)); done
    cp -r "$t/c/fmt" "$jars/fmt.new"
    cmd_destroy "$t/c"; rmdir "$t"
    mv "$jars/kafka.jsa.new" "$jars/kafka.jsa" || die "no class data archive"
    mv "$jars/fmt.new" "$jars/fmt"
}

cmd_up() { local dir; dir=$(cd "$1" && pwd); launch "$dir" "$2"; wait_ready "$dir" "$2"; echo "node $2 up"; }

sig() { # sig SIGNAL DIR ID
    local dir p; dir=$(cd "$2" && pwd)
    p=$(ours "$dir" "$3") || die "node $3 does not run"
    kill -"$1" "$p"
    if [ "$1" = KILL ]; then while ours "$dir" "$3" >/dev/null; do sleep 0.02; done; rm -f "$dir/n$3/pid"; fi
}

nodes() { local n port; [ -e "$1/cluster" ] || return 0; read -r n port <"$1/cluster"; seq 1 "$n"; }

cmd_stop() {
    local dir i p t
    [ -d "$1" ] || return 0
    dir=$(cd "$1" && pwd)
    for i in $(nodes "$dir"); do if p=$(ours "$dir" "$i"); then kill -CONT "$p"; kill -TERM "$p"; fi; done
    for i in $(nodes "$dir"); do
        for t in $(seq 1 100); do ours "$dir" "$i" >/dev/null || break; sleep 0.05; done
        if p=$(ours "$dir" "$i"); then kill -KILL "$p"; while ours "$dir" "$i" >/dev/null; do sleep 0.02; done; fi
        rm -f "$dir/n$i/pid"
    done
}

cmd_destroy() {
    local dir i p
    [ -d "$1" ] || return 0
    [ -e "$1/cluster" ] || die "$1 is no cluster directory"
    dir=$(cd "$1" && pwd)
    for i in $(nodes "$dir"); do
        if p=$(ours "$dir" "$i"); then kill -KILL "$p"; while ours "$dir" "$i" >/dev/null; do sleep 0.02; done; fi
    done
    rm -rf "$dir"
}

cmd_user() {
    local n port
    read -r n port <"$1/cluster"
    "$JAVA" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xmx128m -cp "$KAFKA_JARS/*" \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=error kafka.admin.ConfigCommand \
        --bootstrap-server "${HOST//@ID@/1}:$((port + 1))" --alter --entity-type users --entity-name "$2" \
        --add-config "SCRAM-SHA-512=[password=$3]"
}

cmd_status() {
    local dir i p; dir=$(cd "$1" && pwd)
    for i in $(nodes "$dir"); do
        if p=$(ours "$dir" "$i"); then echo "node $i pid $p rss_kb $(awk '/VmRSS/{print $2}' "/proc/$p/status")"; else echo "node $i down"; fi
    done
}

case "${1:-}" in
jars) [ $# = 1 ] || die "usage: jars"; cmd_jars ;;
ready) [ $# = 1 ] || die "usage: ready"; cmd_ready ;;
start) [ $# -ge 2 ] || die "usage: start DIR [N] [PORT]"; shift; cmd_start "$@" ;;
up) [ $# = 3 ] || die "usage: up DIR ID"; cmd_up "$2" "$3" ;;
kill) [ $# = 3 ] || die "usage: kill DIR ID"; sig KILL "$2" "$3" ;;
pause) [ $# = 3 ] || die "usage: pause DIR ID"; sig STOP "$2" "$3" ;;
cont) [ $# = 3 ] || die "usage: cont DIR ID"; sig CONT "$2" "$3" ;;
user) [ $# = 4 ] || die "usage: user DIR NAME PASSWORD"; cmd_user "$2" "$3" "$4" ;;
wipe) [ $# = 3 ] || die "usage: wipe DIR ID"; cmd_wipe "$2" "$3" ;;
stop) [ $# = 2 ] || die "usage: stop DIR"; cmd_stop "$2" ;;
destroy) [ $# = 2 ] || die "usage: destroy DIR"; cmd_destroy "$2" ;;
status) [ $# = 2 ] || die "usage: status DIR"; cmd_status "$2" ;;
*) sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
