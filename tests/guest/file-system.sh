# shellcheck shell=dash
# File systems on disks, and space that goes back. For each of DISKS (a list of target:lun) and each of FILE_SYSTEMS:
# mkfs, files, a large file that is removed, fstrim, files read back, and the file system checked. The disk is
# HEADROOM_MIB larger than what is written. Says "FILLED fs disk" and "TRIMMED fs disk bytes", and waits for a line after
# each, so that the host can look.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
mkdir -p /mnt/disk
load xfs

make_xfs() { /usr/sbin/mkfs.xfs -q -f "/dev/$1" || fail "mkfs.xfs"; }
make_ext4() { /usr/sbin/mkfs.ext4 -q -F "/dev/$1" || fail "mkfs.ext4"; }
check_xfs() { /usr/sbin/xfs_repair -n "/dev/$1" >/tmp/check 2>&1 || fail "xfs_repair: $(cat /tmp/check)"; }
check_ext4() { /usr/sbin/e2fsck -fn "/dev/$1" || fail "fsck: status $?"; }
attach() { mount -t "$fs" "/dev/$name" /mnt/disk || fail "mount $fs"; }
detach() { umount /mnt/disk || fail "umount $fs"; }

one() {
    fs=$1 disk=$2
    name=$(disk_at "${disk%:*}" "${disk#*:}") || fail "no disk $disk"
    "make_$fs" "$name"
    attach
    for file in a b c d e f; do
        dd if=/dev/urandom of=/mnt/disk/$file bs=256k count=2 2>/dev/null || fail "write $file"
    done
    (cd /mnt/disk && sha256sum -- [a-f]) >/tmp/sums
    dd if=/dev/zero of=/mnt/disk/large bs=1M count=32 2>/dev/null || fail "write large"
    sync
    printf 'FILLED %s %s\n' "$fs" "$disk"
    read -r _
    rm /mnt/disk/large
    detach # xfs gives the blocks of a removed file up in its own time, and trims none that its log is busy with
    attach
    trimmed=$(fstrim -v /mnt/disk) || fail "fstrim"
    trimmed=$(printf '%s' "$trimmed" | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
    printf 'TRIMMED %s %s %s\n' "$fs" "$disk" "$trimmed"
    [ "$trimmed" -ge 33554432 ] || fail "fstrim trimmed $trimmed bytes only"
    read -r _
    detach
    attach # nothing of it is in the page cache any more
    (cd /mnt/disk && sha256sum -c /tmp/sums >/tmp/checked) || fail "checksums: $(cat /tmp/checked)"
    detach
    "check_$fs" "$name"
}

for fs in $FILE_SYSTEMS; do
    for disk in $DISKS; do one "$fs" "$disk"; done
done
no_disk_errors
