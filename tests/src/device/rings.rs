//! Where the rings of a device lie in guest memory, as the driver and as the device sees them.

use guest_memory::MemTable;
use virtqueue::{RingAddresses, RingFormat};

use super::guest::{Guest, USER_BASE};

/// Distance of two rings in guest memory: room for 1024 descriptors.
const RING_STRIDE: u64 = 32 << 10;

/// Guest addresses of a ring: descriptor, driver and device area.
pub(super) fn ring_at(format: RingFormat, index: u16, size: u16) -> [(u64, usize); 3] {
    let lens = format.area_lens(size);
    let desc = u64::from(index) * RING_STRIDE;
    let avail = desc + lens[0] as u64;
    let used = (avail + lens[1] as u64).next_multiple_of(64);
    [(desc, lens[0]), (avail, lens[1]), (used, lens[2])]
}

pub(super) fn driver_addresses(guest: &Guest, format: RingFormat, index: u16, size: u16) -> RingAddresses {
    let [desc, avail, used] = ring_at(format, index, size).map(|(addr, len)| guest.slice(addr, len));
    RingAddresses { desc, avail, used }
}

pub(super) fn device_addresses(table: &MemTable, format: RingFormat, index: u16, size: u16) -> RingAddresses {
    addresses_in(table, format, index, size).expect("a ring in the memory table")
}

pub(super) fn addresses_in(table: &MemTable, format: RingFormat, index: u16, size: u16) -> Option<RingAddresses> {
    // Front-ends give ring addresses in their own address space.
    let [desc, avail, used] =
        ring_at(format, index, size).map(|(addr, len)| table.translate_user(USER_BASE + addr, len));
    Some(RingAddresses { desc: desc?, avail: avail?, used: used? })
}
