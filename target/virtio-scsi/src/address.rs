//! The LUN field of requests (virtio 1.3 §5.6.6.1, SAM-6 §4.7): eight bytes in, an address out. Whether anything lives
//! at the address is `lun_map.rs`.

/// Largest LUN: the flat addressing format has 14 bits.
pub const LUN_MAX: u16 = 0x3fff;

/// What a LUN field addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// A logical unit by number.
    Unit {
        /// Target, 0 to 255.
        target: u8,
        /// Logical unit number, 0 to [`LUN_MAX`].
        lun: u16,
    },
    /// The REPORT LUNS well-known logical unit.
    ReportLuns {
        /// Target whose inventory it reports. The form C1h 01h, which names no target, means target 0.
        target: u8,
        /// Whether it came in the form C1h 01h: that one answers even if target 0 does not exist.
        global: bool,
    },
}

impl Address {
    /// Understands the field; `None` for every format that this transport does not have.
    #[must_use]
    #[inline]
    pub fn parse(lun: &[u8; 8]) -> Option<Address> {
        match lun {
            // 01h, target, then a single-level LUN: peripheral (00b, bus 0) or flat (01b) addressing.
            [1, target, 0, low, 0, 0, 0, 0] => Some(Address::Unit { target: *target, lun: u16::from(*low) }),
            [1, target, high @ 0x40..=0x7f, low, 0, 0, 0, 0] => {
                Some(Address::Unit { target: *target, lun: u16::from_be_bytes([high & 0x3f, *low]) })
            }
            [1, target, 0xc1, 0x01, 0, 0, 0, 0] => Some(Address::ReportLuns { target: *target, global: false }),
            [0xc1, 0x01, 0, 0, 0, 0, 0, 0] => Some(Address::ReportLuns { target: 0, global: true }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r12_r20_address_formats_are_peripheral_flat_and_the_report_luns_unit() {
        let unit = |target, lun| Some(Address::Unit { target, lun });
        assert_eq!(Address::parse(&[1, 0, 0, 0, 0, 0, 0, 0]), unit(0, 0));
        assert_eq!(Address::parse(&[1, 255, 0, 255, 0, 0, 0, 0]), unit(255, 255));
        assert_eq!(Address::parse(&[1, 7, 0x40, 3, 0, 0, 0, 0]), unit(7, 3));
        assert_eq!(Address::parse(&[1, 7, 0x7f, 0xff, 0, 0, 0, 0]), unit(7, 16383));
        assert_eq!(Address::parse(&[0xc1, 1, 0, 0, 0, 0, 0, 0]), Some(Address::ReportLuns { target: 0, global: true }));
        assert_eq!(
            Address::parse(&[1, 9, 0xc1, 1, 0, 0, 0, 0]),
            Some(Address::ReportLuns { target: 9, global: false })
        );
    }

    #[test]
    fn r12_other_formats_are_no_address() {
        for lun in [
            [0, 0, 0, 0, 0, 0, 0, 0],       // the no-op of old devices
            [2, 0, 0, 0, 0, 0, 0, 0],       // unknown first byte
            [1, 0, 1, 0, 0, 0, 0, 0],       // peripheral addressing, bus 1
            [1, 0, 0x80, 0, 0, 0, 0, 0],    // logical unit addressing
            [1, 0, 0xc1, 0x02, 0, 0, 0, 0], // ACCESS CONTROLS well-known unit
            [1, 0, 0x40, 0, 0, 1, 0, 0],    // a second level
            [1, 0, 0, 0, 0, 0, 0, 1],
            [0xc1, 2, 0, 0, 0, 0, 0, 0],
            [0xc1, 1, 0, 0, 1, 0, 0, 0],
            [0xff; 8],
        ] {
            assert_eq!(Address::parse(&lun), None, "{lun:02x?}");
        }
    }
}
