# shellcheck shell=bash
# Disks under our own client: targets with a null, a malloc and a file disk, as SCSI targets 0, 1 and 2. Sourced by
# scripts/bench.sh.

declare -A SOCKETS=()
readonly FILE_SIZE=512M

# scsi_start: every target, each paused. Pollers poll all the time.
scsi_start() {
    local who
    for who in ringside ${BASELINE:+baseline} ${SPDK:+spdk}; do
        SOCKETS[$who]=$WORK/$who.sock
        scsi_file "$who"
        if [ "$who" = spdk ]; then spdk_vhost 1024 scsi_spdk_bdevs; else scsi_serve "$who"; fi
        pause "$who"
    done
}

# scsi_file WHO: a file for each target, written once so that nobody measures the allocation of blocks. An empty one if no case
# needs it.
scsi_file() {
    local file=$OUT/$1.disk
    if [[ ${CASES[*]} = */file/* ]]; then
        dd if=/dev/urandom of="$file" bs=1M count="${FILE_SIZE%M}" oflag=direct conv=fsync status=none 2>/dev/null ||
            dd if=/dev/urandom of="$file" bs=1M count="${FILE_SIZE%M}" conv=fsync status=none
    else
        truncate -s "$FILE_SIZE" "$file"
    fi
}

scsi_end() { rm -f "$OUT"/*.disk; }

scsi_serve() {
    { scsi_memory_disks "${SOCKETS[$1]}" && cat; } <<EOF | configure "$WORK/$1.toml" busy
[[scsi.lun]]
target = 2
bdev = "file0"
[[bdev]]
name = "file0"
kind = "file"
path = "$OUT/$1.disk"
EOF
    serve "$1" "$WORK/$1.toml" "${SOCKETS[$1]}"
}

# scsi_memory_disks SOCKET: a controller with the disks that need no file.
scsi_memory_disks() {
    cat <<EOF
[[bdev]]
name = "null0"
kind = "null"
size = "1GiB"
[[bdev]]
name = "malloc0"
kind = "malloc"
size = "512MiB"
EOF
    scsi_memory_luns "$1"
}

# scsi_memory_luns SOCKET: the controller whose targets 0 and 1 are null0 and malloc0.
scsi_memory_luns() {
    cat <<EOF
[[scsi]]
name = "bench"
socket = "$1"
[[scsi.lun]]
target = 0
bdev = "null0"
[[scsi.lun]]
target = 1
bdev = "malloc0"
EOF
}

# scsi_spdk_bdevs: the same disks in SPDK's words.
scsi_spdk_bdevs() {
    cat <<EOF
{"method": "bdev_null_create", "params": {"name": "Null0", "num_blocks": 2097152, "block_size": 512}},
{"method": "bdev_malloc_create", "params": {"name": "Malloc0", "num_blocks": 1048576, "block_size": 512}},
{"method": "bdev_aio_create", "params": {"name": "File0", "filename": "$OUT/spdk.disk", "block_size": 512}}
EOF
}

scsi_run() {
    local who=$1 disk rw bs depth ring status=0
    IFS=/ read -r _ disk rw bs depth ring <<<"$2"
    if [ "$who" = copy ]; then
        $RINGSIDE bench copy --rw "$rw" --bs "$bs" --qd "${depth#qd}" --size 512m --core "$TARGET_CORE" --time "$SECONDS_EACH" \
            --warmup "$WARMUP" --json
        return
    fi
    resume "$who"
    $RINGSIDE bench scsi --socket "${SOCKETS[$who]}" --target "$(scsi_target "$disk")" --rw "$rw" --bs "$bs" --qd "${depth#qd}" \
        --ring "$ring" --queue-size "$(scsi_queue_size "$depth")" --time "$SECONDS_EACH" --warmup "$WARMUP" --core "$CLIENT_CORE" \
        --json || status=$?
    pause "$who"
    return $status
}

scsi_target() { case $1 in null) echo 0 ;; malloc) echo 1 ;; *) echo 2 ;; esac }

# scsi_queue_size qdDEPTH: a ring that holds three descriptors a command.
scsi_queue_size() { if [ "$1" = qd128 ]; then echo 512; else echo 128; fi; }

# The client against a thread that answers at once: a result near it says nothing of the target.
ceiling_start() { :; }

ceiling_run() {
    local kind rest rw bs depth ring direction size both=(--null-responder --core "$CLIENT_CORE" --responder-core "$TARGET_CORE")
    both+=(--time "$SECONDS_EACH" --warmup "$WARMUP" --json)
    IFS=/ read -r _ kind rest <<<"$2"
    if [ "$kind" = net ]; then
        IFS=/ read -r direction size ring <<<"$rest"
        $RINGSIDE bench net "${both[@]}" --mode "$direction" --size "${size%B}" --ring "$ring"
    else
        IFS=/ read -r rw bs depth ring <<<"$rest"
        $RINGSIDE bench scsi "${both[@]}" --rw "$rw" --bs "$bs" --qd "${depth#qd}" --ring "$ring" \
            --queue-size "$(scsi_queue_size "$depth")"
    fi
}
