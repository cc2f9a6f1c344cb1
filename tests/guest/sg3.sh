# shellcheck shell=dash
# Every tool of sg3-utils that has something to ask of a disk, on each of DISKS (a list of target:lun=blocksize), and
# the values in its answers that matter. Blocks written here say which they are, so that the host can look at its files:
# "block n of DISK" for n from 0 to 15; block 0 is then replaced by block 1; 64 to 95 are unmapped, 128 to 143 are all
# block 2, 160 to 175 are written and unmapped again by WRITE SAME.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh

# run STATUS TOOL ARGUMENT…: its exit status must be that; its output is in /tmp/said.
run() {
    local wanted=$1 status=0 tool=$2
    shift 2
    "/usr/bin/$tool" "$@" >/tmp/said 2>&1 || status=$?
    [ $status -eq "$wanted" ] || fail "$tool $*: status $wanted expected, $status found: $(cat /tmp/said)"
}

# says PATTERN…: each of these is in what the last tool said.
says() {
    local pattern
    for pattern in "$@"; do
        grep -Eq -e "$pattern" /tmp/said || fail "$disk: no '$pattern' in: $(cat /tmp/said)"
    done
}

# blocks FIRST COUNT: as they are written.
blocks() {
    local n=$1
    while [ "$n" -lt $(($1 + $2)) ]; do
        yes "block $n of $disk" | head -c "$size"
        n=$((n + 1))
    done
}

# read_blocks FIRST COUNT: from the medium.
read_blocks() { dd if="$device" bs="$size" skip="$1" count="$2" iflag=direct 2>/dev/null; }
same() { cmp /tmp/a /tmp/b || fail "$disk: $1"; }

identity() {
    run 0 sg_inq "$device"
    says 'version=0x06' 'CmdQue=1' 'Resp_data_format=2' 'HiSUP=1' 'Vendor identification: RINGSIDE' \
        'serial number: .*[^ ]'
    run 0 sg_vpd -a "$device"
    says 'Device Identification VPD' 'NAA' 'T10 vendor identification' "Maximum transfer length: $((65535 * 512 / size)) blocks" \
        'Maximum compare and write length: 255 blocks' 'Maximum write same length: 0x(ffff|2000) blocks' \
        'Maximum unmap LBA count: [1-9]' 'Maximum unmap block descriptor count: [1-9]' 'Non-rotating medium' \
        '\(LBPU\): 1' '\(LBPWS\): 1' '\(LBPWS10\): 1' '\(LBPRZ\): 1' 'Provisioning type: [12]' \
        'HEADSUP=1 ORDSUP=1 SIMPSUP=1'
    ! grep -i 'unable\|malformed' /tmp/said || fail "$disk: sg_vpd: $(cat /tmp/said)"
    run 0 sg_readcap -l "$device"
    says "Logical block length=$size bytes" 'lbpme=1, lbprz=1' 'prot_en=0' "Device size: $bytes bytes"
    run 0 sg_luns "$device"
    says 'Lun list length = 24 ' '0000000000000000' '0001000000000000' '0002000000000000'
    run 0 sg_opcodes "$device"
    says 'Unmap' 'Compare and write' 'Write same\(16\)' 'Verify\(10\)' 'Write and verify\(16\)' 'Pre-fetch\(10\)' \
        'Read\(6\)' 'Report luns' 'Report supported task management functions'
    run 0 sg_opcodes --tmf "$device"
    says 'Abort task' 'Abort task set' 'Logical unit reset' 'I_T nexus reset' 'Query task'
    run 0 sg_opcodes --opcode=0x42 "$device"
    says 'supported' 'Usage data: 42 '
}

state() {
    run 0 sg_modes -a "$device"
    says 'WP=0' 'DpoFua=1' 'Caching, page_control: current' 'Control, page_control: current' '^ 00     0a 0a 02 10 '
    run 0 sg_logs -a "$device"
    says 'Supported log pages' 'Temperature' 'General Statistics' 'number of read commands = [1-9]' 'Idle time' \
        'time interval' 'Informational Exceptions'
    ! grep -i 'unable\|too short' /tmp/said || fail "$disk: sg_logs: $(cat /tmp/said)"
    run 0 sg_turs "$device"
    run 0 sg_requests "$device"
    says 'No Sense'
    run 0 sg_prevent "$device"
    run 0 sg_prevent --allow "$device"
    run 0 sg_sync "$device"
    run 9 sg_persist -k "$device" # 05/20/00: not offered
    run 22 sg_raw -r "$size" "$device" 28 00 ff ff ff fe 00 00 01 00
    says 'Logical block address out of range'
    run 9 sg_raw "$device" 5e ff 00 00 00 00 00 00 00 00
    says 'Invalid command operation code'
}

