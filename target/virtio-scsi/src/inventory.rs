//! What a controller has to offer, and how that changes while it is served (R18, R22): the limits and the logical units as
//! new connections find them, and the changes as the shards of running ones are to be told of them.
//!
//! A change goes in this order: the controller makes it here; every shard of every connection takes its part, and gives back
//! the map that it had; then the first shard of each connection announces it to its driver. Whoever runs connections sees
//! to it that none begins meanwhile. Nothing in here touches a ring.

use std::ptr;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, TryRecvError, unbounded};

use crate::fence::UnitIndex;
use crate::limits::Limits;
use crate::lun_map::{LunMap, Unit};
use crate::nexus::UnitNexus;
use crate::request::{UnitPart, UnitState};
use crate::wire::SECTOR_LEN;

/// Limits and logical units, as the next connection finds them.
pub(crate) struct Inventory {
    pub limits: Limits,
    pub map: Arc<LunMap>,
    retiring: Vec<Retiring>,
    /// Indices that no shard uses any more.
    free: Vec<UnitIndex>,
}

/// A unit that shards may still have commands of.
struct Retiring {
    place: Place,
    remains: Receiver<Remains>,
}

/// Where a logical unit is or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of its counters.
    pub index: UnitIndex,
    /// Target number.
    pub target: u8,
    /// Logical unit number.
    pub lun: u16,
}

/// Why a change is not made. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Two units at one address.
    #[error("target {target} LUN {lun}: there is a logical unit already")]
    Taken {
        /// Target number.
        target: u8,
        /// Logical unit number.
        lun: u16,
    },
    /// One block device in two units: they would not know of each other (R08).
    #[error("target {target} LUN {lun}: its block device is that of target {other_target} LUN {other_lun}")]
    Shared {
        /// Target number of the new unit.
        target: u8,
        /// Its logical unit number.
        lun: u16,
        /// Target number of the unit that has the device.
        other_target: u8,
        /// Its logical unit number.
        other_lun: u16,
    },
    /// No unit at that address.
    #[error("target {target} LUN {lun}: there is no logical unit")]
    Absent {
        /// Target number.
        target: u8,
        /// Logical unit number.
        lun: u16,
    },
    /// Too many units.
    #[error("{count} logical units: at most {max} at once, those that still end their commands included")]
    TooMany {
        /// How many there are.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// A number outside its bounds.
    #[error("{field} {value}: must be {min} to {max}")]
    OutOfRange {
        /// The limit or property.
        field: &'static str,
        /// What was asked for.
        value: u64,
        /// Smallest allowed value.
        min: u64,
        /// Largest allowed value.
        max: u64,
    },
}

/// A logical unit that has come, for the shards of running connections.
pub struct Addition {
    index: UnitIndex,
    unit: Arc<Unit>,
    map: Arc<LunMap>,
}

/// One shard's part of an [`Addition`].
pub struct ShardAddition {
    pub(crate) part: UnitPart,
    pub(crate) map: Arc<LunMap>,
}

/// A logical unit that goes, for the shards of running connections.
pub struct Removal {
    place: Place,
    map: Arc<LunMap>,
    back: Sender<Remains>,
    remains: Receiver<Remains>,
}

/// One shard's part of a [`Removal`].
pub struct ShardRemoval {
    pub(crate) index: UnitIndex,
    pub(crate) map: Arc<LunMap>,
    pub(crate) back: Sender<Remains>,
}

/// Waits for the shards to let go of a logical unit.
pub struct Release(Receiver<Remains>);

/// What a shard has left of a unit that is gone. Dropped on a control thread: closing a channel may take time.
pub(crate) struct Remains(#[expect(dead_code, reason = "there to be dropped")] pub(crate) Box<UnitState>);

/// A change that a driver is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Target number.
    pub target: u8,
    /// Logical unit number.
    pub lun: u16,
    /// What happened to it.
    pub change: Change,
}

/// What happened to a logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It came.
    Plugged,
    /// It is gone.
    Unplugged,
    /// It has another capacity.
    Resized,
}

/// Most units of a controller at once, less what an index of 16 bits can count: far more than anybody has.
const UNITS_MAX: usize = 4096;
/// Largest max_sectors: 2 GiB.
const MAX_SECTORS_BOUND: u32 = 4_194_304;

impl Inventory {
    pub(crate) fn new(limits: Limits, units: Vec<Arc<Unit>>) -> Inventory {
        units.iter().for_each(|unit| bound_transfer(unit, &limits));
        Inventory { limits, map: Arc::new(LunMap::new(units)), retiring: Vec::new(), free: Vec::new() }
    }

    /// Every unit whose counters mean something: those that are there, and those that still end their commands, unless
    /// another one is at their address.
    pub(crate) fn places(&mut self) -> Vec<Place> {
        self.collect_free();
        let there = self.map.units().map(|(index, unit)| Place { index, target: unit.target, lun: unit.lun });
        let mut places: Vec<Place> = there.collect();
        for Retiring { place, .. } in self.retiring.iter().rev() {
            if !places.iter().any(|other| (other.target, other.lun) == (place.target, place.lun)) {
                places.push(*place);
            }
        }
        places
    }

