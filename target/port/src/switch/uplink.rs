//! The way out of a switch: a source that moves frames between the switch and the first queue of another port.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reactor::{Armed, Source, Tsc};

use super::Shared;
use super::forward::{Forwarder, UPLINK};
use super::member::{Lane, Loan, Member};
use super::queue::lay_out;
use crate::{BURST, DropCause, FrameBatch, PortQueue, PortStats};

/// Polls the uplink of a switch. Made by [`Switch::uplink_source`](crate::Switch::uplink_source), and then to be given to the
/// poller that it was made for. Dropping it, on a control thread, unplugs the uplink.
pub struct Uplink {
    /// Dropped before the frames that it still has.
    queue: Box<dyn PortQueue>,
    shared: Arc<Shared>,
    member: Arc<Member>,
    forwarder: Forwarder,
    batch: FrameBatch,
    sent: Sent,
    /// Frames that it had no room for, not claimed. Oldest first.
    waiting: VecDeque<Arc<Loan>>,
    /// Those of the burst at hand, claimed.
    burst: VecDeque<Arc<Loan>>,
    stats: Arc<PortStats>,
}

impl Uplink {
    pub(super) fn new(shared: &Arc<Shared>, mut queue: Box<dyn PortQueue>, member: Arc<Member>) -> Uplink {
        queue.set_open(true);
        let stats = Arc::clone(&shared.uplink_stats);
        stats.dropped(DropCause::NoDestination, member.set_open(0, true));
        Uplink {
            queue,
            shared: Arc::clone(shared),
            member,
            forwarder: Forwarder::new(Arc::clone(shared), UPLINK, false, Arc::clone(&stats)),
            batch: FrameBatch::new(BURST, 32 * BURST),
            sent: Sent(VecDeque::with_capacity(shared.config.frames_max)),
            waiting: VecDeque::with_capacity(BURST),
            burst: VecDeque::with_capacity(BURST),
            stats,
        }
    }

    fn lane(&self) -> &Lane {
        &self.member.lanes[0]
    }

    /// From the uplink to the devices: one burst.
    fn receive(&mut self, now: Tsc) -> usize {
        let back = self.forwarder.reap();
        if back > 0 {
            self.queue.rx_done(back);
        }
        // All that is received is taken: nothing in here drops a frame for want of room.
        let room = self.forwarder.room().min(BURST);
        let received = if room > 0 { self.queue.rx_burst(&mut self.batch, room) } else { 0 };
        if received > 0 {
            self.forwarder.forward(&self.batch, now);
        }
        back + received
    }

    /// From the devices to the uplink: one burst.
    fn send(&mut self) -> usize {
        let done = self.queue.tx_done();
        self.sent.release(done);
        self.gather();
        if self.burst.is_empty() {
            return done;
        }
        let taken = self.queue.tx_burst(&self.batch).min(self.burst.len());
        self.stats.rx_frames.add(taken as u64);
        self.stats.rx_bytes.add(self.batch.frames().take(taken).map(|frame| u64::from(frame.len)).sum());
        self.sent.0.extend(self.burst.drain(..taken));
        // The rest tries again. Meanwhile its senders may take it back, or else they would wait for the uplink for ever.
        for loan in self.burst.drain(..).rev() {
            loan.claims.release();
            self.waiting.push_front(loan);
        }
        done + taken
    }

    /// Claims what there is to send.
    fn gather(&mut self) {
        self.batch.clear();
        let room = BURST.min(self.sent.0.capacity() - self.sent.0.len());
        while self.burst.len() < room {
            let Some(loan) = self.waiting.pop_front().or_else(|| self.member.lanes[0].inbox.pop()) else { break };
            if loan.claims.claim() {
                lay_out(&loan, &mut self.batch);
                self.burst.push_back(loan);
            }
        }
    }
}

impl Source for Uplink {
    fn poll(&mut self, now: Tsc) -> usize {
        self.receive(now) + self.send()
    }

    fn arm(&mut self) -> Armed {
        let lane = self.lane();
        lane.armed.store(true, Ordering::Relaxed);
        let idle = lane.inbox.is_empty() && self.waiting.is_empty() && self.sent.0.is_empty();
        if idle && self.forwarder.is_idle() { self.queue.arm() } else { Armed::Ready }
    }

    fn disarm(&mut self) {
        self.lane().armed.store(false, Ordering::Relaxed);
        self.queue.disarm();
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.stats.dropped(DropCause::NoDestination, self.member.set_open(0, false));
        self.queue.set_open(false);
        self.forwarder.take_back();
        self.waiting.clear();
        // What the uplink still has is claimed until it says so, or is gone itself.
        let give_up = Tsc::now() + Tsc::ticks(SENT_NANOS);
        while !self.sent.0.is_empty() && Tsc::now() < give_up {
            let done = self.queue.tx_done();
            self.sent.release(done);
            std::thread::yield_now();
        }
        self.shared.unplug(UPLINK);
    }
}

/// Frames that the uplink has, claimed. Oldest first.
struct Sent(VecDeque<Arc<Loan>>);

impl Sent {
    /// The `count` oldest are done.
    fn release(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len())).for_each(|loan| loan.claims.release());
    }
}

impl Drop for Sent {
    /// The queue that had them is gone.
    fn drop(&mut self) {
        self.release(self.0.len());
    }
}

/// How long frames that the uplink sends are waited for at its end.
const SENT_NANOS: u64 = 1_000_000_000;
