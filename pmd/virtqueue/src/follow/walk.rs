//! Following any descriptor chain, step by step: from a head to translated slices, or to the reason why the queue halts.
//! `quick.rs` and `long.rs` do the same for the chains that drivers build most; they know no reasons and leave what they
//! do not understand to this file.

use std::hint::black_box;

use guest_memory::{GuestSlice, MemTable};

use super::descriptor::{DESCRIPTOR, Descriptor, Entries, INDIRECT, NEXT, TableFormat, WRITE};
use crate::{Chain, FaultReason};

/// Why a walk ended before its chain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Fault(FaultReason),
    /// The chain needs more slices than were given. Nothing of it counts: it is walked again from its head.
    NoRoom,
}

impl From<FaultReason> for Stop {
    fn from(reason: FaultReason) -> Stop {
        Stop::Fault(reason)
    }
}

/// Walks the chain that begins at entry `first` of `ring`, which has `size` descriptors, and fills `slices` from the first
/// on; the chain's positions are positions in `slices`, and so are those that are added to `continued`: slices that go on
/// with the descriptor of the one before. `tables` is how indirect tables are written. The chain's head is the caller's to
/// fill in.
#[cold]
#[inline(never)]
pub(crate) fn walk(
    memory: &MemTable,
    (ring, first): (&impl Entries, u16),
    size: u16,
    tables: TableFormat,
    slices: &mut [GuestSlice],
    continued: &mut Vec<u32>,
) -> Result<Chain, Stop> {
    let longest = usize::from(size);
    let pieces_max = longest + memory.regions().len();
    let path = Path { chain: Chain::default(), writable: false, filled: 0 };
    let mut walk = Walk { memory, slices, continued, tables, longest, left: longest, pieces_max, path };
    if let Some(table) = walk.follow(ring, first, Place::Ring)? {
        walk.follow_table(table)?;
    }
    Ok(walk.path.finish())
}

/// One walk under way.
struct Walk<'a> {
    memory: &'a MemTable,
    slices: &'a mut [GuestSlice],
    continued: &'a mut Vec<u32>,
    tables: TableFormat,
    /// The ring's size, which is the length of the longest chain (virtio 1.3 §2.7.5.3.1).
    longest: usize,
    /// How many descriptors the chain may still have, the next one included.
    left: usize,
    /// How many slices the chain may have. Buffers that do not overlap are cut once a region at most; without this bound,
    /// a chain of huge overlapping buffers would be the product of its length and the number of regions.
    pieces_max: usize,
    path: Path,
}

/// Where the descriptors lie that are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Ring,
    Table,
}

impl Walk<'_> {
    /// Goes from entry to entry until the chain ends, or goes on in the indirect table that is returned.
    fn follow(&mut self, entries: &impl Entries, first: u16, place: Place) -> Result<Option<Descriptor>, Stop> {
        let mut index = first;
        loop {
            let descriptor = entries.entry(index).ok_or(FaultReason::NextOutOfRange)?;
            if descriptor.has(INDIRECT) {
                return match place {
                    Place::Ring => Ok(Some(descriptor)),
                    Place::Table => Err(FaultReason::NestedIndirect.into()),
                };
            }
            // A buffer without a byte says nothing, neither by its address nor by its direction.
            if descriptor.len != 0 {
                self.take(descriptor)?;
            }
            if !descriptor.has(NEXT) {
                return Ok(None);
            }
            index = descriptor.next();
            self.left -= 1;
            if self.left == 0 {
                return Err(too_long(entries, index, self.longest).into());
            }
        }
    }

    /// The entries of an indirect table. Any number of ordinary descriptors may have come before it (virtio 1.3
    /// §2.7.5.3.2); WRITE on the descriptor that names it means nothing.
    fn follow_table(&mut self, table: Descriptor) -> Result<(), Stop> {
        if table.has(NEXT) {
            return Err(FaultReason::IndirectWithNext.into());
        }
        if table.len == 0 || !(table.len as usize).is_multiple_of(DESCRIPTOR) {
            return Err(FaultReason::IndirectLength.into());
        }
        check_range(table)?;
        self.memory.translate_each(table.addr, table.len, |_| ()).map_err(|_| FaultReason::IndirectUnmapped)?;
        let entries = Table { memory: self.memory, table, format: self.tables };
        self.follow(&entries, 0, Place::Table)?;
        Ok(())
    }

    /// Takes a buffer: one slice for each region that it lies in.
    fn take(&mut self, buffer: Descriptor) -> Result<(), Stop> {
        self.path.enter(buffer.has(WRITE))?;
        check_range(buffer)?;
        let room = self.slices.get_mut(self.path.filled..).ok_or(Stop::NoRoom)?;
        let mut parts = 0;
        self.memory
            .translate_each(buffer.addr, buffer.len, |part| {
                if let Some(slice) = room.get_mut(parts) {
                    *slice = part;
                }
                parts += 1;
            })
            .map_err(|_| FaultReason::Unmapped)?;
        if self.path.filled + parts > self.pieces_max {
            return Err(FaultReason::ChainTooLong.into());
        }
        if parts > room.len() {
            return Err(Stop::NoRoom);
        }
        let first = self.path.filled as u32;
        self.continued.extend((1..parts as u32).map(|part| first + part));
        self.path.add(buffer, parts);
        Ok(())
    }
}

