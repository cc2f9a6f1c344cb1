//! The families of everything behind a vhost-user socket: its connections, and its virtqueues. The label is `controller` for
//! net devices, too: names are unique over both.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vhost_user::{Coalescing, Device, RingStats};
use virtqueue::FaultReason;

use super::families::{Families, Family, Kind};
use crate::service::Service;

/// What is counted of a device of any kind.
pub(super) struct Served {
    name: Arc<str>,
    connected: f64,
    live: f64,
    quiesce_wait_s: f64,
    /// In the order of the families.
    counts: [u64; 5],
    coalescing: Coalescing,
    queues: u16,
    rings: Vec<(u16, Arc<RingStats>)>,
}

impl Served {
    /// `rings` are those of all blocks of counters of the device.
    pub(super) fn new<'a, D: Device>(
        service: &Service<D>,
        rings: impl Iterator<Item = &'a (u16, Arc<RingStats>)>,
    ) -> Served {
        let stats = service.stats();
        let counts =
            [&stats.sessions, &stats.turned_away, &stats.refused_messages, &stats.resets, &stats.memory_tables];
        Served {
            name: Arc::clone(service.device().name()),
            connected: stats.connected() as f64,
            live: stats.live() as f64,
            quiesce_wait_s: stats.quiesce_wait_s(),
            counts: counts.map(|count| count.load(Ordering::Relaxed)),
            coalescing: service.coalescing(),
            queues: service.device().queues(),
            rings: rings.cloned().collect(),
        }
    }

    fn rings_of(&self, index: u16) -> impl Iterator<Item = &RingStats> {
        self.rings.iter().filter(move |(ring, _)| *ring == index).map(|(_, stats)| &**stats)
    }
}

pub(super) fn sessions(devices: &[Served], families: &mut Families) {
    let mut connected = Family::new(
        "ringside_session_connected",
        "1 while a front-end is connected to the controller or net device.",
        Kind::Gauge,
    );
    let mut live = Family::new(
        "ringside_sessions",
        "Connections of the controller or net device, those included that only wait for their last requests.",
        Kind::Gauge,
    );
    let mut wait = Family::new(
        "ringside_quiesce_wait_seconds",
        "How long a stop, reset or memory change has been waiting for requests in flight; 0 if none waits.",
        Kind::Gauge,
    );
    let mut counters = [
        Family::new("ringside_sessions_total", "Connections that were accepted.", Kind::Counter),
        Family::new("ringside_sessions_turned_away_total", "Connections refused, one being there.", Kind::Counter),
        Family::new("ringside_vhost_messages_refused_total", "vhost-user messages that were refused.", Kind::Counter),
        Family::new("ringside_device_resets_total", "Device resets by the front-end.", Kind::Counter),
        Family::new("ringside_memory_tables_total", "Memory tables that were put in force.", Kind::Counter),
    ];
    for device in devices {
        let label = [("controller", &*device.name)];
        connected.sample(&label, device.connected);
        live.sample(&label, device.live);
        wait.sample(&label, device.quiesce_wait_s);
        for (family, value) in counters.iter_mut().zip(device.counts) {
            family.sample(&label, value as f64);
        }
    }
    families.add(connected);
    families.add(live);
    families.add(wait);
    families.extend(counters);
}

/// How calls are coalesced; what came of it is counted per queue.
pub(super) fn coalescing(devices: &[Served], families: &mut Families) {
    let mut delay = Family::new(
        "ringside_coalescing_delay_base_seconds",
        "delay_base_us of the controller or net device as it is now; 0 if calls are not coalesced.",
        Kind::Gauge,
    );
    let mut threshold = Family::new("ringside_coalescing_iops_threshold", "iops_threshold, as it is now.", Kind::Gauge);
    for device in devices {
        let label = [("controller", &*device.name)];
        delay.sample(&label, f64::from(device.coalescing.delay_base_us) / 1e6);
        threshold.sample(&label, f64::from(device.coalescing.iops_threshold));
    }
    families.extend([delay, threshold]);
}

pub(super) fn virtqueues(devices: &[Served], families: &mut Families) {
    let mut counters = [
        Family::new("ringside_virtqueue_chains_total", "Descriptor chains fetched.", Kind::Counter),
        Family::new("ringside_virtqueue_batches_total", "Fetches that found at least one chain.", Kind::Counter),
        Family::new(
            "ringside_virtqueue_kicks_total",
            "Kicks received; drivers are told not to kick while a queue is polled.",
            Kind::Counter,
        ),
        Family::new("ringside_virtqueue_calls_total", "Calls sent to the driver.", Kind::Counter),
        Family::new(
            "ringside_virtqueue_calls_suppressed_total",
            "Publishes after which the driver wanted no call.",
            Kind::Counter,
        ),
        Family::new(
            "ringside_virtqueue_calls_delayed_total",
            "Calls that were held back, where calls are coalesced.",
            Kind::Counter,
        ),
        Family::new(
            "ringside_virtqueue_calls_coalesced_total",
            "Publishes that needed no call of their own, since one was held back already.",
            Kind::Counter,
        ),
    ];
    let mut size = Family::new(
        "ringside_virtqueue_size",
        "Size of the ring in descriptors while it is started, otherwise 0.",
        Kind::Gauge,
    );
    let mut cold = Family::new(
        "ringside_virtqueue_cold",
        "1 while the queue has been idle: it is not polled, its driver is told to kick.",
        Kind::Gauge,
    );
    let mut broken = Family::new("ringside_virtqueue_broken", "1 while the queue is halted by a fault.", Kind::Gauge);
    let mut faults =
        Family::new("ringside_virtqueue_faults_total", "Faults that halted the queue, by reason.", Kind::Counter);
    for device in devices {
        for index in 0..device.queues {
            let rings: Vec<_> = device.rings_of(index).collect();
            let queue = index.to_string();
            let labels = [("controller", &*device.name), ("queue", queue.as_str())];
            let values = [
                rings.iter().map(|ring| ring.chains.value()).sum::<u64>(),
                rings.iter().map(|ring| ring.batches.value()).sum(),
                rings.iter().map(|ring| ring.kicks.value()).sum(),
                rings.iter().map(|ring| ring.calls.value()).sum(),
                rings.iter().map(|ring| ring.calls_suppressed.value()).sum(),
                rings.iter().map(|ring| ring.calls_delayed.value()).sum(),
                rings.iter().map(|ring| ring.calls_coalesced.value()).sum(),
            ];
            for (family, value) in counters.iter_mut().zip(values) {
                family.sample(&labels, value as f64);
            }
            size.sample(&labels, rings.iter().map(|ring| ring.size.value()).max().unwrap_or(0) as f64);
            cold.sample(&labels, rings.iter().map(|ring| ring.cold.value()).max().unwrap_or(0) as f64);
            broken.sample(&labels, rings.iter().map(|ring| ring.broken.value()).max().unwrap_or(0) as f64);
            for reason in FaultReason::ALL {
                let count: u64 = rings.iter().map(|ring| ring.faults[reason as usize].value()).sum();
                if count > 0 {
                    faults.sample(&[labels[0], labels[1], ("reason", reason.as_str())], count as f64);
                }
            }
        }
    }
    families.extend(counters);
    families.extend([size, cold, broken, faults]);
}
