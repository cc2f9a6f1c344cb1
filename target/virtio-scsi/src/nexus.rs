//! The I_T nexus of one connection: what its shards share. One controller has one nexus at a time (R08).

use std::sync::{Arc, OnceLock};

use ::stats::OwnLines;
#[cfg(loom)]
use loom::sync::atomic::AtomicU32;
use reactor::PollerHandle;
use scsi::{UnitAttention, UnitAttentions};
#[cfg(not(loom))]
use std::sync::atomic::AtomicU32;

use crate::fence::{Fence, Sweep};
use crate::stats::ShardStats;
use crate::unit_stats::UnitStats;

/// Shared state of the shards of one connection.
pub struct Nexus {
    /// Where task management functions meet the shards.
    pub fence: Fence,
    pollers: Vec<PollerHandle>,
    /// What each shard counts.
    stats: OnceLock<Box<[Arc<ShardStats>]>>,
}

/// What the shards of one connection share of a logical unit.
pub(crate) struct UnitNexus {
    /// What it has to report to the nexus.
    pub(crate) attentions: OwnLines<UnitAttentions>,
    /// Commands in flight over all shards; `None` while there is one.
    pub(crate) in_flight: Option<Arc<OwnLines<AtomicU32>>>,
}

impl Nexus {
    /// A nexus of this many shards.
    pub(crate) fn new(shards: usize, pollers: Vec<PollerHandle>) -> Nexus {
        Nexus { fence: Fence::new(shards as u32), pollers, stats: OnceLock::new() }
    }

    /// Says what its shards count in; once they are made.
    pub(crate) fn set_stats(&self, stats: impl IntoIterator<Item = Arc<ShardStats>>) {
        let _ = self.stats.set(stats.into_iter().collect()); // made once, told once
    }

    /// What every shard counts of one unit.
    pub(crate) fn unit_stats(&self, unit: usize) -> impl Iterator<Item = &UnitStats> {
        self.stats.get().into_iter().flatten().filter_map(move |stats| stats.units.of(unit))
    }

    /// Announces a task management function to every shard.
    pub(crate) fn raise(&self, sweep: Sweep) {
        self.fence.raise(sweep);
        self.pollers.iter().for_each(PollerHandle::wake);
    }

    /// Wakes the control queue's shard: this shard has acknowledged.
    pub(crate) fn wake_control(&self) {
        if let Some(first) = self.pollers.first() {
            first.wake();
        }
    }
}

impl UnitNexus {
    /// A unit that is new to a nexus of this many shards: it has POWER ON to report.
    pub(crate) fn new(shards: usize) -> UnitNexus {
        let nexus = UnitNexus {
            attentions: OwnLines::default(),
            in_flight: (shards > 1).then(|| Arc::new(OwnLines::new(AtomicU32::new(0)))),
        };
        nexus.attentions.raise(UnitAttention::PowerOn);
        nexus
    }
}
