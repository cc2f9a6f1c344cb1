#!/usr/bin/env bash
# Instructions per request, by callgrind: repeatable where time is not. Replays batches of 32 commands of 4 KiB, or of 32
# frames of 64 bytes, through one shard polled by hand, twice with different numbers of batches, and divides the difference.
# The driver side of the replay (about 60 instructions a request) is included, and so is the port of the frames, which
# copies them (about 50).
#
#   scripts/cost.sh [--profile]
#
#   --profile    also the functions that cost most
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/output.sh
. scripts/lib/output.sh

readonly EXAMPLES=.build/release/examples FEW=1000 MANY=3000 BATCH=32
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
    CARGO_TARGET_DIR=.build cargo build --quiet --release -p virtio-scsi --example replay -p virtio-net --example replay_net
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    say 'instructions per request (split ring; commands of 4 KiB, frames of 64 bytes; driver side of the replay included)'
    local case
    for case in 'replay null read' 'replay null write' 'replay malloc read' 'replay malloc write' 'replay_net tx 64' 'replay_net rx 64'; do
        # shellcheck disable=SC2086 # the case is words
        printf '%-22s %d\n' "$case" "$(per_request $case)"
        [ $profile = no ] || callgrind_annotate --auto=no --threshold=90 "$WORK/$MANY" | sed -n '/file:function/,$p'
    done
}

# per_request EXAMPLE ARGUMENT ARGUMENT
per_request() {
    local few many
    few=$(instructions "$@" $FEW)
    many=$(instructions "$@" $MANY)
    echo $(((many - few) / ((MANY - FEW) * BATCH)))
}

instructions() {
    valgrind --tool=callgrind --callgrind-out-file="$WORK/$4" "$EXAMPLES/$1" "$2" "$3" "$4" 2>"$WORK/log" >/dev/null ||
        die "the replay failed:" "$(tail -n 5 "$WORK/log")"
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$WORK/log"
}

main "$@"
