# shellcheck shell=bash
# What it is worth that pollers have cache lines of their own, and whether any is left that they take from each other without
# need. Sourced by scripts/bench.sh.
#
# Two pollers of one controller, each with the driver of its queue in one thread, on a core of its own (`replay` of virtio-scsi):
# nothing but the target's own state is between the two threads. In turns: as it is built (padded), built without the padding
# (unpadded), and as two processes that have no memory in common (apart), which have to be no faster than one.

padding_start() {
    local replay=(--quiet --release -p virtio-scsi --example replay)
    CARGO_TARGET_DIR=.build cargo build "${replay[@]}"
    RUSTFLAGS="${RUSTFLAGS:-} --cfg unpadded" CARGO_TARGET_DIR=.build/unpadded cargo build "${replay[@]}"
}

# padding_run WHO CASE: padding/DISK/OPERATION/LUNS.
padding_run() {
    local who=$1 disk operation luns build=.build arguments
    IFS=/ read -r _ disk operation luns <<<"$2"
    arguments=("$disk" "$operation" split pollers=2 "units=${luns%lun*}" "time_ms=$(awk -v s="$SECONDS_EACH" 'BEGIN { print s * 1000 }')")
    [ "$who" != unpadded ] || build=.build/unpadded
    if [ "$who" != apart ]; then
        $build/release/examples/replay "${arguments[@]}" "core=$TARGET_CORE" "other=$CLIENT_CORE"
        return
    fi
    $build/release/examples/replay "${arguments[@]}" busy=1 "core=$TARGET_CORE" >"$WORK/apart" &
    local first=$! status=0
    $build/release/examples/replay "${arguments[@]}" busy=1 "core=$CLIENT_CORE" >"$WORK/apart.other" || status=$?
    wait $first || status=$?
    printf '{"iops":%d,"errors":0}\n' $(($(number iops <"$WORK/apart") + $(number iops <"$WORK/apart.other")))
    return $status
}
