//! What is counted of ports and switches.

super::group! {
    "Ports and switches",
    "`port` is the name in the configuration, `device` the net device, or the switch, that is plugged in, `queue` its queue pair. \
     A switch and its uplink are a device to each other.";

    INFO: Info "ringside_port_info" ["port", "kind", "mac"] "R28" if "where there are ports",
        "1, with kind and address of a port.",
        "It does not move.";
    LINK_UP: Gauge "ringside_port_link_up" ["port"] "R18" if "where there are ports",
        "1 while frames go through the port.",
        "0: cable, switch, or the interface of the host. Guests are told if their front-end can be.";
    SPEED: Gauge "ringside_port_speed_bytes_per_second" ["port"] "R28" if "where the speed is known",
        "Speed of the link.",
        "A lower speed than before: the link was negotiated anew. Divide `ringside_port_bytes_total`'s rate by it for the load.";
    FRAMES: Counter "ringside_port_frames_total" ["port", "device", "queue", "direction"] "R28" if "where there are net devices",
        "Frames that went through a queue of a port: `tx` from the device, `rx` to it.",
        "Less than the device's own: see `ringside_port_drops_total`.";
    BYTES: Counter "ringside_port_bytes_total" ["port", "device", "queue", "direction"] "R28" if "where there are net devices",
        "Bytes of those frames, without FCS.",
        "Its rate is the throughput.";
    DROPS: Counter "ringside_port_drops_total" ["port", "device", "queue", "cause"] "R27" if "where there are net devices",
        "Frames that a port lost, by cause.",
        "`port_full`: the link is slower, or another guest does not fetch. `bad_length`: longer than the link takes. \
         `bad_offload`: frames whose headers do not fit what was left to be done. `no_memory`: raise `mbufs`. \
         `no_destination`: isolated or disconnected.";
    MBUFS: Gauge "ringside_port_mbufs" ["port", "state"] "R28" if "for ports of kind dpdk",
        "Packet buffers of a port, `used` and `free`.",
        "No `free` ones: frames are lost (`no_memory`, or `rx_mbuf_allocation_errors` of the extended counters). Raise `mbufs`.";
    EXTENDED: Counter "ringside_port_extended_total" ["port", "name"] "R28" if "for ports of kind dpdk",
        "Counters of a port by the names that its driver gives them.",
        "Errors and misses among them are the card's own: `rx_missed_errors` is a poller that is too slow, `…_errors` often a \
         cable.";
    ADDRESSES: Gauge "ringside_switch_addresses" ["port"] "R28" if "for ports of kind switch",
        "Addresses in the table of a switch.",
        "Near `table_size`: see `ringside_switch_table_full_total`.";
    LEARNED: Counter "ringside_switch_learned_total" ["port"] "R28" if "for ports of kind switch",
        "Addresses that a switch learned.",
        "A high rate is a guest that changes its address with every frame: an attack.";
    MOVED: Counter "ringside_switch_moved_total" ["port"] "R28" if "for ports of kind switch",
        "Addresses that turned up behind another port.",
        "A migration moves each once. A steady rate is one address in two guests, or a loop outside.";
    AGED: Counter "ringside_switch_aged_total" ["port"] "R28" if "for ports of kind switch",
        "Addresses that were forgotten: no frame had come from them.",
        "Normal. With many floods: raise `ageing_s`.";
    TABLE_FULL: Counter "ringside_switch_table_full_total" ["port"] "R28" if "for ports of kind switch",
        "Times that an address could not be learned: the table was full, or its device had as many as it may.",
        "Frames to it go to everybody. Raise `table_size` or `device_table_size`, or find the guest that floods addresses.";
    FLOODS: Counter "ringside_switch_floods_total" ["port"] "R28" if "for ports of kind switch",
        "Frames to one address that was not in the table, and so went to everybody.",
        "Some at the start of a conversation. A steady rate: addresses age too fast, or their owners never send.";
}
