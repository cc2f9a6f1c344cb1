"""Net devices, ports and switches."""

from .panels import (BLUE, GREEN, RED, YELLOW, ZERO_IS_GOOD, distribution, query, ratio, series, stat, table, timeline)
from .virtqueues import virtqueues

TITLE = "Network"
ABOUT = "Frames and bits by net device and queue pair, what was lost and why, ports and their links, switches."
VARIABLES = ["job", "instance", "device", "port"]

BY_PAIR = "instance, device, queue, direction"
PAIR = "{{device}} pair {{queue}} {{direction}} · {{instance}}"
LOST = (GREEN, (1e-9, RED))


def rows():
    return [
        ("Net devices", _devices()),
        ("Lost frames", _lost()),
        ("Ports", _ports()),
        ("Switches", _switches()),
        ("Virtqueues", virtqueues("ring")),
    ]


def _devices():
    return [
        series("Frames", "By queue pair; tx is what the guest sends. One pair that does everything: flows hash to one queue.",
            "pps", query(f"sum by ({BY_PAIR}) (rate(ringside_net_frames_total@device[@]))", PAIR), span=8),
        series("Bits", "Bits of those frames, without FCS, preamble and gap.", "bps",
            query(f"8 * sum by ({BY_PAIR}) (rate(ringside_net_bytes_total@device[@]))", PAIR), span=8),
        series("Bytes of a frame", "Mean size. With segmentation offload frames of up to 64 KiB pass.", "bytes",
            query(ratio(f"sum by ({BY_PAIR}) (rate(ringside_net_bytes_total@device[@]))",
                        f"sum by ({BY_PAIR}) (rate(ringside_net_frames_total@device[@]))"), PAIR), span=8),
        distribution("Sizes of sent frames", "How many frames of which size guests send.", "bytes",
            'ringside_net_frame_size_bytes_bucket@device{direction="tx"}', span=8),
        distribution("Sizes of received frames", "How many frames of which size guests receive.", "bytes",
            'ringside_net_frame_size_bytes_bucket@device{direction="rx"}', span=8),
        series("Control queue", """Commands of the control queue a second, by acknowledgement. `error`: the driver asked for what
            the device has not.""", "reqps",
            query("sum by (instance, device, ack) (rate(ringside_net_control_commands_total@device[@]))",
                  "{{device}} {{ack}} · {{instance}}"), span=8),
        table("Net devices", "Address, port and MTU of each.", "bytes",
            [("MTU", "ringside_net_mtu_bytes@device * on (job, instance, device) group_left (mac, port) ringside_net_info@device",
              "bytes"),
             ("MTU of the guest", "ringside_net_mtu_told_bytes@device", "bytes")], hidden=("Value",)),
        series("Filtered", "Frames that the guest has said it does not want. Many: it shares a switch with a loud neighbour.", "pps",
            query("sum by (instance, device, queue) (rate(ringside_net_filtered_total@device[@]))",
                  "{{device}} pair {{queue}} · {{instance}}")),
    ]


def _lost():
    return [
        series("Lost at the device", """Between guest and port. `no_guest_buffer`: the guest is slower than what comes, give it more
            CPU or larger rings. `port_full`: the link is slower than the guest. `bad_descriptor`, `bad_offload`: its driver.""",
            "pps", query("sum by (instance, device, direction, cause) (rate(ringside_net_drops_total@device[@]))",
                         "{{device}} {{direction}} {{cause}} · {{instance}}"), limits=LOST),
        series("Lost at the port", """Behind that. `port_full`: the far side does not fetch. `no_memory`: raise `mbufs`.
            `no_destination`: nobody it could go to. `bad_length`: longer than the link takes.""", "pps",
            query("sum by (instance, port, device, cause) (rate(ringside_port_drops_total@plugged[@]))",
                  "{{port}} {{device}} {{cause}} · {{instance}}"), limits=LOST),
        series("Share of frames lost", "Of those to and from a device. TCP halves its speed at less than 0.001.", "percentunit",
            query("sum by (instance, device) (rate(ringside_net_drops_total@device[@])) / "
                  "(sum by (instance, device) (rate(ringside_net_drops_total@device[@])) + "
                  "sum by (instance, device) (rate(ringside_net_frames_total@device[@])) > 0)", "{{device}} · {{instance}}"),
            span=24, limits=(GREEN, (0.0001, YELLOW), (0.001, RED))),
    ]


def _ports():
    by = "instance, port, device, direction"
    name = "{{port}} {{device}} {{direction}} · {{instance}}"
    return [
        stat("Links down", "Ports whose link is down: cable, switch, or the peer of the port.", "short",
            query("count(ringside_port_link_up@port == 0) or vector(0)", "down"), limits=ZERO_IS_GOOD, span=4),
        stat("Slowest link", "Where the speed is known.", "bps",
            query("8 * min(ringside_port_speed_bytes_per_second@port)", "speed"), limits=(BLUE,), span=4),
        timeline("Links", "Whether frames go through each port.", {0: ("down", RED), 1: ("up", GREEN)},
            query("ringside_port_link_up@port", "{{port}} · {{instance}}"), span=16),
        series("Frames", "Through the queues of a port, by device.", "pps",
            query(f"sum by ({by}) (rate(ringside_port_frames_total@plugged[@]))", name), span=8),
        series("Bits", "Bits of those frames.", "bps",
            query(f"8 * sum by ({by}) (rate(ringside_port_bytes_total@plugged[@]))", name), span=8),
        table("Ports", "Kind and address of each.", "short", [("There", "ringside_port_info@port", "short")], span=8),
        series("Counters of the driver", """What a DPDK driver counts, by its own names, where it moves. Names with `missed`, `errors`
            or `mbuf` that move: the poller is too slow, or `mbufs` too few.""", "short",
            query("sum by (instance, port, name) (rate(ringside_port_extended_total@port[@])) > 0",
                  "{{port}} {{name}} · {{instance}}")),
        series("Packet buffers", "Of DPDK ports. No free ones: frames are lost (`no_memory`); raise `mbufs`.", "short",
            query("sum by (instance, port, state) (ringside_port_mbufs@port)", "{{port}} {{state}} · {{instance}}"),
            stacked=True),
    ]


def _switches():
    rate = lambda metric: f"sum by (instance, port) (rate(ringside_switch_{metric}_total@port[@]))"  # noqa: E731
    name = "{{port}} · {{instance}}"
    return [
        series("Addresses", "Addresses in the table. At `table_size` further ones are flooded.", "short",
            query("ringside_switch_addresses@port", name), span=8),
        series("Changes of the table", """Learned, aged, moved. Addresses that move all the time: a loop, or one address in two
            guests.""", "ops", query(rate("learned"), "learned " + name), query(rate("aged"), "aged " + name),
            query(rate("moved"), "moved " + name), span=8),
        series("Floods and full tables", """Frames that went to everybody because nobody knew the address, and addresses that found
            no room: raise `table_size` or `device_table_size`.""", "pps",
            query(rate("floods"), "floods " + name), query(rate("table_full"), "table full " + name), span=8),
    ]
