//! The poller's half of a connection: the rings that one shard owns, and the memory table they translate with.
//!
//! A device model pops chains here, completes each with its [`Ticket`], and publishes. Which rings it has to look at, and
//! how drivers notify, is `ring_set/heat.rs`. The control half (`endpoint.rs`) reaches in through the shard's inbox to start
//! and stop rings and to hand over memory tables (`ring_set/life.rs`); nothing in here blocks, and what is slow to drop goes
//! back to the control thread.
//!
//! Custody of memory: requests hold no reference count. The set counts what is in flight by table generation; an old
//! table is sent back to the control thread when the last request of its generation has completed.

mod calls;
mod heat;
mod life;
mod linger;
mod order;

use std::mem;
use std::sync::Arc;

use crossbeam::channel::Sender;
use guest_memory::MemTable;
use virtqueue::{Chain, ChainBatch, DeviceQueue, Fault, FaultReason};

pub use self::calls::Coalescing;
use self::calls::{Coalescer, Pace};
use self::heat::Heat;
use self::linger::Linger;
use crate::notify::Notifier;
use crate::ring_stats::RingStats;

/// The rings of one shard.
#[derive(Debug)]
pub struct RingSet {
    rings: Vec<Ring>,
    /// Slots of the rings that are polled, in order.
    hot: Vec<u16>,
    table: Arc<MemTable>,
    generation: u32,
    /// Chains popped and not completed, of the current generation.
    in_flight: u32,
    retired: Option<Retired>,
    /// Rings that somebody waits for to fall quiet.
    waiters: usize,
    /// Changes whenever a kick descriptor does.
    kicks_generation: u64,
    /// Counts polls, to do what is rarely needed once in 256.
    polls: u8,
    /// `None` where each call goes at once.
    coalescer: Option<Coalescer>,
    linger: linger::Terms,
    reporter: Reporter,
}

/// Where faults are told, and in whose name.
#[derive(Debug)]
struct Reporter {
    device: Arc<str>,
    reports: Sender<RingReport>,
}

/// The obligation to complete one chain. Dropping it uncompleted would leave the guest waiting for ever, so that is a
/// panic in builds with debug assertions.
#[derive(Debug)]
#[must_use = "a popped chain has to be completed"]
pub struct Ticket {
    ring: u16,
    head: u16,
    generation: u32,
}

impl Ticket {
    /// Slot of the chain's ring in its set.
    #[must_use]
    #[inline]
    pub fn slot(&self) -> usize {
        usize::from(self.ring)
    }
}

/// What happened to a ring that its operator should hear of. The poller does not log; the receiver does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingReport {
    /// Name of the device.
    pub device: Arc<str>,
    /// Index of the virtqueue in its device.
    pub ring: u16,
    /// The fault that halted it.
    pub fault: Fault,
}

/// What a ring leaves behind when it stops. Descriptors are closed by whoever drops this: the control thread.
#[derive(Debug)]
pub struct Stopped {
    /// Where fetching would have gone on: GET_VRING_BASE's answer. `None` if the ring had not been started.
    pub base: Option<u32>,
    /// The fault that it had halted on, if any.
    pub fault: Option<Fault>,
    _kick: Option<Notifier>,
}

#[derive(Debug)]
struct Ring {
    index: u16,
    queue: Option<DeviceQueue>,
    enabled: bool,
    heat: Heat,
    /// See [`RingSet::set_passive`].
    passive: bool,
    /// See [`RingSet::set_cold_start`].
    cold_start: bool,
    /// Whether chains are completed in order, if [`RingSet::set_read_only`] was called.
    read_only: Option<bool>,
    fault_told: bool,
    starts: u64,
    /// Its memory is not in the current table: it is never fetched from or armed again until it is stopped.
    lost: bool,
    waiter: Option<Waiter>,
    kick: Option<Notifier>,
    call: Option<Notifier>,
    pace: Pace,
    linger: Linger,
    err: Option<Notifier>,
    stats: Arc<RingStats>,
}

#[derive(Debug)]
enum Waiter {
    Stop(Sender<Stopped>),
    Disable(Sender<()>),
}

#[derive(Debug)]
struct Retired {
    table: Arc<MemTable>,
    generation: u32,
    in_flight: u32,
    back: Sender<Arc<MemTable>>,
}

impl RingSet {
    /// Rings of `device` with these device-wide indices, all stopped, with no memory. Faults go to `reports`; when that
    /// is full they are only counted.
    #[must_use]
    pub fn new(device: Arc<str>, rings: Vec<(u16, Arc<RingStats>)>, reports: Sender<RingReport>) -> RingSet {
        let rings: Vec<Ring> = rings.into_iter().map(|(index, stats)| Ring::new(index, stats)).collect();
        RingSet {
            hot: Vec::with_capacity(rings.len()),
            rings,
            table: Arc::default(),
            generation: 0,
            in_flight: 0,
            retired: None,
            waiters: 0,
            kicks_generation: 0,
            polls: 0,
            coalescer: None,
            linger: linger::Terms::new(),
            reporter: Reporter { device, reports },
        }
    }

