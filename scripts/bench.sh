#!/usr/bin/env bash
# Measures ringside with its own load generator: one poller and one client, each on a core of its own.
#
#   scripts/bench.sh [--time 3] [--repeats 5] [--cores TARGET,CLIENT] [--spdk PREFIX] [--baseline REV|PROGRAM] [--quick] [--files] [--swap] [--net] [--idle]
#
#   --time 3         seconds of each window
#   --repeats 5      windows of each case; the cases of one round follow each other, so that all see the same machine
#   --cores 1,0      core of the poller, core of the client
#   --spdk PREFIX    also SPDK's vhost target (an SPDK source tree that was built there), in turns with ours under the
#                    same client and on the same core
#   --baseline X     also another build of ringside, a git revision (built under .build/baseline) or a program, in turns with
#                    ours: ratios of medians with 95 % intervals (scripts/lib/baseline.sh says how); without files, swap, net, idle
#   --quick          two repeats of one second, to see that it works
#   --files          only the files
#   --swap           only what a neighbour notices of memory tables that change
#   --scrape         only what scrapes of the metrics cost, and a busy controller meanwhile (scripts/lib/scrape.sh says how)
#   --net            only net devices, against DPDK's vhost PMD (scripts/lib/net.sh says how)
#   --idle           only what idling costs: adaptive against busy, waking up, idle front-ends (scripts/lib/idle.sh says how)
#
# A file on tmpfs and one on the disk are measured against fio's io_uring engine on the same files, in turns, where there
# is a fio (scripts/lib/files.sh says how, and why that way).
#
# Before and after each window the distance of the two cores is probed (round trip of a cache line): on shared machines
# it changes, and throughput with it. Windows are printed with their distance; medians are taken over the windows of the
# same class: near (both probes below 230 ns), far (both above), or mixed. Raw results: .build/bench/*.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/output.sh
. scripts/lib/output.sh
# shellcheck source=scripts/lib/baseline.sh
. scripts/lib/baseline.sh
# shellcheck source=scripts/lib/files.sh
. scripts/lib/files.sh
# shellcheck source=scripts/lib/swap.sh
. scripts/lib/swap.sh
# shellcheck source=scripts/lib/scrape.sh
. scripts/lib/scrape.sh
# shellcheck source=scripts/lib/net.sh
. scripts/lib/net.sh
# shellcheck source=scripts/lib/idle.sh
. scripts/lib/idle.sh

readonly RINGSIDE=.build/release/ringside OUT=.build/bench NEAR_NS=230
SECONDS_EACH=3 REPEATS=5 TARGET_CORE=1 CLIENT_CORE=0 SPDK='' ONLY='' WORK='' PIDS=() BASELINE='' BASELINE_BINARY=''
# The targets of the memory section, which take turns: ringside, spdk, baseline.
declare -A SOCKETS=() TARGET_PIDS=()
# name, arguments of `ringside bench scsi` beside socket and LUN, bdev
readonly CASES=(
    'null randread 4k qd1|--rw randread --bs 4k --qd 1|null'
    'null randread 4k qd32|--rw randread --bs 4k --qd 32|null'
    'null randread 4k qd128|--rw randread --bs 4k --qd 128 --queue-size 512|null'
    'malloc randread 4k qd32|--rw randread --bs 4k --qd 32|malloc'
    'malloc randwrite 4k qd32|--rw randwrite --bs 4k --qd 32|malloc'
    'malloc read 128k qd32|--rw read --bs 128k --qd 32|malloc'
)

