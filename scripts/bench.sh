#!/usr/bin/env bash
# Measures ringside: one poller and one client, each on a core of its own, over a matrix of cases.
#
#   scripts/bench.sh [--quick] [--full] [--only PATTERN] [--list] [--time 2] [--repeats 5] [--cores TARGET,CLIENT]
#                    [--baseline REV|PROGRAM] [--peer spdk=PREFIX] [--peer dpdk] [--peer fio] [--peer copy] [--peer sink]
#
#   (nothing)        a choice of cases, a few minutes
#   --full           all cases, more than half an hour
#   --quick          two repeats of one second, to see that it works
#   --only PATTERN   cases whose names have PATTERN in them, or match it if it has * ? or [; of all cases. May be repeated
#   --list           prints the names of the cases that would be measured
#   --time 2         seconds of each window, after half a second of warm-up
#   --repeats 5      rounds: in each, every case is measured once with every target, so that all see the same machine
#   --cores 1,0      core of the poller, core of the client
#   --baseline X     also another build of ringside, a git revision (built under .build/baseline) or a program
#   --peer spdk=X    also SPDK's vhost (an SPDK source tree that was built there), under our client and, as ours, under its
#                    bdevperf; and a ringside that is built with that SPDK, whose bdevs both serve
#   --peer dpdk      also DPDK's vhost PMD, under our client and, as ours, under a virtio-user client
#   --peer fio       files through the target against fio's io_uring engine on the same files
#   --peer copy      disks in memory against a plain loop of copies over as much memory, on the poller's core
#   --peer sink      with --peer dpdk, under its client also a device that gives every chain back unseen, on the poller's core:
#                    who comes near it is limited by that client
#
# Names of cases are what is measured: scsi/DISK/PATTERN/SIZE/qdDEPTH/RING and net/DIRECTION/BYTES/RING with our own client,
# spdk/DISK/PATTERN/SIZE/qdDEPTH with it and SPDK's bdevs behind both targets, bdevperf/… and testpmd/… with the peers',
# ceiling/… the client against a thread that answers at once, fio/… and swap/… (what a neighbour notices of memory tables that
# change), scrape/… (and of scrapes of the metrics), idle/… and crowd/… (what idling costs), padding/… (two pollers side by side, with
# and without cache lines of their own).
#
# Everybody is measured in turns within the same seconds, while the others are stopped. Before and after each window the
# distance of the two cores is probed: on shared machines it changes, and throughput with it by a factor of two to three.
# The report has figures for near, mixed and far windows apart, and ratios with 95 % bootstrap intervals.
#
# Results are in .build/bench: windows.jsonl (every window), report.txt, report.json, report.html.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/output.sh
. scripts/lib/output.sh
# shellcheck source=scripts/lib/bench/cases.sh
. scripts/lib/bench/cases.sh
# shellcheck source=scripts/lib/bench/process.sh
. scripts/lib/bench/process.sh
# shellcheck source=scripts/lib/bench/window.sh
. scripts/lib/bench/window.sh
# shellcheck source=scripts/lib/bench/baseline.sh
. scripts/lib/bench/baseline.sh
# shellcheck source=scripts/lib/bench/scsi.sh
. scripts/lib/bench/scsi.sh
# shellcheck source=scripts/lib/bench/spdk.sh
. scripts/lib/bench/spdk.sh
# shellcheck source=scripts/lib/bench/bdevperf.sh
. scripts/lib/bench/bdevperf.sh
# shellcheck source=scripts/lib/bench/net.sh
. scripts/lib/bench/net.sh
# shellcheck source=scripts/lib/bench/testpmd.sh
. scripts/lib/bench/testpmd.sh
# shellcheck source=scripts/lib/bench/fio.sh
. scripts/lib/bench/fio.sh
# shellcheck source=scripts/lib/bench/swap.sh
. scripts/lib/bench/swap.sh
# shellcheck source=scripts/lib/bench/scrape.sh
. scripts/lib/bench/scrape.sh
# shellcheck source=scripts/lib/bench/idle.sh
. scripts/lib/bench/idle.sh
# shellcheck source=scripts/lib/bench/padding.sh
. scripts/lib/bench/padding.sh

# What the parts of the script use, too.
# shellcheck disable=SC2034
readonly RINGSIDE=.build/release/ringside OUT=$PWD/.build/bench WARMUP=0.5
SECONDS_EACH=2 REPEATS=5 TARGET_CORE=1 CLIENT_CORE=0 SET=short ONLY=() LIST='' WORK=''
BASELINE='' SPDK='' DPDK='' FIO='' COPY='' SINK=''

