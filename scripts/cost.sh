#!/usr/bin/env bash
# What a request costs, by callgrind: repeatable where time is not. Replays batches of 32 commands of 4 KiB, or of 32 frames
# of 64 bytes, through shards polled by hand, twice with different numbers of batches, and divides the difference.
#
#   scripts/cost.sh [--check | --renew | --metrics] [--profile]
#
#   --check      compare with scripts/cost.baseline; exit status 1 where a figure has grown by more than 3 %
#   --renew      write scripts/cost.baseline: in the commit that changes a figure and says why
#   --metrics    what of it is for metrics: the device's part again, of a build that records nothing; exit status 1 where that
#                is more than 15 instructions a request
#   --profile    also the functions that cost most
#
# Columns: instructions a request, in the device (from the call of its shard's poll to the return; of net devices with the
# port of the replay, which copies the frames) and in the driver of the replay, which is not in them; then per batch
# instructions that lock the memory bus or drain the store buffer, allocations, and system calls.
#
# The figures belong to one compiler, which rust-toolchain.toml names, and to the release profile. Copies are the C library's:
# valgrind shows every processor with AVX2 as the same one, so that they are the same, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/output.sh
. scripts/lib/output.sh

readonly BASELINE=scripts/cost.baseline FEW=200 MANY=1200 BATCH=32 GROWTH_PERCENT=3 METRICS_MOST=15
readonly RINGS=(split packed)
# Name, example and its arguments before the ring, arguments behind it, requests of one batch of all pollers.
readonly CASES=(
    "scsi_null_read|replay null read||$BATCH"
    "scsi_null_write|replay null write||$BATCH"
    "scsi_null_read_2_pollers|replay null read|pollers=2|$((2 * BATCH))"
    "scsi_null_read_in_order|replay null read|in_order=1|$BATCH"
    "scsi_malloc_read|replay malloc read||$BATCH"
    "scsi_malloc_write|replay malloc write||$BATCH"
    "net_tx|replay_net tx 64||$BATCH"
    "net_rx|replay_net rx 64||$BATCH"
)
readonly FORMAT='%-26s %-7s %8s %8s %8s %12s %13s\n'
WORK='' EXAMPLES=''

main() {
    local mode=print profile=no
    while [ $# -gt 0 ]; do
        case $1 in
        --check) mode=check ;;
        --renew) mode=renew ;;
        --metrics) mode=metrics ;;
        --profile) profile=yes ;;
        -h | --help) usage "$0" && exit 0 ;;
        *) die "unknown argument '$1'" "see scripts/cost.sh --help" ;;
        esac
        shift
    done
    command -v valgrind >/dev/null || scripts/setup.sh --only bench
    build .build
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    measure $profile
    case $mode in
    check) check ;;
    renew) renew ;;
    metrics) metrics ;;
    esac
}

# build DIRECTORY: the examples, of which those are measured that were built last.
build() {
    CARGO_TARGET_DIR=$1 cargo build --quiet --release -p virtio-scsi --example replay -p virtio-net --example replay_net
    EXAMPLES=$1/release/examples
}

# measure PROFILE: prints the table and leaves it in $WORK/table.
measure() {
    local entry ring name before after requests
    # shellcheck disable=SC2059 # the format is ours
    printf "$FORMAT" case ring device driver locked allocations 'system calls'
    for entry in "${CASES[@]}"; do
        IFS='|' read -r name before after requests <<<"$entry"
        for ring in "${RINGS[@]}"; do
            # shellcheck disable=SC2086 # words
            row "$name" "$ring" "$requests" $before "$ring" $after | tee -a "$WORK/table"
            [ "$1" = no ] || callgrind_annotate --auto=no --threshold=90 "$WORK/device.$MANY" | sed -n '/file:function/,$p'
        done
    done
}

# row NAME RING REQUESTS EXAMPLE ARGUMENT…
row() {
    local name=$1 ring=$2 requests=$3 example=$4 part batches
    shift 4
    for part in device driver; do
        for batches in $FEW $MANY; do
            replay "$part" "$batches" "$example" "$@"
        done
    done
    # shellcheck disable=SC2046,SC2059 # words; the format is ours
    printf "$FORMAT" "$name" "$ring" "$(per_batch device 0 "$requests")" "$(per_batch driver 0 "$requests")" \
        "$(per_batch device 1 1)" "$(per_batch device 2 1)" "$(per_batch device 3 1)"
}