    // --- the data path: `slot` counts the rings of this set from 0 ---

    /// Number of rings in the set.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.rings.len()
    }

    /// Whether the shard owns no ring.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// Index in the device of the ring in `slot`.
    #[must_use]
    pub fn index(&self, slot: usize) -> u16 {
        self.rings[slot].index
    }

    /// Pops up to `limit` chains into the batch, which holds nothing else then; 0 from a ring that is stopped, disabled,
    /// halting or broken.
    #[inline]
    pub fn pop(&mut self, slot: usize, limit: usize, batch: &mut ChainBatch) -> usize {
        let ring = &mut self.rings[slot];
        let fetches = ring.fetches();
        let Some(queue) = ring.queue.as_mut().filter(|_| fetches) else {
            batch.clear(); // what an earlier pop gave is not to be seen again
            return 0;
        };
        let count = queue.pop(&self.table, limit, batch);
        let broken = queue.fault().is_some();
        if count > 0 {
            self.in_flight += count as u32;
            ring.stats.popped(count, queue.in_flight());
            if ring.heat != Heat::Used {
                self.used_again(slot);
            }
        }
        if broken {
            self.found_broken(slot);
        }
        count
    }

    /// The ticket of a chain that the last [`RingSet::pop`] of this slot gave.
    #[inline]
    pub fn ticket(&self, slot: usize, chain: &Chain) -> Ticket {
        Ticket { ring: slot as u16, head: chain.head, generation: self.generation }
    }

    /// Takes back that these chains were popped: the next pop gives them again. They are the last ones that were popped
    /// from their ring, in that order, and in this poll.
    pub fn put_back(&mut self, slot: usize, tickets: impl DoubleEndedIterator<Item = Ticket>) {
        let ring = &mut self.rings[slot];
        let Some(queue) = &mut ring.queue else { unreachable!("chains keep their ring started") };
        let mut count = 0;
        queue.put_back(tickets.map(|ticket| {
            debug_assert_eq!((usize::from(ticket.ring), ticket.generation), (slot, self.generation));
            count += 1;
            let head = ticket.head;
            mem::forget(ticket);
            head
        }));
        ring.stats.in_flight.set(queue.in_flight().into());
        self.in_flight -= count;
        self.rings[slot].count_again(count);
    }

    /// Puts the chain on the used ring, `written` bytes long. The driver sees it after the next publish.
    #[inline]
    pub fn complete(&mut self, ticket: Ticket, written: u32) {
        let Ticket { ring, head, generation } = ticket;
        mem::forget(ticket);
        if let Some(queue) = &mut self.rings[usize::from(ring)].queue {
            queue.complete(head, written);
        }
        if generation == self.generation {
            self.in_flight -= 1;
        } else if let Some(retired) = &mut self.retired {
            retired.in_flight -= 1; // let go in `settle`, after the used entry has been published
        }
    }

    /// As [`RingSet::complete`] for chains of the last pop from this slot, in the order given and in the same poll: no ticket
    /// is made for each. `written` has the bytes of each.
    #[inline(never)]
    pub fn complete_popped(&mut self, slot: usize, chains: &[Chain], written: impl Iterator<Item = u32>) {
        if let Some(queue) = &mut self.rings[slot].queue {
            queue.complete_popped(chains, written);
        }
        self.in_flight -= chains.len() as u32;
    }

    /// Makes completed chains of the ring visible and calls the driver if it wants to be called: at once, or when
    /// coalescing lets it.
    #[inline]
    pub fn publish(&mut self, slot: usize) {
        let ring = &mut self.rings[slot];
        let Some(queue) = &mut ring.queue else { return };
        if queue.unpublished() == 0 {
            return;
        }
        ring.stats.in_flight.set(queue.in_flight().into());
        if let DeviceQueue::InOrder(queue) = queue {
            ring.stats.held.add(queue.take_late().into());
        }
        if queue.publish() {
            if self.coalescer.is_some() {
                self.call_in_time(slot);
            } else {
                ring.call();
            }
        } else {
            ring.stats.calls_suppressed.add(1);
        }
    }

    /// Whether chains of the ring can be popped, now or when the driver has made some available: it is started, enabled, not
    /// being stopped and not broken.
    #[must_use]
    #[inline]
    pub fn fetches(&self, slot: usize) -> bool {
        let ring = &self.rings[slot];
        ring.fetches() && ring.queue.as_ref().is_some_and(|queue| queue.fault().is_none())
    }

    /// The count of chains that the driver has made available until now, if the ring fetches: what a task management function
    /// sweeps up to. Free-running, from where [`RingSet::next_avail`] counts.
    #[must_use]
    pub fn avail_snapshot(&self, slot: usize) -> Option<u16> {
        let ring = &self.rings[slot];
        ring.queue.as_ref().filter(|queue| ring.fetches() && queue.fault().is_none()).map(DeviceQueue::avail_snapshot)
    }

    /// The count of chains that were popped, if the ring fetches.
    #[must_use]
    pub fn next_avail(&self, slot: usize) -> Option<u16> {
        let ring = &self.rings[slot];
        ring.queue.as_ref().filter(|queue| ring.fetches() && queue.fault().is_none()).map(DeviceQueue::next_avail)
    }

    /// How often the ring has been started: an index that was taken before the last time means nothing now.
    #[must_use]
    pub fn starts(&self, slot: usize) -> u64 {
        self.rings[slot].starts
    }

    /// Size of the ring in descriptors, 0 while it is stopped.
    #[must_use]
    #[inline]
    pub fn ring_size(&self, slot: usize) -> u16 {
        self.rings[slot].queue.as_ref().map_or(0, DeviceQueue::size)
    }

    /// The table that chains are translated with now.
    #[must_use]
    pub fn table(&self) -> &Arc<MemTable> {
        &self.table
    }

    /// Chains popped and not completed, over all rings and generations.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight + self.retired.as_ref().map_or(0, |retired| retired.in_flight)
    }

    /// To be called once at the end of each poll: lets rings go that have fallen quiet, and halts everything if memory
    /// went away under the batch.
    #[inline]
    pub fn settle(&mut self, worked: bool) {
        if self.waiters > 0 || self.retired.is_some() {
            self.settle_control();
        }
        // A ring whose memory went away reads as zeroes, so that there may never be work again: look now and then.
        self.polls = self.polls.wrapping_add(1);
        if (worked || self.polls == 0) && self.table.poisoned() {
            self.halt_all(FaultReason::MemoryLost);
        }
    }

    // --- inside ---

    #[cold]
    fn found_broken(&mut self, slot: usize) {
        // Whatever was read from memory that went away is not the driver's fault.
        if self.table.poisoned() {
            self.halt_all(FaultReason::MemoryLost);
        }
        self.rings[slot].tell_fault(&self.reporter);
    }

    #[cold]
    fn halt_all(&mut self, reason: FaultReason) {
        for ring in &mut self.rings {
            if let Some(queue) = &mut ring.queue {
                queue.mark_broken(Fault { reason, head: None });
                ring.tell(Fault { reason, head: None }, &self.reporter);
            }
        }
    }
}

