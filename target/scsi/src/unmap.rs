//! UNMAP parameter lists (SBC-4, UNMAP command): all of one is checked before any block is given up.

use alloc::vec::Vec;

use crate::{
    sense::Sense,
    unit::{LogicalUnit, Unmap},
};

/// Blocks to give up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks, at least 1.
    pub blocks: u32,
}

const HEADER_LEN: usize = 8;
const DESCRIPTOR_LEN: usize = 16;

/// Fills `extents`, which must be empty, with what a parameter list asks for, in its order. Extents may overlap; those
/// without blocks are left out once they are checked.
///
/// The UNMAP DATA LENGTH and reserved fields are ignored. A descriptor that the list has no room for is ignored too,
/// as the standard has it.
pub(crate) fn read(unit: &LogicalUnit, limits: &Unmap, list: &[u8], extents: &mut Vec<Extent>) -> Result<(), Sense> {
    if list.is_empty() {
        return Ok(()); // SBC-4, UNMAP: not an error
    }
    let header: &[u8; HEADER_LEN] = list.first_chunk().ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let stated = usize::from(u16::from_be_bytes([header[2], header[3]])); // UNMAP BLOCK DESCRIPTOR DATA LENGTH
    let room = list.len() - HEADER_LEN;
    let count = stated.min(room) / DESCRIPTOR_LEN;
    if count > usize::from(limits.max_extents) {
        return Err(Sense::invalid_field_in_parameter_list(2, None));
    }
    let (mut total, mut at) = (0_u64, HEADER_LEN);
    for descriptor in list[HEADER_LEN..].chunks_exact(DESCRIPTOR_LEN).take(count) {
        let extent = Extent::of(descriptor);
        unit.check_range(extent.lba, extent.blocks)?;
        total += u64::from(extent.blocks); // at most 4095 times 32 bits
        if total > u64::from(limits.max_blocks) && limits.max_blocks != u32::MAX {
            return Err(Sense::invalid_field_in_parameter_list(field_at(at + 8), None));
        }
        if extent.blocks > 0 {
            unit.check_writable()?;
            extents.push(extent);
        }
        at += DESCRIPTOR_LEN;
    }
    Ok(())
}

impl Extent {
    /// UNMAP block descriptor: UNMAP LOGICAL BLOCK ADDRESS, NUMBER OF LOGICAL BLOCKS, four reserved bytes.
    fn of(descriptor: &[u8]) -> Extent {
        let mut lba = [0; 8];
        lba.copy_from_slice(&descriptor[..8]);
        let mut blocks = [0; 4];
        blocks.copy_from_slice(&descriptor[8..12]);
        Extent { lba: u64::from_be_bytes(lba), blocks: u32::from_be_bytes(blocks) }
    }
}

fn field_at(byte: usize) -> u16 {
    u16::try_from(byte).unwrap_or(u16::MAX) // a list has at most 65535 bytes
}
