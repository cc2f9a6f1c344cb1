//! The metrics of net devices. `direction` is the guest's: tx is what it sends. `queue` is the queue pair; the metrics of
//! virtqueues have the rings.

use std::sync::Arc;

use vhost_user::Device;
use virtio_net::{DirectionStats, NetDevice, NetDrop, PairCounters, PairStats, SIZE_EDGES};

use super::catalogue::net as the;
use super::families::Families;
use crate::service::NetService;

/// Picks a direction of a queue pair.
type Of = fn(&PairStats) -> &DirectionStats;

const DIRECTIONS: [(&str, Of); 2] = [("tx", |pair| &pair.tx), ("rx", |pair| &pair.rx)];

pub(super) fn collect(services: &[Arc<NetService>], families: &mut Families) {
    for service in services {
        let device = service.device();
        describe(device, families);
        for (index, pair) in pairs(device).iter().enumerate() {
            frames(device.name(), &index.to_string(), pair, families);
        }
        control(device, families);
    }
}

/// Counters of each queue pair of a device, of all blocks there are.
pub(super) fn pairs(device: &NetDevice) -> Vec<Vec<PairCounters>> {
    let mut pairs = vec![Vec::new(); device.config().queue_pairs.into()];
    for block in device.stats() {
        block.pairs.iter().for_each(|pair| pairs[usize::from(pair.index)].push(pair.clone()));
    }
    pairs
}

fn describe(device: &NetDevice, families: &mut Families) {
    let config = device.config();
    let name = &*config.name;
    families.info(&the::INFO, &[name, &config.mac.to_string(), device.port().name()]);
    families.sample(&the::MTU, &[name], config.mtu.into());
    families.sample(&the::MTU_TOLD, &[name], device.mtu_told().unwrap_or(0).into());
}

fn frames(device: &str, queue: &str, pair: &[PairCounters], families: &mut Families) {
    let unwanted: u64 = pair.iter().map(|counters| counters.device.rx.filtered.value()).sum();
    families.sample(&the::FILTERED, &[device, queue], unwanted as f64);
    for (direction, of) in DIRECTIONS {
        let labels = [device, queue, direction];
        let sum = |counter: &dyn Fn(&DirectionStats) -> u64| {
            pair.iter().map(|counters| counter(of(&counters.device))).sum::<u64>()
        };
        let bytes = sum(&|stats| stats.bytes.value()) as f64;
        families.sample(&the::FRAMES, &labels, sum(&|stats| stats.frames.value()) as f64);
        families.sample(&the::BYTES, &labels, bytes);
        for cause in NetDrop::ALL {
            let lost = sum(&|stats| stats.drops[cause as usize].value());
            families.sample(&the::DROPS, &[device, queue, direction, cause.name()], lost as f64);
        }
        let classes = (0..=SIZE_EDGES.len()).map(|class| sum(&|stats| stats.sizes[class].value()));
        families.classes(&the::SIZES, &labels, &SIZE_EDGES.map(f64::from), classes, bytes);
    }
}

fn control(device: &NetDevice, families: &mut Families) {
    let blocks = device.stats();
    let ok: u64 = blocks.iter().map(|block| block.control_ok.value()).sum();
    let errors: u64 = blocks.iter().map(|block| block.control_errors.value()).sum();
    families.sample(&the::CONTROL, &[device.name(), "ok"], ok as f64);
    families.sample(&the::CONTROL, &[device.name(), "error"], errors as f64);
}
