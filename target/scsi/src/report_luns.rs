//! REPORT LUNS parameter data and the eight-byte form of a LUN. Which LUNs a target has is the caller's knowledge.

use alloc::vec::Vec;

use crate::command::LunSelection;

/// The largest LUN number that flat space addressing can express (SAM-6; virtio 1.3 §5.6.6.1).
pub const LUN_MAX: u16 = 0x3fff;

/// The REPORT LUNS well-known logical unit (SAM-6: extended addressing, W-LUN 01h).
const REPORT_LUNS_WELL_KNOWN: [u8; 8] = [0xc1, 0x01, 0, 0, 0, 0, 0, 0];

/// A LUN number in eight bytes: peripheral device addressing below 256, flat space addressing from there on.
///
/// # Panics
/// If the number is above [`LUN_MAX`].
pub const fn encode_lun(lun: u16) -> [u8; 8] {
    assert!(lun <= LUN_MAX, "LUN number above 16383");
    let [high, low] = lun.to_be_bytes();
    let method = if lun < 256 { 0x00 } else { 0x40 };
    [method | high, low, 0, 0, 0, 0, 0, 0]
}

/// LUN LIST LENGTH, reserved, the LUNs. Every target has the well-known unit.
pub(crate) fn append(selection: LunSelection, luns: &[u16], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    if selection != LunSelection::WellKnown {
        for &lun in luns {
            out.extend_from_slice(&encode_lun(lun));
        }
    }
    if selection != LunSelection::Units {
        out.extend_from_slice(&REPORT_LUNS_WELL_KNOWN);
    }
    let list_len = u32::try_from(out.len() - start - 8).unwrap_or(u32::MAX); // at most 16385 * 8
    out[start..start + 4].copy_from_slice(&list_len.to_be_bytes());
}
