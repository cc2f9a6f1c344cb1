//! Which piece of the range comes next, and whether it is read or written. The same seed gives the same sequence. No
//! block contents in here.

use super::cdb::Direction;
use super::{Args, Rw};
use crate::numbers::Numbers;

/// One command to come: which piece of the range, counted in pieces of `--bs` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Io {
    /// Index of the piece.
    pub piece: u64,
    pub direction: Direction,
}

/// An endless sequence of commands.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    random: bool,
    /// Of 2^32 commands, how many read.
    reads: u64,
    pieces: u64,
    cursor: u64,
    numbers: Numbers,
}

impl Pattern {
    /// # Panics
    /// If there is no piece.
    pub(super) fn new(args: &Args, pieces: u64, seed: u64) -> Pattern {
        assert!(pieces > 0, "a range of no pieces");
        let percent = match args.rw {
            Rw::RandRead | Rw::Read => 100,
            Rw::RandWrite | Rw::Write => 0,
            Rw::RandRw => u64::from(args.rwmixread),
        };
        let reads = (percent << 32) / 100;
        Pattern { random: args.rw.random(), reads, pieces, cursor: 0, numbers: Numbers::new(seed) }
    }

    /// The next command.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Io {
        let piece = if self.random { self.numbers.below(self.pieces) } else { self.step() };
        Io { piece, direction: self.direction() }
    }

    #[inline(always)]
    fn step(&mut self) -> u64 {
        let piece = self.cursor;
        self.cursor = if piece + 1 == self.pieces { 0 } else { piece + 1 };
        piece
    }

    #[inline(always)]
    fn direction(&mut self) -> Direction {
        // Pure patterns cost a comparison that always goes the same way, and no number.
        let read = match self.reads {
            0 => false,
            ALL => true,
            reads => self.numbers.next() >> 32 < reads,
        };
        if read { Direction::Read } else { Direction::Write }
    }
}

const ALL: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::super::args::tests::parse;
    use super::*;

    fn pattern(line: &str, pieces: u64) -> Pattern {
        Pattern::new(&parse(&format!("--socket s {line}")).unwrap(), pieces, 7)
    }

    #[test]
    fn sequence_of_a_sequential_pattern_begins_again_at_the_end() {
        let mut pattern = pattern("--rw write", 3);
        let pieces: Vec<_> = (0..7).map(|_| pattern.next()).collect();
        assert!(pieces.iter().all(|io| io.direction == Direction::Write));
        assert_eq!(pieces.iter().map(|io| io.piece).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn sequence_of_a_random_pattern_stays_in_range_and_meets_every_piece() {
        let mut pattern = pattern("--rw randread", 10);
        let mut met = [0; 10];
        for _ in 0..10_000 {
            let io = pattern.next();
            assert_eq!(io.direction, Direction::Read);
            met[io.piece as usize] += 1;
        }
        assert!(met.iter().all(|count| (800..1200).contains(count)), "{met:?}");
    }

    #[test]
    fn mix_of_reads_and_writes_is_as_asked() {
        for (percent, bounds) in [(0, 0..=0), (30, 2_800..=3_200), (100, 10_000..=10_000)] {
            let mut pattern = pattern(&format!("--rw randrw --rwmixread {percent}"), 10);
            let reads = (0..10_000).filter(|_| pattern.next().direction == Direction::Read).count();
            assert!(bounds.contains(&reads), "{percent}: {reads}");
        }
    }

    #[test]
    fn same_seed_gives_the_same_sequence() {
        let mut a = pattern("--rw randrw", 1 << 40);
        let mut b = pattern("--rw randrw", 1 << 40);
        assert!((0..100).all(|_| a.next() == b.next()));
    }
}
