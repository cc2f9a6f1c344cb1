//! Verification: every block carries a stamp, a ledger knows which stamp each piece of the range must carry, and every
//! block that is read is compared with it.
//!
//! Two commands never touch the same piece at the same time, so what a read has to find is always known.

mod ledger;
mod stamp;

use std::fmt;

use super::cdb::Direction;
use super::disk::Range;
use super::pattern::{Io, Pattern};
use super::work::{SlotData, Work};

use ledger::Ledger;
use stamp::{Difference, Stamp};

/// A load whose blocks are stamped and checked.
#[derive(Debug)]
pub(super) struct Verified {
    range: Range,
    seed: u64,
    ledger: Ledger,
    source: Source,
    /// One block, copied out of shared memory or to be copied into it.
    block: Vec<u8>,
    findings: Findings,
}

/// Where the next command comes from.
#[derive(Debug)]
enum Source {
    /// A pattern; pieces that are in use are stepped over.
    Pattern(Pattern),
    /// Every piece once, in order.
    Sweep { next: u64, direction: Direction },
}

/// What checking has found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Blocks that were compared.
    pub checked: u64,
    /// Blocks that were not as they must be.
    pub mismatched: u64,
    /// How many of these reads had not touched at all.
    pub untouched: u64,
    /// The first of the mismatches.
    pub first: Vec<Mismatch>,
}

/// A block that is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub expected: Stamp,
    pub found: Difference,
}

impl Verified {
    pub(super) fn new(range: Range, seed: u64) -> Verified {
        Verified {
            range,
            seed,
            ledger: Ledger::new(range.pieces),
            source: Source::Sweep { next: range.pieces, direction: Direction::Read },
            block: vec![0; range.block_size as usize],
            findings: Findings::default(),
        }
    }

    /// From now on, commands of a pattern.
    pub(super) fn follow(&mut self, pattern: Pattern) {
        self.source = Source::Pattern(pattern);
    }

    /// From now on, write every piece once.
    pub(super) fn fill(&mut self) {
        self.source = Source::Sweep { next: 0, direction: Direction::Write };
    }

    /// From now on, read every piece once that was written.
    pub(super) fn read_back(&mut self) {
        self.source = Source::Sweep { next: 0, direction: Direction::Read };
    }

    pub(super) fn findings(&self) -> &Findings {
        &self.findings
    }

    fn pick(&mut self) -> Option<Io> {
        match &mut self.source {
            Source::Pattern(pattern) => {
                let Io { piece, direction } = pattern.next();
                let piece = self.ledger.free_from(piece)?;
                Some(Io { piece, direction })
            }
            Source::Sweep { next, direction } => {
                let reads = *direction == Direction::Read;
                let piece =
                    (*next..self.range.pieces).find(|piece| !reads || self.ledger.expected(*piece).is_some())?;
                *next = piece + 1;
                Some(Io { piece, direction: *direction })
            }
        }
    }

    fn first_lba(&self, piece: u64) -> u64 {
        piece * u64::from(self.range.blocks_per_piece)
    }

    fn stamp(&mut self, io: Io, generation: u64, data: SlotData) {
        let first = self.first_lba(io.piece);
        let mut rest = data.slice();
        for lba in first..first + u64::from(self.range.blocks_per_piece) {
            Stamp { lba, generation, seed: self.seed }.write(&mut self.block);
            let (block, behind) = rest.split_at(self.block.len());
            block.write(&self.block);
            rest = behind;
        }
    }

    fn check(&mut self, io: Io, generation: u64, data: SlotData) {
        let first = self.first_lba(io.piece);
        let mut rest = data.slice();
        for lba in first..first + u64::from(self.range.blocks_per_piece) {
            let (block, behind) = rest.split_at(self.block.len());
            block.read(&mut self.block);
            rest = behind;
            self.findings.checked += 1;
            let expected = Stamp { lba, generation, seed: self.seed };
            if let Err(found) = expected.compare(&self.block) {
                let untouched = self.block.iter().all(|byte| *byte == UNTOUCHED);
                self.findings.add(Mismatch { expected, found }, untouched);
            }
        }
    }
}

impl Work for Verified {
    fn next(&mut self, data: SlotData) -> Option<Io> {
        let io = self.pick()?;
        match io.direction {
            Direction::Write => {
                let generation = self.ledger.begin_write(io.piece);
                self.stamp(io, generation, data);
            }
            Direction::Read => {
                self.ledger.begin_read(io.piece);
                // A device that says GOOD and moves nothing must not find the right bytes here already.
                data.slice().fill(UNTOUCHED);
            }
        }
        Some(io)
    }

    fn done(&mut self, io: Io, data: SlotData, good: bool) {
        match io.direction {
            Direction::Write => self.ledger.end_write(io.piece, good),
            Direction::Read => {
                self.ledger.end_read(io.piece);
                if good && let Some(generation) = self.ledger.expected(io.piece) {
                    self.check(io, generation, data);
                }
            }
        }
    }
}

impl Findings {
    /// Whether no read moved any byte of any block: then nothing can be said about blocks. That is what a device does
    /// that keeps nothing, as null devices do.
    pub(super) fn moved_nothing(&self) -> bool {
        self.checked > 0 && self.untouched == self.checked
    }

    #[cold]
    fn add(&mut self, mismatch: Mismatch, untouched: bool) {
        self.mismatched += 1;
        self.untouched += u64::from(untouched);
        if self.first.len() < FIRST_MAX {
            self.first.push(mismatch);
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { lba, generation, .. } = self.expected;
        let kind = self.found.kind(self.expected);
        write!(f, "LBA {lba}: {kind} block: expected generation {generation}, found {}", self.found)
    }
}

/// Mismatches that are told one by one.
const FIRST_MAX: usize = 8;
/// What a buffer holds before a read.
const UNTOUCHED: u8 = 0xdb;

#[cfg(test)]
mod tests;
