//! One queue pair on its poller: bursts in both directions, and the fast way out. The way of frames that need more than a
//! copy is in `outgoing`.

use std::sync::Arc;

use dpdk::{Burst, Mbuf, Mempool, QueuePair, RxChecksum, RxQueue, TxQueue};
use guest_memory::GuestSlice;
use port::{
    Checksum, DropCause, ETHERNET_LEN, FrameBatch, Offload, Offloads, PortQueue, PortStats, Segmentation, Segmenter,
};

use crate::memory;
use crate::pool::Pool;
use crate::port::Home;
use crate::request;
use crate::spread::Opener;

/// A queue pair, plugged in.
pub(crate) struct DpdkQueue {
    outgoing: Outgoing,
    segmenter: Segmenter,
    /// Frames that were taken, and not yet reported as done.
    done: usize,
    rx: RxQueue,
    stats: Arc<PortStats>,
    /// Frames that are out: shown to the device, oldest first.
    received: Burst,
    opener: Option<Opener>,
    /// Keeps it from being the next port's.
    _pool: Arc<Pool>,
}

/// The way out.
pub(crate) struct Outgoing {
    pub(crate) tx: TxQueue,
    pub(crate) pool: Mempool,
    pub(crate) stats: Arc<PortStats>,
    /// Longest frame that is sent.
    pub(crate) frame_max: u32,
    /// What the hardware does to frames.
    pub(crate) capable: Offloads,
    /// Frames on their way; empty between bursts.
    pub(crate) out: Burst,
    /// Mbufs that were allocated and are not used yet; empty between bursts.
    pub(crate) spare: Burst,
    /// Of each frame in `out`, which of the batch it is a part of.
    pub(crate) owners: [u8; Burst::MAX],
}

/// A queue pair that goes home when it is dropped.
pub(crate) struct Lent {
    queue: Option<DpdkQueue>,
    home: Arc<Home>,
}

impl DpdkQueue {
    pub(crate) fn new(
        pair: QueuePair,
        pool: Arc<Pool>,
        stats: Arc<PortStats>,
        frame_max: u32,
        opener: Option<Opener>,
    ) -> DpdkQueue {
        let outgoing = Outgoing::new(pair.tx, **pool, Arc::clone(&stats), frame_max);
        let (segmenter, received) = (Segmenter::new(), Burst::new());
        DpdkQueue { outgoing, segmenter, done: 0, rx: pair.rx, stats, received, opener, _pool: pool }
    }

    #[inline]
    fn receive(&mut self, batch: &mut FrameBatch, limit: usize) -> usize {
        let count = self.rx.receive(&mut self.received, limit);
        let frames = &self.received[self.received.len() - count..];
        let bytes = frames.iter().map(|mbuf| u64::from(mbuf.len())).sum();
        let good = |mbuf: &Mbuf| mbuf.rx_checksum() == RxChecksum::Good;
        let bare = frames.iter().map_while(|mbuf| if good(mbuf) { None } else { memory::sole_segment(mbuf) });
        let bare = batch.fill_bare(bare);
        for mbuf in &frames[bare..] {
            let offload = if good(mbuf) { &VALID } else { &Offload::NONE };
            let mut segments = memory::segments(mbuf);
            let first = segments.next().unwrap_or(GuestSlice::EMPTY);
            match segments.next() {
                None => batch.push(first, &[], *offload),
                Some(second) => push_chain(batch, first, second, segments, *offload),
            }
        }
        self.stats.rx_frames.add(count as u64);
        self.stats.rx_bytes.add(bytes);
        count
    }
}

impl Outgoing {
    pub(crate) fn new(tx: TxQueue, pool: Mempool, stats: Arc<PortStats>, frame_max: u32) -> Outgoing {
        Outgoing {
            capable: request::capable(tx.offloads()),
            tx,
            pool,
            stats,
            frame_max,
            out: Burst::new(),
            spare: Burst::new(),
            owners: [0; Burst::MAX],
        }
    }