main() {
    options "$@"
    [ "$(nproc)" -ge 2 ] || die "two cores are needed: one for the poller, one for the client"
    choose_cases
    if [ -n "$LIST" ]; then
        printf '%s\n' "${CHOSEN[@]}"
        return 0
    fi
    prepare
    plan
    local family
    for family in "${FAMILIES[@]}"; do
        cases_of "$family"
        [ ${#CASES[@]} -eq 0 ] || measure "$family"
    done
    report
}

options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --time) SECONDS_EACH=${2:?--time needs seconds} && shift 2 ;;
        --repeats) REPEATS=${2:?--repeats needs a number} && shift 2 ;;
        --cores) IFS=, read -r TARGET_CORE CLIENT_CORE <<<"${2:?--cores needs two cores}" && shift 2 ;;
        --only) ONLY+=("${2:?--only needs a pattern}") && shift 2 ;;
        --baseline) BASELINE=${2:?--baseline needs a revision or a program} && shift 2 ;;
        --peer) peer "${2:?--peer needs a name}" && shift 2 ;;
        --quick) SECONDS_EACH=1 REPEATS=2 && shift ;;
        --full) SET=full && shift ;;
        --list) LIST=yes && shift ;;
        -h | --help) usage "$0" && exit 0 ;;
        *) die "unknown argument '$1'" "see scripts/bench.sh --help" ;;
        esac
    done
    [[ $REPEATS =~ ^[1-9][0-9]*$ ]] || die "--repeats $REPEATS: must be a whole number from 1 on"
    [ -z "$SINK" ] || [ -n "$DPDK" ] || die "--peer sink: is measured under DPDK's client, needs --peer dpdk"
    [[ $SECONDS_EACH =~ ^[0-9]+([.][0-9]+)?$ ]] || die "--time $SECONDS_EACH: must be a number of seconds"
}

peer() {
    case $1 in
    spdk=?*)
        SPDK=$(realpath "${1#spdk=}")
        [ -x "$SPDK/build/bin/vhost" ] || die "--peer $1: no SPDK target there" "expected $SPDK/build/bin/vhost"
        ;;
    dpdk)
        command -v dpdk-testpmd >/dev/null || die "--peer dpdk: no dpdk-testpmd (scripts/setup.sh --only dpdk)"
        DPDK=yes
        ;;
    fio)
        command -v fio >/dev/null || die "--peer fio: no fio (apt-get install fio)"
        FIO=yes
        ;;
    copy) COPY=yes ;;
    sink) SINK=yes ;;
    *) die "--peer $1: must be spdk=PREFIX, dpdk, fio, copy or sink" ;;
    esac
}

# prepare: builds what is measured, and writes down on what.
prepare() {
    [ -z "$BASELINE" ] || baseline_build "$BASELINE"
    CARGO_TARGET_DIR=.build cargo build --quiet --release -p ringside
    rm -rf "$OUT"
    mkdir -p "$OUT"
    WORK=$(mktemp -d)
    trap end EXIT
    trap 'exit 130' INT TERM
    local facts=(
        --fact "git revision=$(git describe --always --dirty 2>/dev/null || echo unknown)"
        --fact "cores=poller $TARGET_CORE, client $CLIENT_CORE"
        --fact "windows=$REPEATS rounds of $SECONDS_EACH s after $WARMUP s"
        --fact "begun=$(date -u '+%F %T UTC')"
    )
    [ -z "$BASELINE" ] || facts+=(--fact "baseline=$BASELINE_NAME")
    [ -z "$SPDK" ] || facts+=(--fact "SPDK=$(cat "$SPDK/VERSION" 2>/dev/null || echo unknown)")
    [ -z "$DPDK" ] || facts+=(--fact "DPDK=$(pkg-config --modversion libdpdk 2>/dev/null || echo unknown)")
    [ -z "$FIO" ] || facts+=(--fact "fio=$(fio --version)")
    $RINGSIDE bench machine --cores "$TARGET_CORE,$CLIENT_CORE" "${facts[@]}" --json >"$OUT/windows.jsonl"
}

# measure FAMILY: all rounds of its CASES.
measure() {
    local family=$1 round name who
    "${family}_start"
    for ((round = 1; round <= REPEATS; round++)); do
        for name in "${CASES[@]}"; do
            parties_of "$name" "$round"
            for who in "${PARTIES[@]}"; do window "$family" "$who" "$name" "$round"; done
        done
    done
    stop_targets
}

report() {
    say ''
    # Failed windows are part of the report.
    $RINGSIDE bench report "$OUT/windows.jsonl" --json "$OUT/report.json" --html "$OUT/report.html" | tee "$OUT/report.txt"
    say ''
    say "written: $OUT/report.html, report.json, report.txt, windows.jsonl"
    [ "$FAILED" -eq 0 ] || die "$FAILED windows failed"
}

end() {
    stop_targets
    fio_end
    scsi_end
    rm -rf "$WORK"
}

main "$@"
