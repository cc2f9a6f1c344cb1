//! One transmit ring: a frame for each descriptor, written once and then changed where it must be. Which frames, and how
//! many, is for others.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Context;
use guest_memory::GuestSlice;
use virtqueue::{DriverQueue, Features, Prepared, Segment, UsedFault};

use super::Args;
use super::frame::Frames;
use super::layout::{Layout, TABLE_LEN};
use super::wire::HEADER_LEN;
use crate::link::RingFds;
use crate::memory::Memory;

/// A transmit ring and its frames.
#[derive(Debug)]
pub(super) struct Sender {
    driver: DriverQueue,
    fds: Arc<RingFds>,
    slots: Box<[Slot]>,
    /// Slots not in flight. First in, first out: a device that goes in order meets descriptors in their order.
    free: VecDeque<u16>,
}

/// A descriptor and its frame.
#[derive(Debug)]
struct Slot {
    chain: Prepared,
    /// Header and frame.
    memory: GuestSlice,
}

impl Sender {
    /// The transmit ring of a queue pair, initialised, with a frame behind every descriptor and nothing in flight.
    pub(super) fn new(
        args: &Args,
        frames: &Frames,
        memory: &Memory,
        layout: &Layout,
        pair: u16,
        fds: Arc<RingFds>,
        features: Features,
    ) -> anyhow::Result<Sender> {
        let ring = layout.rings[usize::from(2 * pair + 1)];
        let place = layout.pairs[usize::from(pair)];
        let areas = memory.ring(&ring, layout.queue_size);
        let mut driver = DriverQueue::new(ring.format, layout.queue_size, areas, features).context("transmit ring")?;
        if args.in_order {
            driver.expect_in_order();
        }
        driver.disable_calls();
        let slot = |index: u16| {
            let at = place.tx + usize::from(index) * layout.tx_stride;
            let bytes = memory.slice(at, frames.len());
            frames.write(bytes, number(pair, index.into()));
            let addr = memory.guest_addr(at);
            let header = Segment::readable(addr, HEADER_LEN as u32);
            let frame = Segment::readable(addr + HEADER_LEN as u64, (frames.len() - HEADER_LEN) as u32);
            let token = usize::from(index);
            let chain = if args.indirect {
                let table = place.tables + token * TABLE_LEN;
                let (addr, table) = (memory.guest_addr(table), memory.slice(table, TABLE_LEN));
                driver.prepare_indirect(&[header, frame], addr, table, token)
            } else {
                driver.prepare(&[Segment::readable(addr, frames.len() as u32)], token)
            };
            Slot { chain: chain.expect("a descriptor for each slot"), memory: bytes }
        };
        let slots = (0..layout.queue_size).map(slot).collect();
        Ok(Sender { driver, fds, slots, free: (0..layout.queue_size).collect() })
    }

    /// Takes back what the device has taken, up to a batch; how many frames.
    #[inline(always)]
    pub(super) fn reap(&mut self) -> usize {
        let mut count = 0;
        while count < BATCH
            && let Some(used) = self.driver.pop_used()
        {
            self.free.push_back(used.token as u16);
            count += 1;
        }
        count
    }

    /// Frames that can be sent now.
    #[inline(always)]
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Sends what the next slot holds, after `write` has had a chance to change it. The device sees it after
    /// [`Sender::publish`].
    ///
    /// # Panics
    /// If none is free.
    #[inline(always)]
    pub(super) fn send(&mut self, write: impl FnOnce(GuestSlice)) {
        let index = self.free.pop_front().expect("a free slot");
        let slot = &self.slots[usize::from(index)];
        write(slot.memory);
        self.driver.submit(&slot.chain);
    }

    #[inline(always)]
    pub(super) fn publish(&mut self) {
        if self.driver.publish() {
            self.fds.kick.signal();
        }
    }

    /// Frames that the device has not taken.
    #[inline(always)]
    pub(super) fn in_flight(&self) -> u16 {
        self.driver.in_flight()
    }

    /// What the device did wrong with the ring, if it did.
    pub(super) fn fault(&self) -> Option<UsedFault> {
        self.driver.fault()
    }

    /// Asks for a call at the next frame that is taken; true if one has been already.
    pub(super) fn enable_calls(&mut self) -> bool {
        self.driver.enable_calls()
    }

    /// Asks for no more calls and forgets those that came.
    pub(super) fn disable_calls(&mut self) {
        self.driver.disable_calls();
        self.fds.call.drain();
    }
}

/// The number of a queue pair's frame: the pair in the upper 16 bits.
#[inline(always)]
pub(super) fn number(pair: u16, count: u64) -> u64 {
    u64::from(pair) << NUMBER_BITS | count & ((1 << NUMBER_BITS) - 1)
}

/// The queue pair of a frame, and its number there.
#[inline(always)]
pub(super) fn parts(number: u64) -> (usize, u64) {
    ((number >> NUMBER_BITS) as usize, number & ((1 << NUMBER_BITS) - 1))
}

const NUMBER_BITS: u32 = 48;
/// Frames sent or taken back in one turn.
pub(super) const BATCH: usize = 32;
