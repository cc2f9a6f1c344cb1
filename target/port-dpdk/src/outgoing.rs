//! Frames that need more than one copy on their way out: those in several segments, longer than an mbuf, with a checksum left
//! open or to be cut, and those that are refused. The plain ones never come here.

use std::ops::Range;

use dpdk::{Burst, Mbuf};
use guest_memory::GuestSlice;
use port::{DropCause, ETHERNET_LEN, FrameBatch, Offload, Offloads, OutFrame, Segmentation, Segmenter};

use crate::memory;
use crate::queue::Outgoing;
use crate::request;

/// What became of a batch so far.
struct Progress {
    /// Why each frame was dropped, if it was.
    drops: [Option<DropCause>; Burst::MAX],
    /// The frame that was sent last, or a part of it.
    sent_of: Option<usize>,
    /// Some frames in `out` ask something of the hardware.
    asked: bool,
}

/// The port takes no more; the frame that was first to be left.
struct Full(usize);

impl Outgoing {
    /// Sends the frames `rest` of a batch, the others having gone. Returns how many of the batch were taken.
    #[inline(never)]
    pub(crate) fn transmit_others(
        &mut self,
        segmenter: &mut Segmenter,
        batch: &FrameBatch,
        rest: Range<usize>,
    ) -> usize {
        let count = rest.end;
        let mut progress = Progress { drops: [None; Burst::MAX], sent_of: None, asked: false };
        let outcome = self.send_rest(segmenter, batch, rest, &mut progress);
        self.spare.clear();
        let taken = match outcome {
            Ok(()) => count,
            Err(Full(frame)) if progress.sent_of == Some(frame) => {
                progress.drops[frame] = Some(DropCause::Full);
                frame + 1
            }
            Err(Full(frame)) => frame,
        };
        for cause in progress.drops[..taken].iter().flatten() {
            self.stats.dropped(*cause, 1);
        }
        taken
    }

    fn send_rest(
        &mut self,
        segmenter: &mut Segmenter,
        batch: &FrameBatch,
        rest: Range<usize>,
        progress: &mut Progress,
    ) -> Result<(), Full> {
        for index in rest {
            match self.add(segmenter, batch, index, progress) {
                Ok(()) => {}
                Err(Stop::Drop(cause)) => {
                    self.unadd(index);
                    progress.drops[index] = Some(cause);
                }
                Err(Stop::Full(full)) => return Err(full),
            }
        }
        self.flush(progress)
    }

    /// Brings one frame into `out`, in as many frames as it becomes.
    fn add(
        &mut self,
        segmenter: &mut Segmenter,
        batch: &FrameBatch,
        index: usize,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        let frame = batch.frame(index);
        let whole = frame.offload.segmentation == Segmentation::None;
        if frame.len < ETHERNET_LEN as u32 || whole && frame.len > self.frame_max {
            return Err(Stop::Drop(DropCause::Length));
        }
        if whole && frame.len <= u32::from(self.pool.room()) {
            let mbuf = self.copy_whole(frame.segments, frame.len as u16).ok_or(Stop::Drop(DropCause::NoMemory))?;
            return self.append(index, mbuf, frame.offload, progress);
        }
        // A checksum alone is completed in the copy, where the bytes are near.
        let capable = if whole { self.capable | Offloads::CHECKSUM } else { self.capable };
        let cut = segmenter.begin(&frame, capable);
        let mut cut = cut.map_err(|_| Stop::Drop(DropCause::Offload))?;
        while let Some(out) = cut.next_frame() {
            self.add_one(index, &out, progress)?;
        }
        Ok(())
    }

    fn add_one(&mut self, index: usize, out: &OutFrame<'_>, progress: &mut Progress) -> Result<(), Stop> {
        let uncut = out.offload.segmentation != Segmentation::None;
        if !uncut && out.len() > self.frame_max as usize {
            return Err(Stop::Drop(DropCause::Length));
        }
        let mbuf = self.copy(out).ok_or(Stop::Drop(DropCause::NoMemory))?;
        self.append(index, mbuf, out.offload, progress)
    }

