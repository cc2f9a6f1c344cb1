# shellcheck shell=dash
# Random reads and writes from several CPUs at once, every block checked by its checksum. Needs --with-fio.
# Variables: TARGET=0 LUN=0 JOBS=4 JOB_MIB=24 DEPTH=16; QUEUES: so many hardware queues are expected when given.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
name=$(disk_at "${TARGET:-0}" "${LUN:-0}") || fail "no disk at target ${TARGET:-0}, LUN ${LUN:-0}"
jobs=${JOBS:-4} mib=${JOB_MIB:-24}

expect "hardware queues" "${QUEUES:-}" "$(find "/sys/block/$name/mq" -mindepth 1 -maxdepth 1 | wc -l)"
# each job on a CPU of its own while there are enough, so that each uses the queue of that CPU
/usr/bin/fio --name=verify --filename="/dev/$name" --direct=1 --ioengine=libaio --iodepth="${DEPTH:-16}" \
    --rw=randrw --bsrange=4k-64k --verify=crc32c --verify_fatal=1 --verify_backlog=256 \
    --numjobs="$jobs" --size="${mib}M" --offset_increment="${mib}M" \
    --cpus_allowed="0-$(($(nproc) - 1))" --cpus_allowed_policy=split --group_reporting ||
    fail "fio: status $?"
no_disk_errors