# replay PART BATCHES EXAMPLE ARGUMENT…: counts only what happens within the example's functions PART_….
replay() {
    local part=$1 batches=$2 example=$3
    shift 3
    # Positions are not compressed, so that locked instructions are found by their addresses.
    valgrind --tool=callgrind --callgrind-out-file="$WORK/$part.$batches" --toggle-collect="*::${part}_*" \
        --dump-instr=yes --compress-pos=no --compress-strings=no --collect-systime=msec \
        "$EXAMPLES/$example" "$@" "batches=$batches" >"$WORK/log" 2>&1 || die "the replay failed:" "$(tail -n 5 "$WORK/log")"
    objdump -d --no-show-raw-insn "$EXAMPLES/$example" |
        awk '/\t(lock |mfence|xchg .*\()/ { sub(":", "", $1); print "0x" $1 }' >"$WORK/locked"
    tallies "$EXAMPLES/$example" "$WORK/$part.$batches" >"$WORK/$part.$batches.tallies"
}

# tallies BINARY FILE: four lines: instructions, locked ones among them, calls of the allocator, system calls.
tallies() {
    awk -v binary="$1" -v locked_list="$WORK/locked" '
        BEGIN { while ((getline address <locked_list) > 0) locks[address] = 1 }
        /^summary:/ { instructions = $2; system_calls = $3 }
        /^ob=/ { ours = index($0, binary) > 0 }
        /^cfn=/ { allocator = $0 ~ /^cfn=(malloc|calloc|realloc|free|aligned_alloc|posix_memalign)(@|$)/ }
        /^calls=/ { if (allocator) { split($1, count, "="); allocations += count[2] }; skip = 1; next }
        /^0x/ && skip { skip = 0; next }
        /^0x/ && ours && ($1 in locks) { locked += $3 }
        END { printf "%d\n%d\n%d\n%d\n", instructions, locked, allocations, system_calls }' "$2"
}

# per_batch PART LINE DIVISOR: what one batch adds to a tally, divided.
per_batch() {
    paste "$WORK/$1.$FEW.tallies" "$WORK/$1.$MANY.tallies" |
        awk -v line="$2" -v divisor=$(((MANY - FEW) * $3)) 'NR == line + 1 { printf "%.1f", ($2 - $1) / divisor }'
}

# check: every figure of the baseline against its successor.
check() {
    [ "$(rustc --version)" = "$(sed -n 's/^# compiler: //p' $BASELINE)" ] ||
        warn "the baseline is another compiler's: $(sed -n 's/^# compiler: //p' $BASELINE)"
    awk -v percent=$GROWTH_PERCENT '
        /^#/ { next }
        { name = $1 " " $2 }
        NR == FNR { device[name] = $3; locked[name] = $5; next }
        !(name in device) { complain(name ": not in the baseline"); next }
        { seen[name] = 1 }
        $3 > device[name] * (1 + percent / 100) { complain(name ": " $3 " instructions a request, " device[name] " in the baseline") }
        $3 < device[name] * (1 - percent / 100) { print name ": " $3 " instructions a request, " device[name] " in the baseline, which wants to be renewed" }
        $5 > locked[name] + 0.05 { complain(name ": " $5 " locked instructions a batch, " locked[name] " in the baseline") }
        $6 + 0 != 0 || $7 + 0 != 0 { complain(name ": allocations or system calls in a batch") }
        END {
            for (name in device) if (!(name in seen)) complain(name ": only in the baseline")
            exit failed
        }
        function complain(text) { print "error: " text >"/dev/stderr"; failed = 1 }' $BASELINE "$WORK/table" ||
        die "what a request costs has grown" "scripts/cost.sh --renew, in the commit that says why, if it has to be"
}

renew() {
    {
        printf '# What scripts/cost.sh --check compares with; scripts/cost.sh --renew writes it, scripts/cost.sh --help explains it.\n'
        printf '# compiler: %s\n# ' "$(rustc --version)"
        # shellcheck disable=SC2059 # the format is ours
        printf "$FORMAT" case ring device driver locked allocations 'system calls'
        cat "$WORK/table"
    } >$BASELINE
    say "written: $BASELINE"
}

# metrics: the table, and beside it that of a build that records nothing.
metrics() {
    say 'without metrics:'
    mv "$WORK/table" "$WORK/recorded"
    RUSTFLAGS="${RUSTFLAGS:-} --cfg uncounted" build .build/uncounted
    measure no
    say 'instructions a request for metrics:'
    paste "$WORK/recorded" "$WORK/table" | awk -v most=$METRICS_MOST '
        { printf "%-26s %-7s %8.1f%s\n", $1, $2, $3 - $10, ($3 - $10 > most ? "  above " most : ""); failed += $3 - $10 > most }
        END { exit failed > 0 }' || die "metrics cost more than $METRICS_MOST instructions a request"
}

main "$@"
