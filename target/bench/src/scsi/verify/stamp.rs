//! The content of a stamped block, and what is wrong with one that should be it. Bytes in, an opinion out.
//!
//! A block is little-endian words: magic, LBA, generation, seed of the run, checksum over all other words, and then
//! words that follow from LBA, generation and seed. No word of a block is equal to the same word of another version.

use std::fmt;

/// What a block has to say about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scsi) struct Stamp {
    pub lba: u64,
    /// How often it was written in this run.
    pub generation: u64,
    /// Distinguishes runs.
    pub seed: u64,
}

/// What a block is that is not the one expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scsi) enum Difference {
    /// A whole block with another stamp.
    Other(Stamp),
    /// Neither one thing nor the other: this is the first byte that differs from the expected block.
    Mixed { first: usize },
    /// Nothing of the expected block: these are its first bytes.
    Nothing { bytes: [u8; 8] },
}

/// Kinds of differences by their likely cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scsi) enum Kind {
    /// Nothing that this run wrote: a write, or a read, that did not happen.
    Lost,
    /// An earlier version of the right block: a lost overwrite, or an old copy.
    Stale,
    /// The block of another LBA.
    Misdirected,
    /// Parts of the right block, or a damaged one.
    Torn,
}

impl Stamp {
    /// Fills a block.
    pub(in crate::scsi) fn write(&self, block: &mut [u8]) {
        let base = self.base();
        let mut sum = Checksum::default();
        for (index, word) in block.chunks_exact_mut(WORD).enumerate() {
            let value = self.word(index, base);
            if index != CHECKSUM_AT {
                sum.add(value);
            }
            word.copy_from_slice(&value.to_le_bytes());
        }
        block[CHECKSUM_AT * WORD..][..WORD].copy_from_slice(&sum.value().to_le_bytes());
    }

    /// Compares a block with what this stamp makes it.
    ///
    /// # Errors
    /// What it is instead.
    pub(in crate::scsi) fn compare(&self, block: &[u8]) -> Result<(), Difference> {
        match Stamp::parse(block) {
            Some(stamp) if stamp == *self => Ok(()),
            found => Err(self.difference(block, found)),
        }
    }

    /// The stamp of a block that is whole: right magic, right checksum.
    fn parse(block: &[u8]) -> Option<Stamp> {
        let mut sum = Checksum::default();
        let mut head = [0; HEAD_WORDS];
        for (index, word) in block.chunks_exact(WORD).enumerate() {
            let value = u64::from_le_bytes(word.try_into().expect("a word"));
            if let Some(head) = head.get_mut(index) {
                *head = value;
            }
            if index != CHECKSUM_AT {
                sum.add(value);
            }
        }
        let [magic, lba, generation, seed, checksum] = head;
        (magic == MAGIC && checksum == sum.value()).then_some(Stamp { lba, generation, seed })
    }

    #[cold]
    fn difference(&self, block: &[u8], found: Option<Stamp>) -> Difference {
        if let Some(stamp) = found {
            return Difference::Other(stamp);
        }
        let mut expected = vec![0; block.len()];
        self.write(&mut expected);
        let same = |words: (&[u8], &[u8])| words.0 == words.1;
        let nothing_expected = !block.chunks_exact(WORD).zip(expected.chunks_exact(WORD)).any(same);
        if nothing_expected {
            return Difference::Nothing { bytes: *block.first_chunk().expect("a block is longer") };
        }
        let first = block.iter().zip(&expected).position(|(found, expected)| found != expected);
        Difference::Mixed { first: first.expect("a block that differs") }
    }

    /// The word at an index, the checksum's left out.
    fn word(&self, index: usize, base: u64) -> u64 {
        match index {
            0 => MAGIC,
            1 => self.lba,
            2 => self.generation,
            3 => self.seed,
            _ => base.wrapping_add((index as u64).wrapping_mul(GOLDEN)),
        }
    }

    /// Where the sequence of the remaining words begins.
    fn base(&self) -> u64 {
        [self.lba, self.generation, self.seed].into_iter().fold(MAGIC, |hash, word| mix(hash ^ mix(word)))
    }
}

