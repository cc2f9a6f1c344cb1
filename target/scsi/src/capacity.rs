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

/// No protection information (PROT_EN 0), fully provisioned (LBPME 0), blocks aligned at LBA 0.
pub(crate) fn append_sixteen(unit: &LogicalUnit, out: &mut Vec<u8>) {
    out.extend_from_slice(&last_lba(unit).to_be_bytes());
    out.extend_from_slice(&unit.block_size().to_be_bytes());
    out.push(0x00); // RC_BASIS, P_TYPE, PROT_EN
    out.push(unit.physical_block_exponent()); // P_I_EXPONENT 0 in the upper half
    out.extend_from_slice(&[0; 18]); // LBPME, LBPRZ, LOWEST ALIGNED LOGICAL BLOCK ADDRESS; reserved
}

fn last_lba(unit: &LogicalUnit) -> u64 {
    unit.block_count() - 1 // never 0 blocks
}
