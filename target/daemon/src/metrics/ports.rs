//! The metrics of ports: their links, what they made of the frames of the devices that are plugged in, and what they say of
//! their far side.

use std::collections::BTreeMap;
use std::sync::Arc;

use port::{DropCause, PortStats};
use vhost_user::Device;

use super::catalogue::ports as the;
use super::families::Families;
use super::net;
use crate::ports::{Entry, Ports};
use crate::service::NetService;

pub(super) fn collect(ports: &Ports, nets: &[Arc<NetService>], families: &mut Families) {
    for entry in ports.entries() {
        describe(entry, families);
        switch(entry, families);
        extended(entry, families);
    }
    for service in nets {
        let device = service.device();
        for (index, pair) in net::pairs(device).iter().enumerate() {
            // Every block has the same ones: they are the port queue's, which is never replaced.
            let none = PortStats::default();
            let stats = pair.first().map_or(&none, |counters| &counters.port);
            queue(device.port().name(), device.name(), index, stats, families);
        }
    }
}

fn describe(entry: &Entry, families: &mut Families) {
    let name = entry.port.name();
    let mac = entry.port.traits().mac.map(|mac| mac.to_string()).unwrap_or_default();
    families.info(&the::INFO, &[name, entry.kind, &mac]);
    let link = entry.port.link();
    families.sample(&the::LINK_UP, &[name], f64::from(u8::from(link.up)));
    if let Some(mbps) = link.speed_mbps {
        families.sample(&the::SPEED, &[name], f64::from(mbps) * 1e6 / 8.0);
    }
    if let Some(buffers) = entry.port.buffers() {
        families.sample(&the::MBUFS, &[name, "used"], buffers.used as f64);
        families.sample(&the::MBUFS, &[name, "free"], buffers.free as f64);
    }
}

fn queue(port: &str, device: &str, index: usize, stats: &PortStats, families: &mut Families) {
    let queue = index.to_string();
    let with = |label| [port, device, queue.as_str(), label];
    for (direction, frames, bytes) in
        [("tx", &stats.tx_frames, &stats.tx_bytes), ("rx", &stats.rx_frames, &stats.rx_bytes)]
    {
        families.sample(&the::FRAMES, &with(direction), frames.value() as f64);
        families.sample(&the::BYTES, &with(direction), bytes.value() as f64);
    }
    for cause in DropCause::ALL {
        families.sample(&the::DROPS, &with(cause.name()), stats.drops[cause as usize].value() as f64);
    }
}

fn switch(entry: &Entry, families: &mut Families) {
    let Some(open) = &entry.switch else { return };
    let (name, stats) = (entry.port.name(), open.switch.stats());
    // A switch and its uplink are a device to each other.
    if let Some(uplink) = &open.uplink {
        queue(uplink, name, 0, open.switch.uplink_port_stats(), families);
        queue(name, uplink, 0, open.switch.uplink_stats(), families);
    }
    families.sample(&the::ADDRESSES, &[name], stats.entries.value() as f64);
    for (metric, counter) in [
        (&the::LEARNED, &stats.learned),
        (&the::MOVED, &stats.moved),
        (&the::AGED, &stats.aged),
        (&the::TABLE_FULL, &stats.table_full),
    ] {
        families.sample(metric, &[name], counter.value() as f64);
    }
    families.sample(&the::FLOODS, &[name], stats.floods() as f64);
}

fn extended(entry: &Entry, families: &mut Families) {
    if entry.switch.is_some() {
        return;
    }
    // One series a name, whatever a driver does.
    let stats: BTreeMap<String, u64> = entry.port.extended_stats().into_iter().collect();
    for (name, value) in &stats {
        families.sample(&the::EXTENDED, &[entry.port.name(), name], *value as f64);
    }
}
