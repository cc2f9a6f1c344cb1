//! A guest with a packed ring of which every field is laid open.

use virtqueue::packed::{PackedDevice, PackedDriver, RawPacked};
use virtqueue::{Features, RingFormat};

use crate::fixture::Guest;

pub const AVAIL: u16 = 0x0080;
pub const USED: u16 = 0x8000;

pub struct Ring {
    pub guest: Guest,
    pub raw: RawPacked,
}

impl Ring {
    pub fn new(size: u16) -> Ring {
        Ring::with(size, false)
    }

    pub fn with(size: u16, event_idx: bool) -> Ring {
        let guest = Guest::with(size, Features { event_idx });
        let raw = RawPacked::new(size, guest.rings_of(RingFormat::Packed)).unwrap();
        Ring { guest, raw }
    }

    pub fn device(&self) -> PackedDevice {
        self.device_at(0x8000)
    }

    pub fn device_at(&self, base: u32) -> PackedDevice {
        PackedDevice::new(self.guest.size, self.guest.rings_of(RingFormat::Packed), base, self.guest.features).unwrap()
    }

    pub fn driver(&self) -> PackedDriver {
        PackedDriver::new(self.guest.size, self.guest.rings_of(RingFormat::Packed), self.guest.features).unwrap()
    }

    /// Writes an indirect table: address, length and flags of each entry.
    pub fn write_table(&self, addr: u64, entries: &[(u64, u32, u16)]) {
        for (index, &(buffer, len, flags)) in entries.iter().enumerate() {
            let bytes = RawPacked::descriptor_bytes(buffer, len, 0, flags);
            let mut left = &bytes[..];
            let at = addr + 16 * index as u64;
            self.guest.table.translate_each(at, 16, |part| left = &left[part.write(left)..]).unwrap();
        }
    }
}
