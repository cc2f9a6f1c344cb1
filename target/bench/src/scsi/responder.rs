//! The null responder: a thread that answers every command at once with GOOD and touches no data. What a run against it
//! reaches is the ceiling of the load generator itself; there is no vhost-user and no SCSI in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, ensure};
use guest_memory::{Mapping, MemTable};
use reactor::affinity;
use virtio_scsi::wire::RESPONSE_HEADER_LEN;
use virtqueue::split::SplitDevice;
use virtqueue::{ChainBatch, Features};

use super::Args;
use super::layout::{FIRST_REQUEST_RING, Layout, Memory};
use crate::cores;

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Responder {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The device side of the request rings.
pub(super) struct Device {
    queues: Vec<SplitDevice>,
    table: MemTable,
    batch: ChainBatch,
}

impl Responder {
    /// Starts the thread on the request rings of the layout.
    ///
    /// # Errors
    /// The load generator is pinned, and there is no other core.
    pub(super) fn start(args: &Args, memory: &Memory, layout: &Layout) -> anyhow::Result<Responder> {
        let core = match (args.responder_core, args.core) {
            (Some(core), _) => Some(core),
            (None, Some(taken)) => Some(other_core(taken)?),
            (None, None) => None,
        };
        let mut device = Device::new(memory, layout)?;
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let body = move || {
            if let Some(core) = core
                && let Err(error) = cores::pin(core)
            {
                eprintln!("null responder: {error}");
            }
            while !until.load(Ordering::Relaxed) {
                device.poll();
            }
        };
        let thread = thread::Builder::new().name("null-responder".to_owned()).spawn(body).context("null responder")?;
        Ok(Responder { over, thread: Some(thread) })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has said by itself why it panicked, if it did.
            let _ = thread.join();
        }
    }
}

fn other_core(taken: usize) -> anyhow::Result<usize> {
    let allowed = affinity::allowed()?;
    let other = allowed.iter().copied().find(|core| *core != taken);
    other.with_context(|| format!("--core {taken}: the null responder needs another core, there is only this one"))
}

impl Device {
    pub(super) fn new(memory: &Memory, layout: &Layout) -> anyhow::Result<Device> {
        let (region, fd) = memory.region();
        let table = MemTable::new(vec![Arc::new(Mapping::map(fd, &region)?)])?;
        let rings = &layout.rings[usize::from(FIRST_REQUEST_RING)..];
        ensure!(!rings.is_empty(), "no request ring");
        let queue = |ring| {
            let areas = memory.ring(ring, layout.queue_size);
            let mut queue = SplitDevice::new(layout.queue_size, areas, 0, Features::default())?;
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

#[cfg(test)]
mod tests {
    use super::super::args::tests::parse;
    use super::*;

    #[test]
    fn responder_without_a_core_of_its_own_is_an_error_naming_it() {
        let allowed = affinity::allowed().unwrap();
        match (other_core(allowed[0]), allowed.get(1)) {
            (Ok(core), Some(second)) => assert_eq!(core, *second),
            (Err(error), None) => assert!(error.to_string().contains("needs another core")),
            (found, _) => panic!("{found:?} of {allowed:?}"),
        }
    }

    #[test]
    fn responder_dropped_ends_its_thread() {
        let args = parse("--null-responder").unwrap();
        let layout = Layout::new(&args);
        let memory = Memory::create(layout.len).unwrap();
        let responder = Responder::start(&args, &memory, &layout).unwrap();
        let over = Arc::downgrade(&responder.over);
        drop(responder);
        assert!(over.upgrade().is_none(), "the thread has let go of its half");
    }
}
