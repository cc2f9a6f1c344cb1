//! Replays fixed batches of READ(10) or WRITE(10) through shards that are polled by hand, so that `valgrind --tool=callgrind`
//! can count the instructions of a request: run it with two numbers of batches and divide the difference. The device's part
//! is what happens within `device_poll`, the driver's within `driver_submit` and `driver_take`.
//!
//! `replay [null|malloc] [read|write] [split|packed] [WORD=NUMBER …]`: batches of 32 commands of 4 KiB on a ring of 128.
//!
//! * `batches=10000`: how many, of each busy queue.
//! * `pollers=1`: shards, each with one busy queue, polled in turn.
//! * `units=1`: logical units on a block device each; pollers are dealt out over them.
//! * `time_ms=0`: not batches but time, each poller and its driver in a thread of its own on a core of its own; prints what they
//!   did together, as JSON: `scripts/bench.sh --only padding/`.
//! * `busy=N`: of those threads, how many there are; the others' queues stay empty. Default: all.
//! * `core=A` and `other=B`: their cores. Default: the first two of this process.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bdev::{Bdev, Counted, Malloc, Null};
use crossbeam::channel;
use guest_memory::{Mapping, MemTable, Pages, RegionConfig, SharedMemory};
use reactor::{IdlePolicy, Reactor, ReactorConfig, Source, Tsc};
use rustix::event::{EventfdFlags, eventfd};
use scsi::{Identity, LogicalUnit, LogicalUnitConfig, Naa};
use vhost_user::{Notifier, RingSet, Shard as _};
use virtio_scsi::{Controller, ControllerConfig, Limits, Shard, Unit};
use virtqueue::{DeviceQueue, DriverQueue, Features, Prepared, RingAddresses, RingFormat, Segment};

const RING: u16 = 128;
const BATCH: u64 = 32;
const BLOCKS: u64 = 1 << 17;
const FIRST_REQUEST_QUEUE: u16 = 2;
const FEATURES: Features = Features { event_idx: true };
/// Guest memory: one area for each queue, its ring and one slot of 8 KiB a command.
const RING_AREA: u64 = 16 << 10;
const SLOT: u64 = 8 << 10;
const QUEUE_AREA: u64 = RING_AREA + SLOT * BATCH;

/// What is replayed.
struct Case {
    disk: fn() -> Arc<dyn Bdev>,
    write: bool,
    format: RingFormat,
    batches: u64,
    pollers: u16,
    idle: u16,
    in_order: bool,
    units: u16,
    time: Duration,
    busy: u16,
    cores: [Option<usize>; 2],
}

/// The driver's side of a busy queue.
struct Busy {
    driver: DriverQueue,
    chains: Vec<Prepared>,
    done: u64,
}

fn main() {
    let case = Case::parse(std::env::args().skip(1));
    let Case { write, format, batches, pollers, idle, in_order, units, .. } = case;
    let controller = controller(case.disk, units, pollers + idle);
    let mut shards = connect(&controller, pollers);
    let memory = SharedMemory::create("replay", (QUEUE_AREA * u64::from(pollers + idle)) as usize, Pages::Small)
        .expect("memory");
    let (table, own) = (Arc::new(map(&memory)), map(&memory));
    let mut returned = Vec::new();
    for shard in &mut shards {
        let (back, old) = channel::bounded(1);
        shard.rings().swap_table(Arc::clone(&table), &[], back);
        returned.push(old);
    }
    for queue in 0..pollers + idle {
        start(shards[usize::from(queue % pollers)].rings(), queue, (format, in_order), &table);
    }
    let new = |queue| Busy::new(queue, queue % units, (format, in_order), &memory, &own, write);
    let mut busy: Vec<Busy> = (0..pollers).map(new).collect();
    if !case.time.is_zero() {
        busy.truncate(usize::from(case.busy.min(pollers)));
        return side_by_side(shards, busy, case.cores, case.time);
    }

    for batch in 0..batches {
        busy.iter_mut().for_each(driver_submit);
        for (shard, busy) in shards.iter_mut().zip(&mut busy) {
            if batch < 3 {
                // What nobody uses goes cold, as it would within 20 ms.
                shard.cool();
            }
            while busy.driver.in_flight() > 0 {
                device_poll(shard);
                driver_take(busy);
            }
        }
    }
    let (done, stats) = (busy.iter().map(|busy| busy.done).sum::<u64>(), controller.stats());
    let errors: u64 =
        stats.iter().flat_map(|block| (0..usize::from(units)).map(|unit| block.units[unit].errors.value())).sum();
    println!("{done} commands, {errors} errors");
    // The first command of a session reports its unit's attention.
    assert!(errors <= units.into() && done == batches * BATCH * u64::from(pollers));
}