    /// Sends a batch, and returns how many frames it took.
    #[inline]
    pub(crate) fn transmit(&mut self, segmenter: &mut Segmenter, batch: &FrameBatch) -> usize {
        let count = batch.len().min(Burst::MAX);
        let mut taken = 0;
        while taken < count {
            let bare = batch.bare().get(taken..).unwrap_or_default();
            let (run, bytes) = self.plain_run(bare);
            if run == 0 {
                return self.transmit_others(segmenter, batch, taken..count);
            }
            if memory::copy_all(&mut self.out, &self.pool, &bare[..run]).is_err() {
                // Taken all the same: a port that gives nothing back until it is asked to send would never recover.
                self.stats.dropped(DropCause::NoMemory, count - taken);
                return count;
            }
            let sent = self.push();
            taken += sent;
            self.stats.tx_frames.add(sent as u64);
            if sent < run {
                let unsent = self.out.iter().map(|mbuf| u64::from(mbuf.len())).sum::<u64>();
                self.stats.tx_bytes.add(bytes - unsent);
                self.out.clear();
                break;
            }
            self.stats.tx_bytes.add(bytes);
        }
        taken
    }

    /// How many of the frames go as they are, up to the first that does not, and no more than stay in the nearest cache between
    /// copy and driver; and their bytes.
    #[inline]
    fn plain_run(&self, frames: &[GuestSlice]) -> (usize, u64) {
        let longest = self.frame_max.min(u32::from(self.pool.room())) as usize;
        let (mut run, mut bytes) = (0, 0);
        for frame in frames.iter().take(Burst::MAX) {
            if !(ETHERNET_LEN..=longest).contains(&frame.len()) || bytes >= NEAR_BYTES {
                break;
            }
            bytes += frame.len() as u64;
            run += 1;
        }
        (run, bytes)
    }

    /// Sends what is in `out`, and tries a few times more while the port takes some of it. Returns how many it took; the others
    /// are still there.
    #[inline]
    pub(crate) fn push(&mut self) -> usize {
        let mut sent = self.tx.send(&mut self.out);
        let mut tries = RETRIES;
        while !self.out.is_empty() && tries > 0 {
            sent += self.tx.send(&mut self.out);
            tries -= 1;
        }
        sent
    }
}

#[cold]
fn push_chain(
    batch: &mut FrameBatch,
    first: GuestSlice,
    second: GuestSlice,
    more: impl Iterator<Item = GuestSlice>,
    offload: Offload,
) {
    let mut rest = [GuestSlice::EMPTY; SEGMENTS_MAX];
    let mut count = 0;
    for (place, segment) in rest.iter_mut().zip(std::iter::once(second).chain(more)) {
        *place = segment;
        count += 1;
    }
    batch.push(first, &rest[..count], offload);
}

impl Lent {
    pub(crate) fn new(queue: DpdkQueue, home: Arc<Home>) -> Lent {
        Lent { queue: Some(queue), home }
    }

    #[inline]
    fn queue(&mut self) -> &mut DpdkQueue {
        self.queue.as_mut().expect("it is there until it goes home")
    }
}

impl PortQueue for Lent {
    #[inline]
    fn tx_burst(&mut self, batch: &FrameBatch) -> usize {
        let queue = self.queue();
        let taken = queue.outgoing.transmit(&mut queue.segmenter, batch);
        queue.done += taken;
        taken
    }

    #[inline]
    fn tx_done(&mut self) -> usize {
        // All frames are copied at once.
        std::mem::take(&mut self.queue().done)
    }

    #[inline]
    fn rx_burst(&mut self, batch: &mut FrameBatch, limit: usize) -> usize {
        self.queue().receive(batch, limit)
    }

    #[inline]
    fn rx_done(&mut self, frames: usize) {
        self.queue().received.free_first(frames);
    }

    fn set_open(&mut self, open: bool) {
        if let Some(opener) = &self.queue().opener {
            opener.set(open);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            self.home.take_back(QueuePair { rx: queue.rx, tx: queue.outgoing.tx });
        }
    }
}

const VALID: Offload = Offload { checksum: Checksum::Valid, segmentation: Segmentation::None };
/// Segments of a received frame, at most: jumbo frames in mbufs of 2 KiB have five.
const SEGMENTS_MAX: usize = 64;
/// Bytes that are copied before they are sent: well inside a first-level data cache, source and copy together. Drivers that
/// copy, and mbufs that come back at once, find them there.
const NEAR_BYTES: u64 = 12 << 10;
/// Further attempts to send what a port did not take.
const RETRIES: usize = 2;
