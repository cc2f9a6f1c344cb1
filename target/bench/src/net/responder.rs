//! The device side for tests and for the tool's own ceiling: takes frames at once, gives frames at once, or echoes. There is
//! no vhost-user in it.

use std::sync::Arc;

use guest_memory::{GuestSlice, Mapping, MemTable};
use virtqueue::{ChainBatch, DeviceQueue, Features};

use super::args::{Args, Mode};
use super::layout::Layout;
use super::wire::{HEADER_LEN, ONE_BUFFER};
use crate::memory::{Memory, RingPlace};

/// The device side of all queue pairs.
pub(super) struct Device {
    pairs: Vec<PairDevice>,
    table: MemTable,
    tx: ChainBatch,
    rx: ChainBatch,
    mode: Mode,
    /// Bytes of a frame that is made up, its header included.
    len: usize,
    /// Bytes of a receive buffer.
    buffer_len: usize,
}

struct PairDevice {
    rx: DeviceQueue,
    tx: DeviceQueue,
}

impl Device {
    pub(super) fn new(args: &Args, memory: &Memory, layout: &Layout) -> anyhow::Result<Device> {
        let (region, fd) = memory.region();
        let table = MemTable::new(vec![Arc::new(Mapping::map(fd, &region)?)])?;
        let queue = |ring: &RingPlace| {
            let areas = memory.ring(ring, layout.queue_size);
            let mut queue =
                DeviceQueue::new(ring.format, layout.queue_size, areas, ring.format.first_base(), Features::default())?;
            queue.disable_notifications();
            anyhow::Ok(queue)
        };
        let rings = layout.rings.as_chunks::<2>().0;
        let pairs = rings.iter().map(|[rx, tx]| anyhow::Ok(PairDevice { rx: queue(rx)?, tx: queue(tx)? }));
        Ok(Device {
            pairs: pairs.collect::<Result<_, _>>()?,
            table,
            tx: ChainBatch::new(BATCH, 4 * BATCH),
            rx: ChainBatch::new(BATCH, 4 * BATCH),
            mode: args.mode,
            len: args.size as usize + HEADER_LEN,
            buffer_len: args.rx_buffer as usize,
        })
    }

    /// Does what there is to do, up to a batch on each queue pair.
    pub(super) fn poll(&mut self) {
        for PairDevice { rx, tx } in &mut self.pairs {
            match self.mode {
                Mode::Tx => {
                    if tx.pop(&self.table, BATCH, &mut self.tx) > 0 {
                        self.tx.chains().iter().for_each(|chain| tx.complete(chain.head, 0));
                        tx.publish();
                    }
                }
                Mode::Rx => {
                    rx.pop(&self.table, BATCH, &mut self.rx);
                    self.rx.chains().iter().for_each(|chain| self.rx.writable(chain)[0].prefetch_write());
                    for chain in self.rx.chains() {
                        self.rx.writable(chain)[0].write(&ONE_BUFFER);
                        rx.complete(chain.head, self.len.min(chain.writable_bytes as usize) as u32);
                    }
                    rx.publish();
                }
                Mode::Loop => {
                    tx.pop(&self.table, BATCH, &mut self.tx);
                    if self.len <= self.buffer_len {
                        echo_whole(rx, &self.table, &self.tx, &mut self.rx);
                    } else {
                        let mut delivery = Delivery::new(rx, &self.table, &mut self.rx);
                        for chain in self.tx.chains() {
                            // Without a buffer the frame is lost, as with any device.
                            delivery.deliver(self.tx.readable(chain), true);
                        }
                    }
                    self.tx.chains().iter().for_each(|chain| tx.complete(chain.head, 0));
                    rx.publish();
                    tx.publish();
                }
            }
        }
    }
}

/// Writes frames into receive buffers.
pub(super) struct Delivery<'a> {
    rx: &'a mut DeviceQueue,
    table: &'a MemTable,
    batch: &'a mut ChainBatch,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(rx: &'a mut DeviceQueue, table: &'a MemTable, batch: &'a mut ChainBatch) -> Delivery<'a> {
        Delivery { rx, table, batch }
    }

    /// Writes header and frame `from` into as many buffers as it takes, or into one; false if there are not enough, in
    /// which case they are kept for the next frame.
    pub(super) fn deliver(&mut self, from: &[GuestSlice], mergeable: bool) -> bool {
        let mut left: Vec<GuestSlice> = from.to_vec();
        left.reverse();
        let mut used: Vec<(u16, GuestSlice, u32)> = Vec::new();
        while left.iter().any(|part| !part.is_empty()) {
            if (!mergeable && !used.is_empty()) || self.rx.pop(self.table, 1, self.batch) == 0 {
                self.rx.put_back(used.iter().map(|(head, ..)| *head));
                return false;
            }
            let chain = self.batch.chains()[0];
            let first = self.batch.writable(&chain)[0];
            let written = fill(self.batch.writable(&chain), &mut left);
            used.push((chain.head, first, written));
        }
        if let Some((_, first, _)) = used.first() {
            let count = (used.len() as u16).to_le_bytes();
            first.subslice(NUM_BUFFERS_AT, 2).expect("a buffer holds a header").write(&count);
        }
        used.iter().for_each(|(head, _, written)| self.rx.complete(*head, *written));
        true
    }
}

/// Writes each frame of a batch into a buffer, which holds it; those that find none are lost.
fn echo_whole(rx: &mut DeviceQueue, table: &MemTable, from: &ChainBatch, into: &mut ChainBatch) {
    rx.pop(table, from.chains().len(), into);
    for (frame, buffer) in from.chains().iter().zip(into.chains()) {
        from.readable(frame)[0].prefetch_read();
        into.writable(buffer)[0].prefetch_write();
    }
    for (frame, buffer) in from.chains().iter().zip(into.chains()) {
        let mut room = into.writable(buffer)[0];
        for part in from.readable(frame) {
            let count = part.copy_to(room);
            room = room.split_at(count).1;
        }
        into.writable(buffer)[0].subslice(NUM_BUFFERS_AT, 2).expect("a buffer holds a header").write(&[1, 0]);
        rx.complete(buffer.head, frame.readable_bytes as u32);
    }
}

/// Moves bytes from what is left, last part first, into a buffer; how many.
fn fill(buffer: &[GuestSlice], left: &mut Vec<GuestSlice>) -> u32 {
    let mut written = 0;
    for slice in buffer {
        let mut room = *slice;
        while !room.is_empty()
            && let Some(part) = left.pop()
        {
            let count = part.copy_to(room);
            written += count as u32;
            room = room.split_at(count).1;
            if count < part.len() {
                left.push(part.split_at(count).1);
            }
        }
    }
    written
}

const NUM_BUFFERS_AT: usize = 10;
/// Chains at once.
const BATCH: usize = 32;
