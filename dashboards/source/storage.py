"""Storage by controller, logical unit and block device."""

from .panels import (BLUE, GREEN, RED, YELLOW, ZERO_IS_GOOD, bars, distribution, quantile, query, ratio, series, stat, table)
from .virtqueues import virtqueues

TITLE = "Storage"
ABOUT = "Commands, bytes, latencies and errors by controller and LUN, what block devices made of them, and request queues."
VARIABLES = ["job", "instance", "controller", "target", "lun", "bdev"]

LUN = "{{controller}} {{target}}:{{lun}}"
BY_LUN = "instance, controller, target, lun"
DURATION = "ringside_scsi_command_duration_seconds"


def rows():
    return [
        ("Logical units", _units()),
        ("How long commands take", _latency()),
        ("How they end", _ends()),
        ("Block devices", _bdevs()),
        ("Files", _files()),
        ("Virtqueues", virtqueues("controller")),
    ]


def _units():
    return [
        series("Commands", "Commands that ended, by LUN and kind. `other` is everything but READ and WRITE.", "iops",
            query(f"sum by ({BY_LUN}, op) (rate(ringside_scsi_commands_total@lun[@]))", LUN + " {{op}} · {{instance}}"),
            span=8),
        series("Bytes", "Bytes read and written, by LUN.", "binBps",
            query(f"sum by ({BY_LUN}, op) (rate(ringside_scsi_bytes_total@lun[@]))", LUN + " {{op}} · {{instance}}"), span=8),
        series("Commands in flight", """Now, and the most since the front-end connected, against what `cmd_per_lun` allows (of
            rings that are smaller: what they hold). At the limit, the next command is refused.""", "short",
            query(f"sum by ({BY_LUN}) (ringside_scsi_in_flight@lun)", LUN + " · {{instance}}"),
            query(f"max by ({BY_LUN}) (ringside_scsi_in_flight_high_water@lun)", LUN + " most · {{instance}}"),
            query("ringside_scsi_cmd_per_lun_effective@controller", "limit of {{controller}} · {{instance}}"), span=8),
        series("Bytes of a command", "Mean transfer. A step down is a guest that began to split, or a lower `max_sectors`.",
            "bytes", query(ratio(f"sum by ({BY_LUN}, op) (rate(ringside_scsi_bytes_total@lun[@]))",
                                 f'sum by ({BY_LUN}, op) (rate(ringside_scsi_commands_total@lun{{op=~"read|write"}}[@]))'),
                           LUN + " {{op}} · {{instance}}")),
        table("What is served", "LUNs and the block device behind each, with its size.", "bytes",
            [("Size", "ringside_scsi_lun_info@lun * on (job, instance, bdev) group_left () ringside_bdev_size_bytes@instance",
              "bytes")]),
    ]


def _latency():
    legend = LUN + " {{op}} · {{instance}}"
    panels = [
        series(f"Latency, {name}", text, "s",
            query(quantile(of, f"{DURATION}_bucket@lun", f"{BY_LUN}, op"), legend), span=6)
        for of, name, text in (
            (0.5, "median", "Half of the READs and WRITEs took less, from the fetch from the ring to the completion."),
            (0.99, "99th percentile", "If only this grows, something waits now and then: a busy poller, a device's cache flush."),
            (0.999, "99.9th percentile", "The tail: reclaim, a neighbour's burst, the host's scheduler. See \"Pollers\"."),
        )
    ]
    mean = ratio(f"sum by ({BY_LUN}, op) (rate({DURATION}_sum@lun[@]))", f"sum by ({BY_LUN}, op) (rate({DURATION}_count@lun[@]))")
    panels.insert(0, series("Latency, mean", "Little's law: this times the command rate is the number in flight.", "s",
                            query(mean, legend), span=6))
    late = ratio(f'sum by ({BY_LUN}) (rate({DURATION}_bucket@lun{{le="0.01"}}[@]))', f"sum by ({BY_LUN}) (rate({DURATION}_count@lun[@]))")
    return panels + [
        distribution("Latency of reads", "How many READs took how long. Two bands are two kinds of answer: cache and disk.",
            "s", f'{DURATION}_bucket@lun{{op="read"}}', span=8),
        distribution("Latency of writes", "How many WRITEs took how long.", "s", f'{DURATION}_bucket@lun{{op="write"}}', span=8),
        series("Within 10 ms", """Share of READs and WRITEs that met the objective of the alert rules (99.9 % within 10 ms).
            Below the line the error budget burns.""", "percentunit", query(late, LUN + " · {{instance}}"), span=8, full=1,
            limits=(RED, (0.999, GREEN))),
    ]


def _ends():
    return [
        series("Errors", """Commands that ended with CHECK CONDITION. A guest that scans its disks makes a few; a steady rate
            is a failing device or a guest that asks for what the disk has not.""", "reqps",
            query(f"sum by ({BY_LUN}) (rate(ringside_scsi_errors_total@lun[@]))", LUN + " · {{instance}}"), span=8,
            limits=(GREEN, (1, YELLOW))),
        series("Sense keys", """What those errors say. MEDIUM and HARDWARE ERROR: the block device. ILLEGAL REQUEST: the guest.
            UNIT ATTENTION: a reset, or LUNs that changed. DATA PROTECT: a read-only disk, or a full one.""", "reqps",
            query("sum by (instance, controller, sense_key) (rate(ringside_scsi_check_conditions_total@controller[@]))",
                  "{{controller}} {{sense_key}} · {{instance}}"), span=8),
        series("Responses other than OK", """virtio-scsi response codes. BUSY and FAILURE: a limit. ABORTED and RESET: the
            guest's error handling. BAD_TARGET: it scans. TRANSPORT_FAILURE: a LUN was pulled out.""", "reqps",
            query('sum by (instance, controller, response) (rate(ringside_scsi_responses_total@controller{response!="ok"}[@]))',
                  "{{controller}} {{response}} · {{instance}}"), span=8),
    ]


