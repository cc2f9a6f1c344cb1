"""Two targets side by side, for whoever compares builds, options or hosts."""

from .panels import GREEN, RED, YELLOW, query, ratio, series, stat

TITLE = "Performance lab: A against B"
ABOUT = """Choose two targets (A the baseline, B the candidate) under the same load. Compare medians over several minutes and
    several runs: on shared cores a single run says little."""
VARIABLES = ["job", "a", "b"]

DURATION = "ringside_scsi_command_duration_seconds"


def rows():
    return [("B divided by A", _ratios()), ("Storage", _storage()), ("Network", _network())]


def _of(text, side):
    return text.replace("@x", f"@{side}")


def _both(text):
    """The expression for each side."""
    return query(_of(text, "a"), "A $a"), query(_of(text, "b"), "B $b")


COMMANDS = "sum(rate(ringside_scsi_commands_total@x[@]))"
FRAMES = "sum(rate(ringside_net_frames_total@x[@]))"
BUSY = 'sum(rate(ringside_poller_seconds_total@x{mode="busy"}[@]))'


def _p(of):
    return f"histogram_quantile({of}, sum by (le) (rate({DURATION}_bucket@x[@])))"


MEAN = ratio(f"sum(rate({DURATION}_sum@x[@]))", f"sum(rate({DURATION}_count@x[@]))")
COST = ratio(BUSY, COMMANDS)


def _ratios():
    more, less = (RED, (0.97, YELLOW), (1, GREEN)), (GREEN, (1, YELLOW), (1.03, RED))

    def divided(title, text, expression, limits):
        return stat(title, text, "percentunit", query(ratio(_of(expression, "b"), _of(expression, "a")), "B / A"), limits=limits,
            span=6, shown="mean")

    return [
        divided("Commands", "Above 1: B does more.", COMMANDS, more),
        divided("Mean latency", "Below 1: B is faster.", MEAN, less),
        divided("99th percentile", "Below 1: B's tail is shorter.", _p(0.99), less),
        divided("Poller time of a command", "Below 1: B is cheaper. Says most when both do the same commands.", COST, less),
    ]


def _storage():
    batch = ratio("sum(rate(ringside_virtqueue_chains_total@x[@]))", "sum(rate(ringside_virtqueue_batches_total@x[@]))")
    calls = ratio("sum(rate(ringside_virtqueue_calls_total@x[@]))", "sum(rate(ringside_virtqueue_chains_total@x[@]))")
    return [
        series("Commands", "Commands a second of all controllers.", "iops", *_both(COMMANDS), span=8),
        series("Latency, median", "Of READs and WRITEs.", "s", *_both(_p(0.5)), span=8),
        series("Latency, 99.9th percentile", "The tail; wants some thousand commands in the range of the rate.", "s",
            *_both(_p(0.999)), span=8),
        series("Poller time of a command", """Busy time of all pollers by commands: what a command costs the host. Batches make it
            smaller, so compare at the same queue depth.""", "s", *_both(COST), span=8),
        series("Chains of one batch", "If this differs, so does the load: the rest cannot be compared.", "short", *_both(batch),
            span=8),
        series("Calls for a chain", "Interrupts sent; 0 with a driver that polls.", "short", *_both(calls), span=8),
    ]


def _network():
    drops = "sum(rate(ringside_net_drops_total@x[@]))"
    return [
        series("Frames", "Frames a second of all net devices, both directions.", "pps", *_both(FRAMES), span=8),
        series("Poller time of a frame", "Busy time of all pollers by frames; only without storage load.", "s",
            *_both(ratio(BUSY, FRAMES)), span=8),
        series("Frames lost", "A faster device that loses more is not faster.", "pps", *_both(drops), span=8,
            limits=(GREEN, (1e-9, RED))),
    ]
