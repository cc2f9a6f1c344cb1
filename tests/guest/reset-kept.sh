# shellcheck shell=dash
# A write that the target keeps: says "KEPT" when the guest has it under way, on a line of input resets the disk with sg_reset
# ("RESET"), and then the write has to end well, since Linux sends it again.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh

name=$(disk_at 0 0) || fail "no disk"
printf 'ready\n'
read -r _
dd if=/dev/urandom of=/tmp/data bs=4k count=1 2>/dev/null
dd if=/tmp/data of="/dev/$name" bs=4k count=1 oflag=direct 2>/tmp/dd.log &
writer=$!
printf 'KEPT\n'
read -r _
kill -0 $writer || fail "the write has ended: $(cat /tmp/dd.log)"
/usr/bin/sg_reset -N -d "/dev/$name" || fail "sg_reset: status $?"
printf 'RESET\n'
wait $writer || fail "the write: $(cat /tmp/dd.log)"
dd if="/dev/$name" of=/tmp/read bs=4k count=1 iflag=direct 2>/dev/null || fail "read"
cmp -s /tmp/data /tmp/read || fail "what is read is not what was written"
no_disk_errors
