# shellcheck shell=dash
# What scripts in the guest have in common: `. /functions.sh`. Not here: what they test.
# busybox's shell takes its own applets before programs of the same name: write real tools with their path.

# fail TEXT: ends the script, with the kernel's last words.
fail() {
    printf 'FAILED: %s\n' "$*"
    printf 'the last kernel messages:\n'
    dmesg | tail -n 30
    exit 1
}

# expect WHAT WANTED GOT: an empty WANTED is not checked.
expect() {
    [ -z "$2" ] || [ "$2" = "$3" ] || fail "$1: '$2' expected, '$3' found"
    printf '%s: %s\n' "$1" "$3"
}

# load MODULE: one that the guest does not load by itself, with what it needs (build.sh).
load() {
    while read -r module; do
        insmod "$module" || fail "insmod $module"
    done <"/etc/modules.$1"
}

# disk_at TARGET LUN: its name, such as sda, once the kernel has attached it (at most 30 s).
disk_at() {
    local tries=0 name
    while [ $tries -lt 300 ]; do
        for name in /sys/class/scsi_disk/*:"$1":"$2"/device/block/*; do
            if [ -b "/dev/${name##*/}" ]; then
                printf '%s\n' "${name##*/}"
                return 0
            fi
        done
        tries=$((tries + 1))
        sleep 0.1
    done
    return 1
}

# no_disk_errors: the kernel has reported no failed I/O.
no_disk_errors() {
    ! dmesg | grep -E 'I/O error|critical (target|medium|space|nexus) error|EXT4-fs error|Sense Key' ||
        fail "the kernel reports disk errors"
}

# gone NAME: waits until that disk is no more (at most 30 s).
gone() {
    local tries=0
    while [ -e "/sys/block/$1" ]; do
        [ $tries -lt 300 ] || return 1
        tries=$((tries + 1))
        sleep 0.1
    done
}

# wait_for WHAT COMMAND…: until it succeeds (at most 30 s).
wait_for() {
    what=$1 tries=0
    shift
    until "$@"; do
        [ $tries -lt 300 ] || fail "no $what"
        tries=$((tries + 1))
        sleep 0.1
    done
}

# keep_busy NAME: reads that disk in the background until there is a file /tmp/stop; $busy is who does, and fails if a
# read does.
keep_busy() {
    (while [ ! -e /tmp/stop ]; do
        dd if="/dev/$1" of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null || exit 1
    done) &
    # shellcheck disable=SC2034 # for the script
    busy=$!
}
