# shellcheck shell=bash
# Processes that are measured: started, waited for, stopped while others are measured, ended. Sourced by scripts/bench.sh.

PIDS=()
declare -A TARGET_PIDS=()

# program_of WHO: which build of ringside.
program_of() { if [ "$1" = baseline ]; then echo "$BASELINE_PROGRAM"; else echo "$RINGSIDE"; fi; }

# configure FILE IDLE <DEVICES: a configuration of one poller.
configure() {
    printf '[reactor]\ncores = [%s]\nidle = "%s"\n[metrics]\nlisten = "127.0.0.1:0"\n' "$TARGET_CORE" "$2" >"$1"
    cat >>"$1"
}

# serve WHO CONFIG SOCKET [PROGRAM]: starts a build of ringside and waits for its socket.
serve() {
    "${4:-$(program_of "$1")}" serve --config "$2" 2>"$WORK/$1.log" &
    PIDS+=($!)
    TARGET_PIDS[$1]=$!
    await_socket "$3" $! "$WORK/$1.log"
    # Ordinary memory instead of huge pages, the page cache instead of O_DIRECT: readers of figures want to know.
    ! grep WARN "$WORK/$1.log" || true
}

# pause WHO, resume WHO: a paused target keeps its core free. Those that there is no process of are paused anyway.
pause() { [ -z "${TARGET_PIDS[$1]:-}" ] || kill -STOP "${TARGET_PIDS[$1]}"; }
resume() { [ -z "${TARGET_PIDS[$1]:-}" ] || kill -CONT "${TARGET_PIDS[$1]}"; }

stop_targets() {
    local pid
    for pid in "${PIDS[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    PIDS=() TARGET_PIDS=()
}

await_socket() { await "$2" "$3" "socket $1" test -S "$1"; }

# await PID LOG WHAT COMMAND…: until the command succeeds; an error with the log's end if the process ends, or after 30 s.
await() {
    local pid=$1 log=$2 what=$3 tries=0
    shift 3
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || die "the process ended before there was a $what:" "$(tail -n 5 "$log")"
        tries=$((tries + 1))
        [ $tries -le 300 ] || die "no $what after 30 s:" "$(tail -n 5 "$log")"
        sleep 0.1
    done
}
