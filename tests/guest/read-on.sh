# shellcheck shell=dash
# Reads the raw disk over and over, past everything that happens to the target, until a line comes on the console.
# Says "READS n" after each round. Variables: TARGET=0 LUN=0.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
name=$(disk_at "${TARGET:-0}" "${LUN:-0}") || fail "no disk at target ${TARGET:-0}, LUN ${LUN:-0}"

read_on() {
    n=0
    while [ ! -e /tmp/stop ]; do
        dd if="/dev/$name" of=/dev/null bs=64k count=16 iflag=direct 2>/tmp/dd || return 1
        n=$((n + 1))
        printf 'READS %s\n' $n
    done
}

read_on &
reader=$!
read -r _
touch /tmp/stop
wait $reader || fail "dd: $(cat /tmp/dd)"
no_disk_errors
