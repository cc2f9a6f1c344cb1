//! Which logical unit lives at which address of a controller. A unit keeps its index for as long as it is there; a change
//! makes a new map, so that whoever holds one can go on reading it.

use std::sync::Arc;

use bdev::Bdev;
use scsi::LogicalUnit;

use crate::address::Address;
use crate::fence::UnitIndex;

/// A logical unit in its place.
pub struct Unit {
    /// Target number.
    pub target: u8,
    /// Logical unit number.
    pub lun: u16,
    /// What SCSI knows of it.
    pub logical_unit: LogicalUnit,
    /// Where its blocks are.
    pub bdev: Arc<dyn Bdev>,
}

/// The logical units of a controller.
#[derive(Clone)]
pub struct LunMap {
    /// By index; empty places are those of units that are gone.
    units: Vec<Option<Arc<Unit>>>,
    /// By target number; a target without logical units does not exist.
    targets: Vec<Target>,
}

#[derive(Clone, Default)]
struct Target {
    /// Sorted.
    luns: Vec<u16>,
    /// Indices of the units at these LUNs.
    units: Vec<UnitIndex>,
}

/// Who answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// A logical unit.
    Unit(UnitIndex),
    /// The target is there, the logical unit is not.
    Absent {
        /// Number of the target.
        target: u8,
    },
    /// The REPORT LUNS well-known logical unit.
    ReportLuns {
        /// Target whose inventory it reports.
        target: u8,
    },
}

impl LunMap {
    /// A map of these units, whose indices are their positions.
    ///
    /// # Panics
    /// If two have the same address: the configuration has been checked for that.
    #[must_use]
    pub fn new(units: Vec<Arc<Unit>>) -> LunMap {
        let mut map = LunMap { units: Vec::new(), targets: vec![Target::default(); 256] };
        for (index, unit) in units.into_iter().enumerate() {
            let (target, lun) = (unit.target, unit.lun);
            assert!(map.insert(index as UnitIndex, unit), "two units at target {target} LUN {lun}");
        }
        map
    }

    /// The units and their indices.
    pub fn units(&self) -> impl Iterator<Item = (UnitIndex, &Arc<Unit>)> {
        self.units.iter().enumerate().filter_map(|(index, unit)| Some((index as UnitIndex, unit.as_ref()?)))
    }

    /// The unit with this index; `None` if there is none, or none any more.
    #[must_use]
    pub fn unit(&self, index: UnitIndex) -> Option<&Arc<Unit>> {
        self.units.get(usize::from(index))?.as_ref()
    }

    /// One more than the largest index that was ever used.
    #[must_use]
    pub(crate) fn places(&self) -> usize {
        self.units.len()
    }

    /// Puts a unit in its place. False, and nothing is changed, if there is one at its address already.
    pub(crate) fn insert(&mut self, index: UnitIndex, unit: Arc<Unit>) -> bool {
        let target = &mut self.targets[usize::from(unit.target)];
        let Err(at) = target.luns.binary_search(&unit.lun) else { return false };
        target.luns.insert(at, unit.lun);
        target.units.insert(at, index);
        let place = usize::from(index);
        if self.units.len() <= place {
            self.units.resize(place + 1, None);
        }
        self.units[place] = Some(unit);
        true
    }

    /// Takes the unit at an address out of its place.
    pub(crate) fn remove(&mut self, target: u8, lun: u16) -> Option<(UnitIndex, Arc<Unit>)> {
        let target = &mut self.targets[usize::from(target)];
        let at = target.luns.binary_search(&lun).ok()?;
        target.luns.remove(at);
        let index = target.units.remove(at);
        Some((index, self.units[usize::from(index)].take()?))
    }

    /// A new session: what an initiator changed in mode pages is as it was at first.
    pub(crate) fn reset_modes(&self) {
        self.units().for_each(|(_, unit)| unit.logical_unit.reset_modes());
    }

    /// Sorted LUNs of a target; empty if it does not exist.
    #[must_use]
    pub fn luns(&self, target: u8) -> &[u16] {
        self.targets.get(usize::from(target)).map_or(&[], |target| &target.luns)
    }

    /// Who answers at this address; `None` if the target does not exist.
    #[must_use]
    pub fn find(&self, address: Address) -> Option<Addressee> {
        match address {
            Address::ReportLuns { target, global } => {
                (global || !self.luns(target).is_empty()).then_some(Addressee::ReportLuns { target })
            }
            Address::Unit { target, lun } => {
                let entry = self.targets.get(usize::from(target)).filter(|entry| !entry.luns.is_empty())?;
                Some(match entry.luns.binary_search(&lun) {
                    Ok(at) => Addressee::Unit(entry.units[at]),
                    Err(_) => Addressee::Absent { target },
                })
            }
        }
    }
}
