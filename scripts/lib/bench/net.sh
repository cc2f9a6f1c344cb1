# shellcheck shell=bash
# Net devices under our own client: ringside and DPDK's vhost PMD. Under DPDK's (testpmd.sh) also the sink, a device of our
# client's that gives every chain back unseen. Sourced by scripts/bench.sh.
#
# With tx and rx the target moves frames between a virtqueue and net_null, which takes everything and has frames without end:
# ringside with a port of kind dpdk, dpdk-testpmd with `--vdev net_vhost0` forwarding in io mode. With loop frames come back:
# ringside's through a loopback port, testpmd's through net_ring, which is a loop to itself. Each window has a target of its
# own, as the size of net_null's frames is one of its arguments.

NET_SOCKET='' NET_PACKED=''

net_start() {
    NET_SOCKET=$WORK/net.sock
    net_ask_for_packed
}

# net_ask_for_packed: leaves cases with packed rings out where our device does not offer them.
net_ask_for_packed() {
    [[ ${CASES[*]} = */packed* ]] || return 0
    if [ -z "$NET_PACKED" ]; then
        net_serve ringside loop 64 split
        NET_PACKED=no
        ! $RINGSIDE bench net --socket "$NET_SOCKET" --ring packed --frames 1 --json >/dev/null 2>&1 || NET_PACKED=yes
        stop_targets
    fi
    [ $NET_PACKED = yes ] || net_leave_out '*/packed*' "packed rings of net devices: not offered"
}

# net_leave_out PATTERN WHY: cases with such a name.
net_leave_out() {
    local name kept=()
    for name in "${CASES[@]}"; do
        # shellcheck disable=SC2053 # the pattern is one
        if [[ $name = $1 ]]; then PLANNED=$((PLANNED - $(windows_of "$name"))); else kept+=("$name"); fi
    done
    warn "SKIPPED: $2"
    CASES=("${kept[@]}")
}

net_run() {
    local who=$1 direction size ring status=0
    IFS=/ read -r _ direction size ring <<<"$2"
    net_serve "$who" "$direction" "${size%B}" "$ring"
    $RINGSIDE bench net --socket "$NET_SOCKET" --mode "$direction" --size "${size%B}" --ring "$ring" --time "$SECONDS_EACH" \
        --warmup "$WARMUP" --core "$CLIENT_CORE" --json || status=$?
    stop_targets
    return $status
}

# net_serve WHO DIRECTION BYTES RING
net_serve() {
    rm -f "$NET_SOCKET"
    case $1 in
    dpdk) net_serve_dpdk "${@:2}" ;;
    sink) net_serve_sink "${@:2}" ;;
    *) net_serve_ringside "$@" ;;
    esac
}

net_serve_sink() {
    $RINGSIDE bench sink --socket "$NET_SOCKET" --mode "$1" --size "$2" --core "$TARGET_CORE" 2>"$WORK/sink.log" &
    PIDS+=($!)
    await_socket "$NET_SOCKET" $! "$WORK/sink.log"
}

net_serve_ringside() {
    local port
    case $2 in
    loop) port='kind = "loopback"' ;;
    *) port=$(printf 'kind = "dpdk"\ndevice = "%s"' "$(net_null "$2" "$3")") ;;
    esac
    configure "$WORK/$1.toml" busy <<EOF
[[port]]
name = "port"
$port
[[net]]
name = "bench"
socket = "$NET_SOCKET"
port = "port"
EOF
    serve "$1" "$WORK/$1.toml" "$NET_SOCKET"
}

net_serve_dpdk() {
    local port=net_ring0
    [ "$1" = loop ] || port=$(net_null "$1" "$2")
    # Its standard input stays open: at its end testpmd would end, too.
    dpdk-testpmd --lcores "0@$TARGET_CORE,1@$TARGET_CORE" --no-pci --in-memory --single-file-segments -m 128 \
        --vdev "net_vhost0,iface=$NET_SOCKET,queues=1" --vdev "$port" \
        -- --forward-mode=io --txd=256 --rxd=256 --total-num-mbufs=8192 \
        <> <(:) >"$WORK/dpdk.log" 2>&1 &
    PIDS+=($!)
    await_socket "$NET_SOCKET" $! "$WORK/dpdk.log"
}

# net_null DIRECTION BYTES: a source only where the target is to have frames.
net_null() { if [ "$1" = rx ]; then echo "net_null0,size=$2"; else echo "net_null0,size=$2,no-rx=1"; fi; }
