//! One receive ring: it is kept full of buffers, and frames that lie in several of them are put together. What is in the
//! frames is for others.

use std::sync::Arc;

use anyhow::Context;
use guest_memory::GuestSlice;
use reactor::Tsc;
use virtqueue::{DriverQueue, Features, Prepared, Segment, UsedFault};

use super::Args;
use super::layout::Layout;
use super::sender::BATCH;
use super::wire::HEADER_LEN;
use crate::link::RingFds;
use crate::memory::Memory;

/// A receive ring and its buffers.
#[derive(Debug)]
pub(super) struct Receiver {
    driver: DriverQueue,
    fds: Arc<RingFds>,
    slots: Box<[Slot]>,
    /// A frame may lie in several buffers.
    mergeable: bool,
    /// The buffers of a frame that has not come in whole.
    partial: Vec<(u16, GuestSlice)>,
    /// How many are missing.
    missing: u16,
    header: [u8; HEADER_LEN],
}

/// A buffer.
#[derive(Debug)]
struct Slot {
    chain: Prepared,
    memory: GuestSlice,
}

/// A frame as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub header: [u8; HEADER_LEN],
    /// Bytes of the frame.
    pub len: usize,
    /// The frame, in order.
    pub parts: &'a [GuestSlice],
}

/// A frame that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Not even a header.
    #[error("a receive buffer with {written} bytes, the header alone has 12")]
    NoHeader { written: u32 },
    /// More than there is room for.
    #[error("a receive buffer with {written} bytes, it has room for {room}")]
    Overrun { written: u32, room: usize },
    /// No number of buffers that a frame can have.
    #[error("num_buffers {num_buffers}, must be 1 to {size}")]
    NumBuffers { num_buffers: u16, size: u16 },
}

/// Who looks at frames.
pub(super) trait Sink {
    /// A frame came.
    fn frame(&mut self, frame: Received<'_>, now: Tsc);

    /// Something came that is no frame.
    fn malformed(&mut self, what: Malformed);
}

impl Receiver {
    /// The receive ring of a queue pair, initialised, with all its buffers added but not yet shown to the device.
    pub(super) fn new(
        args: &Args,
        memory: &Memory,
        layout: &Layout,
        pair: u16,
        fds: Arc<RingFds>,
        features: Features,
        mergeable: bool,
    ) -> anyhow::Result<Receiver> {
        let ring = layout.rings[usize::from(2 * pair)];
        let start = layout.pairs[usize::from(pair)].rx;
        let areas = memory.ring(&ring, layout.queue_size);
        let mut driver = DriverQueue::new(ring.format, layout.queue_size, areas, features).context("receive ring")?;
        if args.in_order {
            driver.expect_in_order();
        }
        driver.disable_calls();
        let slot = |index: u16| {
            let at = start + usize::from(index) * layout.rx_stride;
            let segment = Segment::writable(memory.guest_addr(at), args.rx_buffer);
            let chain = driver.prepare(&[segment], index.into()).expect("a descriptor for each buffer");
            driver.submit(&chain);
            Slot { chain, memory: memory.slice(at, args.rx_buffer as usize) }
        };
        let slots = (0..layout.queue_size).map(slot).collect();
        Ok(Receiver {
            driver,
            fds,
            slots,
            mergeable,
            partial: Vec::with_capacity(layout.queue_size.into()),
            missing: 0,
            header: [0; HEADER_LEN],
        })
    }

    /// Shows the device what was added.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        if self.driver.publish() {
            self.fds.kick.signal();
        }
    }

    /// Hands over what has come, up to a batch of buffers, and gives the buffers back; how many came.
    #[inline(never)]
    pub(super) fn turn(&mut self, sink: &mut impl Sink) -> usize {
        let mut came = [(0u16, 0u32); BATCH];
        let mut count = 0;
        while count < BATCH
            && let Some(used) = self.driver.pop_used()
        {
            self.slots[used.token].memory.prefetch_read();
            came[count] = (used.token as u16, used.written);
            count += 1;
        }
        if count == 0 {
            return 0;
        }
        let now = Tsc::now();
        for &(index, written) in &came[..count] {
            self.buffer(index, written, sink, now);
        }
        self.publish();
        count
    }

    #[inline(always)]
    fn buffer(&mut self, index: u16, written: u32, sink: &mut impl Sink, now: Tsc) {
        let memory = self.slots[usize::from(index)].memory;
        let Some(bytes) = memory.subslice(0, written as usize) else {
            sink.malformed(Malformed::Overrun { written, room: memory.len() });
            self.give_back(index);
            return;
        };
        if self.missing > 0 {
            self.more(index, bytes, sink, now);
            return;
        }
        let Some(header) = bytes.read_array::<HEADER_LEN>() else {
            sink.malformed(Malformed::NoHeader { written });
            self.give_back(index);
            return;
        };
        let num_buffers = if self.mergeable { u16::from_le_bytes([header[10], header[11]]) } else { 1 };
        let (_, first) = bytes.split_at(HEADER_LEN);
        if num_buffers == 1 {
            sink.frame(Received { header, len: first.len(), parts: &[first] }, now);
            self.give_back(index);
        } else {
            self.begin(index, first, header, num_buffers, sink);
        }
    }

    /// The first buffer of several (virtio 1.3 §5.1.6.4).
    #[inline(never)]
    fn begin(
        &mut self,
        index: u16,
        first: GuestSlice,
        header: [u8; HEADER_LEN],
        num_buffers: u16,
        sink: &mut impl Sink,
    ) {
        let size = self.driver.size();
        if !(1..=size).contains(&num_buffers) {
            sink.malformed(Malformed::NumBuffers { num_buffers, size });
            self.give_back(index);
            return;
        }
        self.header = header;
        self.partial.push((index, first));
        self.missing = num_buffers - 1;
    }

    /// A further one.
    #[inline(never)]
    fn more(&mut self, index: u16, bytes: GuestSlice, sink: &mut impl Sink, now: Tsc) {
        self.partial.push((index, bytes));
        self.missing -= 1;
        if self.missing > 0 {
            return;
        }
        let parts: Vec<GuestSlice> = self.partial.iter().map(|(_, bytes)| *bytes).collect();
        let len = parts.iter().map(|part| part.len()).sum();
        sink.frame(Received { header: self.header, len, parts: &parts }, now);
        for (index, _) in std::mem::take(&mut self.partial) {
            self.give_back(index);
        }
    }

    #[inline(always)]
    fn give_back(&mut self, index: u16) {
        self.driver.submit(&self.slots[usize::from(index)].chain);
    }

    /// What the device did wrong with the ring, if it did.
    pub(super) fn fault(&self) -> Option<UsedFault> {
        self.driver.fault()
    }

    /// Asks for a call at the next buffer that comes back; true if one is back already.
    pub(super) fn enable_calls(&mut self) -> bool {
        self.driver.enable_calls()
    }

    /// Asks for no more calls and forgets those that came.
    pub(super) fn disable_calls(&mut self) {
        self.driver.disable_calls();
        self.fds.call.drain();
    }
}
