//! From the port to the driver: each frame is copied once, into buffers of the driver. What finds no buffer is lost and
//! counted, as on any link: frames are not kept, since they may be somebody else's memory.

use std::iter;

use guest_memory::GuestSlice;
use port::{Checksum, Frame, FrameBatch, Offload, Offloads, Pieces, Segmentation, Segmenter};
use vhost_user::{RingSet, Ticket};
use virtqueue::ChainBatch;

use crate::device::Lease;
use crate::header::{HEADER_LEN, Rules, incoming};
use crate::pair::{BURST, Scratch, Tally};
use crate::session::NetSession;
use crate::stats::{DirectionStats, NetDrop};

/// Where frames go.
pub(crate) struct Destination<'a> {
    pub(crate) rings: &'a mut RingSet,
    /// The ring.
    pub(crate) slot: usize,
    /// See [`Pair::rewrites`](crate::pair::Pair::rewrites).
    pub(crate) rewrites: &'a mut bool,
    pub(crate) stats: &'a DirectionStats,
    pub(crate) session: &'a NetSession,
    pub(crate) rules: &'a Rules,
}

/// One burst of what the port has. Returns the number of frames.
pub(crate) fn receive(port: &mut Lease, to: Destination<'_>, scratch: &mut Scratch, merge: &mut Merge) -> usize {
    let Scratch { chains, frames } = scratch;
    let count = port.rx_burst(frames, BURST);
    if count == 0 {
        return 0;
    }
    deliver(to, frames, chains, merge);
    port.rx_done(count);
    count
}

#[inline(never)]
fn deliver(to: Destination<'_>, frames: &FrameBatch, chains: &mut ChainBatch, merge: &mut Merge) {
    let Destination { rings, slot, rewrites, stats, session, rules } = to;
    let offloads = session.rx_offloads();
    let open = session.filter.is_open();
    let mut buffers = Buffers {
        rings: &mut *rings,
        slot,
        chains,
        next: 0,
        filled_from: 0,
        plain: [GuestSlice::EMPTY; BURST],
        written: [0; BURST],
        rewrites: *rewrites,
        rewritten: 0,
        gatherable: GATHERED_MAX,
        stats,
    };
    buffers.pop(frames.len());
    let mut tally = Tally::new(stats);
    let plain = incoming(Offload::NONE, Offloads::empty(), 1, 0);
    let long = rules.header_len == HEADER_LEN;
    let bare = if open && long { buffers.put_plain(plain, frames.bare()) } else { 0 };
    tally.add_all(&frames.bare()[..bare]);
    for frame in (bare..frames.len()).map(|index| frames.frame(index)) {
        if !open && !session.filter.passes(frame.segments) {
            stats.filtered.add(1);
            continue;
        }
        if frame.offload.is_none() && long && frame.segments.len() == 1 && buffers.put_plain(plain, frame.segments) == 1
        {
            tally.add(frame.len);
            continue;
        }
        if let Err(cause) = merge.put(&mut buffers, rules, offloads, &frame, &mut tally) {
            stats.dropped(cause, 1);
        }
    }
    tally.settle();
    *rewrites = buffers.rewritten > frames.len() / 2;
    if buffers.next < buffers.chains.chains().len() {
        buffers.put_back(iter::empty());
    }
    buffers.complete_filled();
    rings.publish(slot);
}

/// The driver's buffers, as many as were popped: those from `next` on are free.
struct Buffers<'a> {
    rings: &'a mut RingSet,
    slot: usize,
    chains: &'a mut ChainBatch,
    next: usize,
    /// Buffers from here to `next` have been filled, with so many bytes, and are still to be completed.
    filled_from: usize,
    written: [u32; BURST],
    /// Of each buffer its only slice, if it is one to receive in that has no other.
    plain: [GuestSlice; BURST],
    /// Whether headers are going to be written, for all that is known; and how many were.
    rewrites: bool,
    rewritten: usize,
    /// Descriptors that may still be gathered in this burst.
    gatherable: usize,
    stats: &'a DirectionStats,
}

