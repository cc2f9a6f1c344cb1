//! One request queue: slots of prepared commands, and the turn that takes back what has come and sends the next. Which
//! commands, for how long and on which thread is for others.

use std::sync::Arc;

use anyhow::Context;
use reactor::Tsc;
use virtqueue::{DriverQueue, Features, Prepared, Segment, UsedFault};

use guest_memory::GuestSlice;
use virtio_scsi::wire::{REQUEST_LEN, RESPONSE_LEN};

use super::cdb::{self, Direction, LbaWidth};
use super::disk::Range;
use super::layout::Layout;
use super::lines::{Lines, SLOT_LEN, SlotLines};
use super::pattern::Io;
use super::reply::{self, Failure, Tally};
use super::work::{SlotData, Work};
use super::{Args, Ring};
use crate::link::RingFds;
use crate::memory::Memory;
use crate::meter::Meter;

/// A request queue and its commands.
#[derive(Debug)]
pub(super) struct Queue {
    driver: DriverQueue,
    fds: Arc<RingFds>,
    lines: Lines,
    data: GuestSlice,
    data_addr: u64,
    data_stride: usize,
    /// Bytes that a command moves.
    len: usize,
    slots: Box<[Slot]>,
    indirect: bool,
    /// Chains have to take descriptors in the order of the ring: they are written for each command.
    ring_order: bool,
    lun: [u8; 8],
    /// Distinguishes the tags of this queue from those of its siblings.
    tag_base: u64,
    width: LbaWidth,
    blocks_per_piece: u64,
}

/// A command that is in flight, or may be.
#[derive(Debug)]
struct Slot {
    lines: SlotLines,
    started: Tsc,
    io: Io,
    /// Its descriptors, if they always are the same.
    chain: Option<Prepared>,
}

/// A command by itself, during start-up.
#[derive(Debug)]
pub(super) struct Reply {
    /// What went wrong.
    pub failure: Option<Failure>,
    /// What the device may have written.
    pub data: Vec<u8>,
}

/// Chains taken back in one turn.
const BATCH: usize = 32;

impl Queue {
    /// The request queue `index`, with its ring initialised and all slots free.
    pub(super) fn new(
        args: &Args,
        memory: &Memory,
        layout: &Layout,
        index: u16,
        fds: Arc<RingFds>,
        features: Features,
    ) -> anyhow::Result<Queue> {
        let place = layout.queues[usize::from(index)];
        let ring = layout.rings[usize::from(super::layout::FIRST_REQUEST_RING + index)];
        let areas = memory.ring(&ring, layout.queue_size);
        let mut driver = DriverQueue::new(ring.format, layout.queue_size, areas, features).context("request ring")?;
        if args.in_order {
            driver.expect_in_order();
        }
        driver.disable_calls();
        let slots = usize::from(args.qd);
        let idle = Io { piece: 0, direction: Direction::Read };
        let lines = Lines::new(memory.slice(place.lines, SLOT_LEN * slots), memory.guest_addr(place.lines));
        let slot = |slot| Slot { lines: lines.slot(slot), started: Tsc(0), io: idle, chain: None };
        Ok(Queue {
            driver,
            fds,
            lines,
            data: memory.slice(place.data, layout.data_stride * slots),
            data_addr: memory.guest_addr(place.data),
            data_stride: layout.data_stride,
            len: args.bs as usize,
            slots: (0..slots).map(slot).collect(),
            indirect: args.indirect,
            ring_order: args.in_order && args.ring == Ring::Split,
            lun: cdb::lun_field(args.target, args.lun),
            tag_base: u64::from(index) << 32,
            width: LbaWidth::Bits32,
            blocks_per_piece: 1,
        })
    }

    /// Writes every slot's headers for a range. With a direction its descriptors are written, too, once and for all, if they
    /// may lie anywhere; without one they are written for each command.
    ///
    /// # Panics
    /// If a command is in flight.
    pub(super) fn prepare(&mut self, range: &Range, direction: Option<Direction>) {
        assert_eq!(self.in_flight(), 0, "commands in flight");
        self.width = range.width();
        self.blocks_per_piece = u64::from(range.blocks_per_piece);
        let direction = direction.filter(|_| !self.ring_order);
        for slot in 0..self.slots.len() {
            for direction in [Direction::Read, Direction::Write] {
                let cdb = cdb::transfer(direction, self.width, range.blocks_per_piece);
                let tag = self.tag_base | slot as u64;
                self.lines.slot(slot).write_header(direction, self.lun, tag, &cdb);
            }
            if let Some(chain) = self.slots[slot].chain.take() {
                self.driver.release(chain);
            }
            self.slots[slot].chain = direction.map(|direction| self.prepare_chain(slot, direction));
        }
    }

    fn prepare_chain(&mut self, slot: usize, direction: Direction) -> Prepared {
        let segments = self.segments(slot, direction);
        let prepared = if self.indirect {
            let (table, table_addr) = self.lines.table(slot, direction);
            self.driver.prepare_indirect(&segments, table_addr, table, slot)
        } else {
            self.driver.prepare(&segments, slot)
        };
        prepared.expect("the ring holds every slot: checked with the arguments")
    }

