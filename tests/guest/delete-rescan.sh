# shellcheck shell=dash
# LUN 1 is deleted in the guest while it is under load, and found again by a scan, as often as ROUNDS says; LUN 0 notices
# nothing, and what was written to LUN 1 stays. Needs --with-fio. Variables: ROUNDS=3.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
first=$(disk_at 0 0) || fail "no disk at target 0, LUN 0"
keep_busy "$first"
dd if=/dev/urandom of=/tmp/data bs=1M count=2 2>/dev/null
round=0
while [ $round -lt "${ROUNDS:-3}" ]; do
    round=$((round + 1))
    name=$(disk_at 0 1) || fail "no LUN 1 in round $round"
    if [ $round -eq 1 ]; then
        dd if=/tmp/data of="/dev/$name" bs=1M oflag=direct conv=notrunc,fsync 2>/dev/null || fail "write"
    fi
    dd if="/dev/$name" of=/tmp/back bs=1M count=2 iflag=direct 2>/dev/null || fail "read in round $round"
    cmp /tmp/data /tmp/back || fail "what was read in round $round is not what was written"
    /usr/bin/fio --name=load --filename="/dev/$name" --direct=1 --ioengine=libaio --iodepth=32 --rw=randrw --bs=4k \
        --offset=4M --size=4M --time_based --runtime=3600 >/tmp/fio.log 2>&1 &
    fio=$!
    tries=0
    while :; do
        read -r reads writes <"/sys/block/$name/inflight"
        [ $((reads + writes)) -eq 0 ] || break
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "no I/O in flight in round $round: $(cat /tmp/fio.log)"
        usleep 50000
    done
    echo 1 >"/sys/block/$name/device/delete" || fail "delete in round $round"
    wait $fio # its next command fails
    [ ! -e "/sys/block/$name" ] || fail "$name is still there"
    printf 'DELETED %s\n' $round
    for scan in /sys/class/scsi_host/host*/scan; do echo '- - -' >"$scan"; done
done
disk_at 0 1 >/dev/null || fail "no LUN 1 in the end"
kill -0 $busy || fail "the first disk has failed"
touch /tmp/stop
wait $busy || fail "the first disk has failed"
! dmesg | grep -E 'I/O error|critical' | grep "dev $first" || fail "the kernel reports errors of the first disk"
dmesg | tail -n 20
