"""One screen for whoever is on call: is it well, how much does it do, what does that cost."""

from .panels import GREEN, RED, YELLOW, ZERO_IS_GOOD, bars, quantile, query, ratio, series, stat, table, timeline

TITLE = "Overview"
ABOUT = "Is every target well, how much do they do, and which poller, disk or network card is next to look at."
VARIABLES = ["job", "instance"]


def rows():
    return [("Is it well", _well()), ("Load", _load()), ("Where it goes", _top()), ("Who is connected", _sessions()), ("The process", _process())]


def _well():
    return [
        stat("Targets up", """Targets that answer scrapes. If one does not: is the process there (`systemctl status`), does
            its log end with a reason, does Prometheus reach `[metrics] listen`?""", "short",
            query('sum(up@instance)', "up"), limits=(RED, (1, GREEN))),
        stat("Targets down", "Targets that Prometheus cannot scrape. Guests of a target that has died retry until it is back.",
            "short", query("count(up@instance == 0) or vector(0)", "down"), limits=ZERO_IS_GOOD),
        stat("Alerts firing", "Firing alerts of the rules beside this dashboard. Each says what to do in its annotations.",
            "short", query('count(ALERTS{alertname=~"Ringside.*",alertstate="firing"}) or vector(0)', "firing"),
            limits=ZERO_IS_GOOD),
        stat("Virtqueues halted", """Queues that a fault has halted. Their guest gets no answers there until its driver resets
            the device. "Limits and task management" says which fault.""", "short",
            query("sum(ringside_virtqueue_broken@instance)", "halted"), limits=ZERO_IS_GOOD),
        stat("Refused by a limit", """Commands a second over `cmd_per_lun`, `max_sectors` or `seg_max`. More than none means
            that a guest does not know the limits: compare `ringside qemu-args` with its command line.""", "reqps",
            query("sum(rate(ringside_scsi_refused_total@instance[@]))", "refused"), limits=ZERO_IS_GOOD),
        stat("Frames lost", """Frames a second lost between guests and ports. "Network" has the causes; `no_guest_buffer`
            is a guest that is too slow, `port_full` a link or receiver that is.""", "pps",
            query("sum(rate(ringside_net_drops_total@instance[@])) + sum(rate(ringside_port_drops_total@instance[@])) "
                  "or sum(rate(ringside_net_drops_total@instance[@])) or vector(0)", "lost"), limits=ZERO_IS_GOOD),
    ]


def _load():
    return [
        series("Commands", "Commands that ended, by controller. A fall while queue depth stays up is a slow block device.",
            "iops", query("sum by (instance, controller) (rate(ringside_scsi_commands_total@instance[@]))",
                          "{{controller}} · {{instance}}"), span=8),
        series("Bytes", "Bytes read and written, by controller.", "binBps",
            query("sum by (instance, controller, op) (rate(ringside_scsi_bytes_total@instance[@]))",
                  "{{controller}} {{op}} · {{instance}}"), span=8),
        series("Latency, 99th percentile", """From the fetch of a READ or WRITE to its completion. If it grows, compare with
            "Pending at the block device" in "Storage": the difference is the target's own.""", "s",
            query(quantile(0.99, "ringside_scsi_command_duration_seconds_bucket@instance", "instance, controller"),
                  "{{controller}} · {{instance}}"), span=8),
        series("Frames", "Frames moved between guests and ports, by net device; tx is what the guest sends.", "pps",
            query("sum by (instance, device, direction) (rate(ringside_net_frames_total@instance[@]))",
                  "{{device}} {{direction}} · {{instance}}"), span=8),
        series("Bits", "Bits of those frames, from the destination address on.", "bps",
            query("8 * sum by (instance, device, direction) (rate(ringside_net_bytes_total@instance[@]))",
                  "{{device}} {{direction}} · {{instance}}"), span=8),
        series("Pollers busy", """Share of time in loops that found work. Above 0.8 latency grows with every further guest:
            give controllers another poller (`pollers = [1, 2]`) or the target another core.""", "percentunit",
            query('sum by (instance, core) (rate(ringside_poller_seconds_total@instance{mode="busy"}[@]))',
                  "core {{core}} · {{instance}}"), span=8, full=1, limits=(GREEN, (0.8, YELLOW), (0.95, RED))),
    ]


