//! The sending half of a queue of the switch: looks where each frame goes, lends it to its receivers, and says in order which
//! have come back. The receiving half is `queue.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use reactor::Tsc;

use super::Shared;
use super::flow::{LOOKED_AT, flow_hash};
use super::member::{Loan, Member, Snapshot};
use super::table::PortId;
use crate::{DropCause, ETHERNET_LEN, Frame, FrameBatch, Mac, PortStats, peek};

/// Sends frames of one queue, which lives on one poller.
pub(super) struct Forwarder {
    shared: Arc<Shared>,
    from: PortId,
    isolated: bool,
    snapshot: Snapshot,
    /// Free, the one that was used last on top.
    free: Vec<Arc<Loan>>,
    /// Taken back, but some inbox has not dropped its handle yet. Oldest first.
    stale: VecDeque<Arc<Loan>>,
    /// Oldest first: frames on their way.
    held: VecDeque<Held>,
    frames_max: usize,
    touched: Touched,
    hold_ticks: u64,
    hold_pressed_ticks: u64,
    stats: Arc<PortStats>,
}

/// A frame on its way.
struct Held {
    /// `None` for one that went to nobody and waits only for its turn.
    loan: Option<Arc<Loan>>,
    since: Tsc,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// To one port.
    To(PortId),
    /// To everybody.
    All,
    /// To everybody, because nobody knows better.
    Unknown,
    Nobody,
}

impl Forwarder {
    pub(super) fn new(shared: Arc<Shared>, from: PortId, isolated: bool, stats: Arc<PortStats>) -> Forwarder {
        let frames_max = shared.config.frames_max;
        Forwarder {
            from,
            isolated,
            snapshot: Snapshot::new(&shared.roster),
            free: (0..frames_max).map(|_| Arc::new(Loan::new())).collect(),
            stale: VecDeque::with_capacity(frames_max),
            held: VecDeque::with_capacity(frames_max),
            frames_max,
            touched: Touched::new(shared.config.devices_max + 1),
            hold_ticks: Tsc::ticks(HOLD_NANOS),
            hold_pressed_ticks: Tsc::ticks(HOLD_PRESSED_NANOS),
            stats,
            shared,
        }
    }

    /// Sends frames; how many it took, from the first on. Ends early only if it holds as many as it may.
    pub(super) fn forward(&mut self, batch: &FrameBatch, now: Tsc) -> usize {
        self.snapshot.refresh(&self.shared.roster);
        let (mut taken, mut sent, mut bytes, mut floods) = (0, 0, 0, 0);
        for frame in batch.frames() {
            if self.room() == 0 {
                break;
            }
            let (reached, route) = self.send(&frame, now);
            if reached {
                sent += 1;
                bytes += u64::from(frame.len);
            }
            floods += u64::from(route == Route::Unknown);
            taken += 1;
        }
        let lost = self.touched.settle(&self.snapshot);
        self.stats.dropped(DropCause::NoDestination, lost);
        self.stats.tx_frames.add(sent);
        self.stats.tx_bytes.add(bytes);
        self.shared.stats.flooded(floods);
        taken
    }

    /// Frames that it can take now.
    pub(super) fn room(&mut self) -> usize {
        while self.free.is_empty()
            && let Some(loan) = self.stale.pop_front_if(|loan| is_alone(loan))
        {
            self.free.push(loan);
        }
        self.free.len().min(self.frames_max - self.held.len())
    }

