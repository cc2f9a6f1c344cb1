//! File devices against real files: on tmpfs and on the disk of this machine, past the page cache and through it.
//! The steps in here; what is expected is in the modules.

mod block_device;
mod block_status;
mod bulk;
mod data;
mod faults;
mod opening;
mod waking;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bdev::{Bdev, Channel, Completion, Io, Op, Status, Submitted, Token};
use bdev_file::{File, FileConfig};
use guest_memory::{GuestSlice, Pages, SharedMemory};
use reactor::clock::Tsc;
use tempfile::TempDir;

const NOW: Tsc = Tsc(1);
/// Longer than any file system takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory of a guest.
struct Guest(SharedMemory);

impl Guest {
    fn new(size: usize) -> Guest {
        Guest(SharedMemory::create("guest", size, Pages::Small).unwrap())
    }

    fn at(&self, offset: usize, len: usize) -> GuestSlice {
        self.0.slice().subslice(offset, len).unwrap()
    }

    fn put(&self, buffers: &[GuestSlice], bytes: &[u8]) {
        let mut rest = bytes;
        for buffer in buffers {
            rest = &rest[buffer.write(rest)..];
        }
    }

    fn take(&self, buffers: &[GuestSlice]) -> Vec<u8> {
        let mut bytes = vec![0; buffers.iter().map(|buffer| buffer.len()).sum()];
        let mut at = 0;
        for buffer in buffers {
            at += buffer.read(&mut bytes[at..]);
        }
        bytes
    }
}

/// A directory on each kind of file system that there is here. The first is on a disk, or what is behind the working
/// directory of the tests.
fn places() -> Vec<TempDir> {
    let mut places = vec![tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()];
    match tempfile::tempdir_in("/dev/shm") {
        Ok(tmpfs) => places.push(tmpfs),
        Err(error) => eprintln!("SKIPPED: tmpfs, /dev/shm: {error}"),
    }
    places
}

/// A configuration of a new file of this size.
fn new_file(place: &TempDir, name: &str, size: u64) -> FileConfig {
    FileConfig { size: Some(size), ..FileConfig::new(path(place, name)) }
}

fn path(place: &TempDir, name: &str) -> PathBuf {
    place.path().join(name)
}

fn open(config: &FileConfig) -> File {
    File::open("f", config).unwrap()
}

/// Submits and waits for the end.
fn run_io(channel: &mut Channel, io: &Io<'_>) -> Status {
    let mut done = Vec::new();
    match channel.submit(io, NOW) {
        Submitted::Done(status) => return status,
        Submitted::Pending => channel.flush_submissions(),
    }
    wait_for(channel, &mut done, 1);
    assert_eq!(done[0].token, io.token);
    done[0].status
}

fn run(channel: &mut Channel, op: Op, lba: u64, blocks: u32, buffers: &[GuestSlice]) -> Status {
    run_io(channel, &Io::new(op, lba, blocks, buffers, Token(0x1_0000_0007)))
}

const WRITE: Op = Op::Write { fua: false };

/// Polls until so many requests have ended.
fn wait_for(channel: &mut Channel, done: &mut Vec<Completion>, count: usize) {
    let end = Instant::now() + PATIENCE;
    while done.len() < count {
        if channel.poll(NOW, done) == 0 {
            assert!(Instant::now() < end, "{} of {count} requests ended", done.len());
            thread::yield_now();
        }
        channel.flush_submissions();
    }
}

/// All bytes of a device, read by a channel of its own.
fn content(file: &File) -> Vec<u8> {
    let info = file.info();
    let guest = Guest::new(info.bytes() as usize);
    let buffers = [guest.at(0, info.bytes() as usize)];
    assert_eq!(run(&mut file.open(), Op::Read, 0, info.block_count as u32, &buffers), Status::Good);
    guest.take(&buffers)
}

/// Bytes that say where they belong.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 512) as u8 ^ (at as u8).wrapping_mul(seed | 1)).collect()
}
