//! What a split ring costs per chain: the device side pops, completes and publishes a fixed number of chains, the driver
//! side takes them back and submits them again. Both in one thread: nothing is said here about caches between cores.
//!
//! ```text
//! cargo build --release -p virtqueue --example ring_cost
//! valgrind --tool=callgrind --toggle-collect='*device_turn*' .build/release/examples/ring_cost indirect3 32 1000
//! ```
//!
//! The arguments are the shape (`direct` or `indirect`, and the number of buffers), chains a batch, and batches. The
//! instructions collected, divided by the number of chains printed, are the cost of the device side; with
//! `*driver_turn*`, of the driver side.
//!
//! Measured with 32 chains a batch, one region, Rust 1.95:
//!
//! | shape | device | driver |
//! |---|---|---|
//! | direct1 | 105 | 60 |
//! | direct3 | 169 | 60 |
//! | indirect3 | 191 | 60 |
//! | direct5 | 480 | 60 |
//! | indirect34 | 1537 | 60 |

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_memory::{Mapping, MemTable, Pages, RegionConfig, SharedMemory};
use virtqueue::split::{PreparedChain, SplitDevice, SplitDriver};
use virtqueue::{ChainBatch, Features, RingAddresses, Segment, SplitLayout};

const SIZE: u16 = 1024;
const GUEST_ADDR: u64 = 0x1_0000_0000;
/// Rings first, then tables, then buffers.
const TABLES: usize = 0x1_0000;
const BUFFERS: u64 = 0x10_0000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let shape = args.next().unwrap_or_else(|| "direct3".into());
    let batch: usize = args.next().map_or(Ok(32), |arg| arg.parse())?;
    let turns: usize = args.next().map_or(Ok(1000), |arg| arg.parse())?;

    let memory = SharedMemory::create("ring_cost", 4 << 20, Pages::Small)?;
    let region = RegionConfig { guest_addr: GUEST_ADDR, size: memory.len() as u64, user_addr: 0, mmap_offset: 0 };
    let table = MemTable::new(vec![Arc::new(Mapping::map(memory.fd(), &region)?)])?;
    let features = Features { event_idx: true };
    let mut driver = SplitDriver::new(SIZE, rings(&memory)?, features)?;
    let mut device = SplitDevice::new(SIZE, rings(&memory)?, 0, features)?;
    driver.disable_calls();
    device.disable_notifications();

    let chains = (0..batch).map(|index| prepare(&mut driver, &memory, &shape, index)).collect::<Result<Vec<_>, _>>()?;
    let mut arena = ChainBatch::new(32, 2048);
    let mut popped = 0;
    let mut spent = Duration::ZERO;
    for _ in 0..turns {
        driver_turn(&mut driver, &chains);
        let start = Instant::now();
        popped += device_turn(&mut device, &table, &mut arena);
        spent += start.elapsed();
    }
    println!("{shape}: {popped} chains, {:.1} ns each", spent.as_nanos() as f64 / popped as f64);
    Ok(())
}

/// What a poller does with the ring in one poll, without the requests.
#[inline(never)]
fn device_turn(device: &mut SplitDevice, table: &MemTable, batch: &mut ChainBatch) -> usize {
    let mut popped = 0;
    loop {
        let count = device.pop(table, 32, batch);
        if count == 0 {
            break;
        }
        for chain in batch.chains() {
            device.complete(chain.head, 0);
        }
        black_box(device.publish());
        popped += count;
    }
    popped
}

/// What a load generator does with the ring in one poll, without the requests.
#[inline(never)]
fn driver_turn(driver: &mut SplitDriver, chains: &[PreparedChain]) {
    while let Some(used) = driver.pop_used() {
        black_box(used.token);
    }
    for chain in chains {
        driver.submit(chain);
    }
    black_box(driver.publish());
}

/// A read request: header, response, and data in pieces of 4 KiB, all of which are the same memory.
fn prepare(
    driver: &mut SplitDriver,
    memory: &SharedMemory,
    shape: &str,
    index: usize,
) -> Result<PreparedChain, Box<dyn Error>> {
    let digits = shape.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    let count: usize = digits.parse()?;
    let at = GUEST_ADDR + BUFFERS + 8192 * index as u64;
    let mut read = vec![Segment::readable(at, 51), Segment::writable(at + 64, 108)];
    read.resize(count.max(2), Segment::writable(at + 4096, 4096));
    read.truncate(count);
    let table_at = TABLES + 16 * 64 * index;
    let table = memory.slice().subslice(table_at, 16 * 64).ok_or("more than 64 chains")?;
    Ok(match &shape[..shape.len() - digits.len()] {
        "direct" => driver.prepare(&read, index)?,
        "indirect" => driver.prepare_indirect(&read, GUEST_ADDR + table_at as u64, table, index)?,
        other => return Err(format!("shape {other}: direct or indirect, and a number of descriptors").into()),
    })
}

fn rings(memory: &SharedMemory) -> Result<RingAddresses, Box<dyn Error>> {
    let part = |at: usize, len: usize| memory.slice().subslice(at, len).ok_or("no room");
    Ok(RingAddresses {
        desc: part(0, SplitLayout::desc_len(SIZE))?,
        avail: part(0x5000, SplitLayout::avail_len(SIZE))?,
        used: part(0x6000, SplitLayout::used_len(SIZE))?,
    })
}
