//! Which pages of a memory device hold data: those that were written and not given back since. Says nothing about
//! where the memory is.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{BlockRun, Geometry};

/// A bit per page, shared by all channels of a device.
///
/// A write sets its pages' bits *after* its data is in place, and whoever gives pages back clears their bits *before*
/// it clears the memory. However two that overlap are interleaved, a page whose bit is clear reads as zeroes.
#[derive(Debug)]
pub(super) struct Written {
    words: Box<[AtomicU64]>,
}

impl Written {
    /// What a bit stands for, in bytes: the page that ordinary memory is given back in.
    pub(super) const PAGE_BYTES: u32 = 4096;

    /// For a device of so many bytes, with nothing written.
    pub(super) fn new(size_bytes: u64) -> Written {
        let words = size_bytes.div_ceil(PAGE).div_ceil(BITS);
        Written { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The bytes have been written.
    #[inline]
    pub(super) fn set(&self, offset: u64, length: u64) {
        if length > 0 {
            self.each_word(offset / PAGE, (offset + length).div_ceil(PAGE), |word, mask| {
                // Mostly set already: then the cache line stays shared.
                if word.load(Ordering::Relaxed) & mask != mask {
                    word.fetch_or(mask, Ordering::Release);
                }
            });
        }
    }

    /// The bytes are given back: their pages, as far as they are whole.
    pub(super) fn clear(&self, offset: u64, length: u64) {
        self.each_word(offset.div_ceil(PAGE), (offset + length) / PAGE, |word, mask| {
            word.fetch_and(!mask, Ordering::AcqRel);
        });
    }

    /// Calls `change` with each word that has bits of the pages `from..to`, and with those bits.
    #[inline]
    fn each_word(&self, mut from: u64, to: u64, change: impl Fn(&AtomicU64, u64)) {
        while from < to {
            let (first, count) = (from % BITS, (to - from).min(BITS - from % BITS));
            let mask = (u64::MAX >> (BITS - count)) << first;
            change(&self.words[(from / BITS) as usize], mask);
            from += count;
        }
    }

    /// The runs of blocks from `lba`, which exists, on: at most `runs_max`, and no farther than [`WORDS_MAX`] words.
    pub(super) fn runs(&self, geometry: Geometry, lba: u64, runs_max: u16) -> Vec<BlockRun> {
        let block_size = u64::from(geometry.block_size());
        let (mut page, end) = (lba * block_size / PAGE, geometry.bytes().div_ceil(PAGE));
        let end = end.min(page + WORDS_MAX * BITS);
        let (mut runs, mut from) = (Vec::new(), lba);
        while page < end && runs.len() < usize::from(runs_max) {
            let allocated = self.is_set(page);
            page = self.change_after(page, end, allocated);
            let to = (page * PAGE / block_size).min(geometry.block_count());
            runs.push(BlockRun { lba: from, blocks: to - from, allocated });
            from = to;
        }
        runs
    }

    fn is_set(&self, page: u64) -> bool {
        self.words[(page / BITS) as usize].load(Ordering::Acquire) >> (page % BITS) & 1 == 1
    }

    /// The first page after `page` and before `end` whose bit is not `set`; `end` if there is none.
    fn change_after(&self, mut page: u64, end: u64, set: bool) -> u64 {
        while page < end {
            let word = self.words[(page / BITS) as usize].load(Ordering::Acquire);
            let others = (if set { !word } else { word }) >> (page % BITS);
            if others != 0 {
                return end.min(page + u64::from(others.trailing_zeros()));
            }
            page += BITS - page % BITS;
        }
        end
    }
}

const PAGE: u64 = Written::PAGE_BYTES as u64;
const BITS: u64 = u64::BITS as u64;
/// Words that are looked at for one request: a quarter of a gigabyte of bits would keep a poller for long.
const WORDS_MAX: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(written: &Written, geometry: Geometry, lba: u64, runs_max: u16) -> Vec<(u64, u64, bool)> {
        written.runs(geometry, lba, runs_max).iter().map(|run| (run.lba, run.blocks, run.allocated)).collect()
    }

    #[test]
    fn written_pages_are_told_as_runs_of_blocks() {
        let geometry = Geometry::of_bytes(1 << 20, 512).unwrap(); // 256 pages of 8 blocks
        let written = Written::new(1 << 20);
        assert_eq!(runs(&written, geometry, 5, 9), [(5, 2043, false)]);
        written.set(4096, 1); // page 1
        written.set(63 * 4096, 2 * 4096 + 1); // pages 63, 64, 65: across a word
        written.set(255 * 4096 + 512, 512);
        written.set(9 * 4096, 0);
        let all = [(0, 8, false), (8, 8, true), (16, 488, false), (504, 24, true), (528, 1512, false), (2040, 8, true)];
        assert_eq!(runs(&written, geometry, 0, 99), all);
        assert_eq!(runs(&written, geometry, 0, 2), all[..2]);
        assert_eq!(runs(&written, geometry, 510, 2), [(510, 18, true), (528, 1512, false)]);
        assert_eq!(runs(&written, geometry, 2047, 9), [(2047, 1, true)]);
    }

    #[test]
    fn written_pages_are_cleared_whole_or_not_at_all() {
        let geometry = Geometry::of_bytes(1 << 20, 512).unwrap();
        let written = Written::new(1 << 20);
        written.set(0, 1 << 20);
        assert_eq!(runs(&written, geometry, 0, 9), [(0, 2048, true)]);
        written.clear(512, 4096); // no page of it is whole
        written.clear(2 * 4096 + 1, 4095);
        assert_eq!(runs(&written, geometry, 0, 9), [(0, 2048, true)]);
        written.clear(512, 3 * 4096); // pages 1 and 2
        assert_eq!(runs(&written, geometry, 0, 9), [(0, 8, true), (8, 16, false), (24, 2024, true)]);
        written.clear(0, 1 << 20);
        assert_eq!(runs(&written, geometry, 0, 9), [(0, 2048, false)]);
    }

    #[test]
    fn written_device_that_ends_within_a_page_has_no_blocks_beyond() {
        let geometry = Geometry::of_bytes(4096 * 64 + 1024, 512).unwrap();
        let written = Written::new(4096 * 64 + 1024);
        written.set(4096 * 64, 512);
        assert_eq!(runs(&written, geometry, 0, 9), [(0, 512, false), (512, 2, true)]);
        let (one_word, last) = (Geometry::of_bytes(4096, 4096).unwrap(), Written::new(4096));
        assert_eq!(runs(&last, one_word, 0, 1), [(0, 1, false)]);
    }
}