    /// How many frames, oldest first, have come back since the last call.
    pub(super) fn reap(&mut self) -> usize {
        let mut done = 0;
        while let Some(front) = self.held.front() {
            let Some(loan) = &front.loan else {
                self.held.pop_front();
                done += 1;
                continue;
            };
            let alone = is_alone(loan);
            if !alone && !self.is_overdue(front.since) {
                break;
            }
            if !alone && !loan.claims.revoke() {
                break;
            }
            if let Some(Held { loan: Some(loan), .. }) = self.held.pop_front() {
                if alone {
                    self.free.push(loan);
                } else {
                    self.stats.dropped(DropCause::Full, 1);
                    self.stale.push_back(loan);
                }
            }
            done += 1;
        }
        done
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether a receiver has had its time. It has less when others cannot be served because of it.
    #[cold]
    fn is_overdue(&self, since: Tsc) -> bool {
        let pressed = self.free.is_empty() || self.held.len() == self.frames_max;
        Tsc::now() - since > if pressed { self.hold_pressed_ticks } else { self.hold_ticks }
    }

    /// Takes everything back. Waits for copies under way. Control threads only.
    pub(super) fn take_back(&mut self) {
        let start = Tsc::now();
        while let Some(front) = self.held.front() {
            let quiet = front.loan.as_ref().is_none_or(|loan| loan.claims.revoke());
            // A copy takes microseconds. A receiver that takes a second has panicked and looks at nothing any more.
            if quiet || Tsc::now() - start > Tsc::ticks(TAKE_BACK_NANOS) {
                self.held.pop_front();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Sends a frame. Whether it reached anybody.
    fn send(&mut self, frame: &Frame<'_>, now: Tsc) -> (bool, Route) {
        let mut start = [0; LOOKED_AT];
        if peek(frame.segments, &mut start[..ETHERNET_LEN]) < ETHERNET_LEN {
            return (self.lose(DropCause::Length, now), Route::Nobody);
        }
        let route = self.route(&start, now);
        if route == Route::Nobody {
            return (self.lose(DropCause::NoDestination, now), route);
        }
        let mut loan = self.free.pop().expect("there is room");
        let fresh = Arc::get_mut(&mut loan).expect("what is free has one handle");
        fresh.claims.renew();
        (fresh.len, fresh.offload) = (frame.len, frame.offload);
        fresh.segments.clear();
        fresh.segments.extend_from_slice(frame.segments);
        let outcome = match route {
            Route::To(port) => self.lend(&loan, port, &mut start),
            _ => self.lend_to_all(&loan, &mut start),
        };
        if outcome.reached > 0 {
            self.held.push_back(Held { loan: Some(loan), since: now });
            self.stats.dropped(DropCause::Full, outcome.full);
            return (true, route);
        }
        self.free.push(loan);
        let cause = if outcome.full > 0 { DropCause::Full } else { DropCause::NoDestination };
        self.stats.dropped(cause, outcome.full.saturating_sub(1));
        (self.lose(cause, now), route)
    }

    /// A frame that went to nobody: it is done when those before it are.
    fn lose(&mut self, cause: DropCause, now: Tsc) -> bool {
        self.stats.dropped(cause, 1);
        self.held.push_back(Held { loan: None, since: now });
        false
    }

    /// Learns where the frame comes from, and looks up where it goes.
    #[inline]
    fn route(&self, start: &[u8; LOOKED_AT], now: Tsc) -> Route {
        let (table, stats) = (&self.shared.table, &self.shared.stats);
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *start;
        let (to, from) = (Mac([d0, d1, d2, d3, d4, d5]), Mac([s0, s1, s2, s3, s4, s5]));
        table.learn(from, self.from, now, stats);
        if to.is_multicast() {
            return if is_link_local(to) { Route::Nobody } else { Route::All };
        }
        match table.find(to, now) {
            Some(port) if port == self.from => Route::Nobody,
            // An entry of a device that has just gone is none.
            Some(port) if self.snapshot.member(port).is_some() => Route::To(port),
            _ => Route::Unknown,
        }
    }

    fn lend_to_all(&mut self, loan: &Arc<Loan>, start: &mut [u8; LOOKED_AT]) -> Outcome {
        let mut sum = Outcome::default();
        for port in 0..self.snapshot.ports() {
            if port != self.from.0 {
                let outcome = self.lend(loan, PortId(port), start);
                sum.reached += outcome.reached;
                sum.full += outcome.full;
            }
        }
        sum
    }

    /// Puts a handle of the frame into the inbox of a receiver.
    #[inline]
    fn lend(&mut self, loan: &Arc<Loan>, to: PortId, start: &mut [u8; LOOKED_AT]) -> Outcome {
        let Some(member) = self.snapshot.member(to).filter(|member| self.may_reach(to, member)) else {
            return Outcome::default();
        };
        let flow = || {
            let known = peek(&loan.segments, start);
            flow_hash(&start[..known])
        };
        let Some(queue) = member.pick(flow) else { return Outcome::default() };
        let reached = member.lanes[queue].inbox.push(Arc::clone(loan)).is_ok();
        if reached {
            self.touched.add(to, queue);
        }
        Outcome { reached: usize::from(reached), full: usize::from(!reached) }
    }

    /// Isolated devices exchange frames with the uplink only.
    #[inline]
    fn may_reach(&self, to: PortId, member: &Member) -> bool {
        self.from == UPLINK || to == UPLINK || !(self.isolated || member.isolated)
    }
}

/// What became of a frame at its receivers.
#[derive(Clone, Copy, Default)]
struct Outcome {
    reached: usize,
    full: usize,
}

/// Inboxes that a burst has put something into: they are settled once at its end.
struct Touched {
    /// For each port, a bit for each queue.
    queues: Vec<u64>,
    ports: Vec<PortId>,
}

impl Touched {
    fn new(ports: usize) -> Touched {
        Touched { queues: vec![0; ports], ports: Vec::with_capacity(ports) }
    }

    #[inline]
    fn add(&mut self, port: PortId, queue: usize) {
        let queues = &mut self.queues[usize::from(port.0)];
        if *queues == 0 {
            self.ports.push(port);
        }
        *queues |= 1 << queue;
    }

    /// Frames that are lost, because their receivers have closed meanwhile.
    #[inline]
    fn settle(&mut self, snapshot: &Snapshot) -> usize {
        let mut lost = 0;
        for port in self.ports.drain(..) {
            let mut queues = std::mem::take(&mut self.queues[usize::from(port.0)]);
            let Some(member) = snapshot.member(port) else { continue };
            while queues != 0 {
                lost += member.lanes[queues.trailing_zeros() as usize].settle();
                queues &= queues - 1;
            }
        }
        lost
    }
}

/// Whether nobody else has a handle. What others did to the frame is visible then.
#[inline]
fn is_alone(loan: &Arc<Loan>) -> bool {
    let alone = Arc::strong_count(loan) == 1;
    if alone {
        fence(Ordering::Acquire); // the count is read relaxed, and others let go with release
    }
    alone
}

/// Addresses that no bridge forwards (IEEE 802.1Q §8.6.3).
#[inline]
fn is_link_local(mac: Mac) -> bool {
    matches!(mac.0, [0x01, 0x80, 0xc2, 0, 0, last] if last < 0x10)
}

/// The number of the uplink.
pub(super) const UPLINK: PortId = PortId(0);
/// How long a receiver may leave a frame in its inbox before the sender takes it back. Pollers come round within microseconds;
/// this is for one that its core was taken away from.
const HOLD_NANOS: u64 = 100_000_000;
/// The same for a sender that has no room left for frames to other receivers.
const HOLD_PRESSED_NANOS: u64 = 5_000_000;
const TAKE_BACK_NANOS: u64 = 1_000_000_000;
