//! The driver side of one virtqueue of a live target: buffers, kicks and calls around a [`SplitDriver`]. What the
//! buffers hold is the caller's.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use vhost_user::message::VringAddresses;
use virtqueue::split::{RawSplit, SplitDriver};
use virtqueue::{Features, RingAddresses, Segment, SplitLayout, Used};

use super::memory::{Area, Region};
use super::{PATIENCE, readable, wait_readable};
use crate::device::{Message, RESPONSE_LEN, Reply, UNWRITTEN};

/// Bytes of a request header (virtio 1.3 §5.6.6.1).
pub(super) const REQUEST_LEN: usize = 51;

/// One virtqueue, with a fixed number of buffers.
pub struct Queue {
    index: u16,
    driver: SplitDriver,
    desc: Area,
    avail: Area,
    used: Area,
    features: Features,
    kick: OwnedFd,
    call: OwnedFd,
    err: OwnedFd,
    slots: Vec<Area>,
    free: Vec<usize>,
    sent: HashMap<usize, Sent>,
    next_token: usize,
    done: VecDeque<Reply>,
    kicks: Cell<u64>,
    calls: Cell<u64>,
}

/// What is remembered of a chain in flight.
struct Sent {
    /// The buffer that it lies in, and the writable part of that; `None` of a chain of the test's own buffers.
    buffer: Option<(usize, Area)>,
    segments: Vec<Segment>,
}

impl Queue {
    /// A ring of `size` descriptors in `rings`, and `slots` buffers of `slot_len` bytes in `data` (or in `rings`).
    pub(super) fn new(
        index: u16,
        size: u16,
        features: Features,
        regions: &mut [Region],
        (slots, slot_len): (usize, usize),
    ) -> Queue {
        let rings = &mut regions[0];
        let desc = rings.take(SplitLayout::desc_len(size));
        let avail = rings.take(SplitLayout::avail_len(size));
        let used = rings.take(SplitLayout::used_len(size));
        let data = regions.last_mut().expect("at least one region");
        let slots: Vec<Area> = (0..slots).map(|_| data.take(slot_len)).collect();
        Queue {
            index,
            driver: driver(size, desc, avail, used, features),
            desc,
            avail,
            used,
            features,
            kick: event(),
            call: event(),
            err: event(),
            free: (0..slots.len()).rev().collect(),
            slots,
            sent: HashMap::new(),
            next_token: 0,
            done: VecDeque::new(),
            kicks: Cell::new(0),
            calls: Cell::new(0),
        }
    }

