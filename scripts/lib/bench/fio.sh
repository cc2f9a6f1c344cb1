# shellcheck shell=bash
# The same file through the target and by fio's io_uring engine, in turns. Sourced by scripts/bench.sh.
#
# A target for each file. What tmpfs is asked for is done by the kernel's io_uring workers: on a machine of two cores these
# would have to wait for a core that somebody spins on, so the poller of that one is adaptive and its client waits for
# interrupts, as a guest does. Of a disk, whose work is elsewhere, poller and client both poll.

FIO_TMPFS='' FIO_DIRECT=1

fio_start() {
    [ -w /dev/shm ] || die "--peer fio: /dev/shm cannot be written to"
    FIO_TMPFS=$(mktemp -d /dev/shm/ringside-bench.XXXXXX)
    # Written once, so that nobody measures the allocation of blocks.
    fio --name=fill --filename="$FIO_TMPFS/file" --size=256m --rw=write --bs=1m --output=/dev/null
    fio --name=fill --filename="$OUT/fio.disk" --size=512m --rw=write --bs=1m --end_fsync=1 --output=/dev/null
    fio_serve tmpfs adaptive "$FIO_TMPFS/file" false
    fio_serve disk busy "$OUT/fio.disk" true
    # A disk without O_DIRECT: then fio does without it, too.
    ! grep -q 'page cache of the host' "$WORK/disk.log" || FIO_DIRECT=0
}

# fio_serve DISK IDLE PATH DIRECT: serves one file, and pauses until it is measured.
fio_serve() {
    configure "$WORK/$1.toml" "$2" <<EOF
[[bdev]]
name = "$1"
kind = "file"
path = "$3"
direct = $4
[[scsi]]
name = "$1"
socket = "$WORK/$1.sock"
[[scsi.lun]]
bdev = "$1"
EOF
    serve "$1" "$WORK/$1.toml" "$WORK/$1.sock"
    pause "$1"
}

fio_end() { [ -z "$FIO_TMPFS" ] || rm -rf "$FIO_TMPFS"; }

fio_run() {
    local disk rw bs depth
    IFS=/ read -r _ disk rw bs depth <<<"$2"
    "fio_run_$1" "$disk" "$rw" "$bs" "${depth#qd}"
}

# fio_run_ringside DISK RW BS DEPTH
fio_run_ringside() {
    local mode=() status=0
    [ "$1" = disk ] || mode=(--interrupt)
    resume "$1"
    $RINGSIDE bench scsi --socket "$WORK/$1.sock" --rw "$2" --bs "$3" --qd "$4" "${mode[@]}" --time "$SECONDS_EACH" \
        --warmup "$WARMUP" --core "$CLIENT_CORE" --json || status=$?
    pause "$1"
    return $status
}

fio_run_fio() {
    local file=$FIO_TMPFS/file direct=0
    [ "$1" = tmpfs ] || file=$OUT/fio.disk direct=$FIO_DIRECT
    # Of the terse form, fields 8 and 49: reads and writes a second.
    fio --minimal --name=bench --filename="$file" --rw="$2" --bs="$3" --iodepth="$4" --ioengine=io_uring --direct="$direct" \
        --cpus_allowed="$TARGET_CORE" --runtime="$SECONDS_EACH" --ramp_time="$WARMUP" --time_based --norandommap --randrepeat=0 |
        awk -F';' '{ printf "{\"iops\":%d}\n", $8 + $49; exit !($8 + $49) }'
}
