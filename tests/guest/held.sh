# shellcheck shell=dash
# A disk is written and read back, 8 MiB of noise; then "HELD" is said, and the guest waits for a line to end.
# Variables: TARGET=0 LUN=0.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
name=$(disk_at "${TARGET:-0}" "${LUN:-0}") || fail "no disk at target ${TARGET:-0}, LUN ${LUN:-0}"
dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null
dd if=/tmp/data of="/dev/$name" bs=1M oflag=direct conv=notrunc,fsync 2>/dev/null || fail "write"
dd if="/dev/$name" of=/tmp/back bs=1M count=8 iflag=direct 2>/dev/null || fail "read"
cmp /tmp/data /tmp/back || fail "what was read is not what was written"
no_disk_errors
printf 'HELD\n'
read -r _
