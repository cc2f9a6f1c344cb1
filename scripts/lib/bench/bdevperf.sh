# shellcheck shell=bash
# Disks under SPDK's client: bdevperf on its virtio initiator, against its own target and ours. Sourced by scripts/bench.sh.
#
# The initiator finds its memory by the files of hugetlbfs, so it has some, and removes them at the end. It knows split rings
# only, and takes one request queue of 512. Besides the rate, the target's useful share of its core is asked for: of the same
# rate less is better, and where the client is the limit it is all that can be seen.

bdevperf_start() {
    [ -x "$SPDK/build/examples/bdevperf" ] || die "no bdevperf in $SPDK/build/examples"
    scsi_start
}

bdevperf_run() {
    local who=$1 disk rw bs depth log=$WORK/bdevperf.log before after
    IFS=/ read -r _ disk rw bs depth <<<"$2"
    cat >"$WORK/bdevperf.json" <<EOF
{"subsystems": [{"subsystem": "bdev", "config": [
  {"method": "bdev_virtio_attach_controller", "params": {
    "name": "Disk", "trtype": "user", "traddr": "${SOCKETS[$who]}", "dev_type": "scsi", "vq_count": 1, "vq_size": 512}}]}]}
EOF
    resume "$who"
    before=$("busy_seconds_$(kind_of "$who")" "$who")
    "$SPDK/build/examples/bdevperf" -m "[$CLIENT_CORE]" -s 128 -g -u -r "$WORK/bdevperf.rpc" -c "$WORK/bdevperf.json" -l \
        -T "Diskt$(scsi_target "$disk")" -q "${depth#qd}" -o $((${bs%k} * 1024)) -w "$rw" -t "$SECONDS_EACH" >"$log" 2>&1 ||
        grep -m 1 'ERROR' "$log" >&2
    after=$("busy_seconds_$(kind_of "$who")" "$who")
    pause "$who"
    # shellcheck disable=SC2034 # read by window
    [ -z "$before" ] || [ -z "$after" ] || TARGET_BUSY=$(awk -v a="$before" -v b="$after" -v t="$SECONDS_EACH" 'BEGIN { printf "%.3f", (b - a) / t }')
    bdevperf_result <"$log"
}

kind_of() { if [ "$1" = spdk ]; then echo spdk; else echo ringside; fi; }

# bdevperf_result: from the line `Total : IOPS MiB/s Fail/s TO/s average min max` and lines `99.00000% : 12.3us`.
bdevperf_result() {
    tr '\r' ' ' | awk '
        $1 == "Total" { iops = $3; failed = $5 }
        $2 == ":" && sub("us$", "", $3) { at[$1] = $3 + 0 }
        END {
            if (!iops) exit 1
            printf "{\"iops\":%s,\"errors\":%d,\"lat_us\":{\"p50\":%s,\"p99\":%s,\"p999\":%s}}\n", iops, failed, at["50.00000%"] + 0,
                at["99.00000%"] + 0, at["99.90000%"] + 0
        }'
}

# Seconds of work of the target's poller since its start, or nothing if it does not say.
busy_seconds_ringside() {
    local metrics
    metrics=$(sed -n 's|.*\(http://127.0.0.1:[0-9]*/metrics\).*|\1|p' "$WORK/$1.log" | head -n 1)
    [ -z "$metrics" ] || ! command -v curl >/dev/null || curl -s "$metrics" | sed -n 's/^ringside_poller_seconds_total{.*mode="busy".*} //p' | head -n 1
}

busy_seconds_spdk() {
    "$SPDK/scripts/rpc.py" -s "$WORK/spdk.rpc" thread_get_stats 2>/dev/null |
        awk -F'[:,]' '/"tick_rate"/ { rate = $2 } /"busy"/ { busy += $2 } END { if (rate) printf "%.6f", busy / rate }'
}
