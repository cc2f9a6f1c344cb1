//! The families of ports: their links, what they made of the frames of the devices that are plugged in, and what they say of
//! their far side.

use std::collections::BTreeMap;
use std::sync::Arc;

use port::{DropCause, PortStats};
use vhost_user::Device;

use super::families::{Families, Family, Kind};
use super::net;
use crate::ports::Ports;
use crate::service::NetService;

pub(super) fn collect(ports: &Ports, nets: &[Arc<NetService>], families: &mut Families) {
    describe(ports, families);
    frames(ports, nets, families);
    switches(ports, families);
    extended(ports, families);
}

fn describe(ports: &Ports, families: &mut Families) {
    let mut info = Family::new("ringside_port_info", "1, with kind and address of a port.", Kind::Gauge);
    let mut up = Family::new("ringside_port_link_up", "1 while frames go through the port.", Kind::Gauge);
    let mut speed =
        Family::new("ringside_port_speed_bits_per_second", "Speed of the link, where it is known.", Kind::Gauge);
    for entry in ports.entries() {
        let name = ("port", entry.port.name());
        let mac = entry.port.traits().mac.map(|mac| mac.to_string()).unwrap_or_default();
        info.sample(&[name, ("kind", entry.kind), ("mac", &mac)], 1.0);
        let link = entry.port.link();
        up.sample(&[name], f64::from(u8::from(link.up)));
        if let Some(mbps) = link.speed_mbps {
            speed.sample(&[name], f64::from(mbps) * 1e6);
        }
    }
    families.extend([info, up, speed]);
}

fn frames(ports: &Ports, nets: &[Arc<NetService>], families: &mut Families) {
    let mut all = Frames {
        frames: Family::new(
            "ringside_port_frames_total",
            "Frames that went through a queue of a port: tx from the device, rx to it.",
            Kind::Counter,
        ),
        bytes: Family::new("ringside_port_bytes_total", "Bytes of those frames, without FCS.", Kind::Counter),
        drops: Family::new("ringside_port_drops_total", "Frames that a port lost, by cause.", Kind::Counter),
    };
    for service in nets {
        let device = service.device();
        for (index, pair) in net::pairs(device).iter().enumerate() {
            // Every block has the same ones: they are the port queue's, which is never replaced.
            let none = PortStats::default();
            let stats = pair.first().map_or(&none, |counters| &counters.port);
            all.queue(device.port().name(), device.name(), index, stats);
        }
    }
    // A switch and its uplink are a device to each other.
    for (name, open) in ports.entries().iter().filter_map(|entry| Some((entry.port.name(), entry.switch.as_ref()?))) {
        if let Some(uplink) = &open.uplink {
            all.queue(uplink, name, 0, open.switch.uplink_port_stats());
            all.queue(name, uplink, 0, open.switch.uplink_stats());
        }
    }
    families.extend([all.frames, all.bytes, all.drops]);
}

struct Frames {
    frames: Family,
    bytes: Family,
    drops: Family,
}

impl Frames {
    fn queue(&mut self, port: &str, device: &str, index: usize, stats: &PortStats) {
        let queue = index.to_string();
        let labels = [("port", port), ("device", device), ("queue", queue.as_str())];
        let with = |name, value| [labels[0], labels[1], labels[2], (name, value)];
        for (direction, frames, bytes) in
            [("tx", &stats.tx_frames, &stats.tx_bytes), ("rx", &stats.rx_frames, &stats.rx_bytes)]
        {
            self.frames.sample(&with("direction", direction), frames.value() as f64);
            self.bytes.sample(&with("direction", direction), bytes.value() as f64);
        }
        for cause in DropCause::ALL {
            self.drops.sample(&with("cause", cause.name()), stats.drops[cause as usize].value() as f64);
        }
    }
}

fn switches(ports: &Ports, families: &mut Families) {
    let mut addresses = Family::new("ringside_switch_addresses", "Addresses in the table of a switch.", Kind::Gauge);
    let mut counters = [
        Family::new("ringside_switch_learned_total", "Addresses that a switch learned.", Kind::Counter),
        Family::new("ringside_switch_moved_total", "Addresses that turned up behind another port.", Kind::Counter),
        Family::new("ringside_switch_aged_total", "Addresses forgotten: no frame had come from them.", Kind::Counter),
        Family::new(
            "ringside_switch_table_full_total",
            "Times that an address could not be learned: the table was full, or its device had as many as it may.",
            Kind::Counter,
        ),
        Family::new(
            "ringside_switch_floods_total",
            "Frames to one address that was not in the table, and so went to everybody.",
            Kind::Counter,
        ),
    ];
    for (name, open) in ports.entries().iter().filter_map(|entry| Some((entry.port.name(), entry.switch.as_ref()?))) {
        let (label, stats) = ([("port", name)], open.switch.stats());
        addresses.sample(&label, stats.entries.value() as f64);
        let values = [&stats.learned, &stats.moved, &stats.aged, &stats.table_full].map(|counter| counter.value());
        for (family, value) in counters.iter_mut().zip(values.into_iter().chain([stats.floods()])) {
            family.sample(&label, value as f64);
        }
    }
    families.add(addresses);
    families.extend(counters);
}

fn extended(ports: &Ports, families: &mut Families) {
    let mut extended = Family::new(
        "ringside_port_extended_total",
        "Counters of a port by the names that its driver gives them.",
        Kind::Counter,
    );
    for entry in ports.entries().iter().filter(|entry| entry.switch.is_none()) {
        // One series a name, whatever a driver does.
        let stats: BTreeMap<String, u64> = entry.port.extended_stats().into_iter().collect();
        for (name, value) in &stats {
            extended.sample(&[("port", entry.port.name()), ("name", name)], *value as f64);
        }
    }
    families.add(extended);
}
