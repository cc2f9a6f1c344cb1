//! What is counted of net devices.

super::group! {
    "Net devices",
    "`device` is the name in the configuration, `queue` the index of a queue pair, `direction` the guest's: `tx` is what it sends. \
     Their connections and rings are above, with the name as `controller`.";

    INFO: Info "ringside_net_info" ["device", "mac", "port"] "R28" if "where there are net devices",
        "1, with address and port of a net device.",
        "It does not move.";
    MTU: Gauge "ringside_net_mtu_bytes" ["device"] "R28" if "where there are net devices",
        "Longest frame without its Ethernet header.",
        "It does not move.";
    MTU_TOLD: Gauge "ringside_net_mtu_told_bytes" ["device"] "R28" if "where there are net devices",
        "The MTU that the front-end told of the driver; 0 if it told none.",
        "Other than `ringside_net_mtu_bytes`: QEMU's `host_mtu` does not match the configuration (`ringside qemu-args`).";
    FRAMES: Counter "ringside_net_frames_total" ["device", "queue", "direction"] "R28" if "where there are net devices",
        "Frames moved between driver and port.",
        "Its rate is the packet rate. One busy queue among idle ones: no RSS, one flow, or a guest with one queue.";
    BYTES: Counter "ringside_net_bytes_total" ["device", "queue", "direction"] "R28" if "where there are net devices",
        "Bytes of those frames, without FCS.",
        "Its rate is the throughput.";
    DROPS: Counter "ringside_net_drops_total" ["device", "queue", "direction", "cause"] "R27" if "where there are net devices",
        "Frames lost between driver and port, by cause.",
        "`no_guest_buffer`: the guest is slower than what comes; give it larger rings, more queues or more processors. \
         `port_full`: the link or the receiver is slower than the guest. `oversize`: MTUs do not match. `bad_descriptor`, \
         `bad_offload`: a broken driver. `queue_disabled`: it came before the driver received.";
    FILTERED: Counter "ringside_net_filtered_total" ["device", "queue"] "R26" if "where there are net devices",
        "Frames that were not for the driver, as it has said on the control queue.",
        "Normal on a shared segment. If the guest misses traffic, its MAC or VLAN filter does not match what you think.";
    SIZES: Histogram "ringside_net_frame_size_bytes" ["device", "queue", "direction"] "R28" if "where there are net devices",
        "Sizes of the frames moved, in the classes of RFC 2819.",
        "Small frames cost as much as large ones. Frames above 1518 are segmentation offload: if there are none in bulk \
         traffic, offloads are off.";
    CONTROL: Counter "ringside_net_control_commands_total" ["device", "ack"] "R26" if "where there are net devices",
        "Commands of the control queue, by their acknowledgement.",
        "`error`: the driver asks for what the device has not. The guest's log says what it tried.";
}
