//! What each piece of the range must hold, and whether a command is using it. Knows no stamps and no blocks.

/// One word a piece.
#[derive(Debug)]
pub(super) struct Ledger {
    pieces: Box<[Entry]>,
}

/// The generation written last, and two flags.
#[derive(Clone, Copy, Debug, Default)]
struct Entry(u64);

impl Ledger {
    /// Nothing is written, nothing is in use.
    pub(super) fn new(pieces: u64) -> Ledger {
        Ledger { pieces: vec![Entry::default(); pieces as usize].into_boxed_slice() }
    }

    /// The generation that the piece must hold; `None` if nobody knows: not written, or the last write failed.
    pub(super) fn expected(&self, piece: u64) -> Option<u64> {
        let entry = self.pieces[piece as usize];
        let known = entry.generation() > 0 && !entry.is(Entry::UNKNOWN);
        known.then_some(entry.generation())
    }

    /// The first piece from `piece` on, and on from the start, that no command is using.
    pub(super) fn free_from(&self, piece: u64) -> Option<u64> {
        let (before, after) = self.pieces.split_at(piece as usize);
        let free = |entry: &Entry| !entry.is(Entry::IN_USE);
        let ahead = after.iter().position(free).map(|at| piece + at as u64);
        ahead.or_else(|| before.iter().position(free).map(|at| at as u64))
    }

    /// A write takes the piece; the generation that it writes.
    pub(super) fn begin_write(&mut self, piece: u64) -> u64 {
        let entry = self.take(piece);
        entry.0 += 1;
        entry.generation()
    }

    /// The write came back. Until the next one that succeeds, nobody knows what a failed one has left.
    pub(super) fn end_write(&mut self, piece: u64, good: bool) {
        let entry = &mut self.pieces[piece as usize];
        entry.0 &= !(Entry::IN_USE | Entry::UNKNOWN);
        if !good {
            entry.0 |= Entry::UNKNOWN;
        }
    }

    /// A read takes the piece.
    pub(super) fn begin_read(&mut self, piece: u64) {
        self.take(piece);
    }

    /// The read came back.
    pub(super) fn end_read(&mut self, piece: u64) {
        self.pieces[piece as usize].0 &= !Entry::IN_USE;
    }

    fn take(&mut self, piece: u64) -> &mut Entry {
        let entry = &mut self.pieces[piece as usize];
        assert!(!entry.is(Entry::IN_USE), "piece {piece} is in use");
        entry.0 |= Entry::IN_USE;
        entry
    }
}

impl Entry {
    const IN_USE: u64 = 1 << 63;
    const UNKNOWN: u64 = 1 << 62;

    fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn generation(self) -> u64 {
        self.0 & !(Entry::IN_USE | Entry::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_counts_writes_of_its_own_piece() {
        let mut ledger = Ledger::new(2);
        assert_eq!(ledger.expected(0), None);
        assert_eq!(ledger.begin_write(0), 1);
        ledger.end_write(0, true);
        assert_eq!(ledger.begin_write(0), 2);
        ledger.end_write(0, true);
        assert_eq!((ledger.expected(0), ledger.expected(1)), (Some(2), None));
    }

    #[test]
    fn failed_write_leaves_a_piece_unknown_until_one_succeeds() {
        let mut ledger = Ledger::new(1);
        ledger.begin_write(0);
        ledger.end_write(0, true);
        ledger.begin_write(0);
        ledger.end_write(0, false);
        assert_eq!(ledger.expected(0), None);
        assert_eq!(ledger.begin_write(0), 3);
        ledger.end_write(0, true);
        assert_eq!(ledger.expected(0), Some(3));
    }

    #[test]
    fn pieces_in_use_are_stepped_over_round_the_end() {
        let mut ledger = Ledger::new(3);
        ledger.begin_read(1);
        assert_eq!((ledger.free_from(1), ledger.free_from(0)), (Some(2), Some(0)));
        ledger.begin_write(2);
        assert_eq!(ledger.free_from(1), Some(0));
        ledger.begin_read(0);
        assert_eq!(ledger.free_from(1), None);
        ledger.end_read(1);
        assert_eq!(ledger.free_from(2), Some(1));
    }

    #[test]
    #[should_panic(expected = "piece 0 is in use")]
    fn piece_taken_twice_panics() {
        let mut ledger = Ledger::new(1);
        ledger.begin_read(0);
        ledger.begin_write(0);
    }
}
