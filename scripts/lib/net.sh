# shellcheck shell=bash
# The packet rate of a net device on a DPDK port, in turns with DPDK's own vhost PMD: the same client, the same core, the
# same port. Sourced by bench.sh.
#
# The target moves frames between a virtqueue and net_null, which takes everything and has frames without end: ringside with
# a port of kind dpdk, dpdk-testpmd with `--vdev net_vhost0` forwarding in io mode. The client is dpdk-testpmd on virtio-user:
# towards the port it sends what its own net_null gives it, so that no generator is the limit. Frames are counted where the
# client sees them. Each window has a target and a client of its own.

NET_WINDOWS=''
# name, direction, bytes of a frame, what virtio-user is told of its rings
readonly NET_CASES=(
    'guest to port 64 B|tx|64|packed_vq=0'
    'port to guest 64 B|rx|64|packed_vq=0'
    'guest to port 1518 B|tx|1518|packed_vq=0'
    'port to guest 1518 B|rx|1518|packed_vq=0'
    'guest to port 64 B packed|tx|64|packed_vq=1'
    'port to guest 64 B packed|rx|64|packed_vq=1'
)

net_section() {
    if ! command -v dpdk-testpmd >/dev/null; then
        warn "no dpdk-testpmd: net devices are not measured (scripts/setup.sh --only dpdk)"
        return 0
    fi
    NET_WINDOWS=$OUT/net-windows
    rm -f "$NET_WINDOWS"
    say ''
    say "net devices: one poller between virtio-user (rings of 256) and net_null, in turns with DPDK's vhost PMD"
    local round case
    for ((round = 1; round <= REPEATS; round++)); do
        for case in "${NET_CASES[@]}"; do
            net_window ringside "$round" "$case"
            net_window dpdk "$round" "$case"
        done
    done
    net_summary
}

net_window() {
    local who=$1 round=$2 name direction bytes rings before after rate socket=$WORK/net.sock
    IFS='|' read -r name direction bytes rings <<<"$3"
    before=$(probe)
    "net_start_$who" "$socket" "$direction" "$bytes"
    rate=$(net_rate "$socket" "$direction" "$bytes" "$rings")
    stop_targets
    rm -f "$socket"
    after=$(probe)
    printf '%s|%s|%s|%.0f\n' "$who" "$name" "$(class "${before%.*}" "${after%.*}")" "$rate" >>"$NET_WINDOWS"
    printf '%-9s %-24s %2d/%d  %10.0f packets/s  cores %s/%s ns\n' "$who" "$name" "$round" "$REPEATS" "$rate" \
        "${before%.*}" "${after%.*}"
}

# net_null of a target: a source only where the target is to have frames.
net_null() {
    if [ "$1" = rx ]; then echo "net_null0,size=$2"; else echo "net_null0,size=$2,no-rx=1"; fi
}

net_start_ringside() {
    cat >"$WORK/net.toml" <<TOML
[reactor]
cores = [$TARGET_CORE]
idle = "busy"
[metrics]
listen = "127.0.0.1:0"
[[port]]
name = "null"
kind = "dpdk"
device = "$(net_null "$2" "$3")"
[[net]]
name = "bench"
socket = "$1"
port = "null"
TOML
    $RINGSIDE serve --config "$WORK/net.toml" 2>"$WORK/net.log" &
    PIDS+=($!)
    await_socket "$1" $! "$WORK/net.log"
}

net_start_dpdk() {
    # Its standard input stays open: at its end testpmd would end, too.
    dpdk-testpmd --lcores "0@$TARGET_CORE,1@$TARGET_CORE" --no-pci --in-memory --single-file-segments -m 128 \
        --vdev "net_vhost0,iface=$1,queues=1" --vdev "$(net_null "$2" "$3")" \
        -- --forward-mode=io --txd=256 --rxd=256 --total-num-mbufs=8192 \
        <> <(:) >"$WORK/net.log" 2>&1 &
    PIDS+=($!)
    await_socket "$1" $! "$WORK/net.log"
}

# net_rate SOCKET tx|rx BYTES RINGS: packets a second, as the client counts them.
net_rate() {
    local log=$WORK/client.log key=Rx-pps mode=rxonly
    local devices=(--vdev "net_virtio_user0,path=$1,queues=1,queue_size=256,$4")
    if [ "$2" = tx ]; then
        key=Tx-pps mode=io
        devices+=(--vdev "net_null0,size=$3")
    fi
    coproc CLIENT {
        exec stdbuf -oL dpdk-testpmd --lcores "0@$CLIENT_CORE,1@$CLIENT_CORE" --no-pci --in-memory --single-file-segments -m 128 \
            "${devices[@]}" -- -i --txd=256 --rxd=256 --total-num-mbufs=8192 >"$log" 2>&1
    }
    # shellcheck disable=SC2153 # CLIENT_PID is the coprocess's
    local pid=$CLIENT_PID to=${CLIENT[1]}
    printf 'set fwd %s\nstart\n' "$mode" >&"$to"
    net_await "$pid" "$log" 'packet forwarding' 1
    sleep 0.5 # warm-up
    echo 'show port stats 0' >&"$to" # the rates count from here
    net_await "$pid" "$log" "$key" 1
    sleep "$SECONDS_EACH"
    echo 'show port stats 0' >&"$to"
    net_await "$pid" "$log" "$key" 2
    printf 'stop\nquit\n' >&"$to"
    wait "$pid" 2>/dev/null || true
    sed -n "s/.*$key: *\([0-9]*\).*/\1/p" "$log" | tail -n 1
}

# net_await PID LOG WORDS COUNT: until so many lines of the client's log have the words.
net_await() { await "$1" "$2" "'$3' of the client" net_said "$2" "$3" "$4"; }

net_said() { [ "$(grep -c "$2" "$1")" -ge "$3" ]; }

net_summary() {
    say ''
    printf '%-26s %-6s %14s %4s %14s %4s %8s\n' case cores 'ringside pps' n 'DPDK pps' n ratio
    local case name class ours theirs n m
    for case in "${NET_CASES[@]}"; do
        name=${case%%|*}
        for class in near mixed far; do
            read -r ours n < <(median ringside "$name" $class "$NET_WINDOWS")
            read -r theirs m < <(median dpdk "$name" $class "$NET_WINDOWS")
            [ $((n + m)) -gt 0 ] || continue
            printf '%-26s %-6s %14s %4s %14s %4s %8s\n' "$name" $class "$ours" "$n" "$theirs" "$m" "$(ratio "$ours" "$theirs")"
        done
    done
}