/// What a walk has collected.
struct Path {
    chain: Chain,
    /// A writable buffer was seen.
    writable: bool,
    /// Next slice to be filled.
    filled: usize,
}

impl Path {
    /// From readable to writable buffers there is a way, but none back (virtio 1.3 §2.7.4.2).
    fn enter(&mut self, writable: bool) -> Result<(), FaultReason> {
        if self.writable && !writable {
            return Err(FaultReason::ReadableAfterWritable);
        }
        if writable && !self.writable {
            self.writable = true;
            self.chain.writable_start = self.filled as u32;
        }
        Ok(())
    }

    fn add(&mut self, buffer: Descriptor, parts: usize) {
        self.filled += parts;
        if !self.writable {
            self.chain.readable_bytes += u64::from(buffer.len);
            self.chain.readable_descriptors += 1;
        } else {
            self.chain.writable_bytes += u64::from(buffer.len);
            self.chain.writable_descriptors += 1;
        }
    }

    fn finish(mut self) -> Chain {
        self.chain.end = self.filled as u32;
        if !self.writable {
            self.chain.writable_start = self.chain.end;
        }
        self.chain
    }
}

/// The last byte of what the descriptor names has an address.
fn check_range(descriptor: Descriptor) -> Result<(), FaultReason> {
    let last = u64::from(descriptor.len).saturating_sub(1);
    match descriptor.addr.checked_add(last) {
        Some(_) => Ok(()),
        None => Err(FaultReason::AddressOverflow),
    }
}

/// A loop, or a chain that is honestly too long? Goes on for at most the ring's size: a loop that fits into the ring is
/// back at `here` by then. Entries are read once more for it, which decides nothing but the label.
fn too_long(entries: &impl Entries, here: u16, longest: usize) -> FaultReason {
    let mut index = here;
    for _ in 0..longest {
        match entries.entry(index) {
            Some(descriptor) if descriptor.has(NEXT) => index = descriptor.next(),
            _ => return FaultReason::ChainTooLong,
        }
        if index == here {
            return FaultReason::Loop;
        }
    }
    FaultReason::ChainTooLong
}

/// An indirect table of which the whole is mapped, in as many pieces and at whatever alignment.
struct Table<'a> {
    memory: &'a MemTable,
    table: Descriptor,
    format: TableFormat,
}

impl Entries for Table<'_> {
    fn entry(&self, index: u16) -> Option<Descriptor> {
        let offset = DESCRIPTOR as u32 * u32::from(index);
        if offset >= self.table.len {
            return None;
        }
        let mut bytes = [0; DESCRIPTOR];
        let mut have = 0;
        self.memory
            .translate_each(self.table.addr + u64::from(offset), DESCRIPTOR as u32, |part| {
                have += part.read(&mut bytes[have..])
            })
            .ok()?;
        // What follows works on this copy: the compiler must not see that it could read the guest's memory again.
        let bytes = black_box(u128::from_le_bytes(bytes));
        let words = [bytes as u64, (bytes >> 64) as u64];
        Some(self.format.descriptor(words, index, self.table.len))
    }
}
