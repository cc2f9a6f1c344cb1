# shellcheck shell=bash
# What a neighbour notices of memory tables that change: sourced by scripts/bench.sh, whose variables and functions it uses.
#
# Two controllers on one poller. One serves reads one at a time, so that the time of a read is the gap between two
# completions; the other one's front-end sends 100 memory tables of a sparse 16 GiB. Windows with and without alternate;
# the goal is that the median of p99.9 grows by at most 1 ms. The front-end and the threads that map share the client's
# core with everything else of the machine, which on two cores is a part of what is seen, in `max` above all.

readonly SWAP_MORE_US=1000

swap_section() {
    local socket=$WORK/swap-a.sock other=$WORK/swap-b.sock round with before=$OUT/swap-without after=$OUT/swap-with
    CARGO_TARGET_DIR=.build cargo build --quiet --release -p bench --example swap_table
    swap_serve "$socket" "$other"
    rm -f "$before" "$after"
    say ''
    say 'memory tables: p99.9 and max of the gap between completions of a neighbour on the same poller, us'
    for ((round = 1; round <= REPEATS; round++)); do
        for with in '' 1; do
            swap_window "$socket" "$other" "$with" "$round" >>"$([ -n "$with" ] && echo "$after" || echo "$before")"
        done
    done
    swap_summary "$before" "$after"
    stop_targets
}

# swap_serve SOCKET SOCKET: a null disk behind each.
swap_serve() {
    cat >"$WORK/swap.toml" <<END
[reactor]
cores = [$TARGET_CORE]
[metrics]
listen = "127.0.0.1:0"
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
socket = "$1"
[[scsi.lun]]
lun = 0
bdev = "null0"
[[scsi]]
name = "swaps"
socket = "$2"
[[scsi.lun]]
lun = 0
bdev = "null1"
END
    $RINGSIDE serve --config "$WORK/swap.toml" 2>"$WORK/swap.log" &
    PIDS+=($!)
    await_socket "$1" $! "$WORK/swap.log"
    await_socket "$2" $! "$WORK/swap.log"
}

# swap_window SOCKET OTHER WITH ROUND: one window; prints "p99.9 max".
swap_window() {
    local json=$OUT/swap-${3:-0}-$4.json swapper=''
    if [ -n "$3" ]; then
        .build/release/examples/swap_table "$2" --swaps 100 --interval-ms $((SECONDS_EACH * 10)) >"$WORK/swaps.log" &
        swapper=$!
    fi
    $RINGSIDE bench scsi --socket "$1" --rw randread --bs 4k --qd 1 --time $((SECONDS_EACH + 1)) --warmup 0.3 \
        --core "$CLIENT_CORE" --json >"$json" 2>"$WORK/bench.log" || die "swap:" "$(tail -n 5 "$WORK/bench.log")"
    [ -z "$swapper" ] || wait "$swapper" || die "swap_table failed:" "$(cat "$WORK/swaps.log")"
    printf '%s %s\n' "$(number p999 <"$json")" "$(number max <"$json")"
}

# swap_summary WITHOUT WITH: medians over the windows, and whether the goal is met.
swap_summary() {
    local without with
    without=$(swap_median "$1")
    with=$(swap_median "$2")
    # shellcheck disable=SC2086 # two words each
    printf '  without: p99.9 %s max %s\n  with 100 tables of 16 GiB: p99.9 %s max %s\n' $without $with
    awk -v a="${without% *}" -v b="${with% *}" -v most=$SWAP_MORE_US 'BEGIN {
        printf "  p99.9 with less without: %.1f us, goal at most %d: %s\n", b - a, most, (b - a <= most ? "met" : "MISSED") }'
    sed 's/^/  /' "$WORK/swaps.log"
}

swap_median() {
    awk '{ print $1 }' "$1" | sort -n | awk '{ v[NR] = $1 } END { printf "%s ", v[int((NR + 1) / 2)] }'
    awk '{ print $2 }' "$1" | sort -n | awk '{ v[NR] = $1 } END { printf "%s", v[int((NR + 1) / 2)] }'
}
