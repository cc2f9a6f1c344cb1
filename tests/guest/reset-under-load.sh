# shellcheck shell=dash
# Logical unit resets while I/O is in flight: each succeeds, no I/O fails, no data is lost. Needs --with-fio.
# Variables: TARGET=0 LUN=0 RESETS=5.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
name=$(disk_at "${TARGET:-0}" "${LUN:-0}") || fail "no disk at target ${TARGET:-0}, LUN ${LUN:-0}"

/usr/bin/fio --name=load --filename="/dev/$name" --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bs=4k \
    --verify=crc32c --verify_fatal=1 --verify_backlog=128 --numjobs=2 --size=16M --offset_increment=16M \
    --time_based --runtime=3600 --group_reporting >/tmp/fio.log 2>&1 &
fio=$!

# in_flight: waits until the disk has I/O to lose (at most 30 s).
in_flight() {
    local tries=0 reads writes
    while [ $tries -lt 600 ]; do
        read -r reads writes <"/sys/block/$name/inflight"
        [ $((reads + writes)) -eq 0 ] || return 0
        kill -0 $fio 2>/dev/null || return 1
        tries=$((tries + 1))
        usleep 50000
    done
    return 1
}

i=0
while [ $i -lt "${RESETS:-5}" ]; do
    i=$((i + 1))
    in_flight || fail "no I/O in flight before reset $i: $(cat /tmp/fio.log)"
    # -N: a reset that fails must not turn into the next bigger one
    /usr/bin/sg_reset -N -d "/dev/$name" || fail "sg_reset $i: status $?"
    printf 'reset %s done\n' $i
done
in_flight || fail "no I/O after the last reset: $(cat /tmp/fio.log)"
kill -INT $fio # fio ends its I/O in flight and reports
wait $fio
status=$?
cat /tmp/fio.log
[ $status -eq 0 ] || [ $status -eq 128 ] || fail "fio: status $status"
grep -Eq 'err= *0' /tmp/fio.log || fail "fio reports errors"
dmesg | tail -n 20
no_disk_errors
