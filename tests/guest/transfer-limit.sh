# shellcheck shell=dash
# The limit of a transfer: Linux keeps to it, and a program that does not is told so. For each of the disks DISKS, a
# list of target:lun: one READ(10) of SECTORS sectors of 512 bytes through the SCSI generic device succeeds, one of a
# block more does not. What sg_raw says then is printed after "REFUSED target:lun ".
# shellcheck source=scripts/guest/functions.sh
. /functions.sh

# read_sectors DEVICE COUNT: one command; its outcome is sg_raw's exit status, its words go to /tmp/said.
read_sectors() {
    /usr/bin/sg_raw --binary --request=$(($2 * 512)) --outfile=/tmp/data "$1" 28 00 00 00 00 00 00 \
        "$(printf '%02x' $(($2 / 256)))" "$(printf '%02x' $(($2 % 256)))" 00 >/tmp/said 2>&1
}

for disk in $DISKS; do
    name=$(disk_at "${disk%:*}" "${disk#*:}") || fail "no disk $disk"
    generic=/dev/$(basename "/sys/block/$name/device/scsi_generic"/*)
    expect "max_sectors_kb of $disk" $((SECTORS / 2)) "$(cat "/sys/block/$name/queue/max_sectors_kb")"
    dd if="/dev/$name" of=/dev/null bs=1M count=4 iflag=direct || fail "the block layer's reads of $disk"
    no_disk_errors
    read_sectors "$generic" "$SECTORS" || fail "$SECTORS sectors of $disk: $(cat /tmp/said)"
    ! read_sectors "$generic" $((SECTORS + 1)) || fail "one sector too many was read from $disk"
    printf 'REFUSED %s %s\n' "$disk" "$(tr '\n' ' ' </tmp/said)"
done
