//! What is counted of everything behind a vhost-user socket, whatever kind of device it is: connections and virtqueues.

super::group! {
    "Connections and virtqueues",
    "`controller` is the name of a controller or of a net device. `queue` is the index of a virtqueue: of a controller 0 is the \
     control queue, 1 the event queue, request queues follow; of a net device 0 is the first receive queue, 1 the first transmit \
     queue, the control queue is the last.";

    LISTENING: Gauge "ringside_session_listening" ["controller"] "R28",
        "1 while front-ends can connect: the socket is listened to, or connected from in client mode.",
        "0: the socket is lost (the log says why), no front-end will come back; restart the target. `/readyz` fails, too.";
    CONNECTED: Gauge "ringside_session_connected" ["controller"] "R28",
        "1 while a front-end is connected to the controller or net device.",
        "0: the virtual machine is down, or could not connect: look at its log. Flapping: see `ringside_sessions_total`.";
    OPEN: Gauge "ringside_sessions_open" ["controller"] "R14",
        "Connections of the controller or net device, those included that only wait for their last requests.",
        "Above 1 for long: a front-end has gone and its requests do not end. The block device hangs; its memory stays mapped.";
    SESSIONS: Counter "ringside_sessions_total" ["controller"] "R28",
        "Connections that were accepted.",
        "A growing count with no restarts of the virtual machine is a front-end that crashes or gives up: look at \
         `ringside_vhost_messages_refused_total`, and at its log.";
    SESSION_INFO: Info "ringside_session_info" ["controller", "features", "protocol_features"] "R28"
        if "while a front-end is connected that has set features",
        "1, with the features that the front-end has agreed to, in hexadecimal.",
        "It changes with the front-end: another version of it, or of the guest's driver. Compare it before and after when \
         performance changed.";
    TURNED_AWAY: Counter "ringside_sessions_turned_away_total" ["controller"] "R08",
        "Connections that were refused because a front-end was connected.",
        "Two virtual machines are configured with one socket, or an old one is still running.";
    REFUSED: Counter "ringside_vhost_messages_refused_total" ["controller"] "R16",
        "vhost-user messages that were refused.",
        "The log has each with its reason. Typically a ring larger than `queue_size_max`, or a front-end that is broken.";
    RESETS: Counter "ringside_device_resets_total" ["controller"] "R15",
        "Device resets by the front-end.",
        "Guests reset when they boot. Under load it is a driver that recovers from a broken queue: see \
         `ringside_virtqueue_faults_total`.";
    MEMORY_TABLES: Counter "ringside_memory_tables_total" ["controller"] "R14",
        "Memory tables that were put in force.",
        "A handful at boot, more with memory hot-plug. A steady rate is a front-end that remaps for no reason: each change waits \
         for requests in flight of that device.";
    MEMORY_TABLE_DURATION: Histogram "ringside_memory_table_duration_seconds" ["controller"] "R14",
        "From the message with a change of memory to its being in force: mapping, faulting in, waiting for requests in flight.",
        "Grows with the memory of the guest, without harm to others. Seconds with little memory: requests do not end, see \
         `ringside_quiesce_wait_seconds`.";
    QUIESCE_WAIT: Gauge "ringside_quiesce_wait_seconds" ["controller"] "R14",
        "How long a stop, reset or change of memory has been waiting for requests in flight; 0 if none waits.",
        "Above a second: the block device holds requests, and the virtual machine waits with it. Look at \
         `ringside_scsi_in_flight`, and at the device.";
    DELAY_BASE: Gauge "ringside_coalescing_delay_base_seconds" ["controller"] "R28",
        "`delay_base_us` of the controller or net device as it is now; 0 if calls are not coalesced.",
        "It changes with the configuration (SIGHUP). See `ringside_virtqueue_calls_coalesced_total` for what it is good for.";
    IOPS_THRESHOLD: Gauge "ringside_coalescing_iops_threshold" ["controller"] "R28",
        "`iops_threshold` as it is now: completions a second and queue above which calls are held back.",
        "As above. Queues below it are called at once.";
    CHAINS: Counter "ringside_virtqueue_chains_total" ["controller", "queue"] "R28",
        "Descriptor chains that were fetched: requests, or buffers of a net device.",
        "Shows which queues a guest uses. One busy queue among idle ones: the guest has fewer queues than you think, or one \
         busy processor.";
    BATCHES: Counter "ringside_virtqueue_batches_total" ["controller", "queue"] "R28",
        "Fetches that found at least one chain.",
        "See `ringside_virtqueue_batch_chains`.";
    BATCH_SIZE: Histogram "ringside_virtqueue_batch_chains" ["controller", "queue"] "R28",
        "Chains of each fetch that found at least one.",
        "Large batches are cheap for each request. All at 1 with a busy poller: the guest has one request at a time in flight. \
         All at 32: the guest is faster than the poller, which is saturated.";
    LINGERS: Counter "ringside_virtqueue_lingers_total" ["controller", "queue"] "R28",
        "Fetches after which the queue was left alone for 1.5 µs, so that its driver could add to it.",
        "Near the rate of fetches: the driver adds requests one by one and gets more of them done when it is not looked at all the time. \
         A few: trials that were in vain.";
    IN_FLIGHT: Gauge "ringside_virtqueue_in_flight" ["controller", "queue"] "R28",
        "Chains that are fetched and not given back: the depth of the queue in the device.",
        "On a request queue it follows the load and the latency of the block device. Constant above 0 while \
         `ringside_virtqueue_chains_total` stands: requests hang. On a receive queue they are buffers that wait for frames.";
    HELD: Counter "ringside_virtqueue_held_total" ["controller", "queue"] "R28",
        "Requests that were done before older ones of their queue and waited for them, where the driver has agreed on \
         VIRTIO_F_IN_ORDER.",
        "Near the rate of chains: quick requests wait for slow ones, and no latency that is told here has that wait in it. Give slow \
         LUNs a controller of their own, or turn `in_order` off.";
    KICKS: Counter "ringside_virtqueue_kicks_total" ["controller", "queue"] "R28",
        "Kicks that were received; drivers are told not to kick while a queue is polled.",
        "Each costs the guest an exit. A rate near that of chains: the queue goes cold between requests; with latency in mind \
         set `idle = \"busy\"`.";
    CALLS: Counter "ringside_virtqueue_calls_total" ["controller", "queue"] "R28",
        "Calls that were sent to the driver: interrupts of the guest.",
        "Near the rate of chains: no batching at the guest. A driver that polls has none.";
    SUPPRESSED: Counter "ringside_virtqueue_calls_suppressed_total" ["controller", "queue"] "R28",
        "Publishes after which the driver wanted no call.",
        "High is good: the driver polls, or is still busy with what came before.";
    DELAYED: Counter "ringside_virtqueue_calls_delayed_total" ["controller", "queue"] "R28",
        "Calls that were held back for a moment, where calls are coalesced.",
        "0 with `delay_base_us` set: no queue is as busy as `iops_threshold`. Latency of a guest grew with it: set a shorter delay.";
    COALESCED: Counter "ringside_virtqueue_calls_coalesced_total" ["controller", "queue"] "R28",
        "Publishes that needed no call of their own, since one was held back already: interrupts that the guest was spared.",
        "Near 0 while calls are delayed: the delay buys nothing but latency; turn it off, or make it longer.";
    SIZE: Gauge "ringside_virtqueue_size" ["controller", "queue"] "R06",
        "Size of the ring in descriptors while it is started, otherwise 0.",
        "0 for a queue that should run: the driver has not started it, or its addresses do not map (see the log).";
    COLD: Gauge "ringside_virtqueue_cold" ["controller", "queue"] "R28",
        "1 while the queue has been idle: it is not polled, its driver is told to kick.",
        "Normal for idle queues. The first request after it takes up to 0.1 ms longer.";
    BROKEN: Gauge "ringside_virtqueue_broken" ["controller", "queue"] "R19",
        "1 while the queue is halted by a fault.",
        "The guest gets no answers on this queue until its driver resets the device: `ringside_virtqueue_faults_total` has the \
         reason, the log the descriptor. Restart the guest if its driver does not recover.";
    FAULTS: Counter "ringside_virtqueue_faults_total" ["controller", "queue", "reason"] "R19"
        if "for reasons that have occurred",
        "Faults that halted the queue, by reason.",
        "A driver that breaks the rules of the ring, or an attack. `memory_lost`: the front-end took guest memory away. Others \
         are not harmed; keep the log line for whoever wrote the driver.";
}