impl Difference {
    /// The likely cause, where `expected` should have been.
    pub(in crate::scsi) fn kind(&self, expected: Stamp) -> Kind {
        match self {
            Difference::Other(stamp) if stamp.seed != expected.seed => Kind::Lost,
            Difference::Other(stamp) if stamp.lba != expected.lba => Kind::Misdirected,
            Difference::Other(_) => Kind::Stale,
            Difference::Mixed { .. } => Kind::Torn,
            Difference::Nothing { .. } => Kind::Lost,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Lost => "lost",
            Kind::Stale => "stale",
            Kind::Misdirected => "misdirected",
            Kind::Torn => "torn or damaged",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Other(Stamp { lba, generation, seed }) => {
                write!(f, "LBA {lba} generation {generation} of seed {seed}")
            }
            Difference::Mixed { first } => write!(f, "a block that differs from byte {first} on"),
            Difference::Nothing { bytes } => write!(f, "no stamp, it begins with {bytes:02x?}"),
        }
    }
}

/// A sum that depends on the order of words.
#[derive(Clone, Copy, Default)]
struct Checksum(u64);

impl Checksum {
    #[inline(always)]
    fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(GOLDEN).rotate_left(29);
    }

    fn value(self) -> u64 {
        mix(self.0)
    }
}

/// The finalizer of splitmix64: every bit depends on every bit.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const WORD: usize = 8;
const HEAD_WORDS: usize = 5;
const CHECKSUM_AT: usize = 4;
/// "ringside" as it lies in memory.
const MAGIC: u64 = u64::from_le_bytes(*b"ringside");
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Stamp = Stamp { lba: 77, generation: 5, seed: 42 };

    fn block(stamp: Stamp) -> Vec<u8> {
        let mut block = vec![0; 4096];
        stamp.write(&mut block);
        block
    }

    fn kind(block: &[u8]) -> (Kind, Difference) {
        let found = EXPECTED.compare(block).expect_err("another block");
        (found.kind(EXPECTED), found)
    }

    #[test]
    fn stamped_block_is_whole_at_every_block_size() {
        for size in [512, 4096, 65536] {
            let mut block = vec![0xff; size];
            EXPECTED.write(&mut block);
            assert_eq!(EXPECTED.compare(&block), Ok(()));
            assert_eq!(&block[..8], b"ringside");
            assert_eq!(block[8..16], 77u64.to_le_bytes());
        }
    }

    #[test]
    fn block_never_written_or_of_another_run_is_lost() {
        assert_eq!(kind(&[0; 4096]), (Kind::Lost, Difference::Nothing { bytes: [0; 8] }));
        assert_eq!(kind(&[0xdb; 512]).0, Kind::Lost);
        let other = Stamp { seed: 41, ..EXPECTED };
        assert_eq!(kind(&block(other)), (Kind::Lost, Difference::Other(other)));
    }

    #[test]
    fn block_of_an_earlier_generation_is_stale() {
        let old = Stamp { generation: 4, ..EXPECTED };
        assert_eq!(kind(&block(old)), (Kind::Stale, Difference::Other(old)));
    }

    #[test]
    fn block_of_another_lba_is_misdirected() {
        let other = Stamp { lba: 78, generation: 1, ..EXPECTED };
        assert_eq!(kind(&block(other)), (Kind::Misdirected, Difference::Other(other)));
    }

    #[test]
    fn block_half_old_half_new_is_torn_from_either_end() {
        let (new, old) = (block(EXPECTED), block(Stamp { generation: 4, ..EXPECTED }));
        // Magic, LBA and seed are the same in every version: the first word that differs is the generation, at 16.
        for cut in [24, 512, 2048, 4088] {
            let front = [&new[..cut], &old[cut..]].concat();
            let (found, Difference::Mixed { first }) = kind(&front) else { panic!("cut at {cut}") };
            assert_eq!(found, Kind::Torn);
            assert!((cut..cut + 24).contains(&first), "cut at {cut}: {first}");
            let (found, _) = kind(&[&old[..cut], &new[cut..]].concat());
            assert_eq!(found, Kind::Torn, "cut at {cut}, other way round");
        }
        let zeroed = [&[0; 2048], &new[2048..]].concat();
        assert_eq!(kind(&zeroed), (Kind::Torn, Difference::Mixed { first: 0 }));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let whole = block(EXPECTED);
        for bit in (0..8 * 4096).step_by(7) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(kind(&damaged), (Kind::Torn, Difference::Mixed { first: bit / 8 }));
        }
    }

    #[test]
    fn two_words_exchanged_are_found() {
        let mut block = block(EXPECTED);
        let (front, back) = block.split_at_mut(1024);
        front[..8].copy_from_slice(b"ringside");
        front[512..520].swap_with_slice(&mut back[512..520]);
        assert_eq!(kind(&block), (Kind::Torn, Difference::Mixed { first: 512 }));
    }
}
