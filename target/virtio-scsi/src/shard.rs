//! A shard: the part of one connection that lives on one poller. It decides the order of a poll; what is done in each
//! step stands in `request.rs`, `control.rs` and `sweep.rs`.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use reactor::{Armed, Source, Tsc};
use vhost_user::{RingSet, Shard as VhostShard};
use virtqueue::ChainBatch;

use crate::control::ControlQueue;
use crate::controller::{CONTROL_QUEUE, EVENT_QUEUE, FIRST_REQUEST_QUEUE};
use crate::events::EventQueue;
use crate::inventory::{Announcement, Change, ShardAddition, ShardRemoval};
use crate::limits::Limits;
use crate::lun_map::LunMap;
use crate::nexus::Nexus;
use crate::request::{BATCH, Request, Requests, UnitPart};
use crate::stats::ShardStats;
use crate::sweep::{SweepTargets, Sweeping};

/// The queues of one connection that one poller owns, and everything that their requests need.
pub struct Shard {
    rings: RingSet,
    /// Slots of the request queues in `rings`: those from here on.
    first_request: usize,
    batch: ChainBatch,
    requests: Requests,
    control: Option<ControlQueue>,
    events: Option<EventQueue>,
    nexus: Arc<Nexus>,
    fence_seen: u64,
    sweeping: Option<Sweeping>,
    targets: SweepTargets,
    stats: Arc<ShardStats>,
}

impl Shard {
    pub(crate) fn new(
        mut rings: RingSet,
        map: Arc<LunMap>,
        limits: Limits,
        units: impl IntoIterator<Item = UnitPart>,
        nexus: Arc<Nexus>,
        stats: Arc<ShardStats>,
    ) -> Shard {
        let slots = rings.len();
        let first_request = (0..slots).position(|slot| rings.index(slot) >= FIRST_REQUEST_QUEUE).unwrap_or(slots);
        let find = |index| (0..slots).find(|slot| rings.index(*slot) == index);
        let (control, events) = (find(CONTROL_QUEUE), find(EVENT_QUEUE));
        let control = control.map(|slot| {
            rings.set_cold_start(slot);
            rings.set_prompt(slot, true);
            ControlQueue::new(slot, Arc::clone(&nexus), Arc::clone(&stats))
        });
        let events = events.map(|slot| {
            rings.set_passive(slot, true);
            rings.set_prompt(slot, true);
            EventQueue::new(slot, Arc::clone(&stats))
        });
        let mut requests = Requests::new(map, limits, Arc::clone(&nexus), Arc::clone(&stats));
        units.into_iter().for_each(|part| requests.add_unit(part));
        Shard {
            rings,
            first_request,
            batch: ChainBatch::new(BATCH, 32 * BATCH),
            requests,
            control,
            events,
            fence_seen: 0,
            nexus,
            sweeping: None,
            targets: SweepTargets::new(slots),
            stats,
        }
    }

    /// A logical unit comes. Returns the inventory so far, which is for the caller's thread to drop.
    pub fn add_unit(&mut self, addition: ShardAddition) -> Arc<LunMap> {
        self.requests.add_unit(addition.part);
        self.requests.change_map(addition.map)
    }

    /// A logical unit goes (R22): its commands end with `S_TRANSPORT_FAILURE`, those at its backend when that has let go
    /// of their buffers. Returns the inventory so far, which is for the caller's thread to drop.
    pub fn remove_unit(&mut self, removal: ShardRemoval) -> Arc<LunMap> {
        if let Some(control) = &mut self.control {
            control.unit_gone(removal.index);
        }
        let old = self.requests.remove_unit(&mut self.rings, removal);
        self.publish_requests(Tsc::now());
        old
    }

    /// Other limits, from now on. What is in flight beyond them ends in its own time.
    pub fn set_limits(&mut self, limits: Limits) {
        self.requests.set_limits(limits);
    }

    /// Tells the driver what happened to a logical unit: by unit attentions, and by an event if it has negotiated those. To
    /// be called on the first shard, when all of them know.
    pub fn announce(&mut self, announcement: Announcement) {
        let Announcement { target, lun, change } = announcement;
        match change {
            Change::Plugged | Change::Unplugged => self.requests.inventory_changed(target, lun),
            Change::Resized => self.requests.capacity_changed(target, lun),
        }
        if let Some(events) = &mut self.events {
            events.announce(&mut self.rings, announcement);
        }
    }

    /// One batch of one ring. Not inlined: the loop over its requests wants the registers for itself.
    #[inline(never)]
    fn poll_requests(&mut self, slot: usize, now: Tsc) -> usize {
        let mut limit = BATCH;
        let mut sweeping = None;
        if self.sweeping.is_some()
            && let Some(left) = self.targets.left(&self.rings, slot)
        {
            limit = limit.min(usize::from(left));
            sweeping = self.sweeping.as_mut();
        }
        let count = self.rings.pop_gathered(slot, limit, &mut self.batch, now);
        if count == 0 {
            return 0;
        }
        let ring_size = self.rings.ring_size(slot);
        let mut at = 0;
        while at < count {
            if sweeping.is_none() {
                at += self.requests.submit_quick(&mut self.rings, slot, &self.batch, at, now);
            }
            let Some(chain) = self.batch.chains().get(at) else { break };
            let ticket = self.rings.ticket(slot, chain);
            let request = Request {
                readable: self.batch.readable(chain),
                writable: self.batch.writable(chain),
                chain,
                continued: self.batch.continued(),
                ring_size,
            };
            self.batch.prefetch(at + 2);
            self.requests.submit(&mut self.rings, ticket, &request, sweeping.as_deref_mut(), now);
            at += 1;
        }
        self.requests.settle(now);
        self.rings.publish(slot);
        count
    }