def _top():
    return [
        bars("Busiest LUNs", "The ten LUNs with the most commands.", "iops",
            query("topk(10, sum by (instance, controller, target, lun) (rate(ringside_scsi_commands_total@instance[@])))",
                  "{{controller}} {{target}}:{{lun}} · {{instance}}", instant=True), span=8),
        bars("Slowest LUNs", """The ten LUNs with the longest mean time of a READ or WRITE. If it is the disk, its block
            device is as slow; if not, look at the poller.""", "s",
            query("topk(10, " + ratio(
                "sum by (instance, controller, target, lun) (rate(ringside_scsi_command_duration_seconds_sum@instance[@]))",
                "sum by (instance, controller, target, lun) (rate(ringside_scsi_command_duration_seconds_count@instance[@]))")
                + ")", "{{controller}} {{target}}:{{lun}} · {{instance}}", instant=True), span=8),
        bars("Busiest net devices", "The ten net devices with the most frames in both directions.", "pps",
            query("topk(10, sum by (instance, device) (rate(ringside_net_frames_total@instance[@])))",
                  "{{device}} · {{instance}}", instant=True), span=8),
    ]


def _sessions():
    connection = {0: ("none", "#808080"), 1: ("connected", GREEN)}
    return [
        timeline("Front-ends", """When a front-end was connected. A device without one has a guest that is off, or a VMM that
            does not find its socket.""", connection,
            query("ringside_session_connected@instance", "{{controller}} · {{instance}}"), span=12),
        table("Versions", "Which build runs where.", "short",
            [("Running", "ringside_build_info@instance", "short")], span=6),
        series("Connections accepted", """In the last five minutes. A device that goes on accepting is one whose VMM restarts,
            or gives up on it: read the log of both.""", "short",
            query("sum by (instance, controller) (increase(ringside_sessions_total@instance[5m]))",
                  "{{controller}} · {{instance}}"), span=6, limits=(GREEN, (5, YELLOW))),
    ]


def _process():
    return [
        series("Up since", "Seconds since the start of the process. A fall that nobody ordered: look for its end in the log.", "s",
            query("time() - process_start_time_seconds@instance", "{{instance}}"), span=8),
        series("Processor time", """Cores that the process takes. Pollers with `idle = "busy"` take one each, always; what is above
            that is control threads.""", "short", query("rate(process_cpu_seconds_total@instance[@])", "{{instance}}"), span=8),
        series("Memory", "Resident, without huge pages. It grows with what guests touch; growth without guests is a leak.", "bytes",
            query("process_resident_memory_bytes@instance", "{{instance}}"), span=8),
        series("File descriptors", "Share of the limit that is open. Near 1 front-ends are turned away: raise `LimitNOFILE`.",
            "percentunit", query("process_open_fds@instance / process_max_fds@instance", "{{instance}}"), span=8, full=1,
            limits=(GREEN, (0.8, YELLOW), (0.9, RED))),
        series("Threads", "One for each poller, socket and connection, and a few. Growth with no connections is a leak.", "short",
            query("process_threads@instance", "{{instance}}"), span=8),
        series("Reloads", "SIGHUPs in the last five minutes. `refused`: the file on disk is not what runs, the log names the key.",
            "short", query("sum by (instance, result) (increase(ringside_reloads_total@instance[5m]))", "{{result}} · {{instance}}"),
            span=8),
        series("HTTP requests", "By path and status. 401: somebody has no token, or an old one.", "reqps",
            query("sum by (instance, path, code) (rate(ringside_http_requests_total@instance[@]))",
                  "{{path}} {{code}} · {{instance}}")),
        series("Time of a scrape", "Grows with LUNs and queues. Pollers do not wait for it.", "s",
            query(ratio("sum by (instance) (rate(ringside_scrape_seconds_sum@instance[@]))",
                        "sum by (instance) (rate(ringside_scrape_seconds_count@instance[@]))"), "{{instance}}")),
    ]
