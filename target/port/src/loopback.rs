//! The port that gives every queue pair its own frames back: for labs, and for trying things out without a NIC. Bytes come
//! back unchanged, addresses included, and so does what is left to be done to them.

use std::collections::VecDeque;
use std::sync::Arc;

use guest_memory::GuestSlice;
use reactor::Armed;

use crate::{
    AttachError, Attachment, DropCause, ETHERNET_LEN, Frame, FrameBatch, Link, Offload, Offloads, Port, PortQueue,
    PortStats, Traits,
};

/// How a [`Loopback`] is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackConfig {
    /// Frames that each queue pair holds at most, 1 or more.
    pub frames_max: usize,
}

impl Default for LoopbackConfig {
    fn default() -> Self {
        LoopbackConfig { frames_max: 1024 }
    }
}

/// An echo. Any number of devices may be plugged in; each queue pair of each hears itself only, in order. Frames are held
/// where they lie until the device has received them, so that there is one copy in all.
#[derive(Debug)]
pub struct Loopback {
    name: String,
    config: LoopbackConfig,
}

impl Loopback {
    /// A port of that name.
    ///
    /// # Panics
    /// If `frames_max` is 0: whoever reads the configuration has checked it.
    #[must_use]
    pub fn new(name: &str, config: LoopbackConfig) -> Loopback {
        assert!(config.frames_max > 0, "a loopback port that holds no frame");
        Loopback { name: name.to_owned(), config }
    }
}

impl Port for Loopback {
    fn name(&self) -> &str {
        &self.name
    }

    fn traits(&self) -> Traits {
        Traits {
            tx_offloads: Offloads::all(),
            rx_offloads: Offloads::all(),
            devices_max: usize::MAX,
            queues_max: u16::MAX,
            mtu_max: u16::MAX,
            mac: None,
        }
    }

    fn link(&self) -> Link {
        Link { up: true, speed_mbps: None }
    }

    fn attach(&self, device: &Attachment) -> Result<Vec<Box<dyn PortQueue>>, AttachError> {
        let queue = |stats| Box::new(Echo::new(self.config, Arc::clone(stats))) as Box<dyn PortQueue>;
        Ok(device.stats.iter().map(queue).collect())
    }
}

/// One queue pair's echo.
struct Echo {
    /// Oldest first: those that are out, then those that the device has not seen, in the order that they were sent.
    held: VecDeque<Held>,
    frames_max: usize,
    segments: SegmentRing,
    /// How many of `held` the device has seen.
    seen: usize,
    /// Frames that are done, which the device has not been told.
    done: usize,
    open: bool,
    stats: Arc<PortStats>,
}

/// A frame that waits for its turn.
#[derive(Clone, Copy)]
struct Held {
    start: usize,
    count: usize,
    offload: Offload,
    /// It does not come back, and waits only to be done in order.
    lost: bool,
}

/// What became of a frame that was sent.
enum Taken {
    /// It comes back.
    Kept,
    /// It does not, and that is counted.
    Lost,
    /// There is no room for it.
    No,
}

impl Echo {
    fn new(config: LoopbackConfig, stats: Arc<PortStats>) -> Echo {
        Echo {
            held: VecDeque::with_capacity(config.frames_max),
            frames_max: config.frames_max,
            segments: SegmentRing::new(config.frames_max * SEGMENTS_PER_FRAME + SEGMENTS_MAX),
            seen: 0,
            done: 0,
            open: false,
            stats,
        }
    }

    fn take(&mut self, frame: &Frame<'_>) -> Taken {
        if self.held.len() == self.frames_max {
            return Taken::No;
        }
        let cause = match () {
            () if !self.open => Some(DropCause::NoDestination),
            () if (frame.len as usize) < ETHERNET_LEN || frame.segments.len() > SEGMENTS_MAX => Some(DropCause::Length),
            () => None,
        };
        let kept = if cause.is_some() { &[] } else { frame.segments };
        let Some(start) = self.segments.keep(kept) else { return Taken::No };
        self.held.push_back(Held { start, count: kept.len(), offload: frame.offload, lost: cause.is_some() });
        match cause {
            None => Taken::Kept,
            Some(cause) => {
                self.stats.dropped(cause, 1);
                self.release_lost();
                Taken::Lost
            }
        }
    }

