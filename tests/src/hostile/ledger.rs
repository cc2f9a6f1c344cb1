//! A block device that keeps what it gets for as long as the test says, ends it in random order, now and then fails it,
//! and never lets a rule of its own be broken: no more at once than the limit, nothing for a channel that is gone. No
//! medium: what a block holds follows from its number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bdev::{Bdev, BdevInfo, Channel, Completion, Geometry, Io, IoChannel, Op, Status, Submitted, Token};
use guest_memory::GuestSlice;
use reactor::Tsc;

use crate::device::Noise;

/// Every byte that the driver ever sends as data.
pub const SENT: u8 = 0x5e;
/// Bytes of a block.
pub const BLOCK: usize = 512;
/// Blocks of a device.
pub const BLOCKS: u64 = 32;

/// What every byte of a block reads as.
#[must_use]
pub fn content(lba: u64) -> u8 {
    0x3c ^ lba as u8
}

/// The device. Clones are the same one.
#[derive(Clone)]
pub struct Ledger {
    info: BdevInfo,
    book: Arc<Mutex<Book>>,
}

struct Book {
    noise: Noise,
    /// Commands of one session that may be here at once.
    limit: u32,
    /// Requests that may end; `None`: as many as there are.
    permits: Option<u64>,
    /// The session that channels are opened for now.
    session: usize,
    /// By session.
    here: Vec<u32>,
    channels: usize,
}

struct LedgerChannel {
    session: usize,
    held: Vec<Held>,
    book: Arc<Mutex<Book>>,
}

struct Held {
    op: Op,
    lba: u64,
    token: Token,
    buffers: Vec<GuestSlice>,
}

impl Ledger {
    /// A device of [`BLOCKS`] blocks that ends nothing yet and complains about more than `limit` at once.
    ///
    /// # Panics
    /// Never: the geometry is one.
    #[must_use]
    pub fn new(name: String, limit: u32, noise: Noise) -> Ledger {
        let geometry = Geometry::new(BLOCKS, BLOCK as u32).expect("blocks of 512 bytes");
        let book = Book { noise, limit, permits: Some(0), session: 0, here: Vec::new(), channels: 0 };
        Ledger { info: BdevInfo::new(name, "ledger", geometry), book: Arc::new(Mutex::new(book)) }
    }

    /// Channels that are opened from now on belong to this session.
    pub fn session(&self, session: usize) {
        let mut book = self.lock();
        book.session = session;
        book.here.resize(session + 1, 0);
    }

    /// Another limit. What has a share of a higher one may still come.
    pub fn raise_limit(&self, limit: u32) {
        let mut book = self.lock();
        book.limit = book.limit.max(limit);
    }

    /// Lets so many requests more end.
    pub fn release(&self, count: u64) {
        if let Some(permits) = &mut self.lock().permits {
            *permits += count;
        }
    }

    /// Lets everything end from now on.
    pub fn open(&self) {
        self.lock().permits = None;
    }

    /// Requests that have not ended, and open channels.
    #[must_use]
    pub fn left(&self) -> (u32, usize) {
        let book = self.lock();
        (book.here.iter().sum(), book.channels)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

impl Bdev for Ledger {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn open(&self) -> Channel {
        let mut book = self.lock();
        book.channels += 1;
        let channel: Box<dyn IoChannel> =
            Box::new(LedgerChannel { session: book.session, held: Vec::new(), book: Arc::clone(&self.book) });
        Channel::from(channel)
    }
}

impl IoChannel for LedgerChannel {
    fn submit(&mut self, io: &Io<'_>, _: Tsc) -> Submitted {
        let mut book = lock(&self.book);
        let held = Held { op: io.op, lba: io.lba, token: io.token, buffers: io.buffers.to_vec() };
        assert!(io.lba + u64::from(io.blocks) <= BLOCKS, "{io:?}: behind the last block");
        if book.noise.once_in(8) {
            return Submitted::Done(held.perform(&mut book.noise));
        }
        let here = &mut book.here[self.session];
        *here += 1;
        let here = *here;
        assert!(here <= book.limit, "{here} requests of one session at the backend, at most {}", book.limit);
        self.held.push(held);
        Submitted::Pending
    }

    fn poll(&mut self, _: Tsc, done: &mut Vec<Completion>) -> usize {
        let mut book = lock(&self.book);
        let before = done.len();
        while !self.held.is_empty() && book.permits != Some(0) {
            if let Some(permits) = &mut book.permits {
                *permits -= 1;
            }
            let index = book.noise.below(self.held.len() as u64) as usize;
            let held = self.held.swap_remove(index);
            let status = held.perform(&mut book.noise);
            book.here[self.session] -= 1;
            done.push(Completion { token: held.token, status });
        }
        done.len() - before
    }

    fn next_deadline(&self) -> Option<Tsc> {
        Some(Tsc(0))
    }
}

impl Held {
    /// Moves the bytes, or fails and moves none.
    fn perform(&self, noise: &mut Noise) -> Status {
        if noise.once_in(16) {
            return noise.pick(&[Status::ReadError, Status::WriteError, Status::Busy, Status::Aborted]);
        }
        let mut lba = self.lba;
        let mut at = 0;
        for buffer in &self.buffers {
            let mut rest = *buffer;
            while !rest.is_empty() {
                let (part, after) = rest.split_at(rest.len().min(BLOCK - at));
                match self.op {
                    Op::Read => part.fill(content(lba)),
                    Op::Write { .. } => assert_sent(part),
                    _ => {}
                }
                at += part.len();
                (lba, at) = (lba + (at / BLOCK) as u64, at % BLOCK);
                rest = after;
            }
        }
        Status::Good
    }
}

impl Drop for LedgerChannel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.held.len(), 0, "requests that a dropped channel leaves");
        lock(&self.book).channels -= 1;
    }
}

fn assert_sent(part: GuestSlice) {
    let mut bytes = vec![0; part.len()];
    part.read(&mut bytes);
    assert!(bytes == vec![SENT; bytes.len()], "the device writes something that the driver did not send");
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
