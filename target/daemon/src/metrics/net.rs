//! The families of net devices. `direction` is the guest's: tx is what it sends. `queue` is the queue pair; the families of
//! virtqueues have the rings.

use std::sync::Arc;

use vhost_user::Device;
use virtio_net::{DirectionStats, NetDevice, NetDrop, PairCounters, PairStats, SIZE_EDGES};

use super::families::{Families, Family, Kind};
use crate::service::NetService;

/// Picks a direction of a queue pair.
type Of = fn(&PairStats) -> &DirectionStats;

const DIRECTIONS: [(&str, Of); 2] = [("tx", |pair| &pair.tx), ("rx", |pair| &pair.rx)];

pub(super) fn collect(services: &[Arc<NetService>], families: &mut Families) {
    describe(services, families);
    frames(services, families);
    control(services, families);
}

/// Counters of each queue pair of a device, of all blocks there are.
pub(super) fn pairs(device: &NetDevice) -> Vec<Vec<PairCounters>> {
    let mut pairs = vec![Vec::new(); device.config().queue_pairs.into()];
    for block in device.stats() {
        block.pairs.iter().for_each(|pair| pairs[usize::from(pair.index)].push(pair.clone()));
    }
    pairs
}

fn describe(services: &[Arc<NetService>], families: &mut Families) {
    let mut info = Family::new("ringside_net_info", "1, with address and port of a net device.", Kind::Gauge);
    let mut mtu = Family::new("ringside_net_mtu_bytes", "Longest frame without its Ethernet header.", Kind::Gauge);
    let mut told = Family::new(
        "ringside_net_mtu_told_bytes",
        "The MTU that the front-end told of the driver; 0 if it told none.",
        Kind::Gauge,
    );
    for service in services {
        let device = service.device();
        let config = device.config();
        let name = ("device", &*config.name);
        info.sample(&[name, ("mac", &config.mac.to_string()), ("port", device.port().name())], 1.0);
        mtu.sample(&[name], config.mtu.into());
        told.sample(&[name], device.mtu_told().unwrap_or(0).into());
    }
    families.extend([info, mtu, told]);
}

fn frames(services: &[Arc<NetService>], families: &mut Families) {
    let mut frames = Family::new(
        "ringside_net_frames_total",
        "Frames moved between driver and port: tx from the driver, rx to it.",
        Kind::Counter,
    );
    let mut bytes = Family::new("ringside_net_bytes_total", "Bytes of those frames, without FCS.", Kind::Counter);
    let mut drops =
        Family::new("ringside_net_drops_total", "Frames lost between driver and port, by cause.", Kind::Counter);
    let mut filtered = Family::new(
        "ringside_net_filtered_total",
        "Frames that were not for the driver, as it has said on the control queue.",
        Kind::Counter,
    );
    let mut sizes = Family::new("ringside_net_frame_size_bytes", "Sizes of the frames moved.", Kind::Histogram);
    for service in services {
        for (index, pair) in pairs(service.device()).iter().enumerate() {
            let queue = index.to_string();
            let unwanted: u64 = pair.iter().map(|counters| counters.device.rx.filtered.value()).sum();
            filtered.sample(&[("device", &**service.device().name()), ("queue", queue.as_str())], unwanted as f64);
            for (direction, of) in DIRECTIONS {
                let labels =
                    [("device", &**service.device().name()), ("queue", queue.as_str()), ("direction", direction)];
                let sum = |counter: &dyn Fn(&DirectionStats) -> u64| {
                    pair.iter().map(|counters| counter(of(&counters.device))).sum::<u64>()
                };
                let moved_bytes = sum(&|stats| stats.bytes.value());
                frames.sample(&labels, sum(&|stats| stats.frames.value()) as f64);
                bytes.sample(&labels, moved_bytes as f64);
                for cause in NetDrop::ALL {
                    let [device, queue, direction] = labels;
                    let lost = sum(&|stats| stats.drops[cause as usize].value());
                    drops.sample(&[device, queue, direction, ("cause", cause.name())], lost as f64);
                }
                let classes: Vec<u64> =
                    (0..=SIZE_EDGES.len()).map(|class| sum(&|stats| stats.sizes[class].value())).collect();
                sizes.classes(&labels, &SIZE_EDGES.map(f64::from), &classes, moved_bytes as f64);
            }
        }
    }
    families.extend([frames, bytes, drops, filtered, sizes]);
}

fn control(services: &[Arc<NetService>], families: &mut Families) {
    let mut commands = Family::new(
        "ringside_net_control_commands_total",
        "Commands of the control queue, by their acknowledgement.",
        Kind::Counter,
    );
    for service in services {
        let name = ("device", &**service.device().name());
        let blocks = service.device().stats();
        let ok: u64 = blocks.iter().map(|block| block.control_ok.value()).sum();
        let errors: u64 = blocks.iter().map(|block| block.control_errors.value()).sum();
        commands.sample(&[name, ("ack", "ok")], ok as f64);
        commands.sample(&[name, ("ack", "error")], errors as f64);
    }
    families.add(commands);
}
