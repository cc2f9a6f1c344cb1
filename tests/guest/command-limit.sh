# shellcheck shell=dash
# The limit of commands in flight, met by a guest that was told a larger one: for each of the disks DISKS, a list of
# target:lun, COMMANDS reads of one block at once, each through the SCSI generic device, which tries nothing twice.
# "OUTCOME target:lun GOOD REFUSED" says how many of them ended how, "REASON target:lun " what a refused one was told.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh

# read_one DEVICE NUMBER: its outcome goes to /tmp/outcome.NUMBER.
read_one() {
    if /usr/bin/sg_raw --binary --request=512 --outfile="/tmp/data.$2" "$1" 28 00 00 00 00 08 00 00 01 00 \
        >"/tmp/said.$2" 2>&1; then
        echo good >"/tmp/outcome.$2"
    else
        echo refused >"/tmp/outcome.$2"
    fi
}

for disk in $DISKS; do
    name=$(disk_at "${disk%:*}" "${disk#*:}") || fail "no disk $disk"
    generic=/dev/$(basename "/sys/block/$name/device/scsi_generic"/*)
    rm -f /tmp/outcome.* /tmp/said.*
    number=0
    while [ "$number" -lt "$COMMANDS" ]; do
        read_one "$generic" "$number" &
        number=$((number + 1))
    done
    wait
    printf 'OUTCOME %s %s %s\n' "$disk" "$(grep -lx good /tmp/outcome.* | wc -l)" \
        "$(grep -lx refused /tmp/outcome.* | wc -l)"
    number=0
    while [ "$number" -lt "$COMMANDS" ]; do
        ! grep -qx refused "/tmp/outcome.$number" || printf 'REASON %s %s\n' "$disk" "$(tr '\n' ' ' <"/tmp/said.$number")"
        number=$((number + 1))
    done
done
no_disk_errors
