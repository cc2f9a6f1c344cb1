//! The memory table as messages change it: bounds and overlaps of regions. No file is mapped in here.

use std::os::fd::OwnedFd;

use guest_memory::RegionConfig;

use super::{Effect, Refusal, Session, Undo};
use crate::message::{RequestCode, protocol};

/// What is wrong with a memory region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionRefusal {
    /// No byte in it.
    #[error("size 0 of the region at guest address {guest_addr:#x}, must be at least 1")]
    Empty {
        /// First guest address.
        guest_addr: u64,
    },
    /// It reaches beyond 64 bits.
    #[error("{field} {start:#x} + size {size:#x} of a region, must be below 2^64")]
    Overflow {
        /// Which address or offset.
        field: &'static str,
        /// Its value.
        start: u64,
        /// Size in bytes.
        size: u64,
    },
    /// It shares guest addresses with another one.
    #[error(
        "region at guest address {guest_addr:#x}, size {size:#x}, overlaps the one at {other_addr:#x}, size {other_size:#x}"
    )]
    Overlap {
        /// First guest address.
        guest_addr: u64,
        /// Size in bytes.
        size: u64,
        /// First guest address of the other one.
        other_addr: u64,
        /// Its size in bytes.
        other_size: u64,
    },
    /// All slots are taken.
    #[error("{count} regions, must be at most {max}")]
    TooMany {
        /// How many it would be.
        count: u64,
        /// GET_MAX_MEM_SLOTS.
        max: u64,
    },
    /// There is no such region to remove.
    #[error("no region at guest address {guest_addr:#x}, user address {user_addr:#x}, size {size:#x}")]
    Missing {
        /// First guest address.
        guest_addr: u64,
        /// First address of the front-end.
        user_addr: u64,
        /// Size in bytes.
        size: u64,
    },
}

/// Checks one region by itself and against those that are there.
///
/// Overlapping *user* addresses pass: the same memory may stand in a guest twice.
pub(super) fn check_region(new: &RegionConfig, present: &[RegionConfig]) -> Result<(), RegionRefusal> {
    let RegionConfig { guest_addr, size, user_addr, mmap_offset } = *new;
    if size == 0 {
        return Err(RegionRefusal::Empty { guest_addr });
    }
    let starts = [("guest address", guest_addr), ("user address", user_addr), ("mmap offset", mmap_offset)];
    for (field, start) in starts {
        if start.checked_add(size).is_none() {
            return Err(RegionRefusal::Overflow { field, start, size });
        }
    }
    // No sum can overflow: those of `present` were checked when they came.
    let overlaps =
        |other: &&RegionConfig| guest_addr < other.guest_addr + other.size && other.guest_addr < guest_addr + size;
    match present.iter().find(overlaps) {
        Some(other) => {
            Err(RegionRefusal::Overlap { guest_addr, size, other_addr: other.guest_addr, other_size: other.size })
        }
        None => Ok(()),
    }
}

impl Session {
    /// SET_MEM_TABLE; a refused table leaves the old one.
    pub(super) fn set_mem_table(
        &mut self,
        regions: Vec<(RegionConfig, OwnedFd)>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let mut table = Vec::with_capacity(regions.len());
        for (region, _) in &regions {
            check_region(region, &table).map_err(refused(RequestCode::SET_MEM_TABLE))?;
            table.push(*region);
        }
        self.replace_regions(table);
        effects.push(Effect::SetMemTable(regions));
        Ok(())
    }

    /// ADD_MEM_REG.
    pub(super) fn add_region(
        &mut self,
        region: RegionConfig,
        fd: OwnedFd,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.needs(RequestCode::ADD_MEM_REG, protocol::CONFIGURE_MEM_SLOTS)?;
        let refused = refused(RequestCode::ADD_MEM_REG);
        let (count, max) = (self.regions.len() as u64 + 1, self.device.max_mem_slots);
        if count > max {
            return Err(refused(RegionRefusal::TooMany { count, max }));
        }
        check_region(&region, &self.regions).map_err(refused)?;
        let mut table = self.regions.clone();
        table.push(region);
        self.replace_regions(table);
        effects.push(Effect::AddRegion(region, fd));
        Ok(())
    }

    /// REM_MEM_REG: "identified by its guest address, user address and size. The mmap offset is ignored."
    pub(super) fn remove_region(&mut self, region: RegionConfig, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.needs(RequestCode::REM_MEM_REG, protocol::CONFIGURE_MEM_SLOTS)?;
        let RegionConfig { guest_addr, size, user_addr, .. } = region;
        let same =
            |other: &RegionConfig| (other.guest_addr, other.size, other.user_addr) == (guest_addr, size, user_addr);
        let Some(position) = self.regions.iter().position(same) else {
            let missing = RegionRefusal::Missing { guest_addr, user_addr, size };
            return Err(refused(RequestCode::REM_MEM_REG)(missing));
        };
        let mut table = self.regions.clone();
        let removed = table.remove(position);
        self.replace_regions(table);
        effects.push(Effect::RemoveRegion(removed));
        Ok(())
    }

    fn replace_regions(&mut self, table: Vec<RegionConfig>) {
        let old = std::mem::replace(&mut self.regions, table);
        self.undo = Some(Undo::Regions(old));
    }
}

fn refused(code: RequestCode) -> impl Fn(RegionRefusal) -> Refusal + Copy {
    move |refusal| Refusal::Region { code, refusal }
}
