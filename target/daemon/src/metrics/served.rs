//! The metrics of everything behind a vhost-user socket: its connections, and its virtqueues. The label is `controller` for
//! net devices, too: names are unique over both.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use stats::{Counter, HistogramSnapshot};
use vhost_user::{Coalescing, Device, RingStats};
use virtqueue::FaultReason;

use super::catalogue::served as the;
use super::families::Families;
use crate::service::Service;

/// What is counted of a device of any kind.
pub(super) struct Served {
    name: Arc<str>,
    listening: bool,
    connected: u64,
    open: usize,
    negotiated: Option<(u64, u64)>,
    quiesce_wait_s: f64,
    coalescing: Coalescing,
    sessions: u64,
    turned_away: u64,
    refused_messages: u64,
    resets: u64,
    memory_tables: u64,
    memory_table_ticks: HistogramSnapshot,
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
        Served {
            name: Arc::clone(service.device().name()),
            listening: stats.is_listening(),
            connected: stats.connected(),
            open: stats.live(),
            negotiated: stats.negotiated(),
            quiesce_wait_s: stats.quiesce_wait_s(),
            coalescing: service.coalescing(),
            sessions: stats.sessions.load(Ordering::Relaxed),
            turned_away: stats.turned_away.load(Ordering::Relaxed),
            refused_messages: stats.refused_messages.load(Ordering::Relaxed),
            resets: stats.resets.load(Ordering::Relaxed),
            memory_tables: stats.memory_tables.load(Ordering::Relaxed),
            memory_table_ticks: stats.memory_table_ticks(),
            queues: service.device().queues(),
            rings: rings.cloned().collect(),
        }
    }
}

pub(super) fn collect(devices: &[Served], families: &mut Families) {
    for device in devices {
        session(device, families);
        for index in 0..device.queues {
            let rings = device.rings.iter().filter(|(ring, _)| *ring == index);
            let rings: Vec<&RingStats> = rings.map(|(_, stats)| &**stats).collect();
            virtqueue(&[&device.name, &index.to_string()], &rings, families);
        }
    }
}

fn session(device: &Served, families: &mut Families) {
    let name = [&*device.name];
    families.sample(&the::LISTENING, &name, f64::from(u8::from(device.listening)));
    families.sample(&the::CONNECTED, &name, device.connected as f64);
    families.sample(&the::OPEN, &name, device.open as f64);
    families.sample(&the::QUIESCE_WAIT, &name, device.quiesce_wait_s);
    for (metric, count) in [
        (&the::SESSIONS, device.sessions),
        (&the::TURNED_AWAY, device.turned_away),
        (&the::REFUSED, device.refused_messages),
        (&the::RESETS, device.resets),
        (&the::MEMORY_TABLES, device.memory_tables),
    ] {
        families.sample(metric, &name, count as f64);
    }
    families.durations(&the::MEMORY_TABLE_DURATION, &name, &device.memory_table_ticks);
    families.sample(&the::DELAY_BASE, &name, f64::from(device.coalescing.delay_base_us) / 1e6);
    families.sample(&the::IOPS_THRESHOLD, &name, f64::from(device.coalescing.iops_threshold));
    if let Some((features, protocol)) = device.negotiated {
        families.info(&the::SESSION_INFO, &[name[0], &format!("{features:#x}"), &format!("{protocol:#x}")]);
    }
}

/// `rings` are the counters of one queue, of all connections that have left some.
fn virtqueue(labels: &[&str; 2], rings: &[&RingStats], families: &mut Families) {
    let sum = |counter: fn(&RingStats) -> &Counter| rings.iter().map(|ring| counter(ring).value()).sum::<u64>() as f64;
    let chains = sum(|ring| &ring.chains);
    families.sample(&the::CHAINS, labels, chains);
    families.sample(&the::BATCHES, labels, rings.iter().map(|ring| ring.batches()).sum::<u64>() as f64);
    let class = |class: usize| rings.iter().map(|ring| ring.batch_sizes[class].value()).sum();
    let classes = (0..=RingStats::BATCH_EDGES.len()).map(class);
    families.classes(&the::BATCH_SIZE, labels, &RingStats::BATCH_EDGES.map(f64::from), classes, chains);
    families.sample(&the::LINGERS, labels, sum(|ring| &ring.lingers));
    families.sample(&the::HELD, labels, sum(|ring| &ring.held));
    families.sample(&the::KICKS, labels, sum(|ring| &ring.kicks));
    families.sample(&the::CALLS, labels, sum(|ring| &ring.calls));
    families.sample(&the::SUPPRESSED, labels, sum(|ring| &ring.calls_suppressed));
    families.sample(&the::DELAYED, labels, sum(|ring| &ring.calls_delayed));
    families.sample(&the::COALESCED, labels, sum(|ring| &ring.calls_coalesced));
    let in_flight: u64 = rings.iter().map(|ring| ring.in_flight.value()).sum();
    families.sample(&the::IN_FLIGHT, labels, in_flight as f64);
    let highest = |level: fn(&RingStats) -> u64| rings.iter().map(|ring| level(ring)).max().unwrap_or(0) as f64;
    families.sample(&the::SIZE, labels, highest(|ring| ring.size.value()));
    families.sample(&the::COLD, labels, highest(|ring| ring.cold.value()));
    families.sample(&the::BROKEN, labels, highest(|ring| ring.broken.value()));
    for reason in FaultReason::ALL {
        let count: u64 = rings.iter().map(|ring| ring.faults[reason as usize].value()).sum();
        if count > 0 {
            families.sample(&the::FAULTS, &[labels[0], labels[1], reason.as_str()], count as f64);
        }
    }
}
