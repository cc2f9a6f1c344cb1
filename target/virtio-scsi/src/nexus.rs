//! The I_T nexus of one connection: what its shards share. One controller has one nexus at a time (R08).

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crossbeam::utils::CachePadded;
use reactor::PollerHandle;
use scsi::{UnitAttention, UnitAttentions};

use crate::fence::{Fence, Scope, Sweep};
use crate::lun_map::LunMap;

/// Shared state of the shards of one connection.
pub struct Nexus {
    /// Where task management functions meet the shards.
    pub fence: Fence,
    units: Vec<Arc<UnitNexus>>,
    pollers: Vec<PollerHandle>,
}

/// Shared state of one logical unit.
#[derive(Default)]
pub(crate) struct UnitNexus {
    /// What it has to report to the nexus.
    pub(crate) attentions: CachePadded<UnitAttentions>,
    in_flight: Arc<CachePadded<AtomicU32>>,
}

impl Nexus {
    /// A new session: every unit has POWER ON to report.
    pub(crate) fn new(units: usize, shards: usize, pollers: Vec<PollerHandle>) -> Nexus {
        let units = (0..units).map(|_| Arc::default());
        let nexus = Nexus { fence: Fence::new(shards as u32), units: units.collect(), pollers };
        nexus.begin_session();
        nexus
    }

    /// The driver starts from nothing: after a connect or a device reset.
    pub(crate) fn begin_session(&self) {
        for unit in &self.units {
            unit.attentions.raise(UnitAttention::PowerOn);
        }
    }

    /// What the shards share of a unit.
    pub(crate) fn unit(&self, unit: usize) -> &Arc<UnitNexus> {
        &self.units[unit]
    }

    /// The count that the shards of a spread unit share; `None` while there is one shard.
    pub(crate) fn shared_count(&self, unit: usize) -> Option<Arc<CachePadded<AtomicU32>>> {
        (self.pollers.len() > 1).then(|| Arc::clone(&self.units[unit].in_flight))
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

    /// Raises a unit attention for everything in the scope.
    pub(crate) fn attention(&self, map: &LunMap, scope: Scope, attention: UnitAttention) {
        for (index, unit) in map.units().iter().enumerate() {
            let affected = match scope {
                Scope::Task { .. } => false,
                Scope::Unit(reset) => usize::from(reset) == index,
                Scope::Target(target) => target == unit.target,
            };
            if affected {
                self.units[index].attentions.raise(attention);
            }
        }
    }
}