    fn poll_backends(&mut self, now: Tsc) -> usize {
        let (ended, judged) = self.requests.poll_backends(&mut self.rings, now);
        if ended > 0 {
            self.publish_requests(now);
            if let Some(sweeping) = &mut self.sweeping {
                sweeping.ended(judged);
            }
        }
        ended
    }

    fn publish_requests(&mut self, now: Tsc) {
        self.requests.settle(now);
        // A ring with commands in flight is hot.
        let mut at = 0;
        while let Some(slot) = self.rings.hot(at) {
            if slot >= self.first_request {
                self.rings.publish(slot);
            }
            at += 1;
        }
    }

    #[cold]
    fn begin_sweep(&mut self, now: Tsc) {
        if let Some(sweep) = self.nexus.fence.look(&mut self.fence_seen) {
            self.targets.snapshot(&self.rings, self.first_request..self.rings.len());
            // Cold rings, too, are swept up to there: what came before the function may have come a moment ago.
            self.rings.warm();
            // What has ended, but waits in its ring for older commands, may be in scope. Nobody knows any more, and so all of it
            // is waited for.
            self.rings.await_completed();
            let found = self.requests.judge_blocked(&mut self.rings, sweep);
            let at_backends = self.requests.judge_pending(&mut self.rings, sweep);
            self.sweeping = Some(Sweeping::begin(sweep, at_backends, found));
            self.nexus.fence.join();
            self.publish_requests(now);
        }
    }

    /// Acknowledges the function when its last affected command has been published.
    #[cold]
    fn end_sweep(&mut self) {
        let done = self.targets.done(&self.rings);
        let rings = &mut self.rings;
        let over = |sweeping: &mut Sweeping| {
            done && sweeping.waiting() == 0 && (sweeping.is_answered() || !rings.is_awaited())
        };
        if let Some(sweeping) = self.sweeping.take_if(over) {
            self.nexus.fence.acknowledge(sweeping.found());
            self.nexus.wake_control();
        }
    }
}

impl Source for Shard {
    fn poll(&mut self, now: Tsc) -> usize {
        self.rings.begin_poll(now);
        if self.sweeping.is_none() && self.nexus.fence.raised_since(self.fence_seen) {
            self.begin_sweep(now);
        }
        let mut work = 0;
        if self.requests.outstanding() > 0 {
            work += self.poll_backends(now);
        }
        let mut at = 0;
        while let Some(slot) = self.rings.hot(at) {
            if slot >= self.first_request {
                work += self.poll_requests(slot, now);
            }
            at += 1;
        }
        // What a quick backend has done by now ends in this loop, and took a while.
        if self.requests.take_prompt() {
            work += self.poll_backends(Tsc::now());
        }
        if self.sweeping.is_some() {
            self.end_sweep();
        }
        if let Some(control) = &mut self.control
            && (control.busy() || self.rings.is_hot(control.slot()))
        {
            work += control.poll(&mut self.rings, &mut self.requests, now);
        }
        if let Some(events) = self.events.as_mut().filter(|events| events.owes()) {
            work += events.poll(&mut self.rings);
        }
        if self.requests.has_leaving() && self.sweeping.is_none() {
            self.requests.let_go();
        }
        self.rings.settle(work > 0);
        work
    }

    fn arm(&mut self) -> Armed {
        if self.rings.enable_notifications() {
            return Armed::Ready;
        }
        let function_under_way = self.sweeping.is_some() || self.control.as_ref().is_some_and(ControlQueue::busy);
        if function_under_way || !self.rings.can_sleep() {
            return Armed::MustPoll { deadline: None };
        }
        self.requests.arm_backends().sooner(Armed::until(self.rings.next_call()))
    }

    fn disarm(&mut self) {
        self.rings.disable_notifications();
        self.requests.disarm_backends();
    }

    fn cool(&mut self) {
        self.rings.cool();
    }

    fn warm(&mut self) {
        self.rings.warm();
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.rings.kicks(add);
        self.requests.wake_fds(add);
    }

    fn fds_generation(&self) -> u64 {
        self.rings.kicks_generation() + self.requests.generation() // neither ever falls
    }
}

impl VhostShard for Shard {
    const COMPLETES_IN_ANY_ORDER: bool = true;

    fn rings(&mut self) -> &mut RingSet {
        &mut self.rings
    }

    fn reset(&mut self) {
        if let Some(events) = &mut self.events {
            events.begin_session(&mut self.rings);
            self.requests.begin_session();
        }
    }

    fn set_features(&mut self, features: u64) {
        if let Some(events) = &mut self.events {
            events.set_features(features);
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.stats.release();
    }
}
