# shellcheck shell=dash
# What was synced is there after the machine was reset in the middle of writing. Run with --reboots 1 or more:
# each boot checks the files of the boot before, writes new ones, and is reset while more is being written.
# Variables: TARGET=0 LUN=0; BOOT is given by the guest's init.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
name=$(disk_at "${TARGET:-0}" "${LUN:-0}") || fail "no disk at target ${TARGET:-0}, LUN ${LUN:-0}"
mkdir -p /mnt/disk

if [ "$BOOT" -eq 1 ]; then
    /usr/sbin/mkfs.ext4 -q -F "/dev/$name" || fail "mkfs.ext4"
    mount -t ext4 "/dev/$name" /mnt/disk || fail "mount"
else
    mount -t ext4 "/dev/$name" /mnt/disk || fail "mount after the reset" # replays the journal
    (cd /mnt/disk && sha256sum -c sums) || fail "synced files are damaged after the reset"
    umount /mnt/disk
    /usr/sbin/e2fsck -fn "/dev/$name" || fail "fsck: status $?"
    mount -t ext4 "/dev/$name" /mnt/disk || fail "mount"
fi
for file in a b c d; do
    dd if=/dev/urandom of="/mnt/disk/$file$BOOT" bs=256k count=4 2>/dev/null || fail "write $file$BOOT"
done
(cd /mnt/disk && sha256sum -- [a-d]?) >/tmp/sums
cp /tmp/sums /mnt/disk/sums
sync
no_disk_errors
printf 'boot %s: %s files synced\n' "$BOOT" "$(wc -l </tmp/sums)"
# still at it when the reset comes; O_DIRECT, so that it is in the rings and not in the page cache
while :; do dd if=/dev/zero of=/mnt/disk/scratch bs=64k count=64 oflag=direct conv=notrunc 2>/dev/null; done &
