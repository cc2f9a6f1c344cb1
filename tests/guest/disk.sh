# shellcheck shell=dash
# A disk is what it should be, and a file system on it keeps what it was given.
# Variables: TARGET=0 LUN=0; expected when given: KERNEL (its series) SIZE_BYTES VENDOR MODEL SERIAL; FILES=24 of
# 256 KiB each.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
TARGET=${TARGET:-0} LUN=${LUN:-0} FILES=${FILES:-24}

name=$(disk_at "$TARGET" "$LUN") || fail "no disk at target $TARGET, LUN $LUN"
device=/sys/block/$name/device
trimmed() { sed 's/ *$//' "$1"; }

expect "kernel" "${KERNEL:-}" "$(uname -r | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')"
expect "size in bytes" "${SIZE_BYTES:-}" $(($(cat "/sys/block/$name/size") * 512))
expect "vendor" "${VENDOR:-}" "$(trimmed "$device/vendor")"
expect "model" "${MODEL:-}" "$(trimmed "$device/model")"
# VPD page 80h: a header of 4 bytes, then the serial number
expect "serial" "${SERIAL:-}" "$(tail -c +5 "$device/vpd_pg80" 2>/dev/null | tr -d '\0' | sed 's/^ *//; s/ *$//')"

/usr/sbin/mkfs.ext4 -q -F "/dev/$name" || fail "mkfs.ext4"
mkdir -p /mnt/disk
attach() { mount -t ext4 "/dev/$name" /mnt/disk || fail "mount"; }
detach() { umount /mnt/disk || fail "umount"; }
check_fs() { /usr/sbin/e2fsck -fn "/dev/$name" || fail "fsck: status $?"; }

attach
i=0
while [ $i -lt "$FILES" ]; do
    mkdir -p "/mnt/disk/d$((i % 4))"
    dd if=/dev/urandom of="/mnt/disk/d$((i % 4))/f$i" bs=256k count=1 2>/dev/null || fail "write f$i"
    i=$((i + 1))
done
(cd /mnt/disk && find d* -type f | sort | xargs sha256sum) >/tmp/sums
sync
detach
check_fs

attach # nothing of it is in the page cache any more
(cd /mnt/disk && sha256sum -c /tmp/sums >/tmp/checked) || fail "checksums: $(grep -v ': OK' /tmp/checked)"
expect "files read back" "$FILES" "$(grep -c ': OK' /tmp/checked)"
rm -r /mnt/disk/d0 /mnt/disk/d1
detach
check_fs
no_disk_errors
