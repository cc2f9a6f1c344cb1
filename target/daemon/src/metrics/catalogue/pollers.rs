//! What is counted of poller threads.

super::group! {
    "Pollers",
    "`core` is the processor that a poller is pinned to.";

    SECONDS: Counter "ringside_poller_seconds_total" ["core", "mode"] "R28",
        "Time of a poller by what it did: `busy` (loops that found work), `idle` (loops that did not), `asleep`.",
        "The rate of `busy` is the load of the core: near 1 it is saturated, and everything on it waits. Spread devices or \
         queues over more cores (`pollers`).";
    TURNING: Gauge "ringside_poller_turning" ["core"] "R28",
        "1 while the poller's loop goes round, or it sleeps; 0 when no loop has ended for two seconds.",
        "0: something holds the poller up, and all devices on it with it: a debugger, a stopped process, a processor that the \
         host has taken away, or a bug. `/readyz` fails, too.";
    LOOPS: Counter "ringside_poller_loops_total" ["core"] "R28",
        "Loops of a poller.",
        "Its rate falls as work comes: divide `busy` seconds by busy loops for the mean loop.";
    IDLE_LOOPS: Counter "ringside_poller_idle_loops_total" ["core"] "R28",
        "Loops that found nothing to do: polls in vain.",
        "Nearly all loops: the core has room. None: see `ringside_poller_seconds_total`.";
    BUSY_LOOP: Histogram "ringside_poller_busy_loop_seconds" ["core"] "R28",
        "How long loops lasted that found work.",
        "Everything on a poller waits for the others' part of the loop. High quantiles above a millisecond: the host takes the \
         core away (`ringside_poller_context_switches_total`), or large transfers to memory share it with small ones.";
    LONGEST_LOOP: Gauge "ringside_poller_longest_loop_seconds" ["core"] "R28",
        "The longest loop of a poller since the start, time off the processor included.",
        "A jump is one long stall. Milliseconds: compare with the context switches; isolate the core (`isolcpus`, `nohz_full`).";
    LONGEST_JOB: Gauge "ringside_poller_longest_job_seconds" ["core"] "R28",
        "The longest job of a control thread on a poller since the start.",
        "Jobs are short by design. Milliseconds with no involuntary context switches are a bug: report it.";
    SWITCHES: Counter "ringside_poller_context_switches_total" ["core", "kind"] "R28" if "where /proc is mounted",
        "Times that the poller's thread left its processor: `voluntary` (it slept) or `involuntary` (the kernel ran another).",
        "`involuntary` should stand still: somebody else runs on the core. Isolate it, or move the other. `voluntary` follows \
         `ringside_poller_sleeps_total`.";
    SLEEPS: Counter "ringside_poller_sleeps_total" ["core"] "R28",
        "Times that a poller went to sleep.",
        "Each wakeup costs tens of microseconds of latency. If latency matters more than power: `idle = \"busy\"`.";
    WAKEUPS: Counter "ringside_poller_wakeups_total" ["core"] "R28",
        "Sleeps that a notification ended; others met a deadline.",
        "See `ringside_poller_sleeps_total`.";
    JOBS: Counter "ringside_poller_jobs_total" ["core"] "R28",
        "Jobs of control threads that a poller ran.",
        "They come with connections, memory tables and reloads. A steady rate is a front-end that keeps changing things.";
    SOURCES: Gauge "ringside_poller_sources" ["core"] "R28",
        "Shards of devices, and uplinks of switches, that a poller has now.",
        "How devices are spread over the cores.";
    COLD: Gauge "ringside_poller_cold_sources" ["core"] "R28",
        "Those of them that have been idle: they wait for a kick and are left out of the loop.",
        "They cost nothing.";
    PANICS: Counter "ringside_poller_panics_total" ["core"] "R28",
        "Shards that were removed because they panicked.",
        "A bug: that device is dead until its front-end connects anew, others go on. Report it with the log.";
}
