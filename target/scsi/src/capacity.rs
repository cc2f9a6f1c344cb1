//! READ CAPACITY (10) and (16) parameter data (SBC-4). The block descriptor of MODE SENSE, which tells the same, stands
//! in `mode`.

use alloc::vec::Vec;

use crate::unit::LogicalUnit;

/// The last LBA, FFFFFFFFh where it needs more than 32 bits: then READ CAPACITY (16) knows it.
pub(crate) fn append_ten(unit: &LogicalUnit, out: &mut Vec<u8>) {
    let last = u32::try_from(last_lba(unit)).unwrap_or(u32::MAX);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&unit.block_size().to_be_bytes());
}

/// No protection information (PROT_EN 0). LBPME and LBPRZ say again what the Logical Block Provisioning VPD page says.
pub(crate) fn append_sixteen(unit: &LogicalUnit, out: &mut Vec<u8>) {
    const LBPME: u16 = 0x8000;
    const LBPRZ: u16 = 0x4000;
    let provisioning = unit.config().unmap.map_or(0, |unmap| LBPME | if unmap.reads_zero { LBPRZ } else { 0 });
    out.extend_from_slice(&last_lba(unit).to_be_bytes());
    out.extend_from_slice(&unit.block_size().to_be_bytes());
    out.push(0x00); // RC_BASIS, P_TYPE, PROT_EN
    out.push(unit.physical_block_exponent()); // P_I_EXPONENT 0 in the upper half
    out.extend_from_slice(&(provisioning | unit.config().lowest_aligned_lba).to_be_bytes());
    out.extend_from_slice(&[0; 16]);
}

fn last_lba(unit: &LogicalUnit) -> u64 {
    unit.block_count() - 1 // never 0 blocks
}
