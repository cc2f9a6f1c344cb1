# shellcheck shell=dash
# A second controller with one disk comes, goes, and comes again, while the first one's disk is busy. The host says
# "added" and "removed" on the console; the guest says "FOUND name bytes" and "GONE". Variables: none.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
first=$(disk_at 0 0) || fail "no disk at target 0, LUN 0"
keep_busy "$first"

# other: the name of the disk that is not the first, once it is there (at most 30 s).
other() {
    local tries=0 disk
    while [ $tries -lt 300 ]; do
        for disk in /sys/block/sd*; do
            if [ "${disk##*/}" != "$first" ] && [ -b "/dev/${disk##*/}" ]; then
                printf '%s\n' "${disk##*/}"
                return 0
            fi
        done
        tries=$((tries + 1))
        sleep 0.1
    done
    return 1
}

printf 'READY\n'
dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
for round in 1 2; do
    read -r _ # added
    name=$(other) || fail "no second disk in round $round"
    printf 'FOUND %s %s\n' "$name" $(($(cat "/sys/block/$name/size") * 512))
    if [ $round -eq 1 ]; then
        dd if=/tmp/data of="/dev/$name" bs=1M oflag=direct conv=notrunc,fsync 2>/dev/null || fail "write"
    fi
    dd if="/dev/$name" of=/tmp/back bs=1M count=4 iflag=direct 2>/dev/null || fail "read in round $round"
    cmp /tmp/data /tmp/back || fail "what was read in round $round is not what was written"
    printf 'USED %s\n' $round
    gone "$name" || fail "the second disk stays"
    printf 'GONE\n'
done
touch /tmp/stop
wait $busy || fail "the first disk has failed"
no_disk_errors
