//! From the port to the driver: each frame is copied once, into buffers of the driver. What finds no buffer is lost and
//! counted, as on any link: frames are not kept, since they may be somebody else's memory.

use std::iter;

use guest_memory::GuestSlice;
use port::{Checksum, Frame, FrameBatch, Offload, Offloads, Segmentation};
use vhost_user::{RingSet, Ticket};
use virtqueue::ChainBatch;

use crate::device::Lease;
use crate::header::{Rules, incoming};
use crate::pair::{BURST, Scratch, Tally};
use crate::session::NetSession;
use crate::stats::{DirectionStats, NetDrop};

/// Where frames go.
pub(crate) struct Destination<'a> {
    pub(crate) rings: &'a mut RingSet,
    /// The ring.
    pub(crate) slot: usize,
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
    let Destination { rings, slot, stats, session, rules } = to;
    let offloads = session.rx_offloads();
    let open = session.filter.is_open();
    let mut buffers = Buffers { rings: &mut *rings, slot, chains, next: 0, stats };
    buffers.pop(frames.len());
    let mut tally = Tally::new(stats);
    let plain = incoming(Offload::NONE, Offloads::empty(), 1, 0);
    for frame in frames.frames() {
        let segments = frames.segments(frame);
        if !open && !segments.first().is_some_and(|first| session.filter.passes(*first)) {
            continue;
        }
        if frame.offload == Offload::NONE
            && let [segment] = segments
            && buffers.put_plain(&plain[..rules.header_len], *segment)
        {
            tally.add(frame.len);
            continue;
        }
        match merge.put(&mut buffers, rules, offloads, frame, segments) {
            Ok(()) => tally.add(frame.len),
            Err(cause) => stats.dropped(cause, 1),
        }
    }
    tally.settle();
    buffers.put_back(iter::empty());
    rings.publish(slot);
}

/// The driver's buffers, as many as were popped: those from `next` on are free.
struct Buffers<'a> {
    rings: &'a mut RingSet,
    slot: usize,
    chains: &'a mut ChainBatch,
    next: usize,
    stats: &'a DirectionStats,
}

impl Buffers<'_> {
    /// Pops buffers; all of those before have been used.
    fn pop(&mut self, limit: usize) -> usize {
        self.next = 0;
        let count = self.rings.pop(self.slot, limit.min(BURST), self.chains);
        for chain in self.chains.chains() {
            if let Some(first) = self.chains.writable(chain).first() {
                first.prefetch_write();
            }
        }
        count
    }

    /// Puts a frame into one buffer that is one slice, as nearly all are. False if it is not like that.
    #[inline(always)]
    fn put_plain(&mut self, header: &[u8], frame: GuestSlice) -> bool {
        let Some(chain) = self.chains.chains().get(self.next) else { return false };
        let len = header.len() + frame.len();
        let Some(buffer) = self.chains.writable(chain).first() else { return false };
        if buffer.len() < len || chain.readable_descriptors != 0 {
            return false;
        }
        let (start, rest) = buffer.split_at(header.len());
        start.write(header);
        frame.copy_to(rest);
        self.next += 1;
        let ticket = self.rings.ticket(self.slot, chain);
        self.rings.complete(ticket, len as u32);
        true
    }

    /// Buffers that were not used after all: `earlier` ones, and what is left of the last pop. It is as if they had not been
    /// popped.
    fn put_back(&mut self, earlier: impl DoubleEndedIterator<Item = Ticket>) {
        let (rings, slot) = (&*self.rings, self.slot);
        let mut unused = [const { None }; BURST];
        for (ticket, chain) in unused.iter_mut().zip(&self.chains.chains()[self.next..]) {
            *ticket = Some(rings.ticket(slot, chain));
        }
        self.next = self.chains.chains().len();
        self.rings.put_back(slot, earlier.chain(unused.into_iter().flatten()));
    }
}

/// A frame on its way into several slices or several buffers: arenas that are used again and again.
pub(crate) struct Merge {
    /// Buffers of the frame, and how many bytes each holds.
    buffers: Vec<(Ticket, u32)>,
    /// Their slices.
    room: Vec<GuestSlice>,
}

impl Merge {
    pub(crate) fn new() -> Merge {
        Merge { buffers: Vec::with_capacity(128), room: Vec::with_capacity(512) }
    }

