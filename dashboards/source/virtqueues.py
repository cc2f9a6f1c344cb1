"""Panels of virtqueues, for storage controllers and net devices alike."""

from .panels import GREEN, RED, distribution, query, ratio, series, timeline

RING = "{{controller}} ring {{queue}} · {{instance}}"
BY_RING = "instance, controller, queue"


def virtqueues(of: str):
    """`of` is the selector of the devices whose rings these are."""

    def rate(metric):
        return f"sum by ({BY_RING}) (rate(ringside_virtqueue_{metric}@{of}[@]))"

    return [
        series("Chains fetched", "Requests or frames taken from each ring. An empty ring beside full ones: the guest uses fewer.",
            "ops", query(rate("chains_total"), RING), span=8),
        series("Chains of one batch", """How many were there when the poller looked. Above 8 it works at its best; at 1 the
            poller waits for the guest.""", "short", query(ratio(rate("chains_total"), rate("batches_total")), RING), span=8),
        series("In flight", """Chains fetched and not completed. Constant above 0 while nothing is fetched: requests hang. Of a receive
            queue: buffers that wait for frames.""", "short",
            query(f"sum by ({BY_RING}) (ringside_virtqueue_in_flight@{of})", RING), span=8),
        distribution("Batches", "How many fetches found how many chains. All at 1: one request at a time. All at 32: saturated.",
            "short", f"ringside_virtqueue_batch_chains_bucket@{of}", span=8),
        series("Lingers", """Fetches after which the ring was left alone for a moment, so that its driver could add to it: near the rate
            of fetches where that pays, a few now and then where it was tried in vain.""", "ops",
            query(rate("lingers_total"), RING), span=8),
        series("Calls for a batch", """Interrupts sent for each batch; the rest was suppressed, because the driver polls or has
            not seen the last one. Each costs a system call and the guest an exit.""", "short",
            query(ratio(rate("calls_total"), rate("batches_total")), RING), span=8),
        series("Kicks", """Kicks received. Drivers are told not to kick while their ring is polled: many kicks are a ring that
            falls asleep between requests, or a driver that ignores it.""", "ops", query(rate("kicks_total"), RING), span=8),
        series("Calls suppressed", "Publishes after which the driver wanted no call.", "ops",
            query(rate("calls_suppressed_total"), RING), span=8),
        series("Calls coalesced", """Delayed: calls held back for a moment. Coalesced: publishes that needed none, since one was held
            back. Few coalesced beside many delayed: the delay buys nothing but latency.""", "ops",
            query(rate("calls_delayed_total"), "delayed " + RING), query(rate("calls_coalesced_total"), "coalesced " + RING),
            span=8),
        series("Coalescing, delay", "`delay_base_us` as it is now; 0: calls are not coalesced.", "s",
            query(f"ringside_coalescing_delay_base_seconds@{of}", "{{controller}} · {{instance}}"), span=6),
        series("Coalescing, threshold", "`iops_threshold` as it is now: completions a second and queue above which calls are held back.", "iops",
            query(f"ringside_coalescing_iops_threshold@{of}", "{{controller}} · {{instance}}"), span=6),
        series("Held for order", """Requests that were done before older ones of their ring and waited for them: of drivers that have agreed
            on VIRTIO_F_IN_ORDER. The wait is in no latency that is told.""", "ops", query(rate("held_total"), RING), span=6),
        series("Ring sizes", "Descriptors of each started ring; 0 while it is stopped.", "short",
            query(f"sum by ({BY_RING}) (ringside_virtqueue_size@{of})", RING), span=6),
        timeline("Halted rings", """A ring that a fault has halted answers no more until its driver resets the device. The log
            names queue, head and reason.""", {0: ("well", GREEN), 1: ("halted", RED)},
            query(f"max by ({BY_RING}) (ringside_virtqueue_broken@{of})", RING)),
        timeline("Cold rings", "Rings that were idle for 10 to 20 ms are left out of the loop until the driver kicks.",
            {0: ("polled", GREEN), 1: ("cold", "#5794F2")},
            query(f"max by ({BY_RING}) (ringside_virtqueue_cold@{of})", RING)),
    ]