impl Buffers<'_> {
    /// Pops buffers; all of those before have been used.
    fn pop(&mut self, limit: usize) -> usize {
        self.complete_filled();
        (self.next, self.filled_from) = (0, 0);
        let count = self.rings.pop(self.slot, limit.min(BURST), self.chains);
        self.plain = [GuestSlice::EMPTY; BURST];
        for (place, chain) in self.plain.iter_mut().zip(self.chains.short(0)) {
            if let Some(buffer) = chain.and_then(|chain| chain.sole_writable()) {
                *place = buffer;
                approach(buffer, self.rewrites);
            }
        }
        count
    }

    /// Puts frames behind headers of full length into buffers that are one slice each, as nearly all are. Returns how many, up to
    /// the first whose buffer is not like that or too short.
    #[inline(always)]
    fn put_plain(&mut self, header: [u8; HEADER_LEN], frames: &[GuestSlice]) -> usize {
        let places = self.plain[self.next..].iter().zip(&mut self.written[self.next..]);
        let (mut count, mut rewritten) = (0, 0);
        for (frame, (buffer, written)) in frames.iter().zip(places) {
            let len = HEADER_LEN + frame.len();
            if buffer.len() < len {
                break;
            }
            // A driver that finds the header as the one before, in a line of its own, has it in its cache still.
            if buffer.read_array() != Some(header) {
                rewritten += usize::from(buffer.write_array(header));
            }
            frame.copy_to(buffer.split_at(HEADER_LEN).1);
            *written = len as u32; // one slice of guest memory, described in 32 bits
            count += 1;
        }
        self.rewritten += rewritten;
        self.next += count;
        count
    }

    /// Completes the buffers that were filled one by one.
    #[inline(always)]
    fn complete_filled(&mut self) {
        let (from, to) = (self.filled_from, self.next);
        if from < to {
            let written = &self.written[from..to];
            self.rings.complete_popped(self.slot, &self.chains.chains()[from..to], written.iter().copied());
            self.filled_from = to;
        }
    }

    /// Takes the next buffer out, to be completed with its ticket. Those before it come first.
    fn take(&mut self) -> Ticket {
        self.complete_filled();
        let ticket = self.rings.ticket(self.slot, &self.chains.chains()[self.next]);
        self.next += 1;
        self.filled_from = self.next;
        ticket
    }

    /// Buffers that were not used after all: `earlier` ones, and what is left of the last pop. It is as if they had not been
    /// popped.
    fn put_back(&mut self, earlier: impl DoubleEndedIterator<Item = Ticket>) {
        self.complete_filled();
        let (rings, slot) = (&*self.rings, self.slot);
        let mut unused = [const { None }; BURST];
        for (ticket, chain) in unused.iter_mut().zip(&self.chains.chains()[self.next..]) {
            *ticket = Some(rings.ticket(slot, chain));
        }
        self.next = self.chains.chains().len();
        self.filled_from = self.next;
        self.rings.put_back(slot, earlier.chain(unused.into_iter().flatten()));
    }
}

/// Asks for the first two lines of a buffer: room for a header and a short frame.
#[inline(always)]
fn approach(buffer: GuestSlice, rewrites: bool) {
    // DPDK's drivers have the header at the end of a line, and the frame begins with the next: then the header's line is written
    // only if the header is another one than it was.
    let header_apart = buffer.as_ptr().addr() % LINE >= LINE - HEADER_LEN;
    if header_apart && !rewrites {
        buffer.prefetch_read()
    } else {
        buffer.prefetch_write()
    }
    buffer.prefetch_next_write();
}

/// A frame on its way into several slices or several buffers: arenas that are used again and again.
pub(crate) struct Merge {
    segmenter: Segmenter,
    gathered: Gathered,
}

impl Merge {
    pub(crate) fn new() -> Merge {
        let gathered = Gathered { buffers: Vec::with_capacity(128), room: Vec::with_capacity(512) };
        Merge { segmenter: Segmenter::new(), gathered }
    }

    /// Puts a frame into as many buffers as it takes; if it is longer than the driver can take, as several frames.
    fn put(
        &mut self,
        buffers: &mut Buffers<'_>,
        rules: &Rules,
        offloads: Offloads,
        frame: &Frame<'_>,
        tally: &mut Tally<'_>,
    ) -> Result<(), NetDrop> {
        let Merge { segmenter, gathered } = self;
        let mut cut = segmenter.begin(frame, offloads).map_err(|_| NetDrop::BadOffload)?;
        while let Some(out) = cut.next_frame() {
            let len = out.len();
            gathered.gather(buffers, rules, (rules.header_len + len) as u64)?;
            let first = out.payload.clone();
            let header_bytes = header_bytes(out.offload, out.header, first);
            let header = incoming(out.offload, offloads, gathered.buffers.len() as u16, header_bytes);
            let mut to = Cursor { room: &gathered.room, at: 0, offset: 0 };
            to.write(&header[..rules.header_len]);
            to.write(out.header);
            out.payload.for_each(|piece| to.copy(piece));
            gathered.complete(buffers, (rules.header_len + len) as u64);
            tally.add(len as u32); // a frame's length is counted in 32 bits
        }
        Ok(())
    }
}

