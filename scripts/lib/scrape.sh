# shellcheck shell=bash
# What a scrape costs, and whom: sourced by scripts/bench.sh, whose variables and functions it uses.
#
# One poller serves a busy controller and, idle, logical units of others: 20, and then 1,000. Reads one at a time on the busy
# controller make the time of a read the gap between two completions; windows with 100 scrapes a second, or as many as there can
# be, and windows without take turns. Of 1,000 units also the time of a scrape, in both formats, as a client on the other core
# sees it. A scrape runs on that core, too: that it takes turns with the client is a part of what is seen. What the poller itself
# notices are its loops that took long.

readonly SCRAPE_RATE=100 SCRAPE_MORE_US=100

scrape_section() {
    local socket=$WORK/scrape.sock units round with url
    command -v curl >/dev/null || { warn "scrapes: no curl" && return 0; }
    say ''
    say 'scrapes: p99.9 and max of the gap between completions of a busy controller on the same poller, us'
    for units in 20 1000; do
        scrape_serve "$socket" $units
        url=$(sed -n 's/.*metrics: \(http.*\)/\1/p' "$WORK/scrape.log" | head -n 1)
        rm -f "$OUT"/scrape-{without,with}
        for ((round = 1; round <= REPEATS; round++)); do
            for with in '' 1; do scrape_window "$socket" "$url" "$with" "$units-$round"; done
        done
        scrape_summary $units
        [ $units != 1000 ] || scrape_time "$url" prometheus 'text/plain;version=0.0.4'
        [ $units != 1000 ] || scrape_time "$url" openmetrics 'application/openmetrics-text;version=1.0.0'
        stop_targets
        await_gone "$socket"
    done
}

# await_gone SOCKET: the next target can have it.
await_gone() { while [ -S "$1" ]; do sleep 0.1; done; }

# scrape_serve SOCKET UNITS: the busy controller there, and others with so many units together, at most 250 each.
scrape_serve() {
    local unit
    {
        printf '[reactor]\ncores = [%s]\n[metrics]\nlisten = "127.0.0.1:0"\n' "$TARGET_CORE"
        printf '[[scsi]]\nname = "busy"\nsocket = "%s"\n[[scsi.lun]]\nlun = 0\nbdev = "busy"\n' "$1"
        printf '[[bdev]]\nname = "busy"\nkind = "null"\nsize = "1GiB"\n'
        for ((unit = 0; unit < $2; unit++)); do
            [ $((unit % 250)) != 0 ] ||
                printf '[[scsi]]\nname = "idle%s"\nsocket = "%s/idle%s.sock"\n' $((unit / 250)) "$WORK" $((unit / 250))
            printf '[[scsi.lun]]\nlun = %s\nbdev = "null%s"\n' $((unit % 250)) $unit
        done
        for ((unit = 0; unit < $2; unit++)); do
            printf '[[bdev]]\nname = "null%s"\nkind = "null"\nsize = "1GiB"\n' $unit
        done
    } >"$WORK/scrape.toml"
    $RINGSIDE serve --config "$WORK/scrape.toml" 2>"$WORK/scrape.log" &
    PIDS+=($!)
    await $! "$WORK/scrape.log" 'line "ready"' grep -q ' ready$' "$WORK/scrape.log"
}

# scrape_time URL NAME ACCEPT: the median of 20.
scrape_time() {
    local n bytes
    for ((n = 0; n < 20; n++)); do
        curl -sf -H "Accept: $3" -o "$WORK/scrape.txt" -w '%{time_total}\n' "$1"
    done | sort -n | sed -n 10p >"$WORK/scrape.median"
    bytes=$(stat -c %s "$WORK/scrape.txt")
    awk -v name="$2" -v bytes="$bytes" -v lines="$(grep -vc '^#' "$WORK/scrape.txt")" '{
        printf "  a scrape as %s text: %.1f ms (median of 20), %d series, %.1f MB\n", name, $1 * 1000, lines, bytes / 1e6
    }' "$WORK/scrape.median"
}

# scrape_window SOCKET URL WITH NAME: one window; "p99.9 max loops long-loops scrapes-a-second" to $OUT/scrape-with or -without.
scrape_window() {
    local json=$OUT/scrape-${3:-0}-$4.json scraper='' out=$OUT/scrape-without before after
    [ -z "$3" ] || out=$OUT/scrape-with
    before=$(scrape_counts "$2")
    if [ -n "$3" ]; then
        scrape_often "$2" &
        scraper=$!
    fi
    $RINGSIDE bench scsi --socket "$1" --rw randread --bs 4k --qd 1 --time "$SECONDS_EACH" --warmup 0.3 \
        --core "$CLIENT_CORE" --json >"$json" 2>"$WORK/bench.log" || die "scrape:" "$(tail -n 5 "$WORK/bench.log")"
    if [ -n "$scraper" ]; then
        kill "$scraper"
        wait "$scraper" 2>/dev/null || true
    fi
    after=$(scrape_counts "$2")
    printf '%s %s %s %s\n' "$(number p999 <"$json")" "$(number max <"$json")" "$before" "$after" |
        awk -v s="$SECONDS_EACH" '{ print $1, $2, $6 - $3, $7 - $4, int(($8 - $5 - 1) / (s + 0.3)) }' >>"$out"
}

# scrape_counts URL: busy loops of the poller, those of them above 100 us, and scrapes, so far.
scrape_counts() {
    curl -sf "$1" | awk '
        /^ringside_poller_busy_loop_seconds_count/ { loops = $2 }
        /^ringside_poller_busy_loop_seconds_bucket.*le="0.0001"/ { short = $2 }
        /^ringside_scrape_seconds_count.*prometheus/ { scrapes = $2 }
        END { print loops, loops - short, scrapes + 0 }'
}

# scrape_often URL: SCRAPE_RATE requests a second on one connection, as far as the machine lets it, until it is ended.
scrape_often() {
    exec curl -sf --rate $((SCRAPE_RATE))/s -o /dev/null "$1?[1-1000000]"
}

# scrape_summary UNITS
scrape_summary() {
    local without with
    without=$(swap_median "$OUT/scrape-without")
    with=$(swap_median "$OUT/scrape-with")
    # shellcheck disable=SC2086 # two words each
    printf '%d idle logical units\n  without: p99.9 %s max %s; %s\n' "$1" $without "$(scrape_long "$OUT/scrape-without")"
    # shellcheck disable=SC2086
    printf '  with at least %s scrapes a second: p99.9 %s max %s; %s\n' \
        "$(awk '{ print $5 }' "$OUT/scrape-with" | sort -n | head -n 1)" $with "$(scrape_long "$OUT/scrape-with")"
    [ "$1" -gt 100 ] || awk -v a="${without% *}" -v b="${with% *}" -v most=$SCRAPE_MORE_US 'BEGIN {
        printf "  p99.9 with less without: %.1f us, goal at most %d: %s\n", b - a, most, (b - a <= most ? "met" : "MISSED") }'
}

# scrape_long WINDOWS: how many loops of the poller were long ones.
scrape_long() { awk '{ all += $3; long += $4 } END { printf "%d of %.1f million busy loops of the poller took above 100 us", long, all / 1e6 }' "$1"; }
