//! Which logical unit lives at which address of a controller. Immutable: a change makes a new map.

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
#[derive(Default)]
pub struct LunMap {
    units: Vec<Arc<Unit>>,
    /// By target number; a target without logical units does not exist.
    targets: Vec<Target>,
}

#[derive(Clone, Default)]
struct Target {
    /// Sorted.
    luns: Vec<u16>,
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
    /// A map of these units.
    ///
    /// # Panics
    /// If two have the same address: the configuration has been checked for that.
    #[must_use]
    pub fn new(units: Vec<Arc<Unit>>) -> LunMap {
        let mut targets = vec![Target::default(); 256];
        let mut order: Vec<UnitIndex> = (0..units.len() as UnitIndex).collect();
        order.sort_by_key(|index| units[usize::from(*index)].lun);
        for index in order {
            let unit = &units[usize::from(index)];
            let target = &mut targets[usize::from(unit.target)];
            assert!(target.luns.last() != Some(&unit.lun), "two units at target {} LUN {}", unit.target, unit.lun);
            target.luns.push(unit.lun);
            target.units.push(index);
        }
        LunMap { units, targets }
    }

    /// The units, by index.
    #[must_use]
    pub fn units(&self) -> &[Arc<Unit>] {
        &self.units
    }

    /// A new session: what an initiator changed in mode pages is as it was at first.
    pub(crate) fn reset_modes(&self) {
        self.units.iter().for_each(|unit| unit.logical_unit.reset_modes());
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
