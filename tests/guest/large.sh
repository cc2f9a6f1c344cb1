# shellcheck shell=dash
# The largest commands that this guest can send: QEMU's vhost-user-scsi tells the guest seg_max 126, whatever the ring
# has room for, and the kernel makes segments of 64 KiB at most. 16 MiB are written in commands of 4 MiB, and read in
# commands of 126 segments. Variables: TARGET=0 LUN=0. Says "READY", "WROTE", "READ", "READ AGAIN", and waits for a line
# after each.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
name=$(disk_at "${TARGET:-0}" "${LUN:-0}") || fail "no disk at target ${TARGET:-0}, LUN ${LUN:-0}"
generic=/dev/$(basename "/sys/block/$name/device/scsi_generic"/*)
queue=/sys/block/$name/queue
expect "segments of a command" 126 "$(cat "$queue/max_segments")"
expect "bytes of a segment" 65536 "$(cat "$queue/max_segment_size")"
# the buffers of the generic driver, so that each is one segment
echo 65536 >/sys/module/sg/parameters/scatter_elem_sz
dd if=/dev/urandom of=/tmp/data bs=1M count=16 2>/dev/null

# copy ARGUMENT…: what sg_dd says matters only if it fails.
copy() { /usr/bin/sg_dd "$@" bs=512 >/tmp/said 2>&1; }
printf 'READY\n'
read -r _
copy if=/tmp/data of="$generic" bpt=8192 || fail "4 MiB in a command: $(cat /tmp/said)"
printf 'WROTE\n'
read -r _
copy if="$generic" of=/tmp/back count=32768 bpt=16128 || fail "126 segments in a command: $(cat /tmp/said)"
printf 'READ\n'
read -r _
cmp /tmp/data /tmp/back || fail "what was read is not what was written"
# 16 MiB at once are more than the driver has segments for: sg_dd makes them smaller
copy if="$generic" of=/tmp/back count=32768 bpt=32768 || fail "16 MiB in as few commands as can be: $(cat /tmp/said)"
printf 'READ AGAIN\n'
read -r _
cmp /tmp/data /tmp/back || fail "what was read again is not what was written"
no_disk_errors
# a program that asks the block layer for 16 MiB at once gets them in pieces
whole() { dd bs=16M count=1 "$@" 2>/tmp/said || fail "dd $*: $(cat /tmp/said)"; }
whole if=/tmp/data of="/dev/$name" seek=1 oflag=direct conv=notrunc
whole if="/dev/$name" of=/tmp/back skip=1 iflag=direct
cmp /tmp/data /tmp/back || fail "the block layer's 16 MiB are not what was written"
no_disk_errors
