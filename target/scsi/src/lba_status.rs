//! GET LBA STATUS parameter data (SBC-4). Which blocks are there is the backend's knowledge.

use alloc::vec::Vec;

/// Blocks whose state an initiator wants to know: from `lba` on, all there are to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LbaStatusQuery {
    /// First logical block; it exists.
    pub lba: u64,
    /// How many [`LbaRun`]s the answer has room for, at least 1: to find more is needless work.
    pub runs_max: u32,
    /// Where the answer is cut, in bytes.
    allocation_length: u32,
}

/// Neighbouring blocks of the same state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LbaRun {
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks, at least 1. A longer run is told as several.
    pub blocks: u32,
    /// Whether they are there.
    pub state: LbaState,
}

/// PROVISIONING STATUS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum LbaState {
    /// 0h: mapped, or not known.
    Mapped = 0x0,
    /// 1h: deallocated.
    Deallocated = 0x1,
}

impl LbaStatusQuery {
    /// Most runs of one answer, whatever the allocation length.
    pub const RUNS_MAX: u32 = 256;

    pub(crate) fn new(lba: u64, allocation_length: u32) -> LbaStatusQuery {
        let room = allocation_length.saturating_sub(HEADER_LEN).div_ceil(DESCRIPTOR_LEN);
        LbaStatusQuery { lba, runs_max: room.clamp(1, LbaStatusQuery::RUNS_MAX), allocation_length }
    }

    /// Makes the parameter data in `out`: what the initiator gets in answer. The first run has to begin with
    /// [`lba`](LbaStatusQuery::lba), each further one where the one before it ends; from
    /// [`runs_max`](LbaStatusQuery::runs_max) on they are left out.
    pub fn answer(&self, runs: &[LbaRun], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[0; HEADER_LEN as usize]); // RTP 0: REPORT TYPE was not looked at
        for run in runs.iter().take(self.runs_max as usize) {
            out.extend_from_slice(&run.lba.to_be_bytes());
            out.extend_from_slice(&run.blocks.to_be_bytes());
            out.extend_from_slice(&[run.state as u8, 0, 0, 0]);
        }
        let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX); // at most 4 + 256 * 16
        out[..4].copy_from_slice(&len.to_be_bytes()); // PARAMETER DATA LENGTH
        out.truncate(usize::try_from(self.allocation_length).unwrap_or(usize::MAX));
    }
}

const HEADER_LEN: u32 = 8;
const DESCRIPTOR_LEN: u32 = 16;
