# shellcheck shell=bash
# What idling costs: sourced by scripts/bench.sh, whose variables and functions it uses.
#
# (a) The throughput of a poller that may sleep against that of one that never does. (b) How long a read takes that finds the
# poller asleep, against one that finds it awake. (c) What a busy front-end loses to idle ones, with four request queues each, on
# the same poller. Targets take turns on one core: those that are not measured are stopped. Ratios are those of the medians of all
# windows, with the interval of scripts/lib/baseline.sh.

readonly IDLE_LOSS=0.95 IDLE_WAKE_US=50 IDLE_THINK_US=500
readonly IDLE_CASES=(
    'null randread 4k qd32|--rw randread --bs 4k --qd 32|null'
    'malloc randread 4k qd32|--rw randread --bs 4k --qd 32|malloc'
)
readonly WAKE_CASE="null qd1, ${IDLE_THINK_US} us apart|--rw randread --bs 4k --qd 1 --think-us $IDLE_THINK_US|null"
readonly CROWD_CASES=(
    'null randread 4k qd1|--rw randread --bs 4k --qd 1|null'
    'null randread 4k qd32|--rw randread --bs 4k --qd 32|null'
)
# Idle front-ends, and what is left to the busy one at the least.
readonly CROWDS=('64 0.90' '256 0.75')

idle_section() {
    CARGO_TARGET_DIR=.build cargo build --quiet --release -p bench --example idle_front_ends
    rm -f "$OUT/windows"
    idle_policies
    idle_crowds
}

# (a) and (b)
idle_policies() {
    say ''
    say 'idle policies, in turns: may sleep (adaptive), never sleeps (busy)'
    start_ringside adaptive "$RINGSIDE" adaptive
    start_ringside busy "$RINGSIDE" busy
    idle_rounds adaptive busy "${IDLE_CASES[@]}" "$WAKE_CASE"
    say ''
    say 'throughput, adaptive / busy: goal at least 0.95'
    idle_ratios adaptive busy $IDLE_LOSS "${IDLE_CASES[@]}"
    local name=${WAKE_CASE%%|*} asleep awake
    asleep=$(idle_median adaptive "$name")
    awake=$(idle_median busy "$name")
    awk -v name="$name" -v asleep="$asleep" -v awake="$awake" -v goal=$IDLE_WAKE_US 'BEGIN {
        printf "  %s: median latency from sleep %.1f us, awake %.1f us; goal from sleep below %d us: %s\n",
            name, asleep, awake, goal, (asleep < goal ? "met" : "MISSED") }'
    idle_slept
    stop_targets
}

# idle_slept: the share of reads that found the poller asleep, without which (b) says nothing.
idle_slept() {
    local address
    address=$(sed -n 's/.*"\{0,1\}\(127\.0\.0\.1:[0-9]*\).*/\1/p' "$WORK/adaptive.log" | head -n 1)
    [ -n "$address" ] || return 0
    curl -s "http://$address/metrics" | sed -n 's/^\(ringside_poller_\(sleeps\|wakeups\)_total\){[^}]*} /  \1 /p'
}

# (c)
idle_crowds() {
    local crowd count least case
    for crowd in "${CROWDS[@]}"; do
        read -r count least <<<"$crowd"
        say ''
        say "one busy front-end beside $count idle ones of 6 rings (beside), and without them (alone), in turns"
        idle_crowd_target alone "$count"
        idle_crowd_target beside "$count"
        idle_front_ends "$count"
        idle_rounds beside alone "${CROWD_CASES[@]/#/$count idle, }"
        say ''
        say "throughput beside $count idle front-ends / alone: goal at least $least"
        idle_ratios beside alone "$least" "${CROWD_CASES[@]/#/$count idle, }"
        stop_targets
    done
}

# idle_crowd_target WHO COUNT: the target of `start_ringside`, and COUNT controllers beside it.
idle_crowd_target() {
    local index
    for ((index = 0; index < $2; index++)); do
        printf '[[bdev]]\nname = "idle%d"\nkind = "null"\nsize = "1MiB"\n' "$index"
        printf '[[scsi]]\nname = "idle%d"\nsocket = "%s"\n[[scsi.lun]]\nbdev = "idle%d"\n' \
            "$index" "$WORK/$1-idle$index.sock" "$index"
    done >"$WORK/more.toml"
    start_ringside "$1" "$RINGSIDE" adaptive "$WORK/more.toml"
}

# idle_front_ends COUNT: connects them to the target `beside`. It ends with its standard input.
idle_front_ends() {
    local index sockets=()
    for ((index = 0; index < $1; index++)); do sockets+=("$WORK/beside-idle$index.sock"); done
    .build/release/examples/idle_front_ends "${sockets[@]}" <> <(:) >"$WORK/idle.log" 2>&1 &
    PIDS+=($!)
    await $! "$WORK/idle.log" 'front-end for each controller' grep -q ready "$WORK/idle.log"
}

# idle_rounds A B CASE…: windows of both in turns; who is first changes with the rounds.
idle_rounds() {
    local a=$1 b=$2 round case who order
    shift 2
    for ((round = 1; round <= REPEATS; round++)); do
        order=("$a" "$b")
        [ $((round % 2)) = 1 ] || order=("$b" "$a")
        for case in "$@"; do
            for who in "${order[@]}"; do window "$who" "$round" "$case"; done
        done
    done
}

# idle_ratios A B LEAST CASE…
idle_ratios() {
    local a=$1 b=$2 least=$3 case class
    shift 3
    printf '%-36s %-6s %6s %8s   %s\n' case cores pairs ratio "95 % interval ($a / $b)"
    for case in "$@"; do
        for class in near mixed far all; do
            ratio_of_pairs "$a" "$b" "${case%%|*}" $class <"$OUT/windows"
        done
        ratio_of_pairs "$a" "$b" "${case%%|*}" all <"$OUT/windows" | awk -v least="$least" '{
            for (i = 1; i < NF; i++) if ($i == "all") print "  " ($(i + 2) >= least ? "met" : "MISSED") }'
    done
}

# idle_median WHO CASE: of the median latencies of all windows.
idle_median() {
    awk -F'|' -v who="$1" -v name="$2" '$1 == who && $2 == name { print $5 }' "$OUT/windows" | sort -n |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}
