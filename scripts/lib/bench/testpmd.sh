# shellcheck shell=bash
# Net devices under DPDK's client: testpmd on virtio-user, against DPDK's vhost PMD, ours, and the sink. Sourced by
# scripts/bench.sh.
#
# Targets are those of net.sh. Towards the port the client sends what its own net_null gives it, so that no generator is the
# limit. Frames are counted where the client sees them.
#
# packed-vector is a packed ring under the client's loop with AVX-512, which it has for rings in order and frames of one
# buffer. Targets serve it like any other.

testpmd_start() {
    net_start
    [[ ${CASES[*]} = */packed-vector* ]] || return 0
    grep -qw avx512f /proc/cpuinfo || net_leave_out '*/packed-vector' "DPDK's vector loops of packed rings: no AVX-512 here"
}

testpmd_run() {
    local direction size ring status=0
    IFS=/ read -r _ direction size ring <<<"$2"
    net_serve "$1" "$direction" "${size%B}" "$ring"
    testpmd_client "$direction" "${size%B}" "$ring" || status=$?
    stop_targets
    return $status
}

# testpmd_client tx|rx BYTES RING: packets a second, as the client counts them.
testpmd_client() {
    local log=$WORK/client.log key=Rx-pps mode=rxonly ring=packed_vq=1 eal=() to rate
    case $3 in
    split) ring=packed_vq=0 ;;
    packed-vector)
        ring+=,in_order=1,mrg_rxbuf=0,vectorized=1
        eal=(--force-max-simd-bitwidth=512 --log-level=pmd.net.virtio.init:info) # it says which loops it takes
        ;;
    esac
    local devices=(--vdev "net_virtio_user0,path=$NET_SOCKET,queues=1,queue_size=256,$ring")
    if [ "$1" = tx ]; then
        key=Tx-pps mode=io
        devices+=(--vdev "net_null0,size=$2")
    fi
    coproc CLIENT {
        exec stdbuf -oL dpdk-testpmd --lcores "0@$CLIENT_CORE,1@$CLIENT_CORE" --no-pci --in-memory --single-file-segments -m 128 \
            "${eal[@]}" "${devices[@]}" -- -i --txd=256 --rxd=256 --total-num-mbufs=8192 >"$log" 2>&1
    }
    # shellcheck disable=SC2153 # CLIENT_PID is the coprocess's
    local pid=$CLIENT_PID
    to=${CLIENT[1]}
    printf 'set fwd %s\nstart\n' "$mode" >&"$to"
    testpmd_await "$pid" "$log" 'packet forwarding' 1
    if [ "$3" = packed-vector ] && ! grep -qi "packed ring vectorized $1 path" "$log"; then
        printf 'stop\nquit\n' >&"$to"
        wait "$pid" 2>/dev/null || true
        echo "the client took no vector loop: $(grep -i 'virtio.*path' "$log" | tr '\n' ' ')" >&2
        return 1
    fi
    sleep "$WARMUP"
    echo 'show port stats 0' >&"$to" # the rates count from here
    testpmd_await "$pid" "$log" "$key" 1
    sleep "$SECONDS_EACH"
    echo 'show port stats 0' >&"$to"
    testpmd_await "$pid" "$log" "$key" 2
    printf 'stop\nquit\n' >&"$to"
    wait "$pid" 2>/dev/null || true
    rate=$(sed -n "s/.*$key: *\([0-9]*\).*/\1/p" "$log" | tail -n 1)
    awk -v pps="${rate:-0}" 'BEGIN { printf "{\"mpps\":%.6f}\n", pps / 1e6; exit !pps }'
}

# testpmd_await PID LOG WORDS COUNT: until so many lines of the client's log have the words.
testpmd_await() { await "$1" "$2" "'$3' of the client" testpmd_said "$2" "$3" "$4"; }

testpmd_said() { [ "$(grep -c "$2" "$1")" -ge "$3" ]; }
