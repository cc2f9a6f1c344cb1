//! Replays fixed batches of frames through one queue pair, polled by hand, so that `valgrind --tool=callgrind` can count the
//! instructions of a frame: run it with two numbers of batches and divide the difference. The device's part is what happens
//! within `device_poll`, the driver's within `driver_submit` and `driver_take`.
//!
//! `replay_net [tx|rx] [BYTES] [split|packed] [batches=10000]`: batches of 32 frames on a ring of 128. The port copies what is sent
//! into memory of its own, as any port has to; what is received comes from there.

use std::sync::Arc;

use crossbeam::channel;
use guest_memory::{GuestSlice, Mapping, MemTable, Pages, RegionConfig, SharedMemory};
use port::{AttachError, Attachment, FrameBatch, Link, Mac, Offload, Offloads, Port, PortQueue, Traits};
use reactor::{Source, Tsc};
use vhost_user::{Device, Shard as _};
use virtio_net::wire::feature;
use virtio_net::{NetConfig, NetDevice, Shard};
use virtqueue::{DeviceQueue, DriverQueue, Features, Prepared, RingAddresses, RingFormat, Segment};

const RING: u16 = 128;
const BATCH: u64 = 32;
const HEADER: usize = 12;
/// Guest memory: the ring, one slot of 2 KiB a frame.
const RING_AREA: u64 = 16 << 10;
const SLOT: u64 = 2 << 10;

/// A port that is memory.
struct Buffers {
    memory: Arc<SharedMemory>,
    frame: usize,
    /// Whether it has frames for the device.
    source: bool,
}

struct Queue {
    slots: Vec<GuestSlice>,
    frame: usize,
    source: bool,
    done: usize,
    _memory: Arc<SharedMemory>,
}

impl Port for Buffers {
    fn name(&self) -> &str {
        "buffers"
    }

    fn traits(&self) -> Traits {
        let none = Offloads::empty();
        Traits { tx_offloads: none, rx_offloads: none, devices_max: 1, queues_max: 1, mtu_max: 1500, mac: None }
    }

    fn link(&self) -> Link {
        Link { up: true, speed_mbps: None }
    }

    fn attach(&self, _device: &Attachment) -> Result<Vec<Box<dyn PortQueue>>, AttachError> {
        let slot = |index: u64| self.memory.slice().subslice((index * SLOT) as usize, SLOT as usize).expect("inside");
        let slots = (0..BATCH).map(slot).collect();
        let (frame, source, memory) = (self.frame, self.source, Arc::clone(&self.memory));
        Ok(vec![Box::new(Queue { slots, frame, source, done: 0, _memory: memory })])
    }
}

impl PortQueue for Queue {
    fn tx_burst(&mut self, batch: &FrameBatch) -> usize {
        for (frame, slot) in batch.frames().zip(&self.slots) {
            let mut to = *slot;
            for segment in frame.segments {
                to = to.split_at(segment.copy_to(to)).1;
            }
        }
        self.done += batch.len();
        batch.len()
    }

    fn tx_done(&mut self) -> usize {
        std::mem::take(&mut self.done)
    }

    fn rx_burst(&mut self, batch: &mut FrameBatch, limit: usize) -> usize {
        batch.clear();
        if self.source {
            for slot in &self.slots[..limit.min(self.slots.len())] {
                batch.push(slot.split_at(self.frame).0, &[], Offload::NONE);
            }
        }
        batch.len()
    }

    fn rx_done(&mut self, _frames: usize) {}

    fn set_open(&mut self, _open: bool) {}
}

fn main() {
    let mut args = std::env::args().skip(1);
    let receive = match args.next().as_deref() {
        Some("tx") | None => false,
        Some("rx") => true,
        Some(other) => panic!("direction '{other}': tx or rx"),
    };
    let bytes: usize = args.next().map_or(64, |word| word.parse().expect("bytes of a frame"));
    let format = match args.next().as_deref() {
        Some("split") | None => RingFormat::Split,
        Some("packed") => RingFormat::Packed,
        Some(other) => panic!("ring format '{other}': split or packed"),
    };
    let batches = args.next().map_or(10_000, |word| {
        word.strip_prefix("batches=").and_then(|number| number.parse().ok()).expect("batches=NUMBER")
    });
    let port_memory = SharedMemory::create("port", (BATCH * SLOT) as usize, Pages::Small).expect("memory");
    let port = Buffers { memory: Arc::new(port_memory), frame: bytes, source: receive };
    let config = NetConfig {
        name: "replay".into(),
        queue_pairs: 1,
        queue_size_max: RING,
        mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
        mtu: 1500,
        offloads: true,
        isolated: false,
    };
    let device = NetDevice::new(config, Arc::new(port), &[]).expect("a port that takes it");
    let (reports, _) = channel::bounded(1);
    let mut shard = device.connect(&[], &reports).shards.remove(0);
    shard.set_features(feature::VERSION_1 | feature::MRG_RXBUF);

    let len = (RING_AREA + SLOT * u64::from(RING)) as usize;
    let memory = SharedMemory::create("replay", len, Pages::Small).expect("memory");
    let region = RegionConfig { guest_addr: 0, size: memory.len() as u64, user_addr: 0, mmap_offset: 0 };
    let map = || MemTable::new(vec![Arc::new(Mapping::map(memory.fd(), &region).expect("map"))]).expect("table");
    let (table, own) = (Arc::new(map()), map());
    let (back, _table) = channel::bounded(1);
    shard.rings().swap_table(Arc::clone(&table), &[], back);
    let (ring, features) = (u16::from(!receive), Features { event_idx: false });
    let queue = DeviceQueue::new(format, RING, addresses(&table, format), format.first_base(), features).expect("ring");
    drop(shard.rings().start(ring, queue, None));
    shard.rings().enable(ring);
    let mut driver = DriverQueue::new(format, RING, addresses(&own, format), features).expect("ring");
    driver.disable_calls();
    let segment = |index| {
        let at = RING_AREA + SLOT * index;
        if receive { Segment::writable(at, SLOT as u32) } else { Segment::readable(at, (HEADER + bytes) as u32) }
    };
    let chains: Vec<_> = (0..BATCH).map(|index| driver.prepare(&[segment(index)], 0).expect("room")).collect();

    // The first poll opens the port: frames from before are not the driver's.
    device_poll(&mut shard);
    let mut done = 0u64;
    for _ in 0..batches {
        driver_submit(&mut driver, &chains);
        while driver.in_flight() > 0 {
            device_poll(&mut shard);
            done += driver_take(&mut driver);
        }
    }
    println!("{done} frames");
    assert_eq!(done, batches * BATCH);
    drop((table, own, memory));
}

/// The device's part of the replay: `scripts/cost.sh` counts what happens in here.
#[inline(never)]
fn device_poll(shard: &mut Shard) {
    shard.poll(Tsc::now());
}

#[inline(never)]
fn driver_submit(driver: &mut DriverQueue, chains: &[Prepared]) {
    chains.iter().for_each(|chain| driver.submit(chain));
    driver.publish();
}

#[inline(never)]
fn driver_take(driver: &mut DriverQueue) -> u64 {
    let mut done = 0;
    while driver.pop_used().is_some() {
        done += 1;
    }
    done
}

fn addresses(table: &MemTable, format: RingFormat) -> RingAddresses {
    let [desc, driver, device] = format.area_lens(RING);
    let part = |at: u64, len: usize| table.translate(at, len as u32).expect("mapped");
    RingAddresses { desc: part(0, desc), avail: part(4 << 10, driver), used: part(8 << 10, device) }
}