/// Buffers of one frame.
struct Gathered {
    /// Each with the number of bytes that it holds.
    buffers: Vec<(Ticket, u32)>,
    /// Their slices.
    room: Vec<GuestSlice>,
}

impl Gathered {
    /// Completes the buffers that `len` bytes were written to.
    fn complete(&mut self, buffers: &mut Buffers<'_>, len: u64) {
        let mut left = len;
        for (ticket, room) in self.buffers.drain(..) {
            let written = left.min(u64::from(room));
            left -= written;
            buffers.rings.complete(ticket, written as u32); // at most `room`
        }
    }

    /// Collects buffers with room for `len` bytes; none is used up if there is not enough.
    fn gather(&mut self, buffers: &mut Buffers<'_>, rules: &Rules, len: u64) -> Result<(), NetDrop> {
        self.room.clear();
        let mut room = 0;
        while room < len {
            if !self.buffers.is_empty() && (!rules.mergeable || self.buffers.len() == usize::from(u16::MAX)) {
                buffers.put_back(self.buffers.drain(..).map(|(ticket, _)| ticket));
                return Err(NetDrop::Oversize);
            }
            let there = buffers.next < buffers.chains.chains().len();
            if buffers.gatherable == 0 || !there && buffers.pop(BURST) == 0 {
                buffers.put_back(self.buffers.drain(..).map(|(ticket, _)| ticket));
                return Err(NetDrop::NoGuestBuffer);
            }
            let chain = &buffers.chains.chains()[buffers.next];
            let descriptors = 1 + usize::from(chain.readable_descriptors) + usize::from(chain.writable_descriptors);
            buffers.gatherable = buffers.gatherable.saturating_sub(descriptors);
            let (readable, bytes) = (chain.readable_descriptors, chain.writable_bytes.min(u64::from(u32::MAX)));
            let needed = if self.buffers.is_empty() { rules.header_len as u64 } else { 1 };
            self.room.extend_from_slice(buffers.chains.writable(chain));
            self.buffers.push((buffers.take(), bytes as u32));
            room += bytes;
            if readable != 0 || bytes < needed {
                // No buffer to receive in. Whatever it belongs to goes back with nothing in it, in order.
                buffers.stats.dropped(NetDrop::BadDescriptor, 1);
                for (ticket, _) in self.buffers.drain(..) {
                    buffers.rings.complete(ticket, 0);
                }
                self.room.clear();
                room = 0;
            }
        }
        Ok(())
    }
}

/// What of a driver's buffers is looked at for the frames of one burst, in descriptors and one more for each buffer: twice what
/// 32 frames of 64 KiB take in buffers for 1500 bytes. A driver that posts single bytes, or what is no buffer, and goes on
/// with it while we look, would keep the poller from its neighbours.
const GATHERED_MAX: usize = 6000;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A place in the room of a frame.
struct Cursor<'a> {
    room: &'a [GuestSlice],
    at: usize,
    offset: usize,
}

impl Cursor<'_> {
    /// What is left of the slice that is written next.
    fn here(&mut self) -> GuestSlice {
        while self.offset == self.room[self.at].len() {
            self.at += 1;
            self.offset = 0;
        }
        self.room[self.at].split_at(self.offset).1
    }

    fn write(&mut self, mut from: &[u8]) {
        while !from.is_empty() {
            let written = self.here().write(from);
            self.offset += written;
            from = &from[written..];
        }
    }

    fn copy(&mut self, mut from: GuestSlice) {
        while !from.is_empty() {
            let copied = from.copy_to(self.here());
            self.offset += copied;
            from = from.split_at(copied).1;
        }
    }
}

/// Length of a frame's headers up to its payload: what `hdr_len` says of a frame that is to be cut (virtio 1.3 §5.1.6.2).
/// A hint: the byte that says how long a TCP header is may be changing.
fn header_bytes(offload: Offload, header: &[u8], mut payload: Pieces<'_>) -> u16 {
    const UDP: u16 = 8;
    let Checksum::Partial { start, .. } = offload.checksum else { return 0 };
    let mut byte_at = |at: usize| match header.get(at) {
        Some(byte) => Some(*byte),
        None => {
            payload.take_bytes(at - header.len());
            payload.next()?.read_array::<1>().map(|[byte]| byte)
        }
    };
    match offload.segmentation {
        Segmentation::Tcp4 { .. } | Segmentation::Tcp6 { .. } => {
            let words = byte_at(usize::from(start) + 12).unwrap_or(0x50) >> 4;
            start.saturating_add(4 * u16::from(words))
        }
        Segmentation::Udp { .. } | Segmentation::UdpFragments { .. } => start.saturating_add(UDP),
        Segmentation::None => 0,
    }
}
