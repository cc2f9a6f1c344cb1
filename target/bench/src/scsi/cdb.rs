//! The CDBs that the load generator sends (SPC-5, SBC-4), built from their standards and from nothing of the target.

/// Which way the data of a command moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the device.
    Read,
    /// To the device.
    Write,
}

/// Bits that a CDB has for the LBA: READ (10) and READ (16), WRITE alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LbaWidth {
    /// The 10-byte commands.
    Bits32,
    /// The 16-byte commands.
    Bits64,
}

/// Where the LBA begins in each of READ and WRITE (10) and (16), big endian.
pub(super) const LBA_AT: usize = 2;
/// Bytes of standard INQUIRY data that are asked for.
pub(super) const INQUIRY_LEN: u8 = 36;
/// Bytes of READ CAPACITY (16) data.
pub(super) const CAPACITY_LEN: u8 = 32;

/// INQUIRY of standard data (SPC-5 §6.6.1).
pub(super) const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, INQUIRY_LEN, 0];
/// TEST UNIT READY (SPC-5 §6.43).
pub(super) const TEST_UNIT_READY: [u8; 6] = [0; 6];
/// READ CAPACITY (16): SERVICE ACTION IN (16), service action 10h (SBC-4 §5.20).
pub(super) const READ_CAPACITY_16: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, CAPACITY_LEN, 0, 0];

impl LbaWidth {
    /// The shorter command where it reaches every block before `end` in pieces of `blocks`.
    pub(super) fn reaching(end: u64, blocks: u32) -> LbaWidth {
        let fits = end.saturating_sub(1) <= u64::from(u32::MAX) && blocks <= u32::from(u16::MAX);
        if fits { LbaWidth::Bits32 } else { LbaWidth::Bits64 }
    }
}

/// READ or WRITE of `blocks` blocks at LBA 0 (SBC-4 §5.13, §5.15, §5.40, §5.42).
pub(super) fn transfer(direction: Direction, width: LbaWidth, blocks: u32) -> Vec<u8> {
    let opcode = match (direction, width) {
        (Direction::Read, LbaWidth::Bits32) => 0x28,
        (Direction::Write, LbaWidth::Bits32) => 0x2a,
        (Direction::Read, LbaWidth::Bits64) => 0x88,
        (Direction::Write, LbaWidth::Bits64) => 0x8a,
    };
    match width {
        LbaWidth::Bits32 => {
            let [_, _, high, low] = blocks.to_be_bytes();
            vec![opcode, 0, 0, 0, 0, 0, 0, high, low, 0]
        }
        LbaWidth::Bits64 => {
            let mut cdb = vec![opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            cdb.extend(blocks.to_be_bytes());
            cdb.extend([0, 0]);
            cdb
        }
    }
}

/// The LUN field of a request (virtio 1.3 §5.6.6.1): single level, flat addressing (SAM-6 §4.7.7.4) beyond 255.
pub(super) fn lun_field(target: u8, lun: u16) -> [u8; 8] {
    let [high, low] = lun.to_be_bytes();
    let format = if high == 0 { 0 } else { 0x40 };
    [1, target, format | high, low, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_of_both_widths_are_those_of_the_standard() {
        assert_eq!(transfer(Direction::Read, LbaWidth::Bits32, 8), [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(transfer(Direction::Write, LbaWidth::Bits32, 0x102), [0x2a, 0, 0, 0, 0, 0, 0, 1, 2, 0]);
        let read = transfer(Direction::Read, LbaWidth::Bits64, 0x0001_0203);
        assert_eq!(read, [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0]);
        assert_eq!(transfer(Direction::Write, LbaWidth::Bits64, 1)[0], 0x8a);
    }

    #[test]
    fn width_is_the_short_one_as_long_as_it_reaches() {
        assert_eq!(LbaWidth::reaching(1 << 32, 65535), LbaWidth::Bits32);
        assert_eq!(LbaWidth::reaching((1 << 32) + 1, 1), LbaWidth::Bits64);
        assert_eq!(LbaWidth::reaching(1 << 20, 65536), LbaWidth::Bits64);
    }

    #[test]
    fn lun_field_is_peripheral_up_to_255_and_flat_beyond() {
        assert_eq!(lun_field(0, 0), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lun_field(7, 255), [1, 7, 0, 255, 0, 0, 0, 0]);
        assert_eq!(lun_field(255, 256), [1, 255, 0x41, 0, 0, 0, 0, 0]);
        assert_eq!(lun_field(0, 16383), [1, 0, 0x7f, 0xff, 0, 0, 0, 0]);
    }
}
