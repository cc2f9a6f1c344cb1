# shellcheck shell=dash
# A system that firmware has loaded from the disk. Variables: FIRMWARE=bios|uefi, which must have been the one.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
name=$(disk_at 0 0) || fail "no disk"
loader=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^firmware=//p')
expect "firmware" "$FIRMWARE" "$loader"
uefi=$([ -d /sys/firmware/efi ] && echo uefi || echo bios)
expect "firmware that the kernel found" "$FIRMWARE" "$uefi"
printf 'DISK %s\n' "$(head -c 4194304 "/dev/$name" | sha256sum)"
no_disk_errors