    /// Puts a frame into `out`, behind what is there.
    fn append(&mut self, index: usize, mut mbuf: Mbuf, offload: Offload, progress: &mut Progress) -> Result<(), Stop> {
        if self.out.len() == Burst::MAX {
            self.flush(progress).map_err(Stop::Full)?;
        }
        progress.asked |= request::apply(&mut mbuf, offload, self.capable, self.frame_max).map_err(Stop::Drop)?;
        self.owners[self.out.len()] = index as u8;
        self.out.push(mbuf).map_err(|_| Stop::Drop(DropCause::Full))
    }

    /// A frame dropped half way takes with it what of it has not been sent.
    fn unadd(&mut self, index: usize) {
        let len = self.out.len();
        let keep = self.owners[..len].iter().position(|&owner| usize::from(owner) == index).unwrap_or(len);
        self.out.truncate(keep);
    }

    /// A copy of a frame that fits one mbuf.
    fn copy_whole(&mut self, segments: &[GuestSlice], len: u16) -> Option<Mbuf> {
        let mut mbuf = self.mbuf()?;
        let mut to = memory::room(&mut mbuf, len);
        for segment in segments {
            to = to.split_at(segment.copy_to(to)).1;
        }
        mbuf.set_len(len);
        Some(mbuf)
    }

    /// A copy, in as many mbufs as it takes.
    fn copy(&mut self, out: &OutFrame<'_>) -> Option<Mbuf> {
        let room = usize::from(self.pool.room());
        let mut header = out.header;
        let mut payload = out.payload.clone();
        let mut frame: Option<Mbuf> = None;
        let mut left = out.len();
        while left > 0 {
            let mut mbuf = self.mbuf()?;
            let len = left.min(room);
            let mut to = memory::room(&mut mbuf, len as u16);
            let written = to.write(header);
            header = &header[written..];
            to = to.split_at(written).1;
            for piece in payload.take_bytes(to.len()) {
                to = to.split_at(piece.copy_to(to)).1;
            }
            mbuf.set_len(len as u16);
            left -= len;
            match &mut frame {
                None => frame = Some(mbuf),
                Some(first) => first.append(mbuf).ok()?,
            }
        }
        frame
    }

    fn mbuf(&mut self) -> Option<Mbuf> {
        if self.spare.is_empty() && self.spare.allocate(&self.pool, SPARE).is_err() {
            return None;
        }
        self.spare.pop()
    }

    /// Sends what is in `out`, which is empty afterwards.
    fn flush(&mut self, progress: &mut Progress) -> Result<(), Full> {
        if std::mem::take(&mut progress.asked) {
            self.prepare(progress);
        }
        let bytes = |burst: &Burst| burst.iter().map(|mbuf| u64::from(mbuf.len())).sum::<u64>();
        let (count, before) = (self.out.len(), bytes(&self.out));
        let sent = self.push();
        self.stats.tx_frames.add(sent as u64);
        self.stats.tx_bytes.add(before - bytes(&self.out));
        if sent > 0 {
            progress.sent_of = Some(usize::from(self.owners[sent - 1]));
        }
        if sent == count {
            return Ok(());
        }
        self.out.clear();
        Err(Full(usize::from(self.owners[sent])))
    }

    /// Has the driver look at what it is asked for, and drops what it refuses.
    fn prepare(&mut self, progress: &mut Progress) {
        loop {
            let good = self.tx.prepare(&mut self.out);
            let len = self.out.len();
            if good >= len {
                break;
            }
            progress.drops[usize::from(self.owners[good])] = Some(DropCause::Offload);
            self.out[good..].rotate_left(1);
            self.out.truncate(len - 1);
            self.owners.copy_within(good + 1..len, good);
        }
    }
}

/// Why a frame is not in `out`.
enum Stop {
    Drop(DropCause),
    Full(Full),
}

/// Mbufs that are allocated at once.
const SPARE: usize = 32;

#[cfg(test)]
mod tests;
