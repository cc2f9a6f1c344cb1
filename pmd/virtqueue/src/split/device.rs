//! The device side of a split ring: fetching chains, giving them back, and the two notification questions. Following
//! one chain is `walk.rs`; kicks and calls themselves are the connection's.

use std::sync::atomic::{Ordering, fence};

use guest_memory::{GuestArray, GuestSlice, MemTable};

use super::begin::begin;
use super::rings::{NO_INTERRUPT, NO_NOTIFY, Rings};
use super::singles::singles;
use crate::chain::CELL;
use crate::follow::{Hints, Stop, TableFormat, View, long, quick, walk};
use crate::{Chain, ChainBatch, Fault, FaultReason, Features, RingAddresses, SetupError, event};

/// The device side of one split ring.
///
/// Chains that were popped are in flight until they are completed; completions become visible to the driver with
/// [`SplitDevice::publish`]. Setting up a ring writes nothing to it: say at once whether kicks are wanted, with
/// [`SplitDevice::enable_notifications`] or [`SplitDevice::disable_notifications`].
#[derive(Debug)]
pub struct SplitDevice {
    rings: Rings,
    /// Index of the next available entry to be fetched.
    next_avail: u16,
    /// Index of the next used entry to be written.
    next_used: u16,
    /// The used index that the driver sees.
    published: u16,
    /// `next_avail - next_used` when nothing is in flight.
    distance: u16,
    event_idx: bool,
    /// Nothing was published since the ring was set up, so nobody knows which event the driver was told of last.
    first_publish: bool,
    fault: Option<Fault>,
    hints: Hints,
    /// By descriptor: it is the head of a chain in flight. Bytes and not bits, which would take twice the instructions.
    in_flight: Box<[bool]>,
    resumed_at: Option<u16>,
}

impl SplitDevice {
    /// Takes a ring of `size` descriptors over. `next_avail` is the index where the front-end says that fetching goes on
    /// (SET_VRING_BASE).
    ///
    /// The used index goes on from what the memory says. Where base and used index differ, a back-end died and the
    /// front-end attached the living ring to us with a base that it made up (DPDK's virtio-user says 0). Entries between
    /// used and available index were never answered then, so fetching resumes at the used index, see
    /// [`SplitDevice::resumed_at`]. If the two are further apart than the ring has entries, they mean nothing and the
    /// base stands.
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area.
    pub fn new(
        size: u16,
        rings: RingAddresses,
        next_avail: u16,
        features: Features,
    ) -> Result<SplitDevice, SetupError> {
        let rings = Rings::new(size, rings)?;
        let used = rings.used_index();
        let unanswered = rings.avail_index().wrapping_sub(used);
        let resumed_at = (next_avail != used && unanswered <= size).then_some(used);
        let next_avail = resumed_at.unwrap_or(next_avail);
        Ok(SplitDevice {
            rings,
            next_avail,
            next_used: used,
            published: used,
            distance: next_avail.wrapping_sub(used),
            event_idx: features.event_idx,
            first_publish: true,
            fault: None,
            hints: Hints::default(),
            in_flight: vec![false; usize::from(size)].into_boxed_slice(),
            resumed_at,
        })
    }

    /// Moves the ring to other addresses of ours, because the memory table changed. The driver's ring stays where it is:
    /// indices and chains in flight go on.
    ///
    /// # Errors
    /// [`SetupError`] as from [`SplitDevice::new`]; the ring stays at its old addresses then.
    pub fn rebase(&mut self, rings: RingAddresses) -> Result<(), SetupError> {
        self.rings = Rings::new(self.size(), rings)?;
        Ok(())
    }

