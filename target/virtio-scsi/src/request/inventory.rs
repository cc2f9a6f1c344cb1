//! The logical units as one shard has them: how they come and go while others are busy (R22). What a controller has, and who
//! is told of a change, stands in `inventory.rs` a level up.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use bdev::Channel;
use crossbeam::channel::Sender;
use scsi::UnitAttention;
use vhost_user::RingSet;

use super::{Requests, Tally, UnitState};
use crate::fence::{Scope, UnitIndex};
use crate::inventory::{Remains, ShardRemoval};
use crate::limits::{Credits, Limits};
use crate::lun_map::{LunMap, Unit};
use crate::nexus::UnitNexus;
use crate::order::TaskSets;
use crate::wire::{SECTOR_LEN, response};

/// What one shard needs of a logical unit.
pub(crate) struct UnitPart {
    pub index: UnitIndex,
    pub unit: Arc<Unit>,
    pub nexus: Arc<UnitNexus>,
    pub channel: Channel,
}

/// The units of a shard, by index. Places of units that are gone are empty. In boxes, so that finding one takes no more than
/// a load and a test.
#[derive(Default)]
pub(super) struct Units(Vec<Option<Box<UnitState>>>);

impl Units {
    pub(super) fn iter(&self) -> impl Iterator<Item = &UnitState> {
        self.0.iter().flatten().map(Box::as_ref)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut UnitState> {
        self.0.iter_mut().flatten().map(Box::as_mut)
    }

    /// Indices up to here may have a unit.
    pub(super) fn places(&self) -> usize {
        self.0.len()
    }

    pub(super) fn of(&mut self, unit: UnitIndex) -> Option<&mut UnitState> {
        self.0.get_mut(usize::from(unit))?.as_deref_mut()
    }
}

impl Index<usize> for Units {
    type Output = UnitState;

    #[inline(always)]
    fn index(&self, unit: usize) -> &UnitState {
        self.0[unit].as_deref().expect(THERE)
    }
}

impl IndexMut<usize> for Units {
    #[inline(always)]
    fn index_mut(&mut self, unit: usize) -> &mut UnitState {
        self.0[unit].as_deref_mut().expect(THERE)
    }
}

/// Why a unit that a command is about can be relied on.
const THERE: &str = "a unit stays until its last command has ended";

impl Requests {
    /// Which units live where.
    pub(crate) fn map(&self) -> &LunMap {
        &self.map
    }

    /// Takes the inventory as it is now; returns the old one, which is not for a poller to drop.
    pub(crate) fn change_map(&mut self, map: Arc<LunMap>) -> Arc<LunMap> {
        self.last = None;
        std::mem::replace(&mut self.map, map)
    }

    /// Puts a unit in its place.
    pub(crate) fn add_unit(&mut self, part: UnitPart) {
        let UnitPart { index, unit, nexus, channel } = part;
        let place = usize::from(index);
        if self.units.0.len() <= place {
            self.units.0.resize_with(place + 1, || None);
        }
        let state = UnitState {
            block_size: unit.logical_unit.block_size(),
            prompt: channel.is_prompt(),
            credits: Credits::new(self.limits.cmd_per_lun, nexus.in_flight.clone()),
            unit,
            nexus,
            channel,
            outstanding: 0,
            waiting: false,
            tasks: TaskSets::default(),
            touched: false,
            armed: false,
            tally: Tally::default(),
            leaving: None,
        };
        let before = self.units.0[place].replace(Box::new(state));
        assert!(before.is_none(), "an index is given again when every shard has let go of it");
        self.touched.reserve(self.units.0.len());
        self.waiting.reserve(self.units.0.len());
        self.generation += 1;
    }

    /// A unit goes. What waits in its task sets is answered now, what is at its backend when that has let go of the
    /// buffers: each with `S_TRANSPORT_FAILURE` (R22). Nobody can address it any more.
    pub(crate) fn remove_unit(&mut self, rings: &mut RingSet, removal: ShardRemoval) -> Arc<LunMap> {
        let ShardRemoval { index, map, back } = removal;
        let old = self.change_map(map);
        if let Some(state) = self.units.of(index) {
            state.leaving = Some(back);
            let blocked = state.tasks.take_all();
            self.leaving += 1;
            self.touch(index);
            for blocked in blocked {
                self.end_blocked(rings, index, blocked, response::TRANSPORT_FAILURE);
            }
        }
        old
    }

    /// Whether units are going that have not gone.
    #[inline]
    pub(crate) fn has_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Gives units back whose last command has been completed, to be dropped on a control thread.
    #[cold]
    pub(crate) fn let_go(&mut self) {
        for place in &mut self.units.0 {
            let quiet = |state: &mut Box<UnitState>| {
                state.leaving.is_some() && state.outstanding == 0 && !state.waiting && !state.touched
            };
            let Some(state) = place.take_if(quiet) else { continue };
            self.leaving -= 1;
            self.generation += 1;
            if let Some(back) = state.leaving.clone() {
                let _ = back.send(Remains(state)); // where the controller is gone, nobody waits
            }
        }
    }

    /// Other limits, from now on. What is in flight beyond them ends in its own time.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.bytes_max = u64::from(limits.max_sectors) * SECTOR_LEN;
        for state in self.units.iter_mut() {
            state.credits.set_limit(limits.cmd_per_lun);
        }
    }

    /// Raises a unit attention on every unit in the scope.
    pub(crate) fn attention(&self, scope: Scope, attention: UnitAttention) {
        for (index, state) in self.units.0.iter().enumerate() {
            let Some(state) = state else { continue };
            let affected = match scope {
                Scope::Task { .. } => false,
                Scope::Unit(unit) => usize::from(unit) == index,
                Scope::Target(target) => state.unit.target == target,
            };
            if affected {
                state.nexus.attentions.raise(attention);
            }
        }
    }

    /// The inventory of a target is not what it was: all of its units but the one that came have that to report.
    pub(crate) fn inventory_changed(&self, target: u8, lun: u16) {
        for state in self.units.iter().filter(|state| state.unit.target == target && state.unit.lun != lun) {
            state.nexus.attentions.raise(UnitAttention::ReportedLunsChanged);
        }
    }

    /// A unit has another capacity, which it has to report.
    pub(crate) fn capacity_changed(&self, target: u8, lun: u16) {
        for state in self.units.iter().filter(|state| (state.unit.target, state.unit.lun) == (target, lun)) {
            state.nexus.attentions.raise(UnitAttention::CapacityChanged);
        }
    }

    /// REPORT LUNS has answered: none of the target's units needs to tell any more that the inventory changed (SAM-6).
    pub(super) fn inventory_told(&self, target: u8) {
        for state in self.units.iter().filter(|state| state.unit.target == target) {
            state.nexus.attentions.clear(UnitAttention::ReportedLunsChanged);
        }
    }

    /// The driver starts from nothing: after a connect or a device reset.
    pub(crate) fn begin_session(&self) {
        self.map.reset_modes();
        for state in self.units.iter() {
            state.nexus.attentions.raise(UnitAttention::PowerOn);
        }
    }

    /// Changes whenever the set of backends does.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

/// Where a unit goes that leaves.
pub(super) type Leaving = Option<Sender<Remains>>;