    fn put(
        &mut self,
        buffers: &mut Buffers<'_>,
        rules: &Rules,
        offloads: Offloads,
        frame: &Frame,
        segments: &[GuestSlice],
    ) -> Result<(), NetDrop> {
        if !allowed(frame.offload, offloads) {
            return Err(NetDrop::BadOffload);
        }
        let len = rules.header_len as u64 + u64::from(frame.len);
        self.gather(buffers, rules, len)?;
        let header_bytes = header_bytes(frame, segments);
        let header = incoming(frame.offload, offloads, self.buffers.len() as u16, header_bytes);
        let mut to = Cursor { room: &self.room, at: 0, offset: 0 };
        to.write(&header[..rules.header_len]);
        segments.iter().for_each(|segment| to.copy(*segment));
        let mut left = len;
        for (ticket, room) in self.buffers.drain(..) {
            let written = left.min(u64::from(room));
            left -= written;
            buffers.rings.complete(ticket, written as u32); // a buffer's bytes are counted in 32 bits
        }
        Ok(())
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
            if buffers.next == buffers.chains.chains().len() && buffers.pop(BURST) == 0 {
                buffers.put_back(self.buffers.drain(..).map(|(ticket, _)| ticket));
                return Err(NetDrop::NoGuestBuffer);
            }
            let chain = &buffers.chains.chains()[buffers.next];
            let ticket = buffers.rings.ticket(buffers.slot, chain);
            let bytes = chain.writable_bytes.min(u64::from(u32::MAX));
            let needed = if self.buffers.is_empty() { rules.header_len as u64 } else { 1 };
            buffers.next += 1;
            self.buffers.push((ticket, bytes as u32));
            if chain.readable_descriptors != 0 || bytes < needed {
                // No buffer to receive in. Whatever it belongs to goes back with nothing in it, in order.
                buffers.stats.dropped(NetDrop::BadDescriptor, 1);
                for (ticket, _) in self.buffers.drain(..) {
                    buffers.rings.complete(ticket, 0);
                }
                self.room.clear();
                room = 0;
                continue;
            }
            self.room.extend_from_slice(buffers.chains.writable(chain));
            room += bytes;
        }
        Ok(())
    }
}

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

/// Whether a driver that takes `offloads` can be given such a frame.
fn allowed(offload: Offload, offloads: Offloads) -> bool {
    if matches!(offload.checksum, Checksum::Partial { .. }) && !offloads.contains(Offloads::CHECKSUM) {
        return false;
    }
    let ecn = |ecn| if ecn { Offloads::ECN } else { Offloads::empty() };
    match offload.segmentation {
        Segmentation::None => true,
        Segmentation::Tcp4 { ecn: marked, .. } => offloads.contains(Offloads::TCP4 | ecn(marked)),
        Segmentation::Tcp6 { ecn: marked, .. } => offloads.contains(Offloads::TCP6 | ecn(marked)),
        Segmentation::Udp { .. } => offloads.contains(Offloads::UDP4 | Offloads::UDP6),
        Segmentation::UdpFragments { .. } => offloads.contains(Offloads::UDP_FRAGMENTS),
    }
}

/// Length of a frame's headers up to its payload: what `hdr_len` says of a frame that is to be cut (virtio 1.3 §5.1.6.2).
/// A hint: the byte that says how long a TCP header is may be changing.
fn header_bytes(frame: &Frame, segments: &[GuestSlice]) -> u16 {
    const UDP: u16 = 8;
    let Checksum::Partial { start, .. } = frame.offload.checksum else { return 0 };
    match frame.offload.segmentation {
        Segmentation::Tcp4 { .. } | Segmentation::Tcp6 { .. } => {
            let words = byte_at(segments, usize::from(start) + 12).unwrap_or(0x50) >> 4;
            start.saturating_add(4 * u16::from(words))
        }
        Segmentation::Udp { .. } | Segmentation::UdpFragments { .. } => start.saturating_add(UDP),
        Segmentation::None => 0,
    }
}

fn byte_at(segments: &[GuestSlice], mut at: usize) -> Option<u8> {
    for segment in segments {
        if let Some(byte) = segment.subslice(at, 1).and_then(GuestSlice::read_array::<1>) {
            return Some(byte[0]);
        }
        at = at.checked_sub(segment.len())?;
    }
    None
}
