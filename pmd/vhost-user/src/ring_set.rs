//! The poller's half of a connection: the rings that one shard owns, and the memory table they translate with.
//!
//! A device model pops chains here, completes each with its [`Ticket`], and publishes. The control half
//! (`endpoint.rs`) reaches in through the shard's inbox to start and stop rings and to hand over memory tables; nothing
//! in here blocks, and what is slow to drop goes back to the control thread.
//!
//! Custody of memory: requests hold no reference count. The set counts what is in flight by table generation; an old
//! table is sent back to the control thread when the last request of its generation has completed.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam::channel::Sender;
use guest_memory::MemTable;
use virtqueue::split::SplitDevice;
use virtqueue::{Chain, ChainBatch, Fault, FaultReason, RingAddresses};

use crate::notify::Notifier;
use crate::ring_stats::RingStats;

/// The rings of one shard.
#[derive(Debug)]
pub struct RingSet {
    rings: Vec<Ring>,
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
    /// Index of the next available entry that would have been fetched: GET_VRING_BASE's answer. `None` if the ring had
    /// not been started.
    pub base: Option<u16>,
    /// The fault that it had halted on, if any.
    pub fault: Option<Fault>,
    _kick: Option<Notifier>,
}

#[derive(Debug)]
struct Ring {
    index: u16,
    queue: Option<SplitDevice>,
    enabled: bool,
    /// See [`RingSet::set_passive`].
    passive: bool,
    fault_told: bool,
    /// Its memory is not in the current table: it is never fetched from or armed again until it is stopped.
    lost: bool,
    waiter: Option<Waiter>,
    kick: Option<Notifier>,
    call: Option<Notifier>,
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
        let rings = rings.into_iter().map(|(index, stats)| Ring::new(index, stats)).collect();
        RingSet {
            rings,
            table: Arc::default(),
            generation: 0,
            in_flight: 0,
            retired: None,
            waiters: 0,
            kicks_generation: 0,
            polls: 0,
            reporter: Reporter { device, reports },
        }
    }

    /// Whether chains of the ring in `slot` wait for the device to have something for them, as event buffers do: they are
    /// no work then, and no reason to stay awake.
    pub fn set_passive(&mut self, slot: usize, passive: bool) {
        self.rings[slot].passive = passive;
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
        if count > 0 {
            self.in_flight += count as u32;
            ring.stats.chains.add(count as u64);
            ring.stats.batches.add(1);
        }
        if queue.fault().is_some() {
            self.found_broken(slot);
        }
        count
    }

    /// The ticket of a chain that the last [`RingSet::pop`] of this slot gave.
    #[inline]
    pub fn ticket(&self, slot: usize, chain: &Chain) -> Ticket {
        Ticket { ring: slot as u16, head: chain.head, generation: self.generation }
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

    /// Makes completed chains of the ring visible and calls the driver if it wants to be called.
    #[inline]
    pub fn publish(&mut self, slot: usize) {
        let ring = &mut self.rings[slot];
        let Some(queue) = &mut ring.queue else { return };
        if queue.unpublished() == 0 {
            return;
        }
        if queue.publish() {
            ring.call();
        } else {
            ring.stats.calls_suppressed.add(1);
        }
    }

    /// The avail index as the driver shows it now, if the ring fetches: what a task management function sweeps up to.
    #[must_use]
    pub fn avail_snapshot(&self, slot: usize) -> Option<u16> {
        let ring = &self.rings[slot];
        ring.queue.as_ref().filter(|queue| ring.fetches() && queue.fault().is_none()).map(SplitDevice::avail_snapshot)
    }

    /// Index of the next available entry to be fetched, if the ring fetches.
    #[must_use]
    pub fn next_avail(&self, slot: usize) -> Option<u16> {
        let ring = &self.rings[slot];
        ring.queue.as_ref().filter(|queue| ring.fetches() && queue.fault().is_none()).map(SplitDevice::next_avail)
    }

    /// Size of the ring in descriptors, 0 while it is stopped.
    #[must_use]
    #[inline]
    pub fn ring_size(&self, slot: usize) -> u16 {
        self.rings[slot].queue.as_ref().map_or(0, SplitDevice::size)
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

    // --- the idle protocol ---

    /// Asks every driver to kick, then looks again: true if a chain is there already, so that the poller must not sleep.
    /// Passive rings are left alone.
    pub fn enable_notifications(&mut self) -> bool {
        let mut available = false;
        for ring in &mut self.rings {
            if ring.fetches()
                && !ring.passive
                && let Some(queue) = &mut ring.queue
            {
                available |= queue.enable_notifications();
            }
        }
        available
    }

    /// Tells every driver that kicks are not needed: the ring is polled again.
    pub fn disable_notifications(&mut self) {
        for ring in &mut self.rings {
            if ring.fetches()
                && let Some(queue) = &mut ring.queue
            {
                queue.disable_notifications();
            }
            if let Some(kick) = &ring.kick {
                ring.stats.kicks.add(kick.drain());
            }
        }
    }

    /// The kick descriptors that wake a sleeping poller.
    pub fn kicks(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        for ring in &self.rings {
            if let Some(kick) = &ring.kick {
                add(kick.as_fd());
            }
        }
    }

    /// A number that differs whenever the set of [`RingSet::kicks`] does.
    #[must_use]
    pub fn kicks_generation(&self) -> u64 {
        self.kicks_generation
    }

    /// Whether every started ring has a kick descriptor. A driver that never kicks has to be polled.
    #[must_use]
    pub fn can_sleep(&self) -> bool {
        self.rings.iter().all(|ring| ring.queue.is_none() || ring.kick.is_some())
    }

    // --- what the control half asks for, through the inbox ---

    /// Starts the ring with a queue that the control half set up. A driver that has used it before is called: the
    /// back-end that it had then may have gone between the used index and the call.
    pub fn start(&mut self, index: u16, mut queue: SplitDevice, kick: Option<Notifier>) -> Option<Notifier> {
        let slot = self.slot(index);
        self.kicks_generation += 1;
        queue.disable_notifications();
        let used_before = queue.next_avail() != 0;
        let ring = &mut self.rings[slot];
        ring.stats.size.set(u64::from(queue.size()));
        ring.queue = Some(queue);
        ring.lost = false;
        ring.fault_told = false;
        ring.stats.broken.set(0);
        if used_before {
            ring.call();
        }
        mem::replace(&mut ring.kick, kick)
    }

    /// Stops the ring: fetching ends now, `back` is answered when what is in flight has been completed and published.
    pub fn stop(&mut self, index: u16, back: Sender<Stopped>) {
        let slot = self.slot(index);
        self.wait(slot, Waiter::Stop(back));
    }

    /// Lets the ring fetch.
    pub fn enable(&mut self, index: u16) {
        let slot = self.slot(index);
        let ring = &mut self.rings[slot];
        ring.enabled = true;
        if let Some(queue) = ring.queue.as_mut().filter(|_| !ring.lost) {
            queue.disable_notifications();
        }
    }

    /// Ends fetching but keeps the ring's state; `back` is answered when what is in flight has been completed.
    pub fn disable(&mut self, index: u16, back: Sender<()>) {
        let slot = self.slot(index);
        self.rings[slot].enabled = false;
        self.wait(slot, Waiter::Disable(back));
    }

    /// Replaces the call descriptor; the old one comes back to be closed off the poller. A started ring signals the new
    /// one at once: the last call may have gone to the old one when the front-end had already looked away from it. QEMU
    /// swaps them whenever the guest masks or unmasks an interrupt, without waiting for us, and a guest waits for ever
    /// for a call that it missed; one too many is nothing to it.
    pub fn set_call(&mut self, index: u16, call: Option<Notifier>) -> Option<Notifier> {
        let slot = self.slot(index);
        let ring = &mut self.rings[slot];
        let old = mem::replace(&mut ring.call, call);
        if ring.queue.is_some() {
            ring.call();
        }
        old
    }

    /// Replaces the kick descriptor of a running ring.
    pub fn set_kick(&mut self, index: u16, kick: Option<Notifier>) -> Option<Notifier> {
        let slot = self.slot(index);
        self.kicks_generation += 1;
        mem::replace(&mut self.rings[slot].kick, kick)
    }

    /// Replaces the err descriptor. A ring that is broken signals the new one at once.
    pub fn set_err(&mut self, index: u16, err: Option<Notifier>) -> Option<Notifier> {
        let slot = self.slot(index);
        let ring = &mut self.rings[slot];
        if ring.fault_told
            && let Some(err) = &err
        {
            err.signal();
        }
        mem::replace(&mut ring.err, err)
    }

    /// Takes a new memory table at once; the old one goes to `back` when its last request has completed. Started rings
    /// move to their addresses in the new table; one that is not in `rings` or does not fit there halts.
    ///
    /// # Panics
    /// If the table before the last one is still in use: the control half waits for each before the next.
    pub fn swap_table(&mut self, table: Arc<MemTable>, rings: &[(u16, RingAddresses)], back: Sender<Arc<MemTable>>) {
        assert!(self.retired.is_none(), "two memory tables retired at once");
        let old = mem::replace(&mut self.table, table);
        let retired = Retired { table: old, generation: self.generation, in_flight: self.in_flight, back };
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = 0;
        for ring in &mut self.rings {
            let Some(queue) = &mut ring.queue else { continue };
            let moved = rings.iter().find(|(index, _)| *index == ring.index);
            if moved.is_none_or(|(_, addresses)| queue.rebase(*addresses).is_err()) {
                // What is in flight is still completed on the old addresses: the old table lives until then.
                queue.mark_broken(Fault { reason: FaultReason::RingUnmapped, head: None });
                ring.lost = true;
                ring.tell_fault(&self.reporter);
            }
        }
        if retired.in_flight == 0 {
            retired.release();
        } else {
            self.retired = Some(retired);
        }
    }

    /// Marks the ring broken without a queue behind it: its addresses do not map. Signals err, counts and reports.
    pub fn refuse_start(&mut self, index: u16) {
        let slot = self.slot(index);
        let ring = &mut self.rings[slot];
        ring.tell(Fault { reason: FaultReason::RingUnmapped, head: None }, &self.reporter);
    }

    // --- inside ---

    fn slot(&self, index: u16) -> usize {
        self.rings.iter().position(|ring| ring.index == index).expect("the endpoint routes by the same assignment")
    }

    fn wait(&mut self, slot: usize, waiter: Waiter) {
        let ring = &mut self.rings[slot];
        assert!(ring.waiter.is_none(), "one control thread per connection: one waiter per ring");
        ring.waiter = Some(waiter);
        self.waiters += 1;
        self.answer_waiters();
    }

    fn answer_waiters(&mut self) {
        for ring in &mut self.rings {
            let quiet = ring.queue.as_ref().is_none_or(|queue| queue.in_flight() == 0 && queue.unpublished() == 0);
            if ring.waiter.is_some() && quiet {
                ring.answer_waiter();
                self.waiters -= 1;
                self.kicks_generation += 1;
            }
        }
    }

    #[cold]
    fn settle_control(&mut self) {
        self.answer_waiters();
        if let Some(retired) = self.retired.take_if(|retired| retired.in_flight == 0) {
            retired.release();
        }
    }

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
        Ring {
            index,
            queue: None,
            enabled: false,
            passive: false,
            fault_told: false,
            lost: false,
            waiter: None,
            kick: None,
            call: None,
            err: None,
            stats,
        }
    }

    #[inline]
    fn fetches(&self) -> bool {
        self.enabled && self.waiter.is_none() && !self.lost
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
        if let Some(fault) = self.queue.as_ref().and_then(SplitDevice::fault) {
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
        match self.waiter.take() {
            Some(Waiter::Disable(back)) => drop(back.send(())),
            Some(Waiter::Stop(back)) => {
                let queue = self.queue.take();
                self.stats.size.set(0);
                self.lost = false;
                if let Some(kick) = &self.kick {
                    self.stats.kicks.add(kick.drain());
                }
                self.fault_told = false;
                self.stats.broken.set(0);
                let fault = queue.as_ref().and_then(SplitDevice::fault);
                let base = queue.as_ref().map(SplitDevice::next_avail);
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
