# shellcheck shell=bash
# What scrapes of the metrics cost a busy controller. Sourced by scripts/bench.sh.
#
# One poller serves the controller that is measured and, idle, 20 or 1,000 logical units of others. Reads one at a time make the
# time of a read the gap between two completions. `scraped` is measured during 100 scrapes a second, or as many as there can be,
# `quiet` without; goal beside 20 units: p99.9 (report.json, p999_us) grows by at most 0.1 ms. A scrape runs on the client's core:
# that the two take turns there is a part of what is seen. Of each number of units the time of a scrape is printed, in both
# formats, as a client on the other core sees it.

readonly SCRAPE_RATE=100
SCRAPE_UNITS='' SCRAPE_URL=''

scrape_start() { command -v curl >/dev/null || die "scrape/…: no curl (apt-get install curl)"; }

# scrape_run WHO CASE: the target of another number of units is started when the first of its cases comes.
scrape_run() {
    local units scraper='' status=0
    IFS=/ read -r _ units _ <<<"$2"
    [ "$SCRAPE_UNITS" = "$units" ] || scrape_serve "$units" >&2
    resume scraped
    if [ "$1" = scraped ]; then
        curl -sf --rate $SCRAPE_RATE/s -o /dev/null "$SCRAPE_URL?[1-1000000]" &
        scraper=$!
    fi
    $RINGSIDE bench scsi --socket "$WORK/scrape.sock" --rw randread --bs 4k --qd 1 --time "$SECONDS_EACH" --warmup "$WARMUP" \
        --core "$CLIENT_CORE" --json || status=$?
    if [ -n "$scraper" ]; then
        kill "$scraper"
        wait "$scraper" 2>/dev/null || true
    fi
    pause scraped
    return $status
}

scrape_serve() {
    stop_targets
    scrape_controllers "$1" | configure "$WORK/scraped.toml" adaptive
    serve scraped "$WORK/scraped.toml" "$WORK/scrape.sock"
    await "${PIDS[-1]}" "$WORK/scraped.log" 'line "ready"' grep -q ' ready$' "$WORK/scraped.log"
    SCRAPE_UNITS=$1 SCRAPE_URL=$(sed -n 's/.*metrics: \(http.*\)/\1/p' "$WORK/scraped.log" | head -n 1)
    scrape_time prometheus 'text/plain;version=0.0.4'
    scrape_time openmetrics 'application/openmetrics-text;version=1.0.0'
    pause scraped
}

# scrape_controllers UNITS: the busy controller, and others with so many units together, at most 250 each.
scrape_controllers() {
    local unit
    printf '[[scsi]]\nname = "busy"\nsocket = "%s"\n[[scsi.lun]]\nlun = 0\nbdev = "busy"\n' "$WORK/scrape.sock"
    printf '[[bdev]]\nname = "busy"\nkind = "null"\nsize = "1GiB"\n'
    for ((unit = 0; unit < $1; unit++)); do
        [ $((unit % 250)) != 0 ] ||
            printf '[[scsi]]\nname = "idle%s"\nsocket = "%s/idle%s.sock"\n' $((unit / 250)) "$WORK" $((unit / 250))
        printf '[[scsi.lun]]\nlun = %s\nbdev = "null%s"\n' $((unit % 250)) $unit
    done
    for ((unit = 0; unit < $1; unit++)); do
        printf '[[bdev]]\nname = "null%s"\nkind = "null"\nsize = "1GiB"\n' $unit
    done
}

# scrape_time FORMAT ACCEPT: the median of 20.
scrape_time() {
    local n median
    median=$(for ((n = 0; n < 20; n++)); do
        curl -sf -H "Accept: $2" -o "$WORK/scrape.txt" -w '%{time_total}\n' "$SCRAPE_URL"
    done | sort -n | sed -n 10p)
    say "a scrape of $SCRAPE_UNITS idle units as $1 text: $median s (median of 20), $(grep -vc '^#' "$WORK/scrape.txt") series"
}
