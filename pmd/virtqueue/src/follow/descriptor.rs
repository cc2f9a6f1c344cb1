//! One descriptor in our own memory, and where descriptors of a chain are read from. Both ring formats.

use std::sync::atomic::Ordering;

use guest_memory::GuestArray;

/// `VIRTQ_DESC_F_NEXT`: the chain goes on at the descriptor's `next`.
pub(crate) const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`: the device writes the buffer.
pub(crate) const WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`: the buffer is a table of descriptors.
pub(crate) const INDIRECT: u16 = 4;
/// Size of a descriptor in bytes.
pub(crate) const DESCRIPTOR: usize = 16;

/// A descriptor in our own memory: read once, in two loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    /// Flags below, next above: as they lie in memory.
    tail: u32,
}

impl Descriptor {
    pub(crate) const fn new(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
        let tail = flags as u32 | (next as u32) << 16;
        Descriptor { addr, len, tail }
    }

    #[inline(always)]
    pub(crate) const fn from_words([addr, rest]: [u64; 2]) -> Descriptor {
        Descriptor { addr, len: rest as u32, tail: (rest >> 32) as u32 }
    }

    /// A descriptor of a packed ring or table, as entry `index` of its chain: what follows it is the next one. `next` is NEXT
    /// if there is one. Of its own flags, `kept` ones are.
    #[inline(always)]
    pub(crate) const fn in_sequence([addr, rest]: [u64; 2], kept: u16, next: u16, index: u16) -> Descriptor {
        let flags = (rest >> 48) as u16 & kept | next;
        Descriptor::new(addr, rest as u32, flags, index.wrapping_add(1))
    }

    pub(crate) const fn words(self) -> [u64; 2] {
        [self.addr, self.len as u64 | (self.tail as u64) << 32]
    }

    /// Whether any of the flags is set.
    #[inline(always)]
    pub(crate) const fn has(self, flags: u16) -> bool {
        self.tail & flags as u32 != 0
    }

    /// Whether exactly `set` of these flags are set.
    #[inline(always)]
    pub(crate) const fn has_of(self, flags: u16, set: u16) -> bool {
        self.tail & flags as u32 == set as u32
    }

    /// The same with these flags, too.
    pub(crate) const fn with_flags(self, flags: u16) -> Descriptor {
        Descriptor { tail: self.tail | flags as u32, ..self }
    }

    /// Takes the flags of another over, beside its own.
    #[inline(always)]
    pub(crate) const fn add_flags(&mut self, other: Descriptor) {
        self.tail |= other.tail;
    }

    #[inline(always)]
    pub(crate) const fn next(self) -> u16 {
        (self.tail >> 16) as u16
    }
}

/// Where descriptors are read from.
pub(crate) trait Entries {
    /// Reads entry `index`, once; `None` if there is none.
    fn entry(&self, index: u16) -> Option<Descriptor>;
}

impl Entries for GuestArray<u64> {
    #[inline(always)]
    fn entry(&self, index: u16) -> Option<Descriptor> {
        let at = 2 * usize::from(index);
        if at + 1 >= self.len() {
            return None;
        }
        Some(Descriptor::from_words([self.load(at, Ordering::Relaxed), self.load(at + 1, Ordering::Relaxed)]))
    }
}

/// How the entries of an indirect table say where the chain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableFormat {
    /// By their `next` field (virtio 1.3 §2.7.5.3).
    Linked,
    /// They follow each other up to the end of the table; WRITE is the only flag that means something (virtio 1.3
    /// §2.8.7). INDIRECT is looked at all the same: a driver must not set it. Of their flags, these are looked at.
    InSequence(u16),
}

impl TableFormat {
    /// The descriptor that is entry `index` of a table of `len` bytes, as one that links to the next.
    #[inline(always)]
    pub(crate) fn descriptor(self, words: [u64; 2], index: u16, len: u32) -> Descriptor {
        match self {
            TableFormat::Linked => Descriptor::from_words(words),
            TableFormat::InSequence(kept) => {
                let more = (usize::from(index) + 1) * DESCRIPTOR < len as usize;
                Descriptor::in_sequence(words, kept, if more { NEXT } else { 0 }, index)
            }
        }
    }
}
