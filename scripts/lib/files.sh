# shellcheck shell=bash
# The section of scripts/bench.sh about files: the same file through the target and by fio's io_uring engine, in turns.
# Sourced by it, and uses its settings and functions.
#
# Neither side may spin here: the poller is adaptive and the client waits for interrupts, as a guest does. fio sleeps,
# too, and on a machine of two cores the kernel's own work (its io_uring workers, the disk's interrupts, and what a
# hypervisor does for a virtual disk) would have to wait for a core that somebody spins on.

# name, arguments of both, file
readonly FILE_CASES=(
    'tmpfs randread 4k|randread 4k|tmpfs'
    'tmpfs randwrite 4k|randwrite 4k|tmpfs'
    'tmpfs read 128k|read 128k|tmpfs'
    'disk randread 4k|randread 4k|disk'
    'disk randwrite 4k|randwrite 4k|disk'
    'disk read 128k|read 128k|disk'
)
FILES_PLACE='' FILES_SOCKET='' FILES_PID='' FILES_NOTE=''

files_section() {
    if ! command -v fio >/dev/null; then
        warn "SKIPPED: files against fio: fio is not installed (apt-get install fio)"
        return 0
    fi
    if [ ! -w /dev/shm ]; then
        warn "SKIPPED: files against fio: /dev/shm cannot be written to"
        return 0
    fi
    say ''
    say "files, depth 32: ringside (adaptive poller on core $TARGET_CORE, interrupts on core $CLIENT_CORE), fio $(fio --version) on core $TARGET_CORE"
    files_start
    local round case
    for ((round = 1; round <= REPEATS; round++)); do
        for case in "${FILE_CASES[@]}"; do files_window "$round" "$case"; done
    done
    files_summary
}

files_start() {
    FILES_PLACE=$(mktemp -d /dev/shm/ringside-bench.XXXXXX)
    FILES_SOCKET=$WORK/files.sock
    # Written once, so that nobody measures the allocation of blocks.
    fio --name=fill --filename="$FILES_PLACE/tmpfs" --size=256m --rw=write --bs=1m --output=/dev/null
    fio --name=fill --filename="$OUT/disk" --size=512m --rw=write --bs=1m --direct=1 --end_fsync=1 --output=/dev/null
    cat >"$WORK/files.toml" <<END
[reactor]
cores = [$TARGET_CORE]
[metrics]
listen = "127.0.0.1:0"
[[bdev]]
name = "tmpfs"
kind = "file"
path = "$FILES_PLACE/tmpfs"
direct = false
[[bdev]]
name = "disk"
kind = "file"
path = "$PWD/$OUT/disk"
[[scsi]]
name = "files"
socket = "$FILES_SOCKET"
[[scsi.lun]]
target = 0
bdev = "tmpfs"
[[scsi.lun]]
target = 1
bdev = "disk"
END
    "$RINGSIDE" serve --config "$WORK/files.toml" 2>"$WORK/files.log" &
    FILES_PID=$!
    PIDS+=("$FILES_PID")
    await_socket "$FILES_SOCKET" "$FILES_PID" "$WORK/files.log"
    # A disk without O_DIRECT: then fio does without it, too.
    ! grep 'page cache of the host' "$WORK/files.log" || FILES_NOTE=' (page cache)'
}

files_end() { [ -z "$FILES_PLACE" ] || rm -rf "$FILES_PLACE" "$OUT/disk"; }

files_window() {
    local round=$1 name arguments file rw bs target=0 direct=0 path json ours theirs
    IFS='|' read -r name arguments file <<<"$2"
    read -r rw bs <<<"$arguments"
    path=$FILES_PLACE/tmpfs
    [ "$file" = tmpfs ] || { target=1 path=$OUT/disk; [ -n "$FILES_NOTE" ] || direct=1; }
    json=$OUT/files-${name// /_}-$round.json
    "$RINGSIDE" bench scsi --socket "$FILES_SOCKET" --target $target --rw "$rw" --bs "$bs" --qd 32 --interrupt --time "$SECONDS_EACH" \
        --warmup 0.3 --core "$CLIENT_CORE" --json >"$json" 2>"$WORK/bench.log" || die "files, $name:" "$(tail -n 5 "$WORK/bench.log")"
    ours=$(number iops <"$json")
    # Fields 8 and 49 of the terse form: reads and writes a second.
    theirs=$(fio --minimal --name=files --filename="$path" --rw="$rw" --bs="$bs" --iodepth=32 --ioengine=io_uring --direct=$direct \
        --cpus_allowed="$TARGET_CORE" --runtime="$SECONDS_EACH" --ramp_time=300ms --time_based --norandommap --randrepeat=0 |
        awk -F';' '{ printf "%d", $8 + $49 }')
    printf '%s|%.0f|%s\n' "$name" "$ours" "$theirs" >>"$OUT/file-windows"
    printf '%-20s %2d/%d  ringside %8.0f IOPS  fio %8.0f IOPS  ratio %s\n' "$name" "$round" "$REPEATS" "$ours" "$theirs" "$(ratio "$ours" "$theirs")"
}

# files_summary: the best windows, and the medians. On a machine with other things to do the best ones say more.
files_summary() {
    say ''
    printf '%-20s %12s %12s %8s   %12s %12s %8s\n' "case$FILES_NOTE" 'best' 'fio best' ratio median 'fio median' ratio
    local case name ours theirs mine others
    for case in "${FILE_CASES[@]}"; do
        name=${case%%|*}
        read -r ours mine < <(files_figures "$name" 2)
        read -r theirs others < <(files_figures "$name" 3)
        printf '%-20s %12s %12s %8s   %12s %12s %8s\n' "$name" "$ours" "$theirs" "$(ratio "$ours" "$theirs")" "$mine" "$others" "$(ratio "$mine" "$others")"
    done
}

# files_figures CASE FIELD: "best median"
files_figures() {
    awk -F'|' -v name="$1" -v field="$2" '$1 == name { print $field }' "$OUT/file-windows" | sort -n |
        awk '{ v[NR] = $1 } END { print v[NR], NR % 2 ? v[(NR + 1) / 2] : int((v[NR / 2] + v[NR / 2 + 1]) / 2) }'
}