medium() {
    blocks 0 16 >/tmp/data
    dd if=/tmp/data of="$device" bs="$size" oflag=direct conv=notrunc,fsync 2>/dev/null || fail "$disk: write"
    run 0 sg_verify --lba=0 --count=16 "$device"
    run 0 sg_verify --lba=0 --count=16 --ndo=$((16 * size)) --in=/tmp/data "$device"
    run 0 sg_verify --16 --lba=0 --count=16 --ndo=$((16 * size)) --in=/tmp/data "$device"
    { head -c $((16 * size - 1)) /tmp/data && printf '#'; } >/tmp/other
    run 14 sg_verify --lba=0 --count=16 --ndo=$((16 * size)) --in=/tmp/other "$device"
    says 'Miscompare'

    head -c "$size" /tmp/data >/tmp/first
    blocks 1 1 >/tmp/second
    run 0 sg_compare_and_write --lba=0 --num=1 --xferlen=$((2 * size)) --inc=/tmp/first --inw=/tmp/second "$device"
    run 14 sg_compare_and_write --lba=0 --num=1 --xferlen=$((2 * size)) --inc=/tmp/first --inw=/tmp/first "$device"
    says 'Miscompare at byte offset: 6 '
    read_blocks 0 1 >/tmp/a
    cp /tmp/second /tmp/b
    same "the compare and write that compared equal is there, the other is not"

    blocks 64 32 | dd of="$device" bs="$size" seek=64 iflag=fullblock conv=notrunc,fsync 2>/dev/null ||
        fail "$disk: write"
    run 0 sg_unmap --force --lba=64 --num=32 "$device"
    read_blocks 64 32 >/tmp/a
    head -c $((32 * size)) /dev/zero >/tmp/b
    same "unmapped blocks read as zeroes"

    blocks 2 1 >/tmp/one
    run 0 sg_write_same --16 --lba=128 --num=16 --xferlen="$size" --in=/tmp/one "$device"
    run 0 sg_write_same --10 --lba=160 --num=16 --xferlen="$size" --in=/tmp/one "$device"
    read_blocks 128 16 >/tmp/a
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat /tmp/one; done >/tmp/b
    same "WRITE SAME (16)"
    read_blocks 160 16 >/tmp/a
    same "WRITE SAME (10)"
    run 0 sg_write_same --16 --unmap --lba=160 --num=16 --xferlen="$size" "$device"
    read_blocks 160 16 >/tmp/a
    head -c $((16 * size)) /dev/zero >/tmp/b
    same "WRITE SAME with UNMAP"
}

# allocation: only some disks know, and those that do not say so.
allocation() {
    /usr/bin/sg_opcodes "$device" | grep -q 'Get LBA status' || {
        run 5 sg_get_lba_status --lba=64 "$device"
        printf 'ALLOCATION %s unknown\n' "$disk"
        return 0
    }
    run 0 sg_get_lba_status --lba=0 "$device"
    says 'LBA: 0x0*  .*mapped'
    run 0 sg_get_lba_status --lba=64 "$device"
    says 'LBA: 0x0*40  .*deallocated'
    printf 'ALLOCATION %s known\n' "$disk"
}

# write_cache: as the disk says, and as the guest wants it, until the next reset.
write_cache() {
    local type
    type=$(echo /sys/class/scsi_disk/*:"$disk"/cache_type)
    [ "$(cat "$type")" = 'write back' ] || return 0
    printf 'write through' >"$type" || fail "$disk: MODE SELECT"
    run 0 sg_modes --page=8 "$device"
    says '^ 00     08 12 00 '
}

reset() {
    run 0 sg_reset -N -d "$device"
    run 0 sg_requests "$device"
    says 'Unit Attention' 'Bus device reset function occurred'
    run 0 sg_requests "$device"
    says 'No Sense'
    run 0 sg_modes --page=8 "$device"
    says "^ 00     08 12 0$cache "
}

for entry in $DISKS; do
    disk=${entry%=*} size=${entry#*=}
    name=$(disk_at "${disk%:*}" "${disk#*:}") || fail "no disk $disk"
    device=/dev/$name bytes=$(($(cat "/sys/block/$name/size") * 512))
    expect "block size of $disk" "$size" "$(cat "/sys/block/$name/queue/logical_block_size")"
    cache=$(grep -q 'write back' /sys/class/scsi_disk/*:"$disk"/cache_type && echo 4 || echo 0)
    printf 'CACHE %s %s\n' "$disk" "$cache"
    identity
    state
    medium
    allocation
    write_cache
    reset
    printf 'DONE %s\n' "$disk"
done
