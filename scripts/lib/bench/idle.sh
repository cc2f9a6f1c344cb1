# shellcheck shell=bash
# What idling costs. Sourced by scripts/bench.sh.
#
# idle/…: the throughput of a poller that may sleep (adaptive) against that of one that never does (busy): goal at least 0.95 at
# depth 32. idle/wake/…: how long a read takes that finds the poller asleep: goal a median below 50 us. crowd/N/…: what a busy
# front-end has beside N idle ones with four request queues each, against what it has alone, on the same poller: goal at least
# 0.90 of 64, 0.75 of 256.

readonly IDLE_THINK_US=500

idle_start() {
    local who
    for who in adaptive busy; do idle_serve "$who" $who </dev/null; done
}

# idle_serve WHO IDLE <CONTROLLERS: a null and a malloc disk, and what else is given.
idle_serve() {
    SOCKETS[$1]=$WORK/$1.sock
    { scsi_memory_disks "${SOCKETS[$1]}" && cat; } | configure "$WORK/$1.toml" "$2"
    serve "$1" "$WORK/$1.toml" "${SOCKETS[$1]}"
    pause "$1"
}

idle_run() {
    local who=$1 disk rw bs depth think=() status=0
    IFS=/ read -r _ disk rw bs depth <<<"$2"
    if [ "$disk" = wake ]; then disk=null think=(--think-us "$IDLE_THINK_US"); fi
    resume "$who"
    $RINGSIDE bench scsi --socket "${SOCKETS[$who]}" --target "$(scsi_target "$disk")" --rw "$rw" --bs "$bs" --qd "${depth#qd}" \
        "${think[@]}" --time "$SECONDS_EACH" --warmup "$WARMUP" --core "$CLIENT_CORE" --json || status=$?
    pause "$who"
    return $status
}

crowd_start() { CARGO_TARGET_DIR=.build cargo build --quiet --release -p bench --example idle_front_ends; }

# crowd_run WHO CASE: the targets of another number of idle front-ends are started when the first of its cases comes.
CROWD=''
crowd_run() {
    local count rest
    IFS=/ read -r _ count rest <<<"$2"
    if [ "$CROWD" != "$count" ]; then
        stop_targets
        idle_serve beside adaptive < <(crowd_controllers beside "$count")
        idle_serve alone adaptive < <(crowd_controllers alone "$count")
        CROWD=$count
        crowd_connect "$count"
    fi
    idle_run "$1" "crowd/$rest"
}

# crowd_controllers WHO COUNT: their part of a configuration.
crowd_controllers() {
    local index
    for ((index = 0; index < $2; index++)); do
        printf '[[bdev]]\nname = "idle%d"\nkind = "null"\nsize = "1MiB"\n' "$index"
        printf '[[scsi]]\nname = "idle%d"\nsocket = "%s"\n[[scsi.lun]]\nbdev = "idle%d"\n' \
            "$index" "$WORK/$1-idle$index.sock" "$index"
    done
}

# crowd_connect COUNT: a front-end to each idle controller of the target `beside`. It ends with its standard input.
crowd_connect() {
    local index sockets=()
    for ((index = 0; index < $1; index++)); do sockets+=("$WORK/beside-idle$index.sock"); done
    resume beside
    .build/release/examples/idle_front_ends "${sockets[@]}" <> <(:) >"$WORK/idle.log" 2>&1 &
    PIDS+=($!)
    await $! "$WORK/idle.log" 'front-end for each controller' grep -q ready "$WORK/idle.log"
    pause beside
}
