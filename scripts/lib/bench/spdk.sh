# shellcheck shell=bash
# SPDK's block devices behind our target, and behind SPDK's own vhost. Sourced by scripts/bench.sh.
#
# Both targets have the same version of SPDK, the same bdevs from the same configuration, huge pages, and one core. So what differs
# is who takes requests from the rings and who waits for the bdevs. Goal: at least 1.2 of SPDK's.

readonly SPDK_FEATURES=(--no-default-features --features spdk)
# Of each target: a malloc bdev of 256 MiB, and SPDK's pools. A huge page has 2 MiB.
readonly SPDK_MIB=640 SPDK_MALLOC_MIB=256

spdk_start() {
    spdk_huge_pages
    spdk_program .build/spdk .
    SPDK_PROGRAMS[ringside]=.build/spdk/release/ringside
    [ -z "$BASELINE" ] || spdk_baseline
    local who
    for who in ringside ${BASELINE:+baseline}; do
        spdk_configure "$who"
        SOCKETS["$who"]=$WORK/$who.sock
        LD_LIBRARY_PATH=$(spdk_libraries)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
            serve "$who" "$WORK/$who.toml" "${SOCKETS[$who]}" "${SPDK_PROGRAMS[$who]}"
        pause "$who"
    done
    SOCKETS["spdk"]=$WORK/spdk.sock
    spdk_vhost "$SPDK_MIB" spdk_memory_bdevs
    pause spdk
}

spdk_run() { scsi_run "$1" "$2/split"; }

declare -A SPDK_PROGRAMS=()

# spdk_program TARGET SOURCE: builds a ringside with this SPDK.
spdk_program() {
    local packages=$SPDK/build/lib/pkgconfig
    [ -e "$packages/spdk_event_bdev.pc" ] || die "no libraries of SPDK in $SPDK/build/lib" "run make in $SPDK"
    (
        export PKG_CONFIG_PATH=$packages${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
        CARGO_TARGET_DIR=$(realpath -m "$1")
        export CARGO_TARGET_DIR
        cd "$2"
        cargo build --quiet --release -p ringside "${SPDK_FEATURES[@]}"
    ) || die "a ringside with the SPDK of $SPDK does not build"
}

# spdk_baseline: a program is one with SPDK already.
spdk_baseline() {
    SPDK_PROGRAMS[baseline]=$BASELINE_PROGRAM
    [ -n "$BASELINE_COMMIT" ] || return 0
    spdk_program ".build/baseline/spdk" ".build/baseline/$BASELINE_COMMIT/source"
    SPDK_PROGRAMS[baseline]=.build/baseline/spdk/release/ringside
}

# spdk_libraries: where the libraries of the DPDK are that SPDK was built with.
spdk_libraries() {
    PKG_CONFIG_PATH=$SPDK/build/lib/pkgconfig pkg-config --libs-only-L spdk_dpdklibs | sed 's/^-L//; s/ *-L/:/g; s/ *$//'
}

# spdk_huge_pages: enough of them, or nobody would have what the others have.
spdk_huge_pages() {
    local free targets=2 wanted
    [ -z "$BASELINE" ] || targets=3
    wanted=$((targets * SPDK_MIB / 2))
    free=$(sed -n 's/^HugePages_Free: *//p' /proc/meminfo)
    [ "${free:-0}" -ge "$wanted" ] ||
        die "$wanted free huge pages of 2 MiB are needed, $free are there" "echo $wanted >/proc/sys/vm/nr_hugepages"
}

spdk_configure() {
    printf '{"subsystems": [{"subsystem": "bdev", "config": [%s]}]}\n' "$(spdk_memory_bdevs)" >"$WORK/$1.json"
    { cat && scsi_memory_luns "$WORK/$1.sock"; } <<END | configure "$WORK/$1.toml" busy
[spdk]
config = "$WORK/$1.json"
memory = "${SPDK_MIB}MiB"
[[bdev]]
name = "null0"
kind = "spdk"
bdev = "Null0"
[[bdev]]
name = "malloc0"
kind = "spdk"
bdev = "Malloc0"
END
}

# spdk_memory_bdevs: the parameters of both targets' bdevs.
spdk_memory_bdevs() {
    cat <<END
{"method": "bdev_null_create", "params": {"name": "Null0", "num_blocks": 2097152, "block_size": 512}},
{"method": "bdev_malloc_create", "params": {"name": "Malloc0", "num_blocks": $((SPDK_MALLOC_MIB * 2048)), "block_size": 512}}
END
}

# spdk_vhost MIB BDEVS: SPDK's target, whose SCSI targets 0, 1 … are the bdevs Null0, Malloc0 and File0, as far as the function
# BDEVS makes them.
spdk_vhost() {
    local bdevs number=0 bdev targets=''
    bdevs=$("$2")
    for bdev in Null0 Malloc0 File0; do
        [[ $bdevs != *"\"$bdev\""* ]] || targets+=",{\"method\": \"vhost_scsi_controller_add_target\",
            \"params\": {\"ctrlr\": \"spdk.sock\", \"scsi_target_num\": $number, \"bdev_name\": \"$bdev\"}}"
        number=$((number + 1))
    done
    cat >"$WORK/spdk.json" <<END
{"subsystems": [{"subsystem": "bdev", "config": [$bdevs]}, {"subsystem": "vhost_scsi", "config": [
    {"method": "vhost_create_scsi_controller", "params": {"ctrlr": "spdk.sock"}}$targets]}]}
END
    # Its own folder, as it leaves files there.
    (cd "$WORK" && exec "$SPDK/build/bin/vhost" -m "[$TARGET_CORE]" -s "$1" -R -u -r "$WORK/spdk.rpc" -S "$WORK" -c "$WORK/spdk.json" \
        >"$WORK/spdk.log" 2>&1) &
    PIDS+=($!)
    # shellcheck disable=SC2034 # for process.sh
    TARGET_PIDS["spdk"]=$!
    await_socket "${SOCKETS["spdk"]}" $! "$WORK/spdk.log"
}
