//! Front-ends that are connected, have started every ring, and do nothing: what a busy neighbour on the same poller must hardly
//! notice. `scripts/bench.sh` measures whether it does. No request in here.
//!
//! `idle_front_ends [--queues 4] SOCKET…` says `ready` when all are started, and ends with its standard input.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use guest_memory::{Pages, RegionConfig, SharedMemory};
use rustix::event::{EventfdFlags, eventfd};
use vhost_user::frontend::Frontend;
use vhost_user::message::{VringAddresses, protocol};
use virtqueue::SplitLayout;

/// VIRTIO_F_VERSION_1 and VIRTIO_F_EVENT_IDX, as a Linux guest has them.
const FEATURES: u64 = 1 << 32 | 1 << 29;
/// Descriptors of a ring.
const SIZE: u16 = 128;
/// Distance of two rings in memory, and of the parts of one.
const STRIDE: usize = 16 << 10;
const PART: usize = STRIDE / 4;
/// Where the memory is in the front-end's own address space.
const USER_ADDR: u64 = 1 << 40;

/// Connects to virtio-scsi controllers and does nothing with them.
#[derive(Parser)]
struct Args {
    /// Request queues of each.
    #[arg(long, default_value_t = 4)]
    queues: u8,
    /// The controllers' sockets.
    #[arg(required = true)]
    sockets: Vec<PathBuf>,
}

/// One of them. It hangs up when it is dropped.
struct Idle {
    _frontend: Frontend,
    _memory: SharedMemory,
    _fds: Vec<OwnedFd>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // Control and event queue come first (virtio 1.3 §5.6.2).
    let connect = |socket: &PathBuf| connect(socket, args.queues + 2).with_context(|| socket.display().to_string());
    let idle = args.sockets.iter().map(connect).collect::<anyhow::Result<Vec<Idle>>>()?;
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new()).context("standard input")?;
    drop(idle);
    Ok(())
}

fn connect(socket: &Path, rings: u8) -> anyhow::Result<Idle> {
    let memory = SharedMemory::create("idle", usize::from(rings) * STRIDE, Pages::Small).context("memory")?;
    let region = RegionConfig { guest_addr: 0, size: memory.len() as u64, user_addr: USER_ADDR, mmap_offset: 0 };
    let mut frontend = Frontend::connect(socket)?;
    frontend.set_reply_timeout(Some(Duration::from_secs(60)))?;
    frontend.set_owner()?;
    frontend.negotiate(FEATURES, protocol::REPLY_ACK | protocol::MQ | protocol::CONFIG)?;
    frontend.set_mem_table(&[(region, memory.fd())])?;
    let mut fds = Vec::new();
    for ring in 0..rings {
        let (call, kick) = (notifier()?, notifier()?);
        start(&mut frontend, ring, &call, &kick)?;
        fds.extend([call, kick]);
    }
    Ok(Idle { _frontend: frontend, _memory: memory, _fds: fds })
}

/// Starts an empty ring.
fn start(frontend: &mut Frontend, ring: u8, call: &OwnedFd, kick: &OwnedFd) -> anyhow::Result<()> {
    const { assert!(SplitLayout::desc_len(SIZE) <= PART && SplitLayout::used_len(SIZE) <= PART) };
    let index = u32::from(ring);
    let part = |number: usize| USER_ADDR + (usize::from(ring) * STRIDE + number * PART) as u64;
    let (desc_user, avail_user, used_user) = (part(0), part(1), part(2));
    frontend.set_vring_num(index, SIZE.into())?;
    frontend.set_vring_base(index, 0)?;
    frontend
        .set_vring_addr(index, &VringAddresses { desc_user, avail_user, used_user, ..VringAddresses::default() })?;
    frontend.set_vring_call(ring, Some(call.as_fd()))?;
    frontend.set_vring_kick(ring, Some(kick.as_fd()))?;
    frontend.set_vring_enable(index, true)?;
    Ok(())
}

fn notifier() -> anyhow::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("eventfd")
}
