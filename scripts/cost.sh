#!/usr/bin/env bash
# Instructions per request, by callgrind: repeatable where time is not. Replays batches of 32 commands of 4 KiB through
# one shard polled by hand, twice with different numbers of batches, and divides the difference. The driver side of the
# replay (about 60 instructions a request) is included.
#
#   scripts/cost.sh [--profile]
#
#   --profile    also the functions that cost most
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/output.sh
. scripts/lib/output.sh

readonly REPLAY=.build/release/examples/replay FEW=1000 MANY=3000 BATCH=32
WORK=''

main() {
    local profile=no
    case ${1:-} in
    --profile) profile=yes ;;
    -h | --help) usage "$0" && exit 0 ;;
    '') ;;
    *) die "unknown argument '$1'" "see scripts/cost.sh --help" ;;
    esac
    command -v valgrind >/dev/null || scripts/setup.sh --only bench
    CARGO_TARGET_DIR=.build cargo build --quiet --release -p virtio-scsi --example replay
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    printf '%-8s %-6s %s\n' bdev rw 'instructions per request (split ring, 4 KiB, driver side of the replay included)'
    local kind rw
    for kind in null malloc; do
        for rw in read write; do
            printf '%-8s %-6s %d\n' $kind $rw "$(per_request $kind $rw)"
            [ $profile = no ] || callgrind_annotate --auto=no --threshold=90 "$WORK/$MANY" | sed -n '/file:function/,$p'
        done
    done
}

per_request() {
    local few many
    few=$(instructions "$1" "$2" $FEW)
    many=$(instructions "$1" "$2" $MANY)
    echo $(((many - few) / ((MANY - FEW) * BATCH)))
}

instructions() {
    valgrind --tool=callgrind --callgrind-out-file="$WORK/$3" $REPLAY "$1" "$2" "$3" 2>"$WORK/log" >/dev/null ||
        die "the replay failed:" "$(tail -n 5 "$WORK/log")"
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$WORK/log"
}

main "$@"