    /// Lets go of the oldest frame.
    fn release(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.segments.release(held.start, held.count);
        self.seen = self.seen.saturating_sub(1);
        self.done += 1;
        Some(held)
    }

    /// Lets go of lost frames whose turn has come.
    fn release_lost(&mut self) {
        while self.held.front().is_some_and(|held| held.lost) {
            self.release();
        }
    }
}

impl PortQueue for Echo {
    fn tx_burst(&mut self, batch: &FrameBatch) -> usize {
        let (mut taken, mut sent, mut bytes) = (0, 0, 0);
        for frame in batch.frames() {
            match self.take(&frame) {
                Taken::Kept => (sent, bytes) = (sent + 1, bytes + u64::from(frame.len)),
                Taken::Lost => {}
                Taken::No => break,
            }
            taken += 1;
        }
        self.stats.tx_frames.add(sent);
        self.stats.tx_bytes.add(bytes);
        taken
    }

    fn tx_done(&mut self) -> usize {
        std::mem::take(&mut self.done)
    }

    fn rx_burst(&mut self, batch: &mut FrameBatch, limit: usize) -> usize {
        batch.clear();
        let mut bytes = 0;
        while batch.len() < limit
            && let Some(held) = self.held.get(self.seen)
        {
            self.seen += 1;
            if let Some((first, rest)) = self.segments.kept(held.start, held.count).split_first() {
                batch.push(*first, rest, held.offload);
                bytes += u64::from(batch.frame(batch.len() - 1).len);
            }
        }
        self.stats.rx_frames.add(batch.len() as u64);
        self.stats.rx_bytes.add(bytes);
        batch.len()
    }

    fn rx_done(&mut self, mut frames: usize) {
        while frames > 0
            && self.seen > 0
            && let Some(held) = self.release()
        {
            frames -= usize::from(!held.lost);
        }
        self.release_lost();
    }

    fn set_open(&mut self, open: bool) {
        self.open = open;
        if !open {
            let unseen = self.held.iter().skip(self.seen).filter(|held| !held.lost).count();
            self.stats.dropped(DropCause::NoDestination, unseen);
            while self.release().is_some() {}
        }
    }

    fn arm(&mut self) -> Armed {
        if self.held.is_empty() && self.done == 0 { Armed::Sleep } else { Armed::Ready }
    }
}

/// Segments of frames that come and go in order, each frame's in one piece: a ring that a frame does not wrap around in.
/// When nothing is kept it starts over, so that a short queue stays in few cache lines.
struct SegmentRing {
    slices: Box<[GuestSlice]>,
    head: usize,
    tail: usize,
    /// Slices kept, with those that were skipped at the end.
    used: usize,
}

impl SegmentRing {
    fn new(slices: usize) -> SegmentRing {
        SegmentRing { slices: vec![GuestSlice::EMPTY; slices].into(), head: 0, tail: 0, used: 0 }
    }

    /// Where they are kept; `None` if there is no room now.
    fn keep(&mut self, segments: &[GuestSlice]) -> Option<usize> {
        if self.used == 0 {
            (self.head, self.tail) = (0, 0);
        }
        let end = self.slices.len();
        // Skipped slices at the end belong to the frame that skips them.
        let wraps = segments.len() > end - self.tail;
        let skipped = if wraps { end - self.tail } else { 0 };
        if self.used + skipped + segments.len() > end {
            return None;
        }
        let start = if wraps { 0 } else { self.tail };
        self.slices[start..start + segments.len()].copy_from_slice(segments);
        self.tail = start + segments.len();
        self.used += skipped + segments.len();
        Some(start)
    }

    fn kept(&self, start: usize, count: usize) -> &[GuestSlice] {
        &self.slices[start..start + count]
    }

    /// Lets go of the oldest frame's.
    fn release(&mut self, start: usize, count: usize) {
        let skipped = if start < self.head { self.slices.len() - self.head } else { 0 };
        self.used -= skipped + count;
        self.head = start + count;
    }
}

/// Segments that there is room for, for each frame: most have two.
const SEGMENTS_PER_FRAME: usize = 4;
/// Segments of one frame: what a chain of the longest ring has.
const SEGMENTS_MAX: usize = 1024;

#[cfg(test)]
mod tests;
