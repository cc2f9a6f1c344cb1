"""Limits, task management, faults and sessions: what a guest did that it should not have to do."""

from .panels import GREEN, RED, YELLOW, distribution, quantile, query, series, table, timeline

TITLE = "Limits and task management"
ABOUT = "Which limit refused which guest, what guests' error handling asked for, which virtqueues are halted and why, and sessions."
VARIABLES = ["job", "instance", "controller", "target", "lun"]

LUN = "{{controller}} {{target}}:{{lun}}"
BY_LUN = "instance, controller, target, lun"
CONTROLLER = "{{controller}} · {{instance}}"


def rows():
    return [
        ("Limits", _limits()),
        ("Task management", _functions()),
        ("Faults of drivers", _faults()),
        ("Sessions", _sessions()),
    ]


def _limits():
    return [
        series("Refused", """Commands refused by a limit. Without target and LUN: the LUN does not exist. Tell the VMM the same
            numbers (`ringside qemu-args`), raise the limit, or answer with `on_cmd_per_lun = "scsi"`.""", "reqps",
            query('sum by (instance, controller, target, lun, limit) (rate(ringside_scsi_refused_total@controller[@]))',
                  LUN + " {{limit}} · {{instance}}"), span=8, limits=(GREEN, (1e-9, RED))),
        series("Refused of all", "Share of a LUN's commands that `cmd_per_lun` refused. Linux gives up after 6 tries in 0.1 s.",
            "percentunit", query(
                f'sum by ({BY_LUN}) (rate(ringside_scsi_refused_total@lun{{limit="cmd_per_lun"}}[@])) / '
                f'(sum by ({BY_LUN}) (rate(ringside_scsi_refused_total@lun{{limit="cmd_per_lun"}}[@])) + '
                f'sum by ({BY_LUN}) (rate(ringside_scsi_commands_total@lun[@])) > 0)', LUN + " · {{instance}}"),
            span=8, full=1, limits=(GREEN, (0.001, YELLOW), (0.01, RED))),
        series("How close to cmd_per_lun", """The most commands in flight so far, as a share of what is allowed. At 1 the next
            burst is refused: raise the limit before, or lower the guest's queue depth.""", "percentunit",
            query(f"max by ({BY_LUN}) (ringside_scsi_in_flight_high_water@lun) / on (instance, controller) group_left () "
                  "max by (instance, controller) (ringside_scsi_cmd_per_lun_effective@controller)", LUN + " · {{instance}}"),
            span=8, limits=(GREEN, (0.8, YELLOW), (1, RED))),
        table("Limits", "As configured. What the VMM tells its guest must not be more.", "short",
            [("Limit", "ringside_scsi_limit@controller", "short")]),
        table("cmd_per_lun that holds", "What request rings hold, if that is less than `cmd_per_lun`.", "short",
            [("Commands", "ringside_scsi_cmd_per_lun_effective@controller", "short")]),
    ]


def _functions():
    return [
        series("Task management functions", """What guests' error handling asked for in the last five minutes. Aborts mean that
            commands took longer than the guest's timeout (30 s on Linux); a LOGICAL UNIT RESET that aborts did not help.""",
            "short", query("sum by (instance, controller, function, response) (increase(ringside_scsi_tmf_total@controller[5m]))",
                           "{{controller}} {{function}} {{response}} · {{instance}}"), span=8, limits=(GREEN, (1, YELLOW))),
        series("Duration of a function, 99th percentile", """A function ends after the last command that it acts on, never before:
            a long one waits for the block device.""", "s",
            query(quantile(0.99, "ringside_scsi_tmf_duration_seconds_bucket@controller", "instance, controller"), CONTROLLER),
            span=8),
        series("Commands aborted or reset", "Responses ABORTED and RESET: commands that those functions ended.", "reqps",
            query('sum by (instance, controller, response) '
                  '(rate(ringside_scsi_responses_total@controller{response=~"aborted|reset"}[@]))',
                  "{{controller}} {{response}} · {{instance}}"), span=8),
        distribution("Durations of functions", "How many functions took how long.", "s",
            "ringside_scsi_tmf_duration_seconds_bucket@controller", span=8),
        series("Waiting for requests in flight", """How long a stop, reset or memory change has been waiting for requests at a block
            device. Above a second the log names it; the guest stands still meanwhile.""", "s",
            query("max by (instance, controller) (ringside_quiesce_wait_seconds@controller)", CONTROLLER), span=8,
            limits=(GREEN, (1, YELLOW), (10, RED))),
        series("Events", """Hot-plug and size changes told to guests, and those that found no buffer: then the guest scans
            everything.""", "short",
            query("sum by (instance, controller, event) (increase(ringside_scsi_events_total@controller[5m]))",
                  "{{controller}} {{event}} · {{instance}}"),
            query("sum by (instance, controller) (increase(ringside_scsi_events_missed_total@controller[5m]))",
                  "{{controller}} missed · {{instance}}"), span=8),
    ]


