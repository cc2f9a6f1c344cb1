# shellcheck shell=dash
# Writes raw disks and reads them back, over and over, past everything that happens to the target, until a line comes on the
# console. Says "ROUND n" after each round of all disks. Variables: DISKS, a list of target:lun.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh

write_on() {
    n=0
    while [ ! -e /tmp/stop ]; do
        for disk in $DISKS; do
            name=$(disk_at "${disk%:*}" "${disk#*:}") || return 1
            yes "round $n of $disk" | head -c 1048576 >/tmp/data
            dd if=/tmp/data of="/dev/$name" bs=64k oflag=direct conv=notrunc,fsync 2>/tmp/dd || return 1
            dd if="/dev/$name" of=/tmp/back bs=64k count=16 iflag=direct 2>/tmp/dd || return 1
            cmp /tmp/data /tmp/back >/tmp/dd 2>&1 || return 1
        done
        n=$((n + 1))
        printf 'ROUND %s\n' $n
    done
}

write_on &
writer=$!
read -r _
touch /tmp/stop
wait $writer || fail "$(cat /tmp/dd)"
no_disk_errors
