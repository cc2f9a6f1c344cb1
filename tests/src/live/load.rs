//! The neighbour: a front-end with verified load on a controller of its own, from a thread of its own, for as long as a
//! test lasts. It fails the test if it ever sees an error, and it never reconnects.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::client::{BLOCK, Client, FIRST, Plan, good, read, write};
use super::until;
use crate::device::Request;

/// A front-end that writes blocks and reads them back.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    operations: AtomicU64,
    stop: AtomicBool,
}

/// Commands in flight.
const DEPTH: u32 = 8;
/// Blocks of one command.
const BLOCKS: u16 = 4;
/// Bytes of disk that it needs.
pub const DISK_LEN: u64 = 64 * DEPTH as u64 * BLOCKS as u64 * BLOCK as u64;

impl Load {
    /// Connects to `socket`, whose LUN 0 of target 0 is the load's alone, and begins. Returns when it has made progress.
    #[must_use]
    pub fn start(socket: PathBuf) -> Load {
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("load".into()).spawn(move || run(&socket, &shared)).expect("a thread")
        };
        let load = Load { shared, thread: Some(thread) };
        load.progress(1);
        load
    }

    /// Reads and writes that ended well and were verified.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.operations.load(Ordering::Acquire)
    }

    /// Waits until it has made that many more operations.
    ///
    /// # Panics
    /// If it does not make them.
    #[track_caller]
    pub fn progress(&self, count: u64) {
        let aim = self.operations() + count;
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        until("progress of the load", || self.operations() >= aim || ended());
        assert!(!ended(), "the load failed, see its message");
    }

    /// Ends it; how many operations it made.
    ///
    /// # Panics
    /// If it saw an error.
    pub fn finish(mut self) -> u64 {
        self.progress(1);
        self.shared.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("finished once");
        thread.join().expect("the load saw no error");
        self.operations()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // the test has failed already
        }
    }
}

fn run(socket: &std::path::Path, shared: &Shared) {
    let mut client = Client::connect(socket, &Plan { rings: vec![FIRST], ..Plan::default() });
    client.ready(FIRST, 0);
    let mut round = 0u32;
    while !shared.stop.load(Ordering::Acquire) {
        let places: Vec<u32> = (0..DEPTH).map(|k| (round % 64 * DEPTH + k) * u32::from(BLOCKS)).collect();
        let writes = places.iter().map(|lba| write(0, *lba, &pattern(*lba, round))).collect();
        all(&mut client, writes, |_, _| ());
        let reads = places.iter().map(|lba| read(0, *lba, BLOCKS)).collect();
        all(&mut client, reads, |k, data| {
            assert!(data == pattern(places[k], round), "block {} holds something else", places[k]);
        });
        shared.operations.fetch_add(u64::from(2 * DEPTH), Ordering::Release);
        round += 1;
    }
}

/// Has all of them in flight at once; `check` gets the position and the data of each.
fn all(client: &mut Client, commands: Vec<Request>, check: impl Fn(usize, Vec<u8>)) {
    let queue = client.queue(FIRST);
    let tokens: Vec<usize> = commands.iter().map(|command| queue.put(command)).collect();
    queue.publish();
    for (k, token) in tokens.into_iter().enumerate() {
        check(k, good(queue.wait_for(token)));
    }
}

/// Words that say which block they belong to and when they were written.
fn pattern(lba: u32, round: u32) -> Vec<u8> {
    let word = (u64::from(lba) << 32 | u64::from(round)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    word.repeat(usize::from(BLOCKS) * BLOCK / word.len())
}
