//! The memory table of one front-end: which guest and front-end addresses are which bytes of ours.
//!
//! A table is immutable; a change makes a new one that shares the mappings that stay. Handing a new table to pollers
//! and letting the old one go is the business of the connection, not of this file.

use std::sync::Arc;

use crate::{GuestSlice, Mapping, RegionConfig};

/// The regions of one front-end at one time, ordered by guest address.
#[derive(Debug, Default)]
pub struct MemTable {
    regions: Vec<Arc<Mapping>>,
    /// What translation reads: kept apart from the mappings so that a look-up touches few cache lines.
    spans: Vec<Span>,
}

/// Which region the last translation hit: most requests hit the same one again.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegionHint(usize);

/// Why regions cannot stand in one table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Two regions share guest addresses.
    #[error("regions overlap: guest addresses {a:#x}+{a_size:#x} and {b:#x}+{b_size:#x}")]
    Overlap {
        /// Guest address of the one.
        a: u64,
        /// Its size in bytes.
        a_size: u64,
        /// Guest address of the other.
        b: u64,
        /// Its size in bytes.
        b_size: u64,
    },
    /// The region to be removed is not there.
    #[error("no region at guest address {0:#x} with this size and user address")]
    Missing(u64),
}

/// An address range that the table does not hold whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest address {addr:#x}, {len} bytes: not in the memory table")]
pub struct Unmapped {
    /// Guest address of the range.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    guest_addr: u64,
    user_addr: u64,
    memory: GuestSlice,
}

impl MemTable {
    /// A table of these regions, in any order.
    ///
    /// # Errors
    /// [`TableError::Overlap`] if two share a guest address.
    pub fn new(mut regions: Vec<Arc<Mapping>>) -> Result<MemTable, TableError> {
        regions.sort_by_key(|region| region.config().guest_addr);
        for pair in regions.windows(2) {
            let (a, b) = (pair[0].config(), pair[1].config());
            if a.guest_addr + (a.size - 1) >= b.guest_addr {
                return Err(TableError::Overlap { a: a.guest_addr, a_size: a.size, b: b.guest_addr, b_size: b.size });
            }
        }
        let spans = regions
            .iter()
            .map(|region| Span {
                guest_addr: region.config().guest_addr,
                user_addr: region.config().user_addr,
                memory: region.memory(),
            })
            .collect();
        Ok(MemTable { regions, spans })
    }

    /// This table and one region more (ADD_MEM_REG).
    ///
    /// # Errors
    /// [`TableError::Overlap`] if the region shares a guest address with one that is there.
    pub fn with(&self, region: Arc<Mapping>) -> Result<MemTable, TableError> {
        let mut regions = self.regions.clone();
        regions.push(region);
        MemTable::new(regions)
    }

    /// This table without the region that has the guest address, user address and size of `config` (REM_MEM_REG).
    ///
    /// # Errors
    /// [`TableError::Missing`] if there is none.
    pub fn without(&self, config: &RegionConfig) -> Result<MemTable, TableError> {
        let same = |region: &Arc<Mapping>| {
            let this = region.config();
            (this.guest_addr, this.user_addr, this.size) == (config.guest_addr, config.user_addr, config.size)
        };
        if !self.regions.iter().any(same) {
            return Err(TableError::Missing(config.guest_addr));
        }
        MemTable::new(self.regions.iter().filter(|region| !same(region)).cloned().collect())
    }

    /// The mappings, ordered by guest address.
    #[must_use]
    pub fn regions(&self) -> &[Arc<Mapping>] {
        &self.regions
    }

    /// Whether any region lost its memory under us (SIGBUS): the device that uses it has to stop.
    #[must_use]
    #[inline]
    pub fn poisoned(&self) -> bool {
        self.regions.iter().any(|region| region.poisoned())
    }

    /// The `len` bytes at guest address `addr`, if one region holds them all. Never panics, whatever the guest says.
    #[must_use]
    #[inline]
    pub fn translate(&self, addr: u64, len: u32) -> Option<GuestSlice> {
        self.translate_hinted(addr, len, &mut RegionHint::default())
    }

    /// [`MemTable::translate`], trying first the region that was hit last.
    #[inline]
    pub fn translate_hinted(&self, addr: u64, len: u32, hint: &mut RegionHint) -> Option<GuestSlice> {
        if let Some(found) = self.spans.get(hint.0).and_then(|span| span.by_guest(addr, len)) {
            return Some(found);
        }
        self.translate_unhinted(addr, len, hint)
    }

    #[cold]
    fn translate_unhinted(&self, addr: u64, len: u32, hint: &mut RegionHint) -> Option<GuestSlice> {
        let index = self.spans.partition_point(|span| span.guest_addr <= addr).checked_sub(1)?;
        let found = self.spans[index].by_guest(addr, len)?;
        *hint = RegionHint(index);
        Some(found)
    }

