//! The cache lines of one command in shared memory: a header for reads, one for writes, the response, and an indirect table
//! for each direction. A header is written once; a command of the same kind later only changes its LBA. Which slot is
//! used when is the queue's business.

use guest_memory::GuestSlice;
use virtio_scsi::wire::{REQUEST_LEN, RESPONSE_LEN};

use super::cdb::{Direction, LBA_AT, LbaWidth};

/// Bytes of one slot: lines for two headers, two for the response, and two for indirect tables.
pub(super) const SLOT_LEN: usize = 384;

/// The lines of all slots of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    memory: GuestSlice,
    guest_addr: u64,
}

/// The lines of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotLines {
    memory: GuestSlice,
}

/// Bytes 4 to 11 of a response.
pub(super) const VERDICT_LEN: usize = 8;
/// Status and response byte of a command that the device has not answered: no code of the specification.
pub(super) const UNANSWERED: u8 = 0xff;

impl Lines {
    /// Lines in `memory`, which the device knows at `guest_addr`: [`SLOT_LEN`] bytes a slot.
    pub(super) fn new(memory: GuestSlice, guest_addr: u64) -> Lines {
        Lines { memory, guest_addr }
    }

    /// The lines of one slot.
    ///
    /// # Panics
    /// If there is no such slot.
    pub(super) fn slot(&self, slot: usize) -> SlotLines {
        SlotLines { memory: self.memory.subslice(slot * SLOT_LEN, SLOT_LEN).expect("a slot of this queue") }
    }

    /// Guest address of a header.
    pub(super) fn header_addr(&self, slot: usize, direction: Direction) -> u64 {
        self.guest_addr + (slot * SLOT_LEN + header_at(direction)) as u64
    }

    /// Guest address of a response.
    pub(super) fn response_addr(&self, slot: usize) -> u64 {
        self.guest_addr + (slot * SLOT_LEN + RESPONSE_AT) as u64
    }

    /// The indirect table of a direction and its guest address.
    pub(super) fn table(&self, slot: usize, direction: Direction) -> (GuestSlice, u64) {
        let at = TABLES_AT + header_at(direction);
        (self.slot(slot).part(at, LINE), self.guest_addr + (slot * SLOT_LEN + at) as u64)
    }
}

impl SlotLines {
    /// The same lines, with a length that the compiler knows: each access through them is a bare load or store.
    #[inline(always)]
    pub(super) fn checked(self) -> SlotLines {
        SlotLines { memory: self.part(0, SLOT_LEN) }
    }

    /// Writes a whole header (virtio 1.3 §5.6.6.1); attribute SIMPLE, priority and CRN 0.
    pub(super) fn write_header(self, direction: Direction, lun: [u8; 8], tag: u64, cdb: &[u8]) {
        let mut header = [0; REQUEST_LEN];
        header[..8].copy_from_slice(&lun);
        header[8..16].copy_from_slice(&tag.to_le_bytes());
        header[CDB_AT..CDB_AT + cdb.len()].copy_from_slice(cdb);
        self.part(header_at(direction), REQUEST_LEN).write(&header);
    }

    /// Changes the LBA of a header that is there.
    #[inline(always)]
    pub(super) fn set_lba(self, direction: Direction, width: LbaWidth, lba: u64) {
        let at = header_at(direction) + CDB_AT + LBA_AT;
        match width {
            LbaWidth::Bits32 => self.part(at, 4).write(&(lba as u32).to_be_bytes()),
            LbaWidth::Bits64 => self.part(at, 8).write(&lba.to_be_bytes()),
        };
    }

    /// Makes the response one that no device gives: [`UNANSWERED`] in status and response, which every device writes.
    #[inline(always)]
    pub(super) fn clear_response(self) {
        self.part(RESPONSE_AT + 10, 2).write(&[UNANSWERED; 2]);
    }

    /// Residual, status qualifier, status and response, read once.
    #[inline(always)]
    pub(super) fn verdict(self) -> [u8; VERDICT_LEN] {
        self.part(RESPONSE_AT + 4, VERDICT_LEN).read_array().expect("of this length")
    }

    /// The whole response, read once.
    pub(super) fn response(self) -> [u8; RESPONSE_LEN] {
        self.part(RESPONSE_AT, RESPONSE_LEN).read_array().expect("of this length")
    }

    /// Asks for the lines that the device had and that are written next.
    #[inline(always)]
    pub(super) fn prefetch(self, direction: Direction) {
        self.part(RESPONSE_AT, LINE).prefetch_write();
        self.part(header_at(direction), LINE).prefetch_write();
    }

    #[inline(always)]
    fn part(self, at: usize, len: usize) -> GuestSlice {
        self.memory.subslice(at, len).expect("inside the slot")
    }
}

#[inline(always)]
fn header_at(direction: Direction) -> usize {
    match direction {
        Direction::Read => 0,
        Direction::Write => LINE,
    }
}

/// A cache line.
const LINE: usize = 64;
const RESPONSE_AT: usize = 2 * LINE;
const TABLES_AT: usize = 4 * LINE;
/// Where the CDB lies in a header.
const CDB_AT: usize = 19;
const _: () = assert!(REQUEST_LEN <= LINE && RESPONSE_LEN <= 2 * LINE && SLOT_LEN == 6 * LINE);

#[cfg(test)]
mod tests {
    use guest_memory::{Pages, SharedMemory};

    use super::*;

    #[test]
    fn header_bytes_lie_where_the_specification_says() {
        let memory = SharedMemory::create("lines", 4096, Pages::Small).unwrap();
        let lines = Lines::new(memory.slice(), 0x1000);
        let cdb = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
        lines.slot(1).write_header(Direction::Read, [1, 2, 0, 3, 0, 0, 0, 0], 0x0102_0304_0506_0708, &cdb);
        lines.slot(1).set_lba(Direction::Read, LbaWidth::Bits32, 0xa1b2_c3d4);
        #[rustfmt::skip]
        assert_eq!(memory.slice().subslice(384, 51).unwrap().read_array(), Some([
            1, 2, 0, 3, 0, 0, 0, 0,  8, 7, 6, 5, 4, 3, 2, 1,  0, 0, 0,
            0x28, 0, 0xa1, 0xb2, 0xc3, 0xd4, 0, 0, 8, 0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0u8,
        ]));
        lines.slot(1).set_lba(Direction::Write, LbaWidth::Bits64, 0x0102_0304_0506_0708);
        assert_eq!(memory.slice().subslice(384 + 64 + 21, 8).unwrap().read_array(), Some([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(lines.header_addr(1, Direction::Write), 0x1000 + 384 + 64);
        assert_eq!(lines.response_addr(1), 0x1000 + 384 + 128);
    }

    #[test]
    fn cleared_response_is_none_that_a_device_gives() {
        let memory = SharedMemory::create("lines", 4096, Pages::Small).unwrap();
        let lines = Lines::new(memory.slice(), 0);
        memory.slice().write(&[0; 384]);
        lines.slot(0).clear_response();
        assert_eq!(lines.slot(0).verdict(), [0, 0, 0, 0, 0, 0, 255, 255]);
        assert_eq!(lines.slot(0).response()[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]);
    }
}
