//! What is counted of logical units and of controllers as SCSI devices.

super::group! {
    "Logical units and controllers",
    "`controller` is the name in the configuration, `target` and `lun` are the address of a logical unit, `op` is `read`, \
     `write` or `other`. Sum over `target` and `lun` for a controller.";

    LUN_INFO: Info "ringside_scsi_lun_info" ["controller", "target", "lun", "bdev"] "R28",
        "1, with the block device of a logical unit.",
        "It does not move, but comes and goes with a LUN (SIGHUP). Join on it to see the `ringside_bdev_…` behind a LUN.";
    COMMANDS: Counter "ringside_scsi_commands_total" ["controller", "target", "lun", "op"] "R28",
        "Commands that ended.",
        "Its rate is the IOPS of the guest. A rate of 0 with `ringside_scsi_in_flight` above 0 is a block device that does \
         not answer: look at `ringside_bdev_pending_seconds` and at the device. Many `other` commands are flushes, UNMAPs or \
         a guest that probes: `ringside_bdev_requests_total` has them by kind.";
    BYTES: Counter "ringside_scsi_bytes_total" ["controller", "target", "lun", "op"] "R28",
        "Bytes that READ and WRITE commands moved.",
        "Its rate is the throughput; divided by that of commands, the mean size. Compare with what the block device can do.";
    ERRORS: Counter "ringside_scsi_errors_total" ["controller", "target", "lun"] "R28",
        "Commands that ended with CHECK CONDITION.",
        "A few at the start of a guest are its probing. If it grows under load, `ringside_scsi_check_conditions_total` says \
         which sense key, and `ringside_bdev_errors_total` whether the block device is to blame.";
    DURATION: Histogram "ringside_scsi_command_duration_seconds" ["controller", "target", "lun", "op"] "R28",
        "From the fetch of a READ or WRITE from its ring to its completion.",
        "This is what ringside and the block device make the guest wait. If it grows, compare it with \
         `ringside_bdev_pending_seconds`: what is there, too, is the device's; what is not is waiting behind other work of \
         the poller (`ringside_poller_busy_loop_seconds`, `ringside_poller_seconds_total`).";
    IN_FLIGHT: Gauge "ringside_scsi_in_flight" ["controller", "target", "lun"] "R02",
        "Commands in flight.",
        "The queue depth that counts against `cmd_per_lun`. Near the limit for long: expect refusals; raise the limit, or \
         tell the guest the same number (`ringside qemu-args`). Above 0 and constant while no commands end: the block device \
         hangs.";
    HIGH_WATER: Gauge "ringside_scsi_in_flight_high_water" ["controller", "target", "lun"] "R02",
        "The most commands that were in flight at once, since the logical unit came.",
        "When it reaches `ringside_scsi_cmd_per_lun_effective`, the limit has been met at least once: watch \
         `ringside_scsi_refused_total`.";
    REFUSED: Counter "ringside_scsi_refused_total" ["controller", "target", "lun", "limit"] "R01, R02, R04",
        "Commands refused by a transport limit. With target and lun empty: the LUN does not exist.",
        "The guest sends more than it may. `cmd_per_lun`, `max_sectors`: give the front-end the same numbers (`ringside \
         qemu-args`) or raise the limit; `seg_max`: the guest's segments are too many for the configured `seg_max`. While it \
         grows, Linux guests retry and may end with I/O errors: see Limits in README.md.";
    RESPONSES: Counter "ringside_scsi_responses_total" ["controller", "response"] "R28",
        "Requests that were answered, by virtio-scsi response code.",
        "`ok` is the rate of everything that went well or was answered by SCSI status. `busy` and `failure` go with \
         `ringside_scsi_refused_total`; `aborted` and `reset` with `ringside_scsi_tmf_total`; `bad_target` is a guest that \
         probes, or a LUN that was taken away; `overrun` a driver whose buffers are shorter than its commands say; \
         `transport_failure` commands of a LUN that was removed under load.";
    NO_ROOM: Counter "ringside_scsi_no_response_room_total" ["controller"] "R12",
        "Requests whose buffers had no room for a response: they got a bare used entry.",
        "A broken or hostile driver. Nothing else suffers; look at who runs in that guest.";
    CHECK_CONDITIONS: Counter "ringside_scsi_check_conditions_total" ["controller", "sense_key"] "R28",
        "Commands that ended with CHECK CONDITION, by sense key.",
        "`unit_attention` and `illegal_request` at the start of a guest are normal. `medium_error`, `hardware_error` and \
         `aborted_command` come from the block device: look at `ringside_bdev_errors_total` and at the log of the host. \
         `data_protect` is a write to a read-only LUN; `miscompare` a COMPARE AND WRITE that lost a race, as clusters do.";
    EVENTS: Counter "ringside_scsi_events_total" ["controller", "event"] "R23",
        "Events that were given to the driver: LUNs that came or went, or changed their size.",
        "It follows what you change. If it grows by itself, somebody reloads the configuration.";
    EVENTS_MISSED: Counter "ringside_scsi_events_missed_total" ["controller"] "R23",
        "Events that the driver had no buffer for; it was or will be told that some were lost.",
        "A Linux guest scans everything then. If a disk does not appear or disappear nevertheless, rescan in the guest; check \
         that QEMU's `hotplug` property is on.";
    TMF: Counter "ringside_scsi_tmf_total" ["controller", "function", "response"] "R07, R08",
        "Task management functions that were answered, by function and response; other responses than `function_complete` are \
         there when they have been given.",
        "A guest ran out of patience (Linux aborts after 30 s) or resets its disks, as it does at boot. `abort_task` and \
         `logical_unit_reset` under load: the block device is too slow, see `ringside_scsi_command_duration_seconds` and \
         `ringside_bdev_pending_seconds`.";
    TMF_DURATION: Histogram "ringside_scsi_tmf_duration_seconds" ["controller"] "R07",
        "From the fetch of a task management function to its completion.",
        "A function waits for the commands that it ends, so it lasts as long as the block device holds them. Seconds: the \
         device hangs.";
    LIMIT: Gauge "ringside_scsi_limit" ["controller", "limit"] "R05",
        "A transport limit as it is configured.",
        "It changes with SIGHUP only. Alert on the distance of `ringside_scsi_in_flight_high_water` from it.";
    EFFECTIVE: Gauge "ringside_scsi_cmd_per_lun_effective" ["controller"] "R06",
        "`cmd_per_lun`, or what the started request rings hold if that is less.",
        "Below `ringside_scsi_limit`: the front-end's rings are too small for the limit; raise QEMU's `virtqueue_size` or \
         `num_queues`.";
}
