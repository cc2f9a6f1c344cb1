//! What is thought of frames that came: counts, and with verification every byte. Knows no ring.

use guest_memory::GuestSlice;
use reactor::Tsc;

use super::args::{Args, Mode};
use super::frame::{Damage, Frames};
use super::ledger::{Ledger, Return};
use super::receiver::{Malformed, Received, Sink};
use super::sender::parts;
use crate::meter::Meter;

/// Frames that are out, those that came, and what was wrong with them.
#[derive(Debug)]
pub(super) struct Judge {
    frames: Frames,
    /// Frames that come are those that were sent.
    looped: bool,
    verify: bool,
    /// By queue pair.
    pub ledgers: Box<[Ledger]>,
    pub meter: Meter,
    pub counts: Counts,
    pub complaints: Vec<String>,
    scratch: Vec<u8>,
}

/// How many frames of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Came: ours in mode loop, all in mode rx.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Came after one that was sent later.
    pub reordered: u64,
    /// Came twice, or never were sent.
    pub duplicated: u64,
    /// Came otherwise than they were sent.
    pub corrupted: u64,
    /// Were no frames.
    pub malformed: u64,
    /// Came, and are of something else.
    pub foreign: u64,
}

impl Judge {
    pub(super) fn new(args: &Args, frames: Frames) -> Judge {
        let looped = args.mode == Mode::Loop;
        let window = args.window_or_default();
        let ledgers = (0..if looped { args.queues } else { 0 }).map(|_| Ledger::new(window)).collect();
        Judge {
            frames,
            looped,
            verify: args.verify,
            ledgers,
            meter: Meter::new(),
            counts: Counts::default(),
            complaints: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Frames that are out, over all queue pairs.
    #[inline(always)]
    pub(super) fn pending(&self) -> u32 {
        self.ledgers.iter().map(Ledger::pending).sum()
    }

    /// Frames that did not come back.
    pub(super) fn lost(&self) -> u64 {
        self.ledgers.iter().map(Ledger::lost).sum()
    }

    /// What makes a run fail.
    pub(super) fn failed(&self) -> u64 {
        let Counts { duplicated, corrupted, malformed, .. } = self.counts;
        self.lost() + duplicated + corrupted + malformed
    }

    #[inline(always)]
    fn looped(&mut self, frame: Received<'_>, now: Tsc) {
        let number = match frame.parts {
            [whole] => self.frames.number(*whole),
            parts => self.number_in(parts),
        };
        let Some(number) = number else {
            self.counts.foreign += 1;
            return;
        };
        let checked = if self.verify { self.compare(number, frame) } else { self.frames.check_len(frame.len) };
        if let Err(damage) = checked {
            self.counts.corrupted += 1;
            self.complain(|| format!("frame {number:#x}: {damage}"));
        }
        self.count(number, frame.len, now);
    }

    #[inline(always)]
    fn count(&mut self, number: u64, len: usize, now: Tsc) {
        let (pair, number) = parts(number);
        let back = self.ledgers.get_mut(pair).map_or(Return::NeverSent, |ledger| ledger.back(number, now));
        match back {
            Return::InOrder(ticks) => self.meter.record(ticks),
            Return::Reordered(ticks) => {
                self.counts.reordered += 1;
                self.meter.record(ticks);
            }
            Return::Again | Return::NeverSent => {
                self.counts.duplicated += 1;
                let what = if back == Return::Again { "came again" } else { "was never sent" };
                self.complain(|| format!("frame {number} of queue pair {pair} {what}"));
                return;
            }
        }
        self.counts.received += 1;
        self.counts.bytes += len as u64;
    }

    /// The number of a frame whose stamp may lie in several buffers.
    #[inline(never)]
    fn number_in(&self, parts: &[GuestSlice]) -> Option<u64> {
        let mut head = [0; HEAD];
        let end = self.frames.number_end().min(HEAD);
        let mut at = 0;
        for part in parts {
            at += part.read(&mut head[at..end]);
        }
        self.frames.number_of(&head[..at])
    }

    #[inline(never)]
    fn compare(&mut self, number: u64, frame: Received<'_>) -> Result<(), Damage> {
        self.scratch.clear();
        self.scratch.resize(frame.len, 0);
        let mut at = 0;
        for part in frame.parts {
            at += part.read(&mut self.scratch[at..]);
        }
        self.frames.check(number, frame.header[0], &self.scratch)
    }

    #[cold]
    fn complain(&mut self, text: impl FnOnce() -> String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(text());
        }
    }
}

impl Sink for Judge {
    #[inline(always)]
    fn frame(&mut self, frame: Received<'_>, now: Tsc) {
        if self.looped {
            return self.looped(frame, now);
        }
        self.counts.received += 1;
        self.counts.bytes += frame.len as u64;
    }

    #[cold]
    fn malformed(&mut self, what: Malformed) {
        self.counts.malformed += 1;
        self.complain(|| what.to_string());
    }
}

/// Bytes of a frame up to the end of any stamp.
const HEAD: usize = 128;
/// How many are told.
const COMPLAINTS_MAX: usize = 8;
