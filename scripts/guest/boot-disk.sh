#!/usr/bin/env bash
# Makes a disk that SeaBIOS and UEFI firmware boot the small guest from, to run a script in it.
#
#   scripts/guest/boot-disk.sh --run FILE [--env KEY=VALUE]… [--timeout 180] [--image-dir DIR] OUT_FILE
#
# OUT_FILE becomes a raw disk of 64 MiB: GRUB for a BIOS before the one partition, and in that, a FAT file system, GRUB
# for UEFI, the kernel and its initramfs. The kernel's command line ends with firmware=bios or firmware=uefi, so that
# the guest can tell who loaded it. DIR is where the guest's image is (default: $GUEST_DIR, else .build/guest).
# Boot it with qemu-guest.sh --boot bios|uefi.
# Not here: the guest's image (build.sh), installing what this needs (setup.sh --only guest).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib/output.sh
. "$HERE/lib/output.sh"
# shellcheck source=scripts/lib/guest.sh
. "$HERE/lib/guest.sh"

readonly DISK_SECTORS=131072 PARTITION_START=2048
readonly GRUB=/usr/lib/grub
RUN='' TIMEOUT=180 OUT='' PARAMETERS=()
IMAGE_DIR=${GUEST_DIR:-${HERE%/*}/.build/guest}

main() {
    parse_arguments "$@"
    require_tools
    "$HERE/guest/build.sh" "$IMAGE_DIR" >/dev/null
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    run_archive "$WORK/files" "$RUN" GUEST_TIMEOUT=$((TIMEOUT - TIMEOUT / 6 - 5)) GUEST_BOOTS=1 \
        "${PARAMETERS[@]}" >"$WORK/run.cpio"
    cat "$IMAGE_DIR/base.cpio" "$IMAGE_DIR/kernel/modules.cpio" "$WORK/run.cpio" >"$WORK/initrd"
    truncate -s 0 "$OUT"
    truncate -s $((DISK_SECTORS * 512)) "$OUT"
    add_partition
    boot_by_bios
    boot_by_uefi
}

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --run) RUN=$2 && shift 2 ;;
        --env) PARAMETERS+=("$2") && shift 2 ;;
        --timeout) TIMEOUT=$2 && shift 2 ;;
        --image-dir) IMAGE_DIR=$2 && shift 2 ;;
        -h | --help) usage "$0" && exit 0 ;;
        -*) die "unknown option '$1'" "see scripts/guest/boot-disk.sh --help" ;;
        *) OUT=$1 && shift ;;
        esac
    done
    local parameter
    for parameter in "${PARAMETERS[@]}"; do
        is_parameter "$parameter" || die "--env: '$parameter' is not KEY=VALUE without quotes"
    done
    [ -r "$RUN" ] || die "--run: cannot read '$RUN'"
    [ -n "$OUT" ] || die "no OUT_FILE" "see scripts/guest/boot-disk.sh --help"
}

require_tools() {
    local need missing=()
    for need in cpio grub-mkimage mformat mcopy; do
        command -v $need >/dev/null || missing+=("$need")
    done
    for need in $GRUB/i386-pc/boot.img $GRUB/x86_64-efi/linux.mod; do
        [ -e "$need" ] || missing+=("$need")
    done
    [ ${#missing[@]} -eq 0 ] || die "not installed: ${missing[*]}" "run scripts/setup.sh --only guest"
}

# put OFFSET: standard input into the disk.
put() { dd of="$OUT" bs=512 seek="$1" oflag=seek_bytes conv=notrunc status=none; }

# little_endian NUMBER: 4 bytes.
little_endian() {
    local byte
    for byte in $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24)); do
        # shellcheck disable=SC2059 # the format is made here
        printf "\\x$(printf %02x $byte)"
    done
}

# add_partition: a partition table with one EFI system partition (type EFh, bootable) and a FAT file system in it.
add_partition() {
    local length=$((DISK_SECTORS - PARTITION_START))
    {
        printf '\x80\xfe\xff\xff\xef\xfe\xff\xff'
        little_endian $PARTITION_START
        little_endian $length
    } | put 446
    printf '\x55\xaa' | put 510
    PARTITION=$OUT@@$((PARTITION_START * 512))
    mformat -i "$PARTITION" -T $length -h 16 -s 63 -H $PARTITION_START ::
    mcopy -i "$PARTITION" "$IMAGE_DIR/kernel/vmlinuz" ::vmlinuz
    mcopy -i "$PARTITION" "$WORK/initrd" ::initrd
}

# boot_by_bios: boot.img loads the sectors behind it, which hold the rest of GRUB.
boot_by_bios() {
    head -c 440 $GRUB/i386-pc/boot.img | put 0
    grub_image bios i386-pc '(hd0,msdos1)' biosdisk
    [ "$(stat -c %s "$WORK/grub.bios")" -le $(((PARTITION_START - 1) * 512)) ] || die "GRUB for a BIOS is too large"
    put 512 <"$WORK/grub.bios"
}

boot_by_uefi() {
    # the firmware tells GRUB which partition it came from
    # shellcheck disable=SC2016 # GRUB's variable
    grub_image uefi x86_64-efi '($root)'
    mmd -i "$PARTITION" ::EFI ::EFI/BOOT
    mcopy -i "$PARTITION" "$WORK/grub.uefi" ::EFI/BOOT/BOOTX64.EFI
}

# grub_image FIRMWARE FORMAT DISK MODULE…: GRUB with its script inside.
grub_image() {
    local firmware=$1 format=$2 disk=$3
    shift 3
    cat >"$WORK/grub.cfg" <<SCRIPT
linux $disk/vmlinuz $KERNEL_ARGS quiet firmware=$firmware
initrd $disk/initrd
boot
SCRIPT
    grub-mkimage -O "$format" -p / -c "$WORK/grub.cfg" -o "$WORK/grub.$firmware" part_msdos fat linux "$@"
}

main "$@"
