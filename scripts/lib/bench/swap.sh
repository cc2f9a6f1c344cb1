# shellcheck shell=bash
# What a neighbour notices of memory tables that change. Sourced by scripts/bench.sh.
#
# Two controllers on one poller. One serves reads one at a time, so that the time of a read is the gap between two completions;
# with swap/tables the other one's front-end sends 100 memory tables of a sparse 16 GiB meanwhile. The goal is that the median
# of p99.9 (report.json, p999_us) grows by at most 1 ms. The front-end and the threads that map share the client's core with
# everything else of the machine, which on two cores is a part of what is seen.

swap_start() {
    CARGO_TARGET_DIR=.build cargo build --quiet --release -p bench --example swap_table
    configure "$WORK/ringside.toml" adaptive <<EOF
[[bdev]]
name = "null0"
kind = "null"
size = "1GiB"
[[bdev]]
name = "null1"
kind = "null"
size = "1GiB"
[[scsi]]
name = "neighbour"
socket = "$WORK/neighbour.sock"
[[scsi.lun]]
bdev = "null0"
[[scsi]]
name = "swaps"
socket = "$WORK/swaps.sock"
[[scsi.lun]]
bdev = "null1"
EOF
    serve ringside "$WORK/ringside.toml" "$WORK/swaps.sock"
    await_socket "$WORK/neighbour.sock" "${PIDS[-1]}" "$WORK/ringside.log"
    pause ringside
}

swap_run() {
    local swapper='' status=0
    resume ringside
    if [ "$2" = swap/tables ]; then
        .build/release/examples/swap_table "$WORK/swaps.sock" --swaps 100 --interval-ms "${SECONDS_EACH%.*}0" >"$WORK/swaps.log" &
        swapper=$!
    fi
    $RINGSIDE bench scsi --socket "$WORK/neighbour.sock" --rw randread --bs 4k --qd 1 --time "$SECONDS_EACH" --warmup "$WARMUP" \
        --core "$CLIENT_CORE" --json || status=$?
    [ -z "$swapper" ] || wait "$swapper" || status=$?
    pause ringside
    return $status
}