main() {
    while [ $# -gt 0 ]; do
        case $1 in
        --time) SECONDS_EACH=${2:?--time needs seconds} && shift 2 ;;
        --repeats) REPEATS=${2:?--repeats needs a number} && shift 2 ;;
        --cores) IFS=, read -r TARGET_CORE CLIENT_CORE <<<"${2:?--cores needs two cores}" && shift 2 ;;
        --spdk) SPDK=${2:?--spdk needs a directory} && shift 2 ;;
        --baseline) BASELINE=${2:?--baseline needs a revision or a program} && shift 2 ;;
        --quick) SECONDS_EACH=1 REPEATS=2 && shift ;;
        --files | --swap | --scrape | --net | --idle) ONLY=${1#--} && shift ;;
        -h | --help) usage "$0" && exit 0 ;;
        *) die "unknown argument '$1'" "see scripts/bench.sh --help" ;;
        esac
    done
    [ "$(nproc)" -ge 2 ] || die "two cores are needed: one for the poller, one for the client"
    if [ -n "$BASELINE" ]; then
        [ -z "$ONLY" ] || die "--baseline does not go with --$ONLY"
        ONLY=memory
        baseline_binary "$BASELINE"
    fi
    CARGO_TARGET_DIR=.build cargo build --quiet --release -p ringside
    mkdir -p $OUT
    rm -f $OUT/*.json $OUT/windows $OUT/file-windows $OUT/net-windows
    WORK=$(mktemp -d)
    trap end EXIT
    trap 'exit 130' INT TERM
    machine
    local section
    for section in memory swap scrape files net idle; do
        [ "${ONLY:-$section}" != $section ] || ${section}_section
    done
}

memory_section() {
    start_ringside ringside $RINGSIDE
    [ -z "$BASELINE" ] || start_ringside baseline "$BASELINE_BINARY"
    [ -z "$SPDK" ] || start_spdk
    ceiling
    local round case who order
    for ((round = 1; round <= REPEATS; round++)); do
        order=(ringside ${BASELINE:+baseline})
        # Who is first changes with the rounds, so that neither always follows the other.
        [ $((round % 2)) = 1 ] || order=(${BASELINE:+baseline} ringside)
        for case in "${CASES[@]}"; do
            for who in "${order[@]}" ${SPDK:+spdk}; do window "$who" "$round" "$case"; done
        done
    done
    summary
    [ -z "$BASELINE" ] || baseline_summary
    stop_targets
}

end() {
    stop_targets
    files_end
    rm -rf "$WORK"
}

stop_targets() {
    local pid
    for pid in "${PIDS[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true # it may be stopped, while others are measured
        wait "$pid" 2>/dev/null || true
    done
    PIDS=()
    TARGET_PIDS=()
}

machine() {
    say "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, Linux $(uname -r)"
    say "ringside: $(git describe --always --dirty 2>/dev/null || echo unknown), poller on core $TARGET_CORE, client on core $CLIENT_CORE"
}

# start_ringside WHO PROGRAM [IDLE [FILE]]: the file has what else is to be in the configuration.
start_ringside() {
    local who=$1 binary=$2 idle=${3:-busy}
    SOCKETS[$who]=$WORK/$who.sock
    cat >"$WORK/$who.toml" <<EOF
[reactor]
cores = [$TARGET_CORE]
idle = "$idle"
[metrics]
listen = "127.0.0.1:0"
[[bdev]]
name = "null0"
kind = "null"
size = "1GiB"
[[bdev]]
name = "malloc0"
kind = "malloc"
size = "512MiB"
[[scsi]]
name = "bench"
socket = "${SOCKETS[$who]}"
[[scsi.lun]]
target = 0
bdev = "null0"
[[scsi.lun]]
target = 1
bdev = "malloc0"
EOF
    [ -z "${4:-}" ] || cat "$4" >>"$WORK/$who.toml"
    "$binary" serve --config "$WORK/$who.toml" 2>"$WORK/$who.log" &
    PIDS+=($!)
    TARGET_PIDS[$who]=$!
    await_socket "${SOCKETS[$who]}" $! "$WORK/$who.log"
}

# SPDK's target with the same two LUNs: target 0 null, target 1 malloc. Its poller runs all the time, as ours does.
start_spdk() {
    local rpc=$WORK/spdk.rpc
    [ -x "$SPDK/build/bin/vhost" ] || die "no SPDK vhost in $SPDK" "expected $SPDK/build/bin/vhost"
    SOCKETS[spdk]=$WORK/spdk.sock
    (cd "$WORK" && exec "$SPDK/build/bin/vhost" -m "[$TARGET_CORE]" -s 1024 -R -r "$rpc" -S "$WORK" >"$WORK/spdk.log" 2>&1) &
    PIDS+=($!)
    TARGET_PIDS[spdk]=$!
    await_socket "$rpc" $! "$WORK/spdk.log"
    local call=("$SPDK/scripts/rpc.py" -s "$rpc")
    "${call[@]}" framework_wait_init >/dev/null
    "${call[@]}" bdev_null_create Null0 1024 512 >/dev/null
    "${call[@]}" bdev_malloc_create -b Malloc0 512 512 >/dev/null
    "${call[@]}" vhost_create_scsi_controller spdk.sock >/dev/null
    "${call[@]}" vhost_scsi_controller_add_target spdk.sock 0 Null0 >/dev/null
    "${call[@]}" vhost_scsi_controller_add_target spdk.sock 1 Malloc0 >/dev/null
    await_socket "${SOCKETS[spdk]}" "${PIDS[-1]}" "$WORK/spdk.log"
}

await_socket() { await "$2" "$3" "socket $1" test -S "$1"; }

# await PID LOG WHAT COMMAND…: until the command succeeds; an error with the log's end if the process ends, or after 30 s.
await() {
    local pid=$1 log=$2 what=$3 tries=0
    shift 3
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || die "the process ended before there was a $what:" "$(tail -n 5 "$log")"
        tries=$((tries + 1))
        [ $tries -le 300 ] || die "no $what after 30 s:" "$(tail -n 5 "$log")"
        sleep 0.1
    done
}

probe() { $RINGSIDE bench cores --a "$TARGET_CORE" --b "$CLIENT_CORE" --json | number round_trip_ns; }

# number KEY: of a JSON object on one line.
number() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p" | head -n 1; }

class() {
    if (($1 < NEAR_NS && $2 < NEAR_NS)); then echo near; elif (($1 >= NEAR_NS && $2 >= NEAR_NS)); then echo far; else echo mixed; fi
}

window() {
    local who=$1 round=$2 name arguments bdev target=0 before after json iops mine=${TARGET_PIDS[$1]} other others=()
    IFS='|' read -r name arguments bdev <<<"$3"
    [ "$bdev" = null ] || target=1
    for other in "${!TARGET_PIDS[@]}"; do [ "$other" = "$who" ] || others+=("${TARGET_PIDS[$other]}"); done
    [ ${#others[@]} = 0 ] || kill -STOP "${others[@]}" # their pollers would compete for the same core
    before=$(probe_beside "$mine")
    json=$OUT/$who-${name//[ ,]/_}-$round.json
    # shellcheck disable=SC2086 # the arguments are words
    $RINGSIDE bench scsi --socket "${SOCKETS[$who]}" --target $target --lun 0 $arguments --time "$SECONDS_EACH" --warmup 0.3 \
        --core "$CLIENT_CORE" --json >"$json" 2>"$WORK/bench.log" || die "$who, $name:" "$(tail -n 5 "$WORK/bench.log")"
    after=$(probe_beside "$mine")
    [ ${#others[@]} = 0 ] || kill -CONT "${others[@]}"
    iops=$(number iops <"$json")
    printf '%s|%s|%s|%.0f|%s|%s|%s\n' "$who" "$name" "$(class "${before%.*}" "${after%.*}")" "$iops" \
        "$(number p50 <"$json")" "$(number p99 <"$json")" "$round" >>$OUT/windows
    printf '%-9s %-24s %2d/%d  %10.0f IOPS  p50 %8s us  p99 %8s us  cores %s/%s ns\n' "$who" "$name" "$round" "$REPEATS" \
        "$iops" "$(number p50 <"$json")" "$(number p99 <"$json")" "${before%.*}" "${after%.*}"
}

# probe_beside PID: the distance of the cores while that busy poller is out of the way.
probe_beside() {
    kill -STOP "$1"
    probe
    kill -CONT "$1"
}

# ceiling: what the client does against a responder that answers at once; a result near it says nothing of the target.
ceiling() {
    kill -STOP "${PIDS[@]}"
    local best=0 iops round
    for ((round = 1; round <= 3; round++)); do
        iops=$($RINGSIDE bench scsi --null-responder --core "$CLIENT_CORE" --responder-core "$TARGET_CORE" --rw randread --bs 4k --qd 32 \
            --time 1 --warmup 0.3 --json 2>/dev/null | number iops)
        [ "${iops%.*}" -le "${best%.*}" ] || best=$iops
    done
    kill -CONT "${PIDS[@]}"
    printf 'ceiling of the client, randread 4k qd32: %.0f IOPS (best of 3)\n' "$best"
}

# summary: medians by target, case and class; the ratio where both were measured.
summary() {
    say ''
    printf '%-26s %-6s %14s %4s %14s %4s %8s\n' case cores 'ringside IOPS' n 'spdk IOPS' n ratio
    local case name class ours theirs n m
    for case in "${CASES[@]}"; do
        name=${case%%|*}
        for class in near mixed far; do
            read -r ours n < <(median ringside "$name" $class)
            read -r theirs m < <(median spdk "$name" $class)
            [ $((n + m)) -gt 0 ] || continue
            printf '%-26s %-6s %14s %4s %14s %4s %8s\n' "$name" $class "$ours" "$n" "$theirs" "$m" "$(ratio "$ours" "$theirs")"
        done
    done
}

# median WHO CASE CLASS [WINDOWS]: "median count", or "- 0".
median() {
    awk -F'|' -v who="$1" -v name="$2" -v class="$3" '$1 == who && $2 == name && $3 == class { print $4 }' "${4:-$OUT/windows}" |
        sort -n | awk '{ v[NR] = $1 } END { if (NR == 0) print "- 0"; else print (NR % 2 ? v[(NR + 1) / 2] : int((v[NR / 2] + v[NR / 2 + 1]) / 2)), NR }'
}

ratio() {
    case "$1$2" in *-*) echo - ;; *) awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }' ;; esac
}

main "$@"
