"""Pollers: what their cores do with their time."""

from .panels import GREEN, RED, YELLOW, ZERO_IS_GOOD, distribution, quantile, query, ratio, series, stat, timeline

TITLE = "Pollers"
ABOUT = "How busy each poller is, how long its loops take, what it sleeps, and what it serves."
VARIABLES = ["job", "instance", "core"]

CORE = "core {{core}} · {{instance}}"


def rows():
    return [("Now", _now()), ("Time", _time()), ("Sleep", _sleep()), ("What they serve", _served())]


def _rate(metric):
    return f"sum by (instance, core) (rate({metric}@core[@]))"


def _busy():
    return 'sum by (instance, core) (rate(ringside_poller_seconds_total@core{mode="busy"}[@]))'


def _now():
    return [
        stat("Busiest", """Share of time in loops that found work. Above 0.8, move queues to another poller
            (`pollers = [1, 2]`), or give the target another core.""", "percentunit", query(f"max({_busy()})", "busy"),
            limits=(GREEN, (0.8, YELLOW), (0.95, RED)), span=6),
        stat("Mean", "Over all pollers. Far below the busiest: queues are dealt out unevenly.", "percentunit",
            query(f"avg({_busy()})", "busy"), limits=(GREEN, (0.8, YELLOW), (0.95, RED)), span=6),
        stat("Longest loop", """Since the start. A poller should come round in well under a millisecond; longer ones are a core that
            is shared (isolate it, move interrupts away), or a bug.""", "s",
            query("max(ringside_poller_longest_loop_seconds@core)", "longest"), spark=False,
            limits=(GREEN, (0.01, YELLOW), (0.1, RED)), span=6),
        stat("Devices removed by a panic", "A bug in the target has cost a guest its device. Report it with the log.", "short",
            query("sum(ringside_poller_panics_total@core)", "panics"), limits=ZERO_IS_GOOD, span=6),
    ]


def _time():
    return [
        series("Busy", "Share of time in loops that found work.", "percentunit", query(_busy(), CORE), full=1,
            limits=(GREEN, (0.8, YELLOW), (0.95, RED)), span=8),
        series("Time by kind", """Busy, idle (awake without work), asleep. Together they are 1 of each poller: less is time that the
            host gave to somebody else.""", "percentunit",
            query("sum by (instance, core, mode) (rate(ringside_poller_seconds_total@core[@]))",
                  "core {{core}} {{mode}} · {{instance}}"), stacked=True, span=8),
        series("Time of a loop", "Mean time of a loop, idle ones included: how long a request waits to be seen, at least.", "s",
            query(ratio('sum by (instance, core) (rate(ringside_poller_seconds_total@core{mode!="asleep"}[@]))',
                        _rate("ringside_poller_loops_total")), CORE), span=8),
        series("Loops", "Loops a second. Falls as work is done or sources are added.", "ops",
            query(_rate("ringside_poller_loops_total"), CORE), span=8),
        series("Polls in vain", "Share of loops that found nothing to do. Near 1: the core has room. Near 0: it is saturated.",
            "percentunit", query(ratio(_rate("ringside_poller_idle_loops_total"), _rate("ringside_poller_loops_total")), CORE),
            span=8, full=1),
        distribution("Loops with work", """How long they took. Everything on a poller waits for the others' part of the loop; a
            band far above the rest is a core that the host takes away.""", "s", "ringside_poller_busy_loop_seconds_bucket@core",
            span=8),
        series("Loops with work, 99.9th percentile", "Above a millisecond: compare with \"Taken off the core\".", "s",
            query(quantile(0.999, "ringside_poller_busy_loop_seconds_bucket@core", "instance, core"), CORE), span=8,
            limits=(GREEN, (0.001, YELLOW), (0.01, RED))),
        series("Taken off the core", """Times a second that the kernel ran something else on the core of a poller. It should be
            nothing: isolate the core (`isolcpus`, `nohz_full`), move interrupts and threads away.""", "ops",
            query('sum by (instance, core) (rate(ringside_poller_context_switches_total@core{kind="involuntary"}[@]))', CORE),
            span=8, limits=(GREEN, (10, YELLOW), (100, RED))),
        series("Longest loop", "Since the start, so it never falls. A step is one moment when the core was away.", "s",
            query("ringside_poller_longest_loop_seconds@core", CORE), span=8, limits=(GREEN, (0.01, YELLOW), (0.1, RED))),
        series("Longest control job", "Since the start. Jobs are short by design; milliseconds are a core that is shared, or a bug.",
            "s", query("ringside_poller_longest_job_seconds@core", CORE), span=8, limits=(GREEN, (0.01, YELLOW), (0.1, RED))),
        series("Control jobs", "Jobs of control threads that a poller ran: connections, resets, memory tables, hot-plug.", "ops",
            query(_rate("ringside_poller_jobs_total"), CORE), span=16),
    ]


def _sleep():
    return [
        series("Times asleep", """How often a poller went to sleep. Many a second at high load: guests send a request at a time, and
            each costs a wake-up; `idle = "busy"` trades the core for the latency.""", "ops",
            query(_rate("ringside_poller_sleeps_total"), CORE)),
        series("Woken by a notification", "Sleeps that a kick or a control job ended; the rest ended by a deadline.", "percentunit",
            query(ratio(_rate("ringside_poller_wakeups_total"), _rate("ringside_poller_sleeps_total")), CORE), full=1),
    ]


def _served():
    return [
        series("Sources", "Shards of devices that a poller has, those included that are cold.", "short",
            query("ringside_poller_sources@core", CORE)),
        series("Cold sources", "Those of them that have been idle and wait for a kick; they cost nothing.", "short",
            query("ringside_poller_cold_sources@core", CORE)),
        timeline("Turning", """Whether each poller's loop goes round, or it sleeps. If not: a debugger, a stopped process, a core that
            the host has taken away, or a bug; `/readyz` fails, too.""", {0: ("stuck", RED), 1: ("turning", GREEN)},
            query("ringside_poller_turning@core", CORE), span=24),
    ]