    /// Number of descriptors.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u16 {
        self.rings.size()
    }

    /// Where fetching goes on although the front-end gave another base; `None` if its base stands.
    #[must_use]
    pub fn resumed_at(&self) -> Option<u16> {
        self.resumed_at
    }

    /// What GET_VRING_BASE answers: where fetching goes on.
    #[must_use]
    pub fn base(&self) -> u32 {
        self.next_avail.into()
    }

    /// Whether a driver has used the ring since it was made.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.next_avail != 0
    }

    /// Why the ring is broken, if it is.
    #[must_use]
    #[inline]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Breaks the ring for a reason that was found elsewhere. The first fault stays.
    #[cold]
    pub fn mark_broken(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    // --- fetching ---

    /// The available index as the driver shows it now. What it made available before is visible to us afterwards.
    #[must_use]
    #[inline]
    pub fn avail_snapshot(&self) -> u16 {
        self.rings.avail_index()
    }

    /// Index of the next available entry to be fetched.
    #[must_use]
    #[inline]
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// Whether there is something to be fetched; never from a broken ring.
    #[must_use]
    #[inline]
    pub fn has_available(&self) -> bool {
        self.fault.is_none() && self.rings.avail_index() != self.next_avail
    }

    /// Chains that were popped and not completed.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.next_avail.wrapping_sub(self.next_used).wrapping_sub(self.distance)
    }

    /// Fetches up to `limit` chains into `batch`, which is cleared first, and returns how many there are: 0 if none is
    /// available or the ring is broken, fewer than `limit` also if the batch is full.
    ///
    /// A fault breaks the ring: the chains before it are handed over, it is not, and later calls return 0.
    #[inline]
    pub fn pop(&mut self, memory: &MemTable, limit: usize, batch: &mut ChainBatch) -> usize {
        batch.clear();
        if self.fault.is_some() {
            return 0;
        }
        let available = self.rings.avail_index().wrapping_sub(self.next_avail);
        if available == 0 {
            return 0;
        }
        if available > self.size() {
            self.mark_broken(Fault { reason: FaultReason::AvailIndexJump, head: None });
            return 0;
        }
        self.fetch(memory, usize::from(available).min(limit), batch)
    }

    /// [`SplitDevice::pop`] when something is there. Not inlined: the loops want the registers for themselves.
    #[inline(never)]
    fn fetch(&mut self, memory: &MemTable, limit: usize, batch: &mut ChainBatch) -> usize {
        let (claimed, mut fault) = self.claim(limit, &mut batch.chains);
        self.rings.prefetch_used_elements(self.next_used, claimed);
        let (popped, stop) = self.walk_claimed(memory, claimed, batch);
        if let Some(stop) = stop {
            let head = batch.chains[popped].head;
            self.give_up(&batch.chains[popped..claimed]);
            fault = match stop {
                Stop::Fault(reason) => Some(Fault { reason, head: Some(head) }),
                Stop::NoRoom if popped > 0 => None,
                Stop::NoRoom => {
                    batch.grow();
                    return self.fetch(memory, limit, batch);
                }
            };
        }
        if let Some(fault) = fault {
            self.mark_broken(fault);
        }
        batch.chains_len = popped;
        self.next_avail = self.next_avail.wrapping_add(popped as u16); // at most the ring's size
        popped
    }

    /// Reads the heads of up to `limit` chains and marks them as in flight, up to the first that cannot be. The caller
    /// knows that `limit` are available. A pass of its own, so that the descriptors are on their way into the cache while
    /// it goes on.
    #[inline(never)]
    fn claim(&mut self, limit: usize, chains: &mut [Chain]) -> (usize, Option<Fault>) {
        let rings = self.rings;
        let in_flight = &mut *self.in_flight;
        let limit = limit.min(chains.len());
        let mut next = self.next_avail;
        for (index, chain) in chains[..limit].iter_mut().enumerate() {
            let head = rings.avail_entry(next);
            let reason = match in_flight.get_mut(usize::from(head)) {
                Some(flag) if !*flag => {
                    *flag = true;
                    rings.prefetch_descriptor(head);
                    chain.head = head;
                    next = next.wrapping_add(1);
                    continue;
                }
                Some(_) => FaultReason::HeadInFlight,
                None => FaultReason::HeadOutOfRange,
            };
            return (index, Some(Fault { reason, head: Some(head) }));
        }
        (limit, None)
    }

    /// Walks the first `claimed` chains of the batch, of which only the heads are known. Returns how many it could, and
    /// what stopped it before the last.
    #[inline(always)]
    fn walk_claimed(&mut self, memory: &MemTable, claimed: usize, batch: &mut ChainBatch) -> (usize, Option<Stop>) {
        let usual = self.rings.usual_desc;
        let view = View::new(memory, self.hints);
        let (cells, spill) = batch.slices.split_at_mut(CELL * batch.chains.len());
        let spill_start = cells.len() as u32;
        let mut spilled = 0;
        let (cells, _) = cells.as_chunks_mut::<CELL>();
        let singles = singles(&view, usual, &mut batch.chains[..claimed], cells);
        let mut start = CELL * singles;
        for (chain, cell) in batch.chains[singles..claimed].iter_mut().zip(&mut cells[singles..]) {
            let usual = begin(&view, usual, chain.head);
            let walked = usual.and_then(|(entries, first)| quick::walk(&view, entries, first, cell, start, chain));
            if walked.is_none() {
                let before = batch.continued.len();
                let room = &mut spill[spilled..];
                match walk_unusual(&view, memory, self.rings.desc, chain.head, room, &mut batch.continued) {
                    Ok(walked) => {
                        let by = spill_start + spilled as u32;
                        *chain = walked.shifted(by);
                        batch.continued[before..].iter_mut().for_each(|position| *position += by);
                        spilled += walked.slices();
                    }
                    Err(stop) => return (start / CELL, Some(stop)),
                }
            }
            start += CELL;
        }
        self.hints = view.hints(claimed);
        (claimed, None)
    }

    /// Claimed chains that are not handed over were never in flight.
    #[cold]
    fn give_up(&mut self, chains: &[Chain]) {
        for chain in chains {
            self.in_flight[usize::from(chain.head)] = false;
        }
    }

    /// Takes back that these chains were popped: the next pop gives them again. They are the last ones that were popped, in
    /// that order, and none of them was completed.
    ///
    /// # Panics
    /// If one of them is not in flight.
    pub fn put_back(&mut self, heads: impl DoubleEndedIterator<Item = u16>) {
        for head in heads.rev() {
            match self.in_flight.get_mut(usize::from(head)) {
                Some(flag) if *flag => *flag = false,
                _ => not_in_flight(head),
            }
            self.next_avail = self.next_avail.wrapping_sub(1);
        }
    }

    // --- giving back ---

    /// Writes a used element for the chain of `head`, into which the device wrote `written` bytes. The driver sees it
    /// after the next [`SplitDevice::publish`].
    ///
    /// # Panics
    /// If the chain is not in flight: completing twice is a bug of ours.
    #[inline]
    pub fn complete(&mut self, head: u16, written: u32) {
        match self.in_flight.get_mut(usize::from(head)) {
            Some(flag) if *flag => *flag = false,
            _ => not_in_flight(head),
        }
        self.rings.set_used_element(self.next_used, u32::from(head), written);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// As [`SplitDevice::complete`] for chains of the last pop, in the order given; `written` has the bytes of each.
    ///
    /// # Panics
    /// If one of them is not in flight.
    #[inline]
    pub fn complete_popped(&mut self, chains: &[Chain], written: impl Iterator<Item = u32>) {
        let (rings, in_flight) = (self.rings, &mut *self.in_flight);
        let mut next_used = self.next_used;
        for (chain, written) in chains.iter().zip(written) {
            match in_flight.get_mut(usize::from(chain.head)) {
                Some(flag) if *flag => *flag = false,
                _ => not_in_flight(chain.head),
            }
            rings.set_used_element(next_used, u32::from(chain.head), written);
            next_used = next_used.wrapping_add(1);
        }
        self.next_used = next_used;
    }

    /// Chains that were completed and not published.
    #[must_use]
    #[inline]
    pub fn unpublished(&self) -> u16 {
        self.next_used.wrapping_sub(self.published)
    }

    /// Makes completed chains visible to the driver. Returns whether the driver wants a call for them (virtio 1.3
    /// §2.7.7.2): one answer for all.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let old = self.published;
        let new = self.next_used;
        if new == old {
            return false;
        }
        // The index before the question, as far as anybody can see: otherwise the driver could ask for a call after we looked,
        // look at the index before we moved it, and wait for ever.
        self.rings.publish_used_index(new);
        self.published = new;
        if self.event_idx {
            let first = std::mem::replace(&mut self.first_publish, false);
            event::passed(self.rings.used_event(), new, old) || first
        } else {
            self.rings.avail_flags() & NO_INTERRUPT == 0
        }
    }

    // --- notifications from the driver ---

    /// Asks the driver for a kick at the next entry (virtio 1.3 §2.7.10), then looks once more. True if something is
    /// available already: there may be no kick for it, so do not sleep.
    ///
    /// Does nothing on a broken ring, and returns false: nothing is ever fetched from it.
    #[must_use]
    pub fn enable_notifications(&mut self) -> bool {
        if self.fault.is_some() {
            return false;
        }
        if self.event_idx {
            self.rings.set_avail_event(self.next_avail);
        } else {
            self.rings.set_used_flags(0);
        }
        // The wish before the look: the driver moves its index before it looks for the wish.
        fence(Ordering::SeqCst);
        self.has_available()
    }

    /// Tells the driver that the ring is polled. With event indices there is no such flag: the event is left behind the
    /// entries fetched, so that the driver passes it once in 65536 entries, and that kick means nothing.
    pub fn disable_notifications(&mut self) {
        if self.event_idx {
            self.rings.set_avail_event(self.next_avail.wrapping_sub(1));
        } else {
            self.rings.set_used_flags(NO_NOTIFY);
        }
    }
}

/// Walks a chain that `quick` gave up on.
#[cold]
#[inline(never)]
fn walk_unusual(
    view: &View<'_>,
    memory: &MemTable,
    ring: GuestArray<u64>,
    head: u16,
    slices: &mut [GuestSlice],
    continued: &mut Vec<u32>,
) -> Result<Chain, Stop> {
    let size = (ring.len() / 2) as u16; // at most 32768 descriptors of two words
    if let Some(chain) = begin(view, ring, head).and_then(|at| long::walk(view, at, size, head, slices)) {
        return Ok(chain);
    }
    let chain = walk::walk(memory, (&ring, head), size, TableFormat::Linked, slices, continued)?;
    Ok(Chain { head, ..chain })
}

#[cold]
#[inline(never)]
fn not_in_flight(head: u16) -> ! {
    panic!("head {head} completed, but not in flight")
}
