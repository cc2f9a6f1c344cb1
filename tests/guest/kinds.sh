# shellcheck shell=dash
# Disks of several kinds. On each of DISKS (a list of target:lun) a file system keeps files, then fio verifies random I/O; all of
# them at once. Says "VERIFIED disk" for each. With GROWS=target:lun, says "SIZE bytes" of that disk and waits until the kernel
# finds it to be GROWS_TO bytes, then does some I/O there. With GOES=target:lun, that disk is put under load ("BUSY"), goes, and "GONE" is said, while
# the first of DISKS notices nothing. Needs --with-fio.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh

one() {
    disk=$1
    name=$(disk_at "${disk%:*}" "${disk#*:}") || fail "no disk $disk"
    mnt=/mnt/${disk%:*}.${disk#*:} sums=/tmp/sums.${disk%:*}.${disk#*:}
    mkdir -p "$mnt"
    /usr/sbin/mkfs.ext4 -q -F "/dev/$name" || fail "mkfs.ext4 on $disk"
    mount -t ext4 "/dev/$name" "$mnt" || fail "mount $disk"
    for file in a b c d; do dd if=/dev/urandom of="$mnt/$file" bs=256k count=1 2>/dev/null || fail "write $disk"; done
    (cd "$mnt" && sha256sum -- [a-d]) >"$sums"
    umount "$mnt" || fail "umount $disk"
    mount -t ext4 "/dev/$name" "$mnt" || fail "mount $disk again"
    (cd "$mnt" && sha256sum -c "$sums" >/dev/null) || fail "files on $disk"
    umount "$mnt" || fail "umount $disk"
    /usr/sbin/e2fsck -fn "/dev/$name" >/dev/null 2>&1 || fail "fsck of $disk: status $?"
    /usr/bin/fio --eta=never --name=verify --filename="/dev/$name" --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bsrange=4k-64k \
        --verify=crc32c --verify_fatal=1 --verify_backlog=64 --size=4M --output="/tmp/fio.$name" ||
        fail "fio on $disk: $(cat "/tmp/fio.$name")"
    : >"/tmp/verified.$disk"
}

for disk in $DISKS; do
    (one "$disk") &
    jobs="${jobs:-} $!"
done
for job in $jobs; do wait "$job" || fail "a disk"; done
for disk in $DISKS; do # in lines of their own
    [ -e "/tmp/verified.$disk" ] && printf 'VERIFIED %s\n' "$disk"
done
no_disk_errors

if [ -n "${GROWS:-}" ]; then
    name=$(disk_at "${GROWS%:*}" "${GROWS#*:}") || fail "no disk $GROWS"
    size() { printf '%s' $(($(cat "/sys/block/$name/size") * 512)); }
    printf 'SIZE %s\n' "$(size)"
    grown() { [ "$(size)" = "$GROWS_TO" ]; }
    wait_for "disk of $GROWS_TO bytes at $GROWS" grown
    # it may keep nothing: no I/O fails, and that is all
    /usr/bin/fio --name=grown --filename="/dev/$name" --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bs=4k \
        --size=2M >/tmp/fio.grown 2>&1 || fail "fio on $GROWS: $(cat /tmp/fio.grown)"
    dd if="/dev/$name" of=/dev/null bs=4k count=1 skip=$((GROWS_TO / 4096 - 1)) iflag=direct 2>/dev/null || fail "the last block"
fi

if [ -n "${GOES:-}" ]; then
    first=${DISKS%% *}
    first=$(disk_at "${first%:*}" "${first#*:}")
    keep_busy "$first"
    name=$(disk_at "${GOES%:*}" "${GOES#*:}") || fail "no disk $GOES"
    /usr/bin/fio --name=load --filename="/dev/$name" --direct=1 --ioengine=libaio --iodepth=32 --rw=randrw --bs=4k \
        --time_based --runtime=3600 >/tmp/fio.log 2>&1 &
    load=$!
    printf 'BUSY\n'
    gone "$name" || fail "$GOES stays"
    ! wait $load || fail "fio has not noticed that its disk is gone"
    kill -0 $busy || fail "the first disk has failed"
    touch /tmp/stop
    wait $busy || fail "the first disk has failed"
    ! dmesg | grep -E 'I/O error|critical' | grep "dev $first" || fail "the kernel reports errors of the first disk"
    printf 'GONE\n'
fi
