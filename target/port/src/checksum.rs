//! The Internet checksum (RFC 1071): ones' complement sums over bytes in pieces. Which bytes, and where the result goes, is
//! the caller's business.

use guest_memory::GuestSlice;

/// A ones' complement sum of 16-bit words in network order, over bytes that come in pieces of any length: a byte at an odd
/// position counts as the lower half of its word, whichever piece it is in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// In the byte order of this machine, which the sum does not mind (RFC 1071 §2B).
    total: u64,
    odd: bool,
}

impl Sum {
    /// Of no bytes.
    #[must_use]
    pub const fn new() -> Sum {
        Sum { total: 0, odd: false }
    }

    /// Adds the next bytes.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let sum = fold(words(bytes));
        self.total += u64::from(if self.odd { sum.swap_bytes() } else { sum });
        self.odd ^= !bytes.len().is_multiple_of(2);
    }

    /// Adds the next bytes, which lie in shared memory: each is read once.
    pub fn add_memory(&mut self, mut memory: GuestSlice) {
        let mut stage = [0; STAGE];
        while !memory.is_empty() {
            let (piece, rest) = memory.split_at(memory.len().min(STAGE));
            let count = piece.read(&mut stage);
            self.add(&stage[..count]);
            memory = rest;
        }
    }

    /// Adds a field of a pseudo header. Only at even positions.
    #[inline]
    pub fn add_word(&mut self, word: u16) {
        debug_assert!(!self.odd, "a word at an odd position");
        self.total += u64::from(word.swap_bytes());
    }

    /// The sum itself: what a checksum field holds while the checksum is partial.
    #[must_use]
    #[inline]
    pub fn partial(self) -> u16 {
        fold(self.total).swap_bytes()
    }

    /// The complement of the sum: what goes into a checksum field. 0 over bytes whose checksum is right.
    #[must_use]
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.partial()
    }

    /// As [`Sum::checksum`], with 0 written as FFFFh, which means the same: in UDP, 0 says that there is none (RFC 768).
    #[must_use]
    #[inline]
    pub fn checksum_not_zero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// The sum of 32-bit words; of at most 16 GiB, which no frame has.
#[inline]
fn words(bytes: &[u8]) -> u64 {
    let mut blocks = bytes.chunks_exact(32);
    let mut lanes = [0u64; 8];
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut words = blocks.remainder().chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_le_bytes(last))
}

#[inline]
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Bytes that are brought into our own memory at once.
const STAGE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, simple_sum};
    use proptest::prelude::*;

    /// RFC 1071 §3.
    #[test]
    fn sum_of_the_example_of_the_rfc_is_its_sum() {
        let mut sum = Sum::new();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.partial(), sum.checksum()), (0xddf2, 0x220d));
    }

    #[test]
    fn sum_that_would_be_zero_is_written_as_ones() {
        let mut sum = Sum::new();
        sum.add(&[0xff, 0xff]);
        assert_eq!((sum.checksum(), sum.checksum_not_zero()), (0, 0xffff));
        sum.add(&[0x12]);
        assert_eq!(sum.checksum_not_zero(), sum.checksum());
    }

    #[test]
    fn sum_of_a_pseudo_header_equals_that_of_its_bytes() {
        let (mut fields, mut bytes) = (Sum::new(), Sum::new());
        fields.add_word(0x1234);
        fields.add_word(0xfffe);
        bytes.add(&[0x12, 0x34, 0xff, 0xfe]);
        assert_eq!(fields.partial(), bytes.partial());
    }

    proptest! {
        #[test]
        fn sum_in_pieces_equals_the_simple_one(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..8)) {
            let all = pieces.concat();
            let memory = Memory::of(&all);
            let (mut ours, mut shared, mut at) = (Sum::new(), Sum::new(), 0);
            for piece in &pieces {
                ours.add(piece);
                shared.add_memory(memory.at(at, piece.len()));
                at += piece.len();
            }
            prop_assert_eq!(ours.checksum(), !simple_sum(&all));
            prop_assert_eq!(shared.checksum(), !simple_sum(&all));
        }
    }
}
