//! A front-end that does nothing but send memory tables of a large, sparse memory: what its neighbours on the same poller
//! must not notice. `scripts/bench.sh` measures whether they do. No ring and no request in here.
//!
//! `swap_table SOCKET [--swaps 100] [--gib 16] [--resident-mib 64] [--interval-ms 20]`

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use guest_memory::{Pages, RegionConfig, SharedMemory};
use vhost_user::frontend::Frontend;
use vhost_user::message::protocol;

/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;

/// Sends memory tables to a controller and says how long each took.
#[derive(Parser)]
struct Args {
    /// The controller's socket.
    socket: PathBuf,
    /// How many tables.
    #[arg(long, default_value_t = 100)]
    swaps: u32,
    /// Size of the memory.
    #[arg(long, default_value_t = 16)]
    gib: usize,
    /// How much of it is there; the rest are holes.
    #[arg(long, default_value_t = 64)]
    resident_mib: usize,
    /// Time from one table to the next.
    #[arg(long, default_value_t = 20)]
    interval_ms: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let memory = SharedMemory::create("swap-table", args.gib << 30, Pages::Small).context("memory")?;
    let resident = memory.slice().subslice(0, args.resident_mib << 20).context("--resident-mib is more than --gib")?;
    resident.fill(1);
    let region = RegionConfig { guest_addr: 0, size: memory.len() as u64, user_addr: 1 << 40, mmap_offset: 0 };
    let mut frontend = Frontend::connect(&args.socket)?;
    frontend.set_reply_timeout(Some(Duration::from_secs(60)))?;
    frontend.set_owner()?;
    frontend.negotiate(VERSION_1, protocol::REPLY_ACK)?;
    let mut longest = Duration::ZERO;
    for _ in 0..args.swaps {
        let since = Instant::now();
        frontend.set_mem_table(&[(region, memory.fd())])?;
        longest = longest.max(since.elapsed());
        thread::sleep(Duration::from_millis(args.interval_ms));
    }
    println!("{} tables of {} GiB, the longest took {:.1} ms", args.swaps, args.gib, longest.as_secs_f64() * 1e3);
    Ok(())
}
