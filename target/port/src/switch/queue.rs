//! One queue pair of a device on the switch: its inbox, and its sending half (`forward.rs`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use guest_memory::GuestSlice;
use reactor::{Armed, Tsc};

use super::Shared;
use super::forward::Forwarder;
use super::member::{Lane, Loan, Member};
use super::table::PortId;
use crate::{DropCause, FrameBatch, PortQueue, PortStats};

/// A queue pair, which lives on one poller.
pub(super) struct SwitchQueue {
    shared: Arc<Shared>,
    port: PortId,
    member: Arc<Member>,
    queue: usize,
    forwarder: Forwarder,
    /// Frames that are out, claimed. Oldest first.
    taken: VecDeque<Arc<Loan>>,
    stats: Arc<PortStats>,
}

impl SwitchQueue {
    pub(super) fn new(
        shared: &Arc<Shared>,
        port: PortId,
        member: &Arc<Member>,
        queue: usize,
        stats: &Arc<PortStats>,
    ) -> SwitchQueue {
        SwitchQueue {
            shared: Arc::clone(shared),
            port,
            member: Arc::clone(member),
            queue,
            forwarder: Forwarder::new(Arc::clone(shared), port, member.isolated, Arc::clone(stats)),
            taken: VecDeque::with_capacity(TAKEN_MAX),
            stats: Arc::clone(stats),
        }
    }

    fn lane(&self) -> &Lane {
        &self.member.lanes[self.queue]
    }
}

impl PortQueue for SwitchQueue {
    fn tx_burst(&mut self, batch: &FrameBatch) -> usize {
        self.forwarder.forward(batch, Tsc::now())
    }

    fn tx_done(&mut self) -> usize {
        self.forwarder.reap()
    }

    fn rx_burst(&mut self, batch: &mut FrameBatch, limit: usize) -> usize {
        batch.clear();
        let limit = limit.min(TAKEN_MAX - self.taken.len());
        let mut bytes = 0;
        while batch.len() < limit
            && let Some(loan) = self.lane().inbox.pop()
        {
            // One that its sender has taken back is counted there.
            if loan.claims.claim() {
                lay_out(&loan, batch);
                bytes += u64::from(loan.len);
                self.taken.push_back(loan);
            }
        }
        self.stats.rx_frames.add(batch.len() as u64);
        self.stats.rx_bytes.add(bytes);
        batch.len()
    }

    fn rx_done(&mut self, frames: usize) {
        for loan in self.taken.drain(..frames.min(self.taken.len())) {
            loan.claims.release();
        }
    }

    fn set_open(&mut self, open: bool) {
        let lost = self.member.set_open(self.queue, open);
        self.stats.dropped(DropCause::NoDestination, lost);
    }

    fn arm(&mut self) -> Armed {
        let lane = self.lane();
        lane.armed.store(true, Ordering::Relaxed);
        // Nobody tells when a frame has come back, and it may have to be taken back.
        if lane.inbox.is_empty() && self.forwarder.is_idle() { Armed::Sleep } else { Armed::Ready }
    }

    fn disarm(&mut self) {
        self.lane().armed.store(false, Ordering::Relaxed);
    }
}

impl Drop for SwitchQueue {
    /// On a control thread.
    fn drop(&mut self) {
        self.set_open(false);
        self.rx_done(self.taken.len());
        self.forwarder.take_back();
        if self.member.queues_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.unplug(self.port);
        }
    }
}

/// Adds a frame to a batch.
#[inline]
pub(super) fn lay_out(loan: &Loan, batch: &mut FrameBatch) {
    let (first, rest) =
        loan.segments.split_first().map_or((GuestSlice::EMPTY, &[][..]), |(first, rest)| (*first, rest));
    batch.push(first, rest, loan.offload);
}

/// Frames of one queue that may be out at once.
const TAKEN_MAX: usize = 256;