impl Ring {
    fn new(index: u16, stats: Arc<RingStats>) -> Ring {
        stats.broken.set(0);
        stats.cold.set(0);
        stats.in_flight.set(0);
        Ring {
            index,
            queue: None,
            enabled: false,
            heat: Heat::Out,
            passive: false,
            cold_start: false,
            read_only: None,
            fault_told: false,
            starts: 0,
            lost: false,
            waiter: None,
            kick: None,
            call: None,
            pace: Pace::default(),
            linger: Linger::default(),
            err: None,
            stats,
        }
    }

    #[inline]
    fn fetches(&self) -> bool {
        self.enabled && self.waiter.is_none() && !self.lost
    }

    /// Nothing of it is in flight.
    fn is_quiet(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.in_flight() == 0 && queue.unpublished() == 0)
    }

    #[inline]
    fn call(&self) {
        if let Some(call) = &self.call
            && call.signal()
        {
            self.stats.calls.add(1);
        }
    }

    #[cold]
    fn tell_fault(&mut self, reporter: &Reporter) {
        if let Some(fault) = self.queue.as_ref().and_then(DeviceQueue::fault) {
            self.tell(fault, reporter);
        }
    }

    /// R19: once per fault, the err descriptor, the counter, the report.
    fn tell(&mut self, fault: Fault, reporter: &Reporter) {
        if mem::replace(&mut self.fault_told, true) {
            return;
        }
        self.stats.broke(fault.reason);
        if let Some(err) = &self.err {
            err.signal();
        }
        let report = RingReport { device: Arc::clone(&reporter.device), ring: self.index, fault };
        let _ = reporter.reports.try_send(report);
    }

    fn answer_waiter(&mut self) {
        self.send_call(); // R15: none comes after the answer
        match self.waiter.take() {
            Some(Waiter::Disable(back)) => drop(back.send(())),
            Some(Waiter::Stop(back)) => {
                let queue = self.queue.take();
                self.stats.size.set(0);
                self.stats.in_flight.set(0);
                self.lost = false;
                self.count_kicks();
                self.fault_told = false;
                self.stats.broken.set(0);
                let fault = queue.as_ref().and_then(DeviceQueue::fault);
                let base = queue.as_ref().map(DeviceQueue::base);
                let _ = back.send(Stopped { base, fault, _kick: self.kick.take() });
            }
            None => {}
        }
    }
}

impl Retired {
    fn release(self) {
        debug_assert_eq!(self.in_flight, 0, "generation {} goes while requests use it", self.generation);
        // The control thread waits for this and unmaps; if it has gone, it had nothing to unmap for.
        let _ = self.back.send(self.table);
    }
}

#[cfg(debug_assertions)]
impl Drop for Ticket {
    fn drop(&mut self) {
        assert!(
            std::thread::panicking(),
            "chain {} of ring slot {} was dropped uncompleted: its guest would wait for ever",
            self.head,
            self.ring
        );
    }
}

#[cfg(test)]
mod tests;
