# shellcheck shell=bash
# One window: probe, measure, probe, write down, say how far everything is. Sourced by scripts/bench.sh.
#
# A family of cases has `FAMILY_start`, and `FAMILY_run WHO CASE`, which prints the result as one line of JSON. What
# windows.jsonl has is written down in `ringside bench report --help`.

PLANNED=0 DONE=0 FAILED=0 BEGUN=0

# plan: counts the windows to come.
plan() {
    local name
    for name in "${CHOSEN[@]}"; do PLANNED=$((PLANNED + $(windows_of "$name"))); done
    BEGUN=$SECONDS
    say "$PLANNED windows of ${#CHOSEN[@]} cases, about $(clock $((PLANNED * (${SECONDS_EACH%.*} + 2))))"
}

# windows_of CASE: how many, of all parties in all rounds.
windows_of() {
    parties_of "$1" 1
    echo $((${#PARTIES[@]} * REPEATS))
}

# window FAMILY WHO CASE ROUND
window() {
    local family=$1 who=$2 name=$3 round=$4 before after result status=0
    progress "$who" "$name" "$round"
    before=$(probe)
    TARGET_BUSY=''
    # In this shell, as it may start targets, and says how busy they were.
    "${family}_run" "$who" "$name" >"$WORK/result" 2>"$WORK/bench.log" || status=$?
    after=$(probe)
    result=$(tail -n 1 "$WORK/result")
    [[ $result = '{'* ]] || result=$(no_result)
    printf '{"who":"%s","case":"%s","round":%d,"cores_ns":[%s,%s]%s,"result":%s}\n' "$who" "$name" "$round" "$before" "$after" \
        "${TARGET_BUSY:+,\"target_busy\":$TARGET_BUSY}" "$result" >>"$OUT/windows.jsonl"
    DONE=$((DONE + 1))
    say "$(figures "$result")  cores ${before%.*}/${after%.*} ns"
    [ $status -eq 0 ] || failed
}

# figures RESULT: a rate and a latency.
figures() {
    local rate
    rate=$(number mpps <<<"$1")
    if [ -n "$rate" ]; then
        printf '%10.3f Mpps%20s' "$rate" ''
    else
        printf '%10.0f IOPS  p99 %8s us' "$(number iops <<<"$1")" "$(number p99 <<<"$1")"
    fi
}

# no_result: a result that says why there is none.
no_result() {
    local why
    why=$(tail -n 1 "$WORK/bench.log" | tr -d '"\134' | tr -c '[:print:]\n' ' ')
    printf '{"iops":0,"failure":"%s"}' "${why:-no result}"
}

# failed: the report says which windows these are.
failed() {
    FAILED=$((FAILED + 1))
    warn "the window failed: $(tail -n 1 "$WORK/bench.log")"
}

# progress WHO CASE ROUND: `  12/250  01:10, 22:30 to go  …`
progress() {
    local gone=$((SECONDS - BEGUN)) left=''
    [ $DONE -eq 0 ] || left=", $(clock $((gone * (PLANNED - DONE) / DONE))) to go"
    printf '%4d/%d  %s%s  %-36s %-9s %d/%d' $((DONE + 1)) $PLANNED "$(clock $gone)" "$left" "$2" "$1" "$3" "$REPEATS"
}

clock() { printf '%02d:%02d' $(($1 / 60)) $(($1 % 60)); }

# probe: the round trip of a cache line between the two cores, in ns, while nobody is measured.
probe() { $RINGSIDE bench cores --a "$TARGET_CORE" --b "$CLIENT_CORE" --json | number round_trip_ns; }

# number KEY: of a JSON object on one line.
number() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p" | head -n 1; }
