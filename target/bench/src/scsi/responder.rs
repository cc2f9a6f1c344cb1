//! What the null responder answers: GOOD to every command at once, without touching data.

use std::sync::Arc;

use anyhow::ensure;
use guest_memory::{Mapping, MemTable};
use virtio_scsi::wire::RESPONSE_HEADER_LEN;
use virtqueue::{ChainBatch, DeviceQueue, Features};

use super::layout::{FIRST_REQUEST_RING, Layout};
use crate::memory::{Memory, RingPlace};

/// The device side of the request rings.
pub(super) struct Device {
    queues: Vec<DeviceQueue>,
    table: MemTable,
    batch: ChainBatch,
}

impl Device {
    pub(super) fn new(memory: &Memory, layout: &Layout) -> anyhow::Result<Device> {
        let (region, fd) = memory.region();
        let table = MemTable::new(vec![Arc::new(Mapping::map(fd, &region)?)])?;
        let rings = &layout.rings[usize::from(FIRST_REQUEST_RING)..];
        ensure!(!rings.is_empty(), "no request ring");
        let queue = |ring: &RingPlace| {
            let areas = memory.ring(ring, layout.queue_size);
            let mut queue =
                DeviceQueue::new(ring.format, layout.queue_size, areas, ring.format.first_base(), Features::default())?;
            queue.disable_notifications();
            anyhow::Ok(queue)
        };
        let queues = rings.iter().map(queue).collect::<Result<_, _>>()?;
        Ok(Device { queues, table, batch: ChainBatch::new(BATCH, 4 * BATCH) })
    }

    /// Answers what is there, up to a batch on each queue.
    pub(super) fn poll(&mut self) {
        for queue in &mut self.queues {
            if queue.pop(&self.table, BATCH, &mut self.batch) == 0 {
                continue;
            }
            let responses = || self.batch.chains().iter().map(|chain| (chain, self.batch.writable(chain)));
            for (_, writable) in responses() {
                writable[0].prefetch_write();
            }
            for (chain, writable) in responses() {
                let header = writable[0].subslice(0, RESPONSE_HEADER_LEN).expect("a response is longer");
                header.write(&[0; RESPONSE_HEADER_LEN]);
                queue.complete(chain.head, chain.writable_bytes as u32);
            }
            queue.publish();
        }
    }
}

/// Chains answered at once.
const BATCH: usize = 32;