    /// Calls `each` with every part of the `len` bytes at `addr`, in order: one part a region, because a guest's buffer
    /// may lie across two neighbouring regions.
    ///
    /// # Errors
    /// [`Unmapped`] if a byte of the range is in no region, or the range wraps; `each` may have been called before.
    pub fn translate_each(&self, addr: u64, len: u32, mut each: impl FnMut(GuestSlice)) -> Result<(), Unmapped> {
        let unmapped = Unmapped { addr, len };
        if len == 0 {
            return Ok(());
        }
        addr.checked_add(u64::from(len) - 1).ok_or(unmapped)?;
        let (mut at, mut left) = (addr, u64::from(len));
        while left > 0 {
            let index = self.spans.partition_point(|span| span.guest_addr <= at).checked_sub(1).ok_or(unmapped)?;
            let span = &self.spans[index];
            let offset = at - span.guest_addr;
            let room = (span.memory.len() as u64).checked_sub(offset).filter(|room| *room > 0).ok_or(unmapped)?;
            let part = left.min(room);
            each(span.memory.subslice(offset as usize, part as usize).ok_or(unmapped)?);
            at = at.wrapping_add(part);
            left -= part;
        }
        Ok(())
    }

    /// The `len` bytes at the front-end's own address `addr` (ring addresses come as such), if one region holds them.
    #[must_use]
    pub fn translate_user(&self, addr: u64, len: usize) -> Option<GuestSlice> {
        self.spans
            .iter()
            .find_map(|span| span.memory.subslice(usize::try_from(addr.checked_sub(span.user_addr)?).ok()?, len))
    }
}

impl Span {
    #[inline(always)]
    fn by_guest(&self, addr: u64, len: u32) -> Option<GuestSlice> {
        // A 64-bit offset below usize::MAX on 64-bit machines; an address below the region wraps to a huge offset.
        let offset = addr.wrapping_sub(self.guest_addr);
        if offset >= self.memory.len() as u64 {
            return None;
        }
        self.memory.subslice(offset as usize, len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pages, SharedMemory};

    const MIB: u64 = 1 << 20;

    fn region(guest_addr: u64, size: u64, user_addr: u64) -> Arc<Mapping> {
        let memory = SharedMemory::create("table", size as usize, Pages::Small).unwrap();
        let config = RegionConfig { guest_addr, size, user_addr, mmap_offset: 0 };
        Arc::new(Mapping::map(memory.fd(), &config).unwrap())
    }

    #[test]
    fn translate_range_outside_or_wrapping_is_none() {
        let table = MemTable::new(vec![region(MIB, MIB, 0x7000_0000)]).unwrap();
        assert_eq!(table.translate(MIB, MIB as u32).map(GuestSlice::len), Some(MIB as usize));
        assert!(table.translate(MIB, MIB as u32 + 1).is_none());
        assert!(table.translate(MIB - 1, 1).is_none());
        assert!(table.translate(2 * MIB, 1).is_none());
        assert!(table.translate(2 * MIB - 1, 2).is_none());
        assert!(table.translate(u64::MAX, 1).is_none());
        assert!(table.translate(u64::MAX, u32::MAX).is_none());
    }

    #[test]
    fn translate_each_crosses_neighbours_and_stops_at_holes() {
        let table = MemTable::new(vec![region(MIB, MIB, 0x9000_0000), region(0, MIB, 0x7000_0000)]).unwrap();
        let mut parts = Vec::new();
        table.translate_each(MIB - 16, 48, |part| parts.push(part.len())).unwrap();
        assert_eq!(parts, [16, 32]);
        assert_eq!(table.translate_each(2 * MIB - 16, 17, |_| ()), Err(Unmapped { addr: 2 * MIB - 16, len: 17 }));
        assert!(table.translate_each(u64::MAX - 3, 8, |_| ()).is_err());
        assert!(table.translate_each(u64::MAX - 3, 0, |_| panic!("no byte, no part")).is_ok());
    }

    #[test]
    fn translate_user_looks_at_front_end_addresses() {
        let table = MemTable::new(vec![region(0, MIB, 0x7000_0000), region(MIB, MIB, 0x1000_0000)]).unwrap();
        table.translate(MIB + 5, 1).unwrap().write(&[42]);
        assert_eq!(table.translate_user(0x1000_0005, 1).unwrap().read_array::<1>(), Some([42]));
        assert!(table.translate_user(0x1000_0000 + MIB, 1).is_none());
        assert!(table.translate_user(0, 1).is_none());
    }

    #[test]
    fn table_overlap_is_refused_and_removal_needs_the_exact_region() {
        let (a, b) = (region(0, MIB, 0), region(MIB / 2, MIB, 0));
        let error = MemTable::new(vec![a.clone(), b.clone()]).unwrap_err();
        assert_eq!(error.to_string(), "regions overlap: guest addresses 0x0+0x100000 and 0x80000+0x100000");
        let table = MemTable::new(vec![a.clone()]).unwrap();
        assert!(table.with(b).is_err());
        let table = table.with(region(MIB, MIB, MIB)).unwrap();
        let gone = RegionConfig { guest_addr: MIB, size: MIB, user_addr: MIB, mmap_offset: 0 };
        assert!(table.without(&RegionConfig { size: MIB / 2, ..gone }).is_err());
        let table = table.without(&gone).unwrap();
        assert!(table.translate(MIB, 1).is_none());
        assert!(table.translate(0, 1).is_some());
    }

    #[test]
    fn translate_hinted_survives_a_stale_hint() {
        let two = MemTable::new(vec![region(0, MIB, 0), region(MIB, MIB, MIB)]).unwrap();
        let mut hint = RegionHint::default();
        assert!(two.translate_hinted(MIB, 1, &mut hint).is_some());
        let one = MemTable::new(vec![region(0, MIB, 0)]).unwrap();
        assert!(one.translate_hinted(0, 1, &mut hint).is_some());
    }
}
