# shellcheck shell=dash
# Files that were fsynced survive a machine that is killed in the middle of writing.
# Variables: TARGET=0 LUN=0. Without SYNCED: writes files for ever, and says "SYNCED n" when the fsync of file n has
# returned. With SYNCED=n, in the machine after: files 1 to n are there and whole, and the disk can be written again.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
name=$(disk_at "${TARGET:-0}" "${LUN:-0}") || fail "no disk at target ${TARGET:-0}, LUN ${LUN:-0}"
mkdir -p /mnt/disk
contents() { yes "this is file $1" | head -c 12345; }
write() { contents "$1" | dd of="/mnt/disk/file$1" bs=16k conv=fsync 2>/dev/null; }
attach() { mount -t ext4 "/dev/$name" /mnt/disk || fail "mount"; }

if [ -z "${SYNCED:-}" ]; then
    /usr/sbin/mkfs.ext4 -q -F "/dev/$name" || fail "mkfs.ext4"
    attach
    # always something in the rings, whatever the file system is waiting for
    while :; do dd if=/dev/zero of=/mnt/disk/scratch bs=64k count=64 oflag=direct conv=notrunc 2>/dev/null; done &
    n=0
    while :; do
        n=$((n + 1))
        write $n || fail "write $n"
        printf 'SYNCED %s\n' $n
    done
fi

attach # replays the journal
n=0
while [ $n -lt "$SYNCED" ]; do
    n=$((n + 1))
    contents $n | cmp - /mnt/disk/file$n || fail "file $n of $SYNCED is damaged"
done
expect "files whole" "$SYNCED" $n
write $((n + 1)) || fail "write again"
umount /mnt/disk || fail "umount"
/usr/sbin/e2fsck -fn "/dev/$name" || fail "fsck: status $?"
no_disk_errors
