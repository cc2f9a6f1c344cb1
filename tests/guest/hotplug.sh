# shellcheck shell=dash
# LUN 1 comes by an event, is written and put under load, goes under that load by an event, and comes again with what was
# written; all the while LUN 0 is busy and notices nothing. Says "READY", "FOUND name bytes", "BUSY", "GONE", for each round.
# Needs --with-fio. Variables: ROUNDS=2.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
first=$(disk_at 0 0) || fail "no disk at target 0, LUN 0"
keep_busy "$first"

[ -z "$(ls -d /sys/class/scsi_disk/*:0:1 2>/dev/null)" ] || fail "there is a LUN 1 before it was plugged"
printf 'READY\n'
dd if=/dev/urandom of=/tmp/data bs=1M count=2 2>/dev/null
round=0
while [ $round -lt "${ROUNDS:-2}" ]; do
    round=$((round + 1))
    name=$(disk_at 0 1) || fail "no LUN 1 in round $round"
    printf 'FOUND %s %s\n' "$name" $(($(cat "/sys/block/$name/size") * 512))
    if [ $round -eq 1 ]; then
        dd if=/tmp/data of="/dev/$name" bs=1M oflag=direct conv=notrunc,fsync 2>/dev/null || fail "write"
    fi
    dd if="/dev/$name" of=/tmp/back bs=1M count=2 iflag=direct 2>/dev/null || fail "read in round $round"
    cmp /tmp/data /tmp/back || fail "what was read in round $round is not what was written"
    /usr/bin/fio --name=load --filename="/dev/$name" --direct=1 --ioengine=libaio --iodepth=32 --rw=randrw --bs=4k \
        --offset=4M --size=4M --time_based --runtime=3600 >/tmp/fio.log 2>&1 &
    fio=$!
    printf 'BUSY\n'
    gone "$name" || fail "LUN 1 stays in round $round"
    wait $fio # a command that went with the disk fails: that must be seen, and must not hang
    status=$?
    [ $status -ne 0 ] || fail "fio has not noticed that its disk is gone: $(cat /tmp/fio.log)"
    printf 'GONE\n'
done
kill -0 $busy || fail "the first disk has failed"
touch /tmp/stop
wait $busy || fail "the first disk has failed"
! dmesg | grep -E 'I/O error|critical' | grep "dev $first" || fail "the kernel reports errors of the first disk"
dmesg | tail -n 20
