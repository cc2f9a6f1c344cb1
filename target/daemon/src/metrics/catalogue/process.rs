//! What is said of the process, and of its being watched.

super::group! {
    "The process and its HTTP port",
    "`process_…` are named as all exporters name them.";

    BUILD: Info "ringside_build_info" ["version", "features"] "R28",
        "1, with the version of this process and what was built into it.",
        "It changes with an upgrade: compare before and after.";
    START: Gauge "process_start_time_seconds" [] "R28" if "where /proc is mounted",
        "When the process started, in seconds since 1970.",
        "It has been restarted, and all counters with it. If nobody did that, look for its end in the log.";
    CPU: Counter "process_cpu_seconds_total" [] "R28" if "where /proc is mounted",
        "Processor time of the whole process.",
        "Pollers with `idle = \"busy\"` take a core each, always. What is above that is control threads.";
    RESIDENT: Gauge "process_resident_memory_bytes" [] "R28" if "where /proc is mounted",
        "Resident memory, guests' memory that was touched included, huge pages excluded.",
        "It grows with the memory that guests use. Growth without new guests is a leak: report it.";
    OPEN_FDS: Gauge "process_open_fds" [] "R28" if "where /proc is mounted",
        "Open file descriptors.",
        "Several for each queue. Near `process_max_fds`, front-ends are turned away: raise `LimitNOFILE`.";
    MAX_FDS: Gauge "process_max_fds" [] "R28" if "where /proc is mounted",
        "The limit of open file descriptors.",
        "It does not move.";
    THREADS: Gauge "process_threads" [] "R28" if "where /proc is mounted",
        "Threads.",
        "One for each poller, socket and connection, and a few. Growth with no connections is a leak.";
    RELOADS: Counter "ringside_reloads_total" ["result"] "R28",
        "SIGHUPs that were acted upon: `done`, or `refused` with nothing changed.",
        "`refused`: the file on disk is not what runs. The log names the key.";
    REQUESTS: Counter "ringside_http_requests_total" ["path", "code"] "R28" if "after the first answer",
        "HTTP requests that were answered, by path (`other` for all that there are not) and status.",
        "401: somebody has no token, or an old one.";
    SCRAPE: Histogram "ringside_scrape_seconds" ["format"] "R28" if "after the first scrape",
        "How long it took to collect and write the metrics, of earlier scrapes, by format.",
        "Grows with LUNs and queues; pollers do not wait for it. Above a tenth of the scrape interval: scrape less often.";
}
