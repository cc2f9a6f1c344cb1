#!/usr/bin/env bash
# From a fresh clone to a measured target: builds ringside, serves two disks and a network card, measures them, says how to
# go on.
#
#   scripts/quickstart.sh [--once] [--time SECONDS] [--no-setup]
#
#   --once       stop after the measurements instead of serving until Ctrl-C
#   --time 5     seconds for each measurement
#   --no-setup   do not install anything and leave the hugepages alone
#
# Serves the embedded configuration (`ringside check` prints it): target 0 LUN 0 is a disk in memory, LUN 1 the null
# device, which measures the path alone; the network card gets back what it sends, so that no NIC is needed. Not here: a
# configuration of your own, see `ringside serve --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/output.sh
. scripts/lib/output.sh

readonly RINGSIDE=.build/release/ringside LOG=.build/quickstart.log
SERVER='' CONFIG='' SOCKET='' NET_SOCKET='' METRICS=''

main() {
    local once=no setup=yes seconds=5
    while [ $# -gt 0 ]; do
        case $1 in
        --once) once=yes && shift ;;
        --time) seconds=${2:?--time needs seconds} && shift 2 ;;
        --no-setup) setup=no && shift ;;
        -h | --help) usage "$0" && exit 0 ;;
        *) die "unknown argument '$1'" "see scripts/quickstart.sh --help" ;;
        esac
    done
    [[ $seconds =~ ^[1-9][0-9]*$ ]] || die "--time: '$seconds' is not a number of seconds"
    if [ $setup = yes ]; then
        scripts/setup.sh --only build,dpdk,hugepages
    fi
    say "building ringside"
    CARGO_TARGET_DIR=.build cargo build --quiet --release -p ringside
    trap stop EXIT
    trap 'exit 0' INT
    trap 'exit 143' TERM
    serve
    measure "the disk in memory" 0 "$seconds"
    measure "the null device" 1 "$seconds"
    measure_net "$seconds"
    show_metrics
    show_next_steps
    [ $once = no ] || return 0
    say ''
    say "Serving. Ctrl-C ends it. Its log: $LOG"
    wait $SERVER || die "ringside ended by itself with status $?; its last words:" "$(tail -n 5 "$LOG")"
}

# serve: in the background; goes on when the socket is there and the metrics answer.
serve() {
    local tries=0
    CONFIG=$($RINGSIDE check)
    SOCKET=$(setting scsi socket)
    NET_SOCKET=$(setting net socket)
    METRICS=$(setting metrics listen)
    ! fetch_metrics >/dev/null || die "something already listens on $METRICS (another ringside?)"
    $RINGSIDE serve >"$LOG" 2>&1 &
    SERVER=$!
    until [ -S "$SOCKET" ] && [ -S "$NET_SOCKET" ] && fetch_metrics >/dev/null; do
        kill -0 $SERVER 2>/dev/null || die "ringside did not start:" "$(tail -n 20 "$LOG")"
        tries=$((tries + 1))
        [ $tries -le 200 ] || die "no answer from $METRICS or no socket $SOCKET or $NET_SOCKET after 20 s:" "$(tail -n 20 "$LOG")"
        sleep 0.1
    done
    say "ringside serves on $SOCKET and $NET_SOCKET (process $SERVER)"
}

# setting SECTION KEY: from the resolved configuration, whose sections end with an empty line.
setting() { sed -n "/^\[*$1\]*\$/,/^\$/s/^$2 = \"\(.*\)\".*/\1/p" <<<"$CONFIG" | head -n 1; }

# fetch_metrics: the text at /metrics, on standard output; status 1 when nothing listens.
fetch_metrics() (
    exec 2>/dev/null 3<>"/dev/tcp/${METRICS%:*}/${METRICS##*:}" || exit 1
    printf 'GET /metrics HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$METRICS" >&3
    timeout 5 sed '1,/^\r$/d' <&3
)

measure() {
    local what=$1 lun=$2 seconds=$3 core
    say ''
    say "== $what (target 0, LUN $lun): random reads of 4 KiB, 32 in flight, $seconds s =="
    core=$(spare_core)
    $RINGSIDE bench scsi --socket "$SOCKET" --target 0 --lun "$lun" \
        --rw randread --bs 4k --qd 32 --time "$seconds" ${core:+--core "$core"}
}

measure_net() {
    local seconds=$1 core
    say ''
    say "== the network card (loopback): frames of 64 bytes there and back, $seconds s =="
    core=$(spare_core)
    $RINGSIDE bench net --socket "$NET_SOCKET" --mode loop --size 64 --time "$seconds" ${core:+--core "$core"}
}

# spare_core: the last CPU that this process may use, unless it is the target's, core 0.
spare_core() {
    sed -n 's/^Cpus_allowed_list:.*[^0-9]\([0-9][0-9]*\)$/\1/p' /proc/self/status | sed '/^0$/d'
}

show_metrics() {
    say ''
    say "== metrics: http://$METRICS/metrics =="
    # read whole, so that the server never writes to a closed socket; then a few lines that tell something
    local text
    text=$(fetch_metrics)
    grep '^ringside_' <<<"$text" | grep -v ' 0$' | grep -v '_bucket{' | sed -n '1,12p' || true
    say "($(grep -c '^ringside_' <<<"$text" || true) series)"
}

show_next_steps() {
    say ''
    say "== give disks and network card to a virtual machine: add this to a qemu-system-x86_64 command line =="
    $RINGSIDE qemu-args vm0 vm0net
    say ''
    say "or boot a small Linux on them: scripts/setup.sh --only guest && scripts/qemu-guest.sh --socket $SOCKET"
}

# stop: SIGTERM to our own server, which drains and ends.
stop() {
    local status=$?
    if [ -n "$SERVER" ] && kill -TERM "$SERVER" 2>/dev/null; then
        wait "$SERVER" || true
    fi
    exit $status
}

main "$@"
