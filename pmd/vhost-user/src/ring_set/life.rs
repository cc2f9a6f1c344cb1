//! What the control half asks of a ring set, through the shard's inbox: rings started and stopped, descriptors replaced,
//! memory tables swapped. Nothing in here waits: who asked is answered when requests in flight have ended.

use std::mem;
use std::sync::Arc;

use crossbeam::channel::Sender;
use guest_memory::MemTable;
use virtqueue::{DeviceQueue, Fault, FaultReason, RingAddresses};

use super::heat::Heat;
use super::linger::Linger;
use super::{Retired, RingSet, Stopped, Waiter};
use crate::notify::Notifier;

impl RingSet {
    /// Says that the device only reads from this ring's buffers, and whether it completes its chains in order: see
    /// [`DeviceQueue::set_read_only`]. It holds for the ring as it is started from now on.
    pub fn set_read_only(&mut self, slot: usize, in_order: bool) {
        self.rings[slot].read_only = Some(in_order);
    }

    /// Starts the ring with a queue that the control half set up. A driver that has used it before is called: the
    /// back-end that it had then may have gone between the used index and the call.
    pub fn start(&mut self, index: u16, queue: impl Into<DeviceQueue>, kick: Option<Notifier>) -> Option<Notifier> {
        let mut queue = queue.into();
        let slot = self.slot(index);
        self.kicks_generation += 1;
        queue.disable_notifications();
        let used_before = queue.was_used();
        let ring = &mut self.rings[slot];
        if let Some(in_order) = ring.read_only {
            queue.set_read_only(in_order);
        }
        ring.stats.size.set(u64::from(queue.size()));
        ring.queue = Some(queue);
        ring.lost = false;
        ring.starts += 1;
        ring.linger = Linger::default(); // another driver
        ring.fault_told = false;
        ring.stats.broken.set(0);
        if used_before {
            ring.call();
        }
        let old = mem::replace(&mut ring.kick, kick);
        self.begin(slot);
        old
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
        self.begin(slot);
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
        ring.forget_call();
        if ring.queue.is_some() {
            ring.call();
        }
        old
    }

    /// Replaces the kick descriptor of a running ring.
    pub fn set_kick(&mut self, index: u16, kick: Option<Notifier>) -> Option<Notifier> {
        let slot = self.slot(index);
        self.kicks_generation += 1;
        // Polled until the new descriptor is watched. What was kicked on the old one is found without it.
        if self.rings[slot].heat == Heat::Cold {
            self.heat(slot);
        }
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
        (0..self.rings.len()).for_each(|slot| self.moved(slot));
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
        for slot in 0..self.rings.len() {
            let ring = &mut self.rings[slot];
            if ring.waiter.is_some() && ring.is_quiet() {
                ring.answer_waiter();
                self.leave(slot, Heat::Out);
                self.waiters -= 1;
                self.kicks_generation += 1;
            }
        }
    }

    #[cold]
    pub(super) fn settle_control(&mut self) {
        self.answer_waiters();
        if let Some(retired) = self.retired.take_if(|retired| retired.in_flight == 0) {
            retired.release();
        }
    }
}