/// Each poller with its driver on a core of its own, for so long.
fn side_by_side(shards: Vec<Shard>, busy: Vec<Busy>, wanted: [Option<usize>; 2], time: Duration) {
    let mut cores = reactor::affinity::allowed().expect("the cores of this process");
    cores.iter_mut().zip(wanted).for_each(|(core, wanted)| *core = wanted.unwrap_or(*core));
    assert!(cores.len() >= busy.len(), "{} pollers on {} cores", busy.len(), cores.len());
    let start = Barrier::new(busy.len());
    let rates: Vec<f64> = thread::scope(|scope| {
        let threads: Vec<_> = cores
            .iter()
            .zip(shards.into_iter().zip(busy))
            .map(|(core, (mut shard, mut busy))| {
                let start = &start;
                scope.spawn(move || {
                    assert!(core_affinity::set_for_current(core_affinity::CoreId { id: *core }), "core {core}");
                    let mut turns = |until: Instant| {
                        let before = busy.done;
                        while Instant::now() < until {
                            for _ in 0..16 {
                                driver_submit(&mut busy);
                                while busy.driver.in_flight() > 0 {
                                    device_poll(&mut shard);
                                    driver_take(&mut busy);
                                }
                            }
                        }
                        (busy.done - before) as f64
                    };
                    start.wait();
                    turns(Instant::now() + time / 8);
                    let begun = Instant::now();
                    let done = turns(begun + time);
                    done / begun.elapsed().as_secs_f64()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    println!("{{\"iops\":{:.0},\"errors\":0}}", rates.iter().sum::<f64>());
}

/// The device's part of the replay: `scripts/cost.sh` counts what happens in here.
#[inline(never)]
fn device_poll(shard: &mut Shard) {
    shard.poll(Tsc::now());
}

#[inline(never)]
fn driver_submit(busy: &mut Busy) {
    busy.chains.iter().for_each(|chain| busy.driver.submit(chain));
    busy.driver.publish();
}

#[inline(never)]
fn driver_take(busy: &mut Busy) {
    while busy.driver.pop_used().is_some() {
        busy.done += 1;
    }
}

impl Case {
    fn parse(mut args: impl Iterator<Item = String>) -> Case {
        let mut word = |default: &str| args.next().unwrap_or_else(|| default.into());
        // Counted, as the target does.
        let disk: fn() -> Arc<dyn Bdev> = match word("null").as_str() {
            "null" => || Arc::new(Counted::new(Arc::new(Null::new("null", BLOCKS, 512).expect("geometry")))),
            "malloc" => || Arc::new(Counted::new(Arc::new(Malloc::new("malloc", BLOCKS * 512, 512).expect("memory")))),
            other => panic!("block device '{other}': null or malloc"),
        };
        let write = match word("read").as_str() {
            "read" => false,
            "write" => true,
            other => panic!("operation '{other}': read or write"),
        };
        let format = match word("split").as_str() {
            "split" => RingFormat::Split,
            "packed" => RingFormat::Packed,
            other => panic!("ring format '{other}': split or packed"),
        };
        let (time, busy) = (Duration::ZERO, u16::MAX);
        let mut case = Case {
            disk,
            write,
            format,
            batches: 10_000,
            pollers: 1,
            idle: 0,
            in_order: false,
            units: 1,
            time,
            busy,
            cores: [None; 2],
        };
        for pair in args {
            match pair.split_once('=').map(|(key, value)| (key, value.parse::<u64>().expect("a number"))) {
                Some(("batches", value)) => case.batches = value,
                Some(("pollers", value)) => case.pollers = value as u16,
                Some(("idle", value)) => case.idle = value as u16,
                Some(("in_order", value)) => case.in_order = value != 0,
                Some(("units", value)) => case.units = value as u16,
                Some(("time_ms", value)) => case.time = Duration::from_millis(value),
                Some(("busy", value)) => case.busy = value as u16,
                Some(("core", value)) => case.cores[0] = Some(value as usize),
                Some(("other", value)) => case.cores[1] = Some(value as usize),
                _ => panic!("'{pair}': batches=, pollers=, idle=, in_order=, units=, time_ms=, busy=, core= or other="),
            }
        }
        case
    }
}

impl Busy {
    fn new(
        queue: u16,
        unit: u16,
        (format, in_order): (RingFormat, bool),
        memory: &SharedMemory,
        own: &MemTable,
        write: bool,
    ) -> Busy {
        let mut driver = DriverQueue::new(format, RING, addresses(own, queue, format), FEATURES).expect("ring");
        if in_order {
            driver.expect_in_order();
        }
        driver.disable_calls();
        let chains = (0..BATCH)
            .map(|index| {
                let slot = QUEUE_AREA * u64::from(queue) + RING_AREA + SLOT * index;
                let number = BATCH * u64::from(queue) + index; // no two queues have blocks in common
                driver.prepare(&segments(memory, slot, unit, number, write), 0).expect("room")
            })
            .collect();
        Busy { driver, chains, done: 0 }
    }
}

fn controller(disk: fn() -> Arc<dyn Bdev>, units: u16, request_queues: u16) -> Controller {
    let unit = |lun: u16| {
        let identity = Identity::new("RINGSIDE", "replay", "1", "1", Naa::local(lun.into())).expect("valid");
        let logical_unit = LogicalUnit::new(LogicalUnitConfig::new(identity, 512, BLOCKS));
        Arc::new(Unit { target: 0, lun, logical_unit, bdev: disk() })
    };
    Controller::new(ControllerConfig {
        name: "replay".into(),
        request_queues,
        queue_size_max: RING,
        in_order: true,
        limits: Limits::default(),
        units: (0..units).map(unit).collect(),
    })
}

/// Shards for this many pollers, which are not asked to poll them.
fn connect(controller: &Controller, pollers: u16) -> Vec<Shard> {
    let (reports, _) = channel::bounded(1);
    if pollers == 1 {
        return controller.connect(&[], &reports).shards;
    }
    let core = reactor::affinity::allowed().expect("a core")[0];
    let reactor = Reactor::start(&ReactorConfig { cores: vec![core], idle: IdlePolicy::Adaptive }).expect("a poller");
    let handles = vec![reactor.pollers()[0].clone(); usize::from(pollers)];
    reactor.shutdown();
    controller.connect(&handles, &reports).shards
}

fn start(rings: &mut RingSet, queue: u16, (format, in_order): (RingFormat, bool), table: &MemTable) {
    let areas = addresses(table, queue, format);
    let device = DeviceQueue::new(format, RING, areas, format.first_base(), FEATURES).expect("ring");
    let device = if in_order { device.in_order() } else { device };
    let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let index = FIRST_REQUEST_QUEUE + queue;
    drop(rings.start(index, device, Some(Notifier::new(kick))));
    rings.enable(index);
}

fn map(memory: &SharedMemory) -> MemTable {
    let region = RegionConfig { guest_addr: 0, size: memory.len() as u64, user_addr: 0, mmap_offset: 0 };
    MemTable::new(vec![Arc::new(Mapping::map(memory.fd(), &region).expect("map"))]).expect("table")
}

fn addresses(table: &MemTable, queue: u16, format: RingFormat) -> RingAddresses {
    let [desc, driver, device] = format.area_lens(RING);
    let part = |at: u64, len: usize| table.translate(QUEUE_AREA * u64::from(queue) + at, len as u32).expect("mapped");
    RingAddresses { desc: part(0, desc), avail: part(4 << 10, driver), used: part(8 << 10, device) }
}

/// Header at the start of the slot, response at 256, data in the second half; READ(10) or WRITE(10) of 8 blocks.
fn segments(memory: &SharedMemory, slot: u64, unit: u16, index: u64, write: bool) -> Vec<Segment> {
    let lba = ((index * 2741) % (BLOCKS / 8) * 8) as u32;
    let mut header = [0u8; 51];
    header[..8].copy_from_slice(&[1, 0, 0x40, unit as u8, 0, 0, 0, 0]);
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
