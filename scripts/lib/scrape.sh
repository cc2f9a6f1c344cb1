# shellcheck shell=bash
# What a scrape costs, and whom: sourced by scripts/bench.sh, whose variables and functions it uses.
#
# One poller serves a busy controller and, idle, 1,000 logical units of others. First the time of a scrape, in both formats, as
# a client on the other core sees it. Then reads one at a time on the busy controller, so that the time of a read is the gap
# between two completions, in windows with 100 scrapes a second and without, in turns. A scrape runs on the client's core:
# that it takes turns with the client is a part of what is seen; reading what the poller has just written is the rest.

readonly SCRAPE_UNITS=1000 SCRAPE_RATE=100 SCRAPE_MORE_US=100

scrape_section() {
    local socket=$WORK/scrape.sock round with url
    command -v curl >/dev/null || { warn "scrapes: no curl" && return 0; }
    scrape_serve "$socket"
    url=$(sed -n 's/.*metrics: \(http.*\)/\1/p' "$WORK/scrape.log" | head -n 1)
    say ''
    scrape_time "$url" prometheus 'text/plain;version=0.0.4'
    scrape_time "$url" openmetrics 'application/openmetrics-text;version=1.0.0'
    say "  p99.9 and max of the gap between completions of a busy controller on that poller, us"
    rm -f "$OUT"/scrape-{without,with,rates}
    for ((round = 1; round <= REPEATS; round++)); do
        for with in '' 1; do scrape_window "$socket" "$url" "$with" "$round"; done
    done
    scrape_summary
    stop_targets
}

# scrape_serve SOCKET: the busy controller there, and four with 250 units each.
scrape_serve() {
    local unit
    {
        printf '[reactor]\ncores = [%s]\n[metrics]\nlisten = "127.0.0.1:0"\n' "$TARGET_CORE"
        printf '[[scsi]]\nname = "busy"\nsocket = "%s"\n[[scsi.lun]]\nlun = 0\nbdev = "busy"\n' "$1"
        printf '[[bdev]]\nname = "busy"\nkind = "null"\nsize = "1GiB"\n'
        for ((unit = 0; unit < SCRAPE_UNITS; unit++)); do
            [ $((unit % 250)) != 0 ] ||
                printf '[[scsi]]\nname = "idle%s"\nsocket = "%s/idle%s.sock"\n' $((unit / 250)) "$WORK" $((unit / 250))
            printf '[[scsi.lun]]\nlun = %s\nbdev = "null%s"\n' $((unit % 250)) $unit
        done
        for ((unit = 0; unit < SCRAPE_UNITS; unit++)); do
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
    awk -v name="$2" -v units=$SCRAPE_UNITS -v bytes="$bytes" -v lines="$(grep -vc '^#' "$WORK/scrape.txt")" '{
        printf "scrape of %d logical units, %s: %.1f ms (median of 20), %d series, %.1f MB\n", units, name, $1 * 1000, lines, bytes / 1e6
    }' "$WORK/scrape.median"
}

# scrape_window SOCKET URL WITH ROUND: one window, its p99.9 and max to $OUT/scrape-with or -without.
scrape_window() {
    local json=$OUT/scrape-${3:-0}-$4.json scraper='' out=$OUT/scrape-without before after
    if [ -n "$3" ]; then
        out=$OUT/scrape-with
        before=$(scrape_count "$2")
        scrape_often "$2" &
        scraper=$!
    fi
    $RINGSIDE bench scsi --socket "$1" --rw randread --bs 4k --qd 1 --time "$SECONDS_EACH" --warmup 0.3 \
        --core "$CLIENT_CORE" --json >"$json" 2>"$WORK/bench.log" || die "scrape:" "$(tail -n 5 "$WORK/bench.log")"
    if [ -n "$scraper" ]; then
        kill "$scraper"
        wait "$scraper" 2>/dev/null || true
        after=$(scrape_count "$2")
        awk -v n=$((after - before)) -v s="$SECONDS_EACH" 'BEGIN { printf "%.0f\n", n / (s + 0.3) }' >>"$OUT/scrape-rates"
    fi
    printf '%s %s\n' "$(number p999 <"$json")" "$(number max <"$json")" >>"$out"
}

# scrape_often URL: SCRAPE_RATE requests a second on one connection, as far as the machine lets it, until it is ended.
scrape_often() {
    exec curl -sf --rate $((SCRAPE_RATE))/s -o /dev/null "$1?[1-1000000]"
}

# scrape_count URL: how many scrapes there have been.
scrape_count() { curl -sf "$1" | sed -n 's/^ringside_scrape_seconds_count{format="prometheus"} //p'; }

scrape_summary() {
    local without with
    without=$(swap_median "$OUT/scrape-without")
    with=$(swap_median "$OUT/scrape-with")
    # shellcheck disable=SC2086 # two words each
    printf '  without: p99.9 %s max %s\n  with at least %s scrapes a second: p99.9 %s max %s\n' $without "$(sort -n "$OUT/scrape-rates" | head -n 1)" $with
    awk -v a="${without% *}" -v b="${with% *}" -v most=$SCRAPE_MORE_US 'BEGIN {
        printf "  p99.9 with less without: %.1f us, goal at most %d: %s\n", b - a, most, (b - a <= most ? "met" : "MISSED") }'
}