    pub(crate) fn add(&mut self, unit: Arc<Unit>) -> Result<Addition, ChangeError> {
        check_block(&unit, &self.limits)?;
        self.collect_free();
        let (target, lun, count) = (unit.target, unit.lun, self.map.places() - self.free.len());
        if count >= UNITS_MAX {
            return Err(ChangeError::TooMany { count, max: UNITS_MAX });
        }
        let index = self.free.last().copied().unwrap_or(self.map.places() as UnitIndex);
        let mut map = LunMap::clone(&self.map);
        if !map.insert(index, Arc::clone(&unit)) {
            return Err(ChangeError::Taken { target, lun });
        }
        let same = |other: &Unit| ptr::addr_eq(Arc::as_ptr(&other.bdev), Arc::as_ptr(&unit.bdev));
        if let Some((_, other)) = self.map.units().find(|(_, other)| same(other)) {
            let (other_target, other_lun) = (other.target, other.lun);
            return Err(ChangeError::Shared { target, lun, other_target, other_lun });
        }
        self.free.pop();
        bound_transfer(&unit, &self.limits);
        self.map = Arc::new(map);
        Ok(Addition { index, unit, map: Arc::clone(&self.map) })
    }

    pub(crate) fn remove(&mut self, target: u8, lun: u16) -> Result<Removal, ChangeError> {
        let mut map = LunMap::clone(&self.map);
        let Some((index, _)) = map.remove(target, lun) else { return Err(ChangeError::Absent { target, lun }) };
        self.map = Arc::new(map);
        let place = Place { index, target, lun };
        let (back, remains) = unbounded();
        self.retiring.push(Retiring { place, remains: remains.clone() });
        Ok(Removal { place, map: Arc::clone(&self.map), back, remains })
    }

    /// Checks other limits and makes them those of the next connection. `commands_max` is what the rings can hold.
    pub(crate) fn set_limits(
        &mut self,
        limits: Limits,
        commands_max: u32,
        seg_max_bound: u32,
    ) -> Result<(), ChangeError> {
        in_range("cmd_per_lun", limits.cmd_per_lun, commands_max)?;
        in_range("max_sectors", limits.max_sectors, MAX_SECTORS_BOUND)?;
        if let Some(seg_max) = limits.seg_max {
            in_range("seg_max", seg_max, seg_max_bound)?;
        }
        self.map.units().try_for_each(|(_, unit)| check_block(unit, &limits))?;
        self.limits = limits;
        Ok(())
    }

    /// R03: what a unit promises in B0h is never more than what the transport lets through.
    pub(crate) fn bound_transfers(&self, limits: &Limits) {
        self.map.units().for_each(|(_, unit)| bound_transfer(unit, limits));
    }

    /// Finds indices that every shard has let go of.
    fn collect_free(&mut self) {
        let free = &mut self.free;
        self.retiring.retain(|retiring| {
            loop {
                match retiring.remains.try_recv() {
                    Ok(remains) => drop(remains),
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => {
                        free.push(retiring.place.index);
                        return false;
                    }
                }
            }
        });
    }
}

impl Addition {
    /// The parts of one connection's shards, of which there are so many. Opens a channel for each.
    #[must_use]
    pub fn for_connection(&self, shards: usize) -> Vec<ShardAddition> {
        let parts = unit_parts(self.index, &self.unit, shards).into_iter();
        parts.map(|part| ShardAddition { part, map: Arc::clone(&self.map) }).collect()
    }

    /// What the first shard of each connection announces when all shards have their part.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        Announcement { target: self.unit.target, lun: self.unit.lun, change: Change::Plugged }
    }

    /// Index of the unit's counters.
    #[must_use]
    pub fn index(&self) -> UnitIndex {
        self.index
    }
}

impl Removal {
    /// The part of one shard.
    #[must_use]
    pub fn for_shard(&self) -> ShardRemoval {
        ShardRemoval { index: self.place.index, map: Arc::clone(&self.map), back: self.back.clone() }
    }

    /// What the first shard of each connection announces when all shards have their part.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        Announcement { target: self.place.target, lun: self.place.lun, change: Change::Unplugged }
    }

    /// Every shard has its part: what is left is to wait.
    #[must_use]
    pub fn into_release(self) -> Release {
        Release(self.remains)
    }
}

impl Release {
    /// Waits until every shard has let go, and drops what they had: the last command has ended, its used entry is published,
    /// the backend's channels are closed, and nothing of the unit is left but what the caller has. As long as that takes.
    pub fn wait(self) {
        self.0.into_iter().for_each(drop);
    }

    /// Whether that is so now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        loop {
            match self.0.try_recv() {
                Ok(remains) => drop(remains),
                Err(error) => return error == TryRecvError::Disconnected,
            }
        }
    }
}

/// The parts of a unit for the shards of one connection.
pub(crate) fn unit_parts(index: UnitIndex, unit: &Arc<Unit>, shards: usize) -> Vec<UnitPart> {
    let nexus = Arc::new(UnitNexus::new(shards));
    let part = |_| UnitPart { index, unit: Arc::clone(unit), nexus: Arc::clone(&nexus), channel: unit.bdev.open() };
    (0..shards).map(part).collect()
}

fn sectors_per_block(unit: &Unit) -> u32 {
    (unit.logical_unit.block_size() / SECTOR_LEN as u32).max(1)
}

fn bound_transfer(unit: &Unit, limits: &Limits) {
    unit.logical_unit.bound_transfer((limits.max_sectors / sectors_per_block(unit)).max(1));
}

/// R06: at least one block of every unit fits.
fn check_block(unit: &Unit, limits: &Limits) -> Result<(), ChangeError> {
    let min = sectors_per_block(unit);
    if limits.max_sectors >= min {
        return Ok(());
    }
    let (value, min) = (u64::from(limits.max_sectors), u64::from(min));
    Err(ChangeError::OutOfRange { field: "max_sectors", value, min, max: u64::from(MAX_SECTORS_BOUND) })
}

fn in_range(field: &'static str, value: u32, max: u32) -> Result<(), ChangeError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(ChangeError::OutOfRange { field, value: u64::from(value), min: 1, max: u64::from(max) })
}
