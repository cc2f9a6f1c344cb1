# shellcheck shell=dash
# What was flushed to raw disks, whatever happens then. Record n (from 0) of a disk is 16 KiB at that place, and says
# which it is. Variables: DISKS, a list of target:lun. VERIFY=n: records 0 to n-1 of each disk must be there. Then, unless
# WRITE=no, records from VERIFY on are written, each followed by fsync, while fio writes farther behind; "FLUSHED n" is
# said when n records are. POWER_OFF=n: the machine powers itself off, in the middle of it, after record n.
# Needs --with-fio.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
VERIFY=${VERIFY:-0} WRITE=${WRITE:-yes} POWER_OFF=${POWER_OFF:-}
record() { yes "record $2 of disk $1" | head -c 16384; }

for disk in $DISKS; do
    name=$(disk_at "${disk%:*}" "${disk#*:}") || fail "no disk $disk"
    dd if="/dev/$name" of="/tmp/all" bs=16k count="$VERIFY" 2>/dev/null || fail "read $disk"
    n=0
    while [ $n -lt "$VERIFY" ]; do
        record "$disk" $n
        n=$((n + 1))
    done | cmp - /tmp/all || fail "not all of $VERIFY records of $disk are there"
    printf 'VERIFIED %s %s\n' "$disk" "$VERIFY"
done
no_disk_errors
[ "$WRITE" = yes ] || exit 0

for disk in $DISKS; do
    name=$(disk_at "${disk%:*}" "${disk#*:}")
    /usr/bin/fio --name=load --filename="/dev/$name" --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k \
        --offset=32M --size=16M --time_based --runtime=3600 >/dev/null 2>&1 &
done
n=$VERIFY
while :; do
    for disk in $DISKS; do
        name=$(disk_at "${disk%:*}" "${disk#*:}")
        record "$disk" "$n" | dd of="/dev/$name" bs=16k seek="$n" iflag=fullblock conv=notrunc,fsync 2>/dev/null ||
            fail "write record $n of $disk"
    done
    n=$((n + 1))
    printf 'FLUSHED %s\n' $n
    [ $n -ne "${POWER_OFF:--1}" ] || poweroff -f
done
