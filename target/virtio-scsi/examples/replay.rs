//! Replays fixed batches of READ(10) through one shard, polled by hand, so that `valgrind --tool=callgrind` can count the
//! instructions of a request: run it with two numbers of batches and divide the difference.
//!
//! `replay [null|malloc] [read|write] [BATCHES] [IDLE]`: batches of 32 commands of 4 KiB on a ring of 128. `IDLE` more
//! request queues, up to 253, are started and never used.

use std::sync::Arc;

use bdev::{Bdev, Counted, Malloc, Null};
use crossbeam::channel;
use guest_memory::{Mapping, MemTable, Pages, RegionConfig, SharedMemory};
use reactor::{Source, Tsc};
use rustix::event::{EventfdFlags, eventfd};
use scsi::{Identity, LogicalUnit, LogicalUnitConfig, Naa};
use vhost_user::{Notifier, Shard as _};
use virtio_scsi::{Controller, ControllerConfig, Limits, Unit};
use virtqueue::split::{SplitDevice, SplitDriver};
use virtqueue::{Features, RingAddresses, Segment, SplitLayout};

const RING: u16 = 128;
const BATCH: u64 = 32;
const BLOCKS: u64 = 1 << 17;
/// Guest memory: the busy ring, one slot of 8 KiB a command, the idle rings.
const RING_AREA: u64 = 16 << 10;
const SLOT: u64 = 8 << 10;

fn main() {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_else(|| "null".into());
    let write = args.next().is_some_and(|word| word == "write");
    let batches: u64 = args.next().and_then(|word| word.parse().ok()).unwrap_or(10_000);
    let idle: u16 = args.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let bdev: Arc<dyn Bdev> = match kind.as_str() {
        "malloc" => Arc::new(Malloc::new("malloc", BLOCKS * 512, 512).expect("memory")),
        _ => Arc::new(Null::new("null", BLOCKS, 512).expect("geometry")),
    };
    let bdev = Arc::new(Counted::new(bdev)); // as the target does
    let identity = Identity::new("RINGSIDE", "replay", "1", "1", Naa::local(1)).expect("valid");
    let logical_unit = LogicalUnit::new(LogicalUnitConfig::new(identity, 512, BLOCKS));
    let controller = Controller::new(ControllerConfig {
        name: "replay".into(),
        request_queues: 1 + idle,
        queue_size_max: RING,
        limits: Limits::default(),
        units: vec![Arc::new(Unit { target: 0, lun: 0, logical_unit, bdev })],
    });
    let (reports, _) = channel::bounded(1);
    let mut shard = controller.connect(&[], &reports).shards.remove(0);

    let idle_rings = RING_AREA + SLOT * u64::from(RING);
    let len = (idle_rings + RING_AREA * u64::from(idle)) as usize;
    let memory = SharedMemory::create("replay", len, Pages::Small).expect("memory");
    let size = memory.len() as u64;
    let region = RegionConfig { guest_addr: 0, size, user_addr: 0, mmap_offset: 0 };
    let table =
        Arc::new(MemTable::new(vec![Arc::new(Mapping::map(memory.fd(), &region).expect("map"))]).expect("table"));
    let (back, _table) = channel::bounded(1);
    shard.rings().swap_table(Arc::clone(&table), &[], back);
    for ring in 0..=idle {
        let at = if ring == 0 { 0 } else { idle_rings + RING_AREA * u64::from(ring - 1) };
        let device = SplitDevice::new(RING, addresses(&table, at), 0, Features { event_idx: true }).expect("ring");
        let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
        shard.rings().start(2 + ring, device, Some(Notifier::new(kick)));
        shard.rings().enable(2 + ring);
    }
    let own = MemTable::new(vec![Arc::new(Mapping::map(memory.fd(), &region).expect("map"))]).expect("table");
    let mut driver = SplitDriver::new(RING, addresses(&own, 0), Features { event_idx: true }).expect("ring");
    driver.disable_calls();
    let chains: Vec<_> =
        (0..BATCH).map(|index| driver.prepare(&segments(&memory, index, write), 0).expect("room")).collect();

    let mut done = 0u64;
    for batch in 0..batches {
        chains.iter().for_each(|chain| driver.submit(chain));
        driver.publish();
        if batch < 3 {
            // What nobody uses goes cold, as it would within 20 ms.
            shard.cool();
        }
        while driver.in_flight() > 0 {
            shard.poll(Tsc::now());
            while driver.pop_used().is_some() {
                done += 1;
            }
        }
    }
    let stats = controller.stats();
    let errors: u64 = stats.iter().map(|block| block.units[0].errors.value()).sum();
    println!("{done} commands, {errors} errors");
    // The first command of a session reports its unit attention.
    assert!(errors <= 1 && done == batches * BATCH);
}

fn addresses(table: &MemTable, area: u64) -> RingAddresses {
    let part = |at: u64, len: usize| table.translate(area + at, len as u32).expect("mapped");
    RingAddresses {
        desc: part(0, SplitLayout::desc_len(RING)),
        avail: part(4 << 10, SplitLayout::avail_len(RING)),
        used: part(8 << 10, SplitLayout::used_len(RING)),
    }
}

/// Header at the start of the slot, response at 256, data in the second half; READ(10) or WRITE(10) of 8 blocks.
fn segments(memory: &SharedMemory, index: u64, write: bool) -> Vec<Segment> {
    let slot = RING_AREA + SLOT * index;
    let lba = ((index * 2741) % (BLOCKS / 8) * 8) as u32;
    let mut header = [0u8; 51];
    header[..8].copy_from_slice(&[1, 0, 0x40, 0, 0, 0, 0, 0]);
    header[8..16].copy_from_slice(&index.to_le_bytes());
    header[19] = if write { 0x2a } else { 0x28 };
    header[21..25].copy_from_slice(&lba.to_be_bytes());
    header[26..28].copy_from_slice(&8u16.to_be_bytes());
    memory.slice().subslice(slot as usize, 51).expect("inside").write(&header);
    let (request, response) = (Segment::readable(slot, 51), Segment::writable(slot + 256, 108));
    if write {
        vec![request, Segment::readable(slot + 4096, 4096), response]
    } else {
        vec![request, response, Segment::writable(slot + 4096, 4096)]
    }
}
