//! What is counted of block devices.

super::group! {
    "Block devices",
    "`bdev` is the name in the configuration, `op` the kind of request. Wrappers (`delay`, `error`) and what they stand on are \
     block devices of their own.";

    INFO: Info "ringside_bdev_info" ["bdev", "kind"] "R28" if "where there are block devices",
        "1, with the kind of a block device.",
        "It does not move, but comes and goes with the configuration.";
    SIZE: Gauge "ringside_bdev_size_bytes" ["bdev"] "R28" if "where there are block devices",
        "Size of a block device.",
        "It changes only if the device is replaced.";
    MEMORY: Gauge "ringside_bdev_memory_bytes" ["bdev", "backing"] "R28" if "for devices of kind malloc",
        "Memory of a malloc device, by what it is made of: `huge` pages or `plain` ones.",
        "`plain`: there were not enough free huge pages at the start, and the disk is slower. Make room \
         (`scripts/setup.sh --only hugepages`) and restart.";
    REQUESTS: Counter "ringside_bdev_requests_total" ["bdev", "op"] "R28" if "where there are block devices",
        "Requests that a block device has ended.",
        "Its rate is what the device does, whoever asked. More than the LUN's commands: large commands are cut, or others use \
         the device. `reset`: a guest has reset its LUN while the device had commands; look for what kept them.";
    ERRORS: Counter "ringside_bdev_errors_total" ["bdev", "op"] "R28" if "where there are block devices",
        "Requests that a block device did not end well; a comparison that found a difference is one.",
        "The medium or the file system below fails, or is full: the log of the host and the guest's sense data say more. \
         `compare_and_write` and `verify` count differences, which are no faults.";
    BYTES: Counter "ringside_bdev_bytes_total" ["bdev", "op"] "R28" if "where there are block devices",
        "Bytes that reads and writes moved.",
        "Its rate is the throughput of the device.";
    PENDING: Histogram "ringside_bdev_pending_seconds" ["bdev", "op"] "R28" if "where there are block devices",
        "How long requests were pending at a block device; those that it did at once are not in here.",
        "The device's own latency. If it grows with the load, the device is saturated; if without, look at the host's disk.";
    BOUNCED: Counter "ringside_bdev_file_bounced_total" ["bdev"] "R28" if "for devices of kind file",
        "Transfers over a bounce buffer, because a guest's buffers were not aligned.",
        "Costs a copy each. A guest whose file system has smaller blocks than the device: give the bdev a `block_size` that \
         matches, or use `direct = false`.";
    CONTINUED: Counter "ringside_bdev_file_continued_total" ["bdev"] "R28" if "for devices of kind file",
        "Transfers that the kernel did in part first.",
        "Rare. A steady rate is a file system that is full or interrupts transfers.";
    RETRIED: Counter "ringside_bdev_file_retried_total" ["bdev"] "R28" if "for devices of kind file",
        "Requests that were tried again (EAGAIN).",
        "The kernel was short of something for a moment. A steady rate: too little memory, or too deep queues.";
    SYNC_FAILURES: Counter "ringside_bdev_file_sync_failures_total" ["bdev"] "R28" if "for devices of kind file",
        "Flushes and FUA writes that failed.",
        "Data that the guest believed durable may be lost. Stop the guest, look at the disk.";
    ENTERS: Counter "ringside_bdev_file_enters_total" ["bdev"] "R28" if "for devices of kind file",
        "Calls of io_uring_enter.",
        "At most one a batch. As many as requests: no batching, the guest has one request at a time in flight.";
    ENTER_FAILURES: Counter "ringside_bdev_file_enter_failures_total" ["bdev"] "R28" if "for devices of kind file",
        "Calls of io_uring_enter that failed.",
        "The kernel refuses work: look for limits of the container (seccomp, memory).";
    SYNC_FAILED: Gauge "ringside_bdev_file_sync_failed" ["bdev"] "R28" if "for devices of kind file",
        "1 after a flush that failed: every flush fails until the device is reset.",
        "See `ringside_bdev_file_sync_failures_total`. The guest's file system is read-only by now; check the disk before you \
         restart it.";
    DIRECT: Gauge "ringside_bdev_file_direct" ["bdev"] "R28" if "for devices of kind file",
        "1 if a file is served past the page cache of the host.",
        "0 with `direct = true`: its file system does not let it, and latencies include the page cache's.";
    SPDK_DIRECT: Counter "ringside_bdev_spdk_direct_total" ["bdev"] "R28" if "for devices of kind spdk",
        "Transfers whose buffers SPDK was given as they are.",
        "All of them should be here or in `ringside_bdev_spdk_lent_total`. See `ringside_bdev_spdk_bounced_total`.";
    SPDK_LENT: Counter "ringside_bdev_spdk_lent_total" ["bdev"] "R28" if "for devices of kind spdk",
        "Transfers between the guest's memory and the bdev's own, which SPDK lends: one copy, by the poller.",
        "All reads and writes of a bdev that is memory itself (malloc), whatever the guest's memory is like; none of others.";
    SPDK_BOUNCED: Counter "ringside_bdev_spdk_bounced_total" ["bdev"] "R28" if "for devices of kind spdk",
        "Transfers through SPDK's pool, because SPDK could not take the guest's memory.",
        "Costs a copy each. Give the guest memory on huge pages that is aligned to 2 MiB: `ringside_spdk_guest_memory_bytes` says \
         how much of it SPDK can take.";
    SPDK_STARVED: Counter "ringside_bdev_spdk_starved_total" ["bdev"] "R28" if "for devices of kind spdk",
        "How often a transfer waited for SPDK's pool of buffers.",
        "The pool is too small for what is in flight: raise `large_pool_count` in SPDK's configuration (`iobuf_set_options`).";
    SPDK_WAITED: Counter "ringside_bdev_spdk_waited_total" ["bdev"] "R28" if "for devices of kind spdk",
        "How often a request waited until SPDK had room for it.",
        "The device's queue is full, or `bdev_io_pool_size` (`bdev_set_options`) is too small. The guest sees latency, no error.";
    SPDK_AWAITED: Gauge "ringside_bdev_spdk_awaited" ["bdev"] "R28" if "for devices of kind spdk",
        "1 while SPDK has no such bdev, or it cannot be used: it and its LUN are not there. 0 once they are.",
        "1: make the bdev in SPDK (`spdk-rpc`), or look why it is gone; the LUN comes by itself. If SPDK has it, the log says why it is \
         not used: claimed by another bdev, or of a geometry that guests cannot use.";
    SPDK_MEMORY: Gauge "ringside_spdk_guest_memory_bytes" ["state"] "R14" if "where SPDK runs",
        "Memory of front-ends: `mapped`, and `registered` with SPDK, whose devices reach that without a copy.",
        "`registered` far below `mapped`: memory that is not aligned to 2 MiB, or not on huge pages. Transfers bounce.";
}
