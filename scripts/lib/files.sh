# shellcheck shell=bash
# The section of scripts/bench.sh about files: the same file through the target and by fio's io_uring engine, in turns.
# Sourced by it, and uses its settings and functions.
#
# A target for each file, which is stopped while fio has the core. What tmpfs is asked for is done by the kernel's io_uring
# workers: on a machine of two cores these would have to wait for a core that somebody spins on, so the poller of that
# one is adaptive and its client waits for interrupts, as a guest does. Of a disk, whose work is elsewhere, poller and
# client both poll.

# name, arguments of both, file
readonly FILE_CASES=(
    'tmpfs randread 4k|randread 4k|tmpfs'
    'tmpfs randwrite 4k|randwrite 4k|tmpfs'
    'tmpfs read 128k|read 128k|tmpfs'
    'disk randread 4k|randread 4k|disk'
    'disk randwrite 4k|randwrite 4k|disk'
    'disk read 128k|read 128k|disk'
)
FILES_PLACE='' FILES_NOTE=''
declare -A FILES_PID=()

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
    say "files, depth 32: ringside (poller on core $TARGET_CORE, client on core $CLIENT_CORE; tmpfs adaptive and by interrupts, disk polled), $(fio --version) on core $TARGET_CORE"
    files_start
    local round case
    for ((round = 1; round <= REPEATS; round++)); do
        for case in "${FILE_CASES[@]}"; do files_window "$round" "$case"; done
    done
    files_summary
}

files_start() {
    FILES_PLACE=$(mktemp -d /dev/shm/ringside-bench.XXXXXX)
    # Written once, so that nobody measures the allocation of blocks.
    fio --name=fill --filename="$FILES_PLACE/tmpfs" --size=256m --rw=write --bs=1m --output=/dev/null
    fio --name=fill --filename="$OUT/disk" --size=512m --rw=write --bs=1m --direct=1 --end_fsync=1 --output=/dev/null
    files_target tmpfs adaptive "$FILES_PLACE/tmpfs" false
    files_target disk busy "$PWD/$OUT/disk" true
    # A disk without O_DIRECT: then fio does without it, too.
    ! grep 'page cache of the host' "$WORK/disk.log" || FILES_NOTE=' (page cache)'
}

# files_target NAME IDLE PATH DIRECT: serves one file, and stops until it is measured.
files_target() {
    local name=$1 idle=$2 path=$3 direct=$4
    cat >"$WORK/$name.toml" <<END
[reactor]
cores = [$TARGET_CORE]
idle = "$idle"
[metrics]
listen = "127.0.0.1:0"
[[bdev]]
name = "$name"
kind = "file"
path = "$path"
direct = $direct
[[scsi]]
name = "$name"
socket = "$WORK/$name.sock"
[[scsi.lun]]
bdev = "$name"
END
    "$RINGSIDE" serve --config "$WORK/$name.toml" 2>"$WORK/$name.log" &
    FILES_PID[$name]=$!
    PIDS+=("$!")
    await_socket "$WORK/$name.sock" "$!" "$WORK/$name.log"
    kill -STOP "${FILES_PID[$name]}"
}

files_end() { [ -z "$FILES_PLACE" ] || rm -rf "$FILES_PLACE" "$OUT/disk"; }

files_window() {
    local round=$1 name arguments file rw bs direct=0 path json ours theirs mode=(--interrupt)
    IFS='|' read -r name arguments file <<<"$2"
    read -r rw bs <<<"$arguments"
    path=$FILES_PLACE/tmpfs
    [ "$file" = tmpfs ] || { mode=() path=$OUT/disk; [ -n "$FILES_NOTE" ] || direct=1; }
    json=$OUT/files-${name// /_}-$round.json
    kill -CONT "${FILES_PID[$file]}"
    "$RINGSIDE" bench scsi --socket "$WORK/$file.sock" --rw "$rw" --bs "$bs" --qd 32 "${mode[@]}" --time "$SECONDS_EACH" --warmup 0.3 \
        --core "$CLIENT_CORE" --json >"$json" 2>"$WORK/bench.log" || die "files, $name:" "$(tail -n 5 "$WORK/bench.log")"
    kill -STOP "${FILES_PID[$file]}"
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