    /// Header, data and response in the order that the direction asks for (virtio 1.3 §5.6.6.1).
    fn segments(&self, slot: usize, direction: Direction) -> [Segment; 3] {
        let data_addr = self.data_addr + (slot * self.data_stride) as u64;
        let header = Segment::readable(self.lines.header_addr(slot, direction), REQUEST_LEN as u32);
        let response = Segment::writable(self.lines.response_addr(slot), RESPONSE_LEN as u32);
        match direction {
            Direction::Read => [header, response, Segment::writable(data_addr, self.len as u32)],
            Direction::Write => [header, Segment::readable(data_addr, self.len as u32), response],
        }
    }

    // --- the loop ---

    /// Sends what `work` has for all free slots: to be called while nothing is in flight.
    pub(super) fn prime<W: Work>(&mut self, work: &mut W) {
        let now = Tsc::now();
        for slot in 0..self.slots.len() {
            if let Some(io) = work.next(self.slot_data(slot)) {
                self.send(slot, self.slots[slot].lines, io, now);
            }
        }
        self.publish();
    }

    /// Takes back what has come, up to a batch, and with `refill` sends as many again. Returns how many came.
    ///
    /// The clock is read once: a command's latency counts from the turn that sent it to the turn that takes it back.
    #[inline(never)]
    pub(super) fn turn<W: Work>(&mut self, work: &mut W, meter: &mut Meter, tally: &mut Tally, refill: bool) -> usize {
        let mut came = [0u16; BATCH];
        let mut count = 0;
        while count < BATCH
            && let Some(used) = self.driver.pop_used()
        {
            // The device had these lines last: have all of them on the way at once.
            let slot = &self.slots[used.token];
            slot.lines.checked().prefetch(slot.io.direction);
            came[count] = used.token as u16;
            count += 1;
        }
        if count == 0 {
            return 0;
        }
        let now = Tsc::now();
        for &slot in &came[..count] {
            let slot = usize::from(slot);
            let Slot { lines, started, io, .. } = self.slots[slot];
            let lines = lines.checked();
            let failure = if reply::is_good(lines.verdict()) { None } else { failure(lines) };
            match failure {
                None => meter.record(now - started),
                Some(failure) => tally.count(failure),
            }
            work.done(io, self.slot_data(slot), failure.is_none());
            if refill && let Some(io) = work.next(self.slot_data(slot)) {
                self.send(slot, lines, io, now);
            }
        }
        self.publish();
        count
    }

    #[inline(always)]
    fn send(&mut self, index: usize, lines: SlotLines, io: Io, now: Tsc) {
        lines.set_lba(io.direction, self.width, io.piece * self.blocks_per_piece);
        lines.clear_response();
        let slot = &mut self.slots[index];
        slot.started = now;
        slot.io = io;
        match &slot.chain {
            Some(chain) => self.driver.submit(chain),
            None => self.add(index, io.direction),
        }
    }

    fn add(&mut self, slot: usize, direction: Direction) {
        let segments = self.segments(slot, direction);
        let added = if self.indirect {
            let (table, table_addr) = self.lines.table(slot, direction);
            self.driver.add_indirect(&segments, table_addr, table, slot)
        } else {
            self.driver.add(&segments, slot)
        };
        added.expect("the ring holds every slot: checked with the arguments");
    }

    #[inline(always)]
    fn publish(&mut self) {
        if self.driver.publish() {
            self.fds.kick.signal();
        }
    }

    #[inline(always)]
    fn slot_data(&self, slot: usize) -> SlotData {
        SlotData::new(self.data, slot * self.data_stride, self.len)
    }

    /// Commands that did not come back.
    #[inline]
    pub(super) fn in_flight(&self) -> u16 {
        self.driver.in_flight()
    }

    /// What the device did wrong with the ring, if it did.
    pub(super) fn fault(&self) -> Option<UsedFault> {
        self.driver.fault()
    }

    // --- interrupts ---

    /// Asks for a call at the next command that comes back; true if one is back already.
    pub(super) fn enable_calls(&mut self) -> bool {
        self.driver.enable_calls()
    }

    /// Asks for no more calls and forgets those that came.
    pub(super) fn disable_calls(&mut self) {
        self.driver.disable_calls();
        self.fds.call.drain();
    }

    // --- start-up ---

    /// Fills the data of all slots, so that no target gets away with data that is easy.
    pub(super) fn fill_data(&mut self, mut number: impl FnMut() -> u64) {
        let mut rest = self.data;
        while rest.len() >= 8 {
            let (word, behind) = rest.split_at(8);
            word.write(&number().to_le_bytes());
            rest = behind;
        }
    }

    /// Sends one command by itself and waits for it. `wait` is called between two looks, and ends the wait by an error.
    ///
    /// # Errors
    /// That of `wait`, or a ring that the device broke.
    pub(super) fn exchange(
        &mut self,
        cdb: &[u8],
        data_len: usize,
        mut wait: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Reply> {
        let lines = self.lines.slot(0);
        lines.write_header(Direction::Read, self.lun, self.tag_base, cdb);
        lines.clear_response();
        let mut segments = self.segments(0, Direction::Read);
        segments[2].len = data_len as u32;
        let count = if data_len == 0 { 2 } else { 3 };
        self.driver.add(&segments[..count], 0).context("request ring")?;
        self.publish();
        while self.driver.pop_used().is_none() {
            if let Some(fault) = self.fault() {
                return Err(fault).context("the device broke the used ring");
            }
            wait()?;
        }
        let mut data = vec![0; data_len];
        self.data.read(&mut data);
        Ok(Reply { failure: failure(lines), data })
    }
}

#[cold]
#[inline(never)]
fn failure(lines: SlotLines) -> Option<Failure> {
    reply::failure(&lines.response())
}

#[cfg(test)]
mod tests;