def _faults():
    return [
        timeline("Halted virtqueues", """A fault has halted the queue; nothing further is read from it until the driver resets the
            device. One guest: its driver or its memory. Many at once: the VMM.""", {0: ("well", GREEN), 1: ("halted", RED)},
            query("max by (instance, controller, queue) (ringside_virtqueue_broken@instance)",
                  "{{controller}} ring {{queue}} · {{instance}}")),
        series("Faults", """By reason, since the start. `unmapped` and `ring_unmapped`: memory that the VMM did not share.
            `memory_lost`: it truncated it. Everything else: a driver's bug, or malice.""", "short",
            query("sum by (instance, controller, queue, reason) (ringside_virtqueue_faults_total@instance)",
                  "{{controller}} ring {{queue}} {{reason}} · {{instance}}"), limits=(GREEN, (1, RED))),
        series("Messages refused", """vhost-user messages that the target refused, a second. A few at connection are a VMM that
            asks for what we lack; a stream of them is a broken VMM.""", "reqps",
            query("sum by (instance, controller) (rate(ringside_vhost_messages_refused_total@instance[@]))", CONTROLLER)),
        series("Requests without room for an answer", """A buffer too short for a response: the guest gets a bare used entry.
            Its driver is broken.""", "reqps",
            query("sum by (instance, controller) (rate(ringside_scsi_no_response_room_total@controller[@]))", CONTROLLER),
            limits=(GREEN, (1e-9, RED))),
    ]


def _sessions():
    increase = lambda metric: f"sum by (instance, controller) (increase({metric}@instance[5m]))"  # noqa: E731
    return [
        series("Connections", """Front-ends now, those included that are gone and only wait for their last requests. More than one
            for long: a block device that does not answer.""", "short",
            query("sum by (instance, controller) (ringside_sessions_open@instance)", CONTROLLER), span=8),
        series("Accepted and turned away", """In the last five minutes. Accepted again and again: the VMM restarts. Turned away: two
            VMMs have the same socket.""", "short",
            query(increase("ringside_sessions_total"), "accepted " + CONTROLLER),
            query(increase("ringside_sessions_turned_away_total"), "turned away " + CONTROLLER), span=8,
            limits=(GREEN, (5, YELLOW))),
        series("Resets and memory tables", """In the last five minutes. A reset is a guest that boots or recovers; a memory table
            one that boots or gets memory. Neither stops a poller.""", "short",
            query(increase("ringside_device_resets_total"), "resets " + CONTROLLER),
            query(increase("ringside_memory_tables_total"), "tables " + CONTROLLER), span=8),
        series("Change of memory, 99th percentile", """From the message to its being in force: mapping, faulting in, waiting for
            requests. It holds up its own guest only; seconds with little memory are requests that do not end.""", "s",
            query(quantile(0.99, "ringside_memory_table_duration_seconds_bucket@instance", "instance, controller"), CONTROLLER),
            span=8),
        timeline("Sockets", "Whether front-ends can connect. A lost socket wants a restart of the target; its log says why.",
            {0: ("lost", RED), 1: ("there", GREEN)}, query("ringside_session_listening@instance", CONTROLLER), span=8),
        table("Negotiated", "What each front-end has agreed to. Compare before and after when performance changed.", "short",
            [("Connected", "ringside_session_info@instance", "short")], span=8),
    ]