    /// Index in the device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.driver.size()
    }

    /// Chains that did not come back.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Where its parts are, as SET_VRING_ADDR says it.
    #[must_use]
    pub fn addresses(&self) -> VringAddresses {
        VringAddresses {
            desc_user: self.desc.user_addr,
            used_user: self.used.user_addr,
            avail_user: self.avail.user_addr,
            log_guest: 0,
            flags: 0,
        }
    }

    /// The descriptor that the driver signals.
    #[must_use]
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// The descriptor that the device signals when chains come back.
    #[must_use]
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// The descriptor that the device signals when the queue breaks.
    #[must_use]
    pub fn err_fd(&self) -> BorrowedFd<'_> {
        self.err.as_fd()
    }

    /// Every field of the ring, to be written as no driver would.
    #[must_use]
    pub fn raw(&self) -> RawSplit {
        self.driver.raw()
    }

    /// Starts over, with an empty ring and nothing in flight: to be called while the ring is stopped.
    pub fn reset(&mut self) {
        self.driver = driver(self.driver.size(), self.desc, self.avail, self.used, self.features);
        self.free = (0..self.slots.len()).rev().collect();
        self.sent.clear();
        self.done.clear();
    }

    /// Adds a chain of this message: as drivers do it, with descriptors of their own for the request header, data-out,
    /// the response and data-in. The device sees it after the next [`Queue::publish`]. Returns a token, never used twice.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn put(&mut self, message: impl Into<Message>) -> usize {
        self.put_cut(message, 1)
    }

    /// As [`Queue::put`], with the data in so many descriptors of one length each.
    ///
    /// # Panics
    /// If there is no room for it, or the data cannot be cut like this.
    pub fn put_cut(&mut self, message: impl Into<Message>, pieces: usize) -> usize {
        let message = message.into();
        let cut = |total: usize, first: usize| {
            let first = first.min(total);
            let each = (total - first) / pieces;
            assert_eq!(each * pieces, total - first, "pieces of one length");
            [first].into_iter().chain((0..pieces).map(move |_| each)).collect::<Vec<_>>()
        };
        let readable = cut(message.readable.len(), REQUEST_LEN);
        let writable = cut(message.writable, RESPONSE_LEN);
        self.put_pieces(message, &readable, &writable)
    }

    /// Adds a chain of this message with the first bytes of each direction in descriptors of these lengths; what is left is
    /// one more. Lengths of 0 make no descriptor. The device sees it after the next [`Queue::publish`].
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn put_pieces(&mut self, message: impl Into<Message>, readable: &[usize], writable: &[usize]) -> usize {
        let Message { readable: bytes, writable: room } = message.into();
        let slot = self.free.pop().expect("a free buffer");
        let (out, into) = self.slots[slot].split(bytes.len());
        let into = into.part(0, room);
        out.slice.write(&bytes);
        into.slice.fill(UNWRITTEN);
        let segments: Vec<Segment> = cut(out, readable, false).chain(cut(into, writable, true)).collect();
        self.add(segments, Some((slot, into)))
    }

    /// Adds a chain of these descriptors, whatever they say. Its reply has no bytes: what a device did to the test's own
    /// buffers is in them ([`Queue::buffer`]).
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn put_segments(&mut self, segments: &[Segment]) -> usize {
        self.add(segments.to_vec(), None)
    }

    /// One of the buffers for the test's own use, until [`Queue::reset`].
    ///
    /// # Panics
    /// If none is free.
    pub fn buffer(&mut self) -> Area {
        self.slots[self.free.pop().expect("a free buffer")]
    }

    fn add(&mut self, segments: Vec<Segment>, buffer: Option<(usize, Area)>) -> usize {
        let token = self.next_token;
        self.next_token += 1;
        self.driver.add(&segments, token).expect("free descriptors");
        self.sent.insert(token, Sent { buffer, segments });
        token
    }

    /// Makes what was put visible to the device, and kicks it if it wants to be kicked.
    pub fn publish(&mut self) {
        if self.expose() {
            self.kick();
        }
    }

    /// Makes what was put visible to the device; whether it wants to be kicked, which is the caller's to do.
    #[must_use]
    pub fn expose(&mut self) -> bool {
        self.driver.publish()
    }

    /// Kicks the device.
    ///
    /// # Panics
    /// If the descriptor does not take it.
    pub fn kick(&self) {
        rustix::io::write(&self.kick, &1u64.to_ne_bytes()).expect("an eventfd takes another kick");
        self.kicks.set(self.kicks.get() + 1);
    }

    /// The next chain that has come back, if there is one.
    ///
    /// # Panics
    /// If the device broke the rules of the ring.
    pub fn take(&mut self) -> Option<Reply> {
        while let Some(used) = self.driver.pop_used() {
            let Sent { buffer, segments } = self.sent.remove(&used.token).expect("it was sent");
            let mut writable = Vec::new();
            if let Some((slot, area)) = buffer {
                writable.resize(area.slice.len(), 0);
                area.slice.read(&mut writable);
                self.free.push(slot);
            }
            let Used { token, head, written } = used;
            self.done.push_back(Reply { token, head, written, writable, segments });
        }
        assert_eq!(self.driver.fault(), None, "queue {}", self.index);
        self.done.pop_front()
    }

    /// Waits, asleep until the device calls, for the next chain to come back.
    ///
    /// # Panics
    /// If none does.
    #[track_caller]
    pub fn wait(&mut self) -> Reply {
        loop {
            if let Some(reply) = self.take() {
                return reply;
            }
            if !self.driver.enable_calls() {
                assert!(
                    wait_readable(&self.call),
                    "queue {}: no call within {PATIENCE:?}, {} chains in flight, used index {}",
                    self.index,
                    self.sent.len(),
                    self.raw().used_index()
                );
                self.drain_calls();
            }
            self.driver.disable_calls();
        }
    }

    /// Waits for one chain; others that come back meanwhile are kept for later.
    ///
    /// # Panics
    /// If it does not come back.
    #[track_caller]
    pub fn wait_for(&mut self, token: usize) -> Reply {
        let mut others = VecDeque::new();
        loop {
            let reply = self.wait();
            if reply.token == token {
                others.append(&mut self.done);
                self.done = others;
                return reply;
            }
            others.push_back(reply);
        }
    }

    /// Takes what the call descriptor holds: how often the device has called since the last time.
    pub fn drain_calls(&self) -> u64 {
        let calls = drain(&self.call);
        self.calls.set(self.calls.get() + calls);
        calls
    }

    /// How often the device was kicked so far.
    #[must_use]
    pub fn kicks(&self) -> u64 {
        self.kicks.get()
    }

    /// How often the device has called so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.drain_calls();
        self.calls.get()
    }

    /// Takes what the err descriptor holds: how often the device has said that the queue broke.
    pub fn drain_errs(&self) -> u64 {
        drain(&self.err)
    }

    /// Waits until the device says that the queue broke.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn wait_err(&self) {
        assert!(wait_readable(&self.err), "queue {}: err not signalled within {PATIENCE:?}", self.index);
        assert_eq!(self.drain_errs(), 1, "queue {}: once per fault", self.index);
    }
}

fn driver(size: u16, desc: Area, avail: Area, used: Area, features: Features) -> SplitDriver {
    let rings = RingAddresses { desc: desc.slice, avail: avail.slice, used: used.slice };
    SplitDriver::new(size, rings, features).expect("a ring of our own making")
}

/// Descriptors of these lengths, as far as there are bytes, and one for what is left.
fn cut(area: Area, lengths: &[usize], writable: bool) -> impl Iterator<Item = Segment> {
    let lengths = lengths.iter().copied().chain([usize::MAX]);
    let mut rest = area;
    lengths.filter_map(move |len| {
        let (front, back) = rest.split(len.min(rest.slice.len()));
        rest = back;
        let segment = Segment { addr: front.guest_addr, len: front.slice.len() as u32, writable };
        (segment.len > 0).then_some(segment)
    })
}

/// A fresh eventfd.
///
/// # Panics
/// If this process may open no more descriptors.
#[must_use]
pub fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}

/// What an eventfd holds; 0 afterwards.
///
/// # Panics
/// If it is no eventfd that does not block.
#[must_use]
pub fn drain(fd: impl AsFd) -> u64 {
    if !readable(&fd) {
        return 0;
    }
    let mut bytes = [0; 8];
    rustix::io::read(fd, &mut bytes).expect("an eventfd that was readable");
    u64::from_ne_bytes(bytes)
}