def _bdevs():
    name = "{{bdev}} {{op}} · {{instance}}"
    pending = "ringside_bdev_pending_seconds"
    return [
        series("Requests", "Requests that a block device ended, whoever sent them.", "iops",
            query("sum by (instance, bdev, op) (rate(ringside_bdev_requests_total@bdev[@]))", name), span=8),
        series("Bytes", "Bytes that a block device moved.", "binBps",
            query("sum by (instance, bdev, op) (rate(ringside_bdev_bytes_total@bdev[@]))", name), span=8),
        series("Errors", "Requests that a block device did not end well. The log has the first of each second.", "reqps",
            query("sum by (instance, bdev, op) (rate(ringside_bdev_errors_total@bdev[@]))", name), span=8,
            limits=(GREEN, (1e-9, RED))),
        series("Pending at the block device, 99th percentile", """How long requests waited for the block device; those that it
            did at once are not in here. Compare with the latency of the LUN.""", "s",
            query(quantile(0.99, f"{pending}_bucket@bdev", "instance, bdev, op"), name), span=8),
        series("Pending at the block device, mean", "The same, on average.", "s",
            query(ratio(f"sum by (instance, bdev, op) (rate({pending}_sum@bdev[@]))",
                        f"sum by (instance, bdev, op) (rate({pending}_count@bdev[@]))"), name), span=8),
        table("Sizes", "Block devices, and how large each is.", "bytes",
            [("Size", "ringside_bdev_size_bytes@bdev * on (job, instance, bdev) group_left (kind) ringside_bdev_info@bdev",
              "bytes")], span=8),
        series("Memory of malloc devices", """By what it is made of. `plain`: there were too few huge pages at the start, and the disk
            is slower; make room (`scripts/setup.sh --only hugepages`) and restart.""", "bytes",
            query("sum by (instance, bdev, backing) (ringside_bdev_memory_bytes@bdev)", "{{bdev}} {{backing}} · {{instance}}"),
            span=24),
    ]


def _files():
    name = "{{bdev}} · {{instance}}"
    per_second = lambda metric: f"sum by (instance, bdev) (rate({metric}@bdev[@]))"  # noqa: E731
    return [
        stat("Flushes that failed", """Files of which a flush has failed: every flush and FUA write fails until the LUN is reset
            or the target started again, because data may be lost. Look at the host's disk and its log.""", "short",
            query("sum(ringside_bdev_file_sync_failed@bdev)", "files"), limits=ZERO_IS_GOOD, span=6),
        stat("Past the page cache", "Files served with O_DIRECT. A file that should be and is not: its file system has none.",
            "short", query("sum(ringside_bdev_file_direct@bdev)", "files"), limits=(BLUE,), span=6),
        bars("Failures", "Flushes that failed and calls of io_uring_enter that failed, since the start. The log says why.",
            "short", query("sum by (instance, bdev) (ringside_bdev_file_sync_failures_total@bdev "
                           "+ ringside_bdev_file_enter_failures_total@bdev)", name, instant=True),
            limits=(GREEN, (1, RED)), span=12),
        series("Unusual transfers", """Bounced: the guest's buffers were not aligned, each costs a copy. Continued: the kernel did
            a part first. Retried: it had no room (EAGAIN).""", "ops",
            query(per_second("ringside_bdev_file_bounced_total"), "bounced " + name),
            query(per_second("ringside_bdev_file_continued_total"), "continued " + name),
            query(per_second("ringside_bdev_file_retried_total"), "retried " + name)),
        series("Requests of one io_uring_enter", "The more, the cheaper: a batch of the guest's queue goes in one call.", "short",
            query(ratio('sum by (instance, bdev) (rate(ringside_bdev_requests_total@bdev[@]) '
                        'and on (job, instance, bdev) ringside_bdev_file_direct@bdev)',
                        per_second("ringside_bdev_file_enters_total")), name)),
        series("SPDK: transfers", """Direct: SPDK was given the guest's memory as it is. Lent: copied from or to memory that the bdev is
            made of. Bounced: through SPDK's pool, each costs a copy more; give the guest aligned memory on huge pages.""", "ops",
            query(per_second("ringside_bdev_spdk_direct_total"), "direct " + name),
            query(per_second("ringside_bdev_spdk_lent_total"), "lent " + name),
            query(per_second("ringside_bdev_spdk_bounced_total"), "bounced " + name)),
        series("SPDK: waits", """Starved: a transfer waited for a buffer of SPDK's pool. Waited: a request waited for room in SPDK or its
            device. Enlarge SPDK's pools if it goes on.""", "ops",
            query(per_second("ringside_bdev_spdk_starved_total"), "starved " + name),
            query(per_second("ringside_bdev_spdk_waited_total"), "waited " + name)),
        stat("SPDK: waited for", """Bdevs that SPDK does not have, or that cannot be used: their LUNs are not there. They come by themselves when
            the bdev is made; the log says which, and why one that is there is not used.""", "short",
            query("sum(ringside_bdev_spdk_awaited@bdev)", "bdevs"), limits=ZERO_IS_GOOD, span=6),
        series("SPDK: guest memory", "Memory of guests that is mapped, and what of it SPDK's devices reach without a copy.", "bytes",
            query("sum by (instance, state) (ringside_spdk_guest_memory_bytes@instance)", "{{state}} ({{instance}})")),
    ]
