//! The sink's half on the poller: which chains come and go, and the header that receive buffers get.

use std::iter;

use guest_memory::GuestSlice;
use reactor::{Source, Tsc};
use vhost_user::{RingSet, Shard as VhostShard};
use virtqueue::{ChainBatch, ShortChain};

use super::{Args, Mode};
use crate::net::wire::{HEADER_LEN, MRG_RXBUF, ONE_BUFFER, VERSION_1};
use crate::ring;

/// Rings of a connection: one queue pair (virtio 1.3 §5.1.2).
pub(super) const RINGS: u16 = 2;
/// Slot of the ring that drivers receive on.
const RX: usize = 0;
/// Slot of the ring that drivers send on.
const TX: usize = 1;
/// Chains at once.
const BATCH: usize = 32;
/// Bytes of the header of drivers that know neither VERSION_1 nor MRG_RXBUF (virtio 1.3 §5.1.6.1).
const LEGACY_HEADER_LEN: usize = 10;

/// The rings of one connection.
pub(super) struct Shard {
    rings: RingSet,
    chains: ChainBatch,
    /// Bytes of a frame in a receive buffer.
    size: u32,
    header_len: usize,
}

impl Shard {
    pub(super) fn new(mut rings: RingSet, args: &Args) -> Shard {
        // Receive buffers wait for ever where no frame comes.
        rings.set_passive(RX, args.mode == Mode::Tx);
        Shard { rings, chains: ChainBatch::new(BATCH, 4 * BATCH), size: args.size, header_len: HEADER_LEN }
    }

    /// Gives back what a ring has; how many chains.
    #[inline]
    fn give_back(&mut self, slot: usize) -> usize {
        let count = self.rings.pop(slot, BATCH, &mut self.chains);
        if count == 0 {
            return 0;
        }
        let chains = self.chains.chains();
        if slot == TX {
            self.rings.complete_popped(slot, chains, iter::repeat(0));
        } else {
            let mut written = [0; BATCH];
            self.fill(&mut written);
            self.rings.complete_popped(slot, chains, written.iter().copied());
        }
        self.rings.publish(slot);
        count
    }

    /// Puts the header into every buffer, and says how many bytes each holds now.
    #[inline]
    fn fill(&self, written: &mut [u32; BATCH]) {
        let header = &ONE_BUFFER[..self.header_len];
        let len = self.header_len as u32 + self.size;
        let sole = |chain: Option<ShortChain<'_>>| chain.and_then(|chain| chain.sole_writable());
        self.chains.short(0).filter_map(sole).for_each(GuestSlice::prefetch_read);
        for ((written, chain), short) in written.iter_mut().zip(self.chains.chains()).zip(self.chains.short(0)) {
            *written = match sole(short) {
                Some(buffer) if self.header_len == HEADER_LEN && buffer.len() >= len as usize => {
                    // A driver that finds the header as it was has its line in its cache still.
                    let there = buffer.read_array() == Some(ONE_BUFFER) || buffer.write_array(ONE_BUFFER);
                    if there { len } else { 0 }
                }
                _ => put(header, self.chains.writable(chain), len),
            };
        }
    }
}

/// Puts the header into a buffer of any number of slices; the bytes that it holds then of `len`. None where there is no room for the
/// header: it is no receive buffer.
#[cold]
fn put(header: &[u8], buffer: &[GuestSlice], len: u32) -> u32 {
    let room: usize = buffer.iter().map(|slice| slice.len()).sum();
    if room < header.len() {
        return 0;
    }
    let mut left = header;
    for slice in buffer {
        left = &left[slice.write(left)..];
    }
    room.min(len as usize) as u32
}

impl Source for Shard {
    fn poll(&mut self, now: Tsc) -> usize {
        self.rings.begin_poll(now);
        let (mut work, mut at) = (0, 0);
        while let Some(slot) = self.rings.hot(at) {
            work += self.give_back(slot);
            at += 1;
        }
        self.rings.settle(work > 0);
        work
    }
}

impl VhostShard for Shard {
    fn rings(&mut self) -> &mut RingSet {
        &mut self.rings
    }

    fn reset(&mut self) {}

    fn set_features(&mut self, features: u64) {
        let has = |bit: u32| features >> bit & 1 != 0;
        self.header_len = if has(VERSION_1.bit) || has(MRG_RXBUF.bit) { HEADER_LEN } else { LEGACY_HEADER_LEN };
        self.rings.set_read_only(TX, has(ring::IN_ORDER.bit));
    }
}

#[cfg(test)]
mod tests {
    use guest_memory::{Pages, SharedMemory};

    use super::*;

    #[test]
    fn header_goes_over_as_many_slices_as_it_takes_and_nothing_behind_it_is_touched() {
        let memory = SharedMemory::create("buffer", 4096, Pages::Small).unwrap();
        let (all, _) = memory.slice().split_at(40);
        let piece = |at, len| all.subslice(at, len).unwrap();
        let with_modern = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        for (header, cuts) in
            [(&with_modern[..], vec![40]), (&with_modern, vec![5, 0, 6, 29]), (&with_modern[..10], vec![9, 31])]
        {
            all.fill(0xa5);
            let mut at = 0;
            let buffer: Vec<GuestSlice> = cuts.iter().map(|len| (piece(at, *len), at += len).0).collect();
            assert_eq!(put(header, &buffer, header.len() as u32 + 20), header.len() as u32 + 20, "{cuts:?}");
            let mut found = [0; 40];
            all.read(&mut found);
            assert_eq!(&found[..header.len()], header, "{cuts:?}");
            assert!(found[header.len()..].iter().all(|byte| *byte == 0xa5), "{cuts:?}");
        }
    }

    #[test]
    fn frame_ends_where_its_buffer_does() {
        let memory = SharedMemory::create("buffer", 4096, Pages::Small).unwrap();
        let buffer = |len| [memory.slice().split_at(len).0];
        for (room, written) in [(76, 76), (75, 75), (12, 12), (11, 0), (0, 0)] {
            assert_eq!(put(&ONE_BUFFER, &buffer(room), 76), written, "{room} bytes");
        }
    }
}
