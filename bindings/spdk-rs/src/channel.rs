//! A thread's way into a bdev, and the requests on it.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::iter;
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use spdk_sys::{iovec, spdk_io_channel, spdk_shim_io};

use crate::{Descriptor, Errno, Thread};

/// A thread's way into a bdev. It cannot leave its thread. Requests are [started](IoChannel::start), the thread is
/// [polled](Thread::poll), and what has ended is [taken](IoChannel::finished).
///
/// It is to be dropped when nothing is outstanding. Otherwise it is lost, with its bdev, and the log says so: what a device may
/// still write to is not freed.
pub struct IoChannel {
    raw: NonNull<spdk_io_channel>,
    #[expect(clippy::vec_box, reason = "places do not move when there are more of them")]
    places: Vec<Box<UnsafeCell<Place>>>,
    vacant: Vec<u32>,
    ended: Rc<Ended>,
    waits: u64,
    descriptor: Descriptor,
    /// Last: the channel is closed before the thread can end.
    _thread: Thread,
}

/// What callbacks know, on the thread of the channel.
struct Ended {
    /// Numbers of places whose requests have ended, in the order of their ends.
    numbers: UnsafeCell<VecDeque<u32>>,
    lending: Cell<Option<Lending>>,
}

/// How data of a bdev moves that lends its memory.
#[derive(Clone, Copy)]
struct Lending {
    mover: Move,
    block_size: usize,
    /// Where block 0 seems to be: where it would have been, had all of the bdev been lent in one piece.
    start: usize,
}

impl Lending {
    /// Bytes from block 0 on.
    #[inline]
    fn offset(&self, lba: u64) -> usize {
        (lba as usize).wrapping_mul(self.block_size)
    }
}

/// Moves the data of a read or a write (the flag) between memory that a bdev lends and the buffers of the request, which are as
/// long together.
///
/// # Safety
/// All of it is mapped, readable and writable, while the function runs. Others may access it meanwhile.
pub type Move = unsafe fn(write: bool, lent: &[Piece], buffers: &[Piece]);

/// A piece of memory, as C's `iovec`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Its first byte.
    pub address: *mut u8,
    /// Bytes.
    pub len: usize,
}

const _: () = {
    assert!(size_of::<Piece>() == size_of::<iovec>() && align_of::<Piece>() == align_of::<iovec>());
    assert!(offset_of!(Piece, address) == offset_of!(iovec, iov_base));
    assert!(offset_of!(Piece, len) == offset_of!(iovec, iov_len));
};

/// What a request does, with block numbers and counts where it needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// From the bdev into the buffers.
    Read,
    /// From the buffers to the bdev.
    Write,
    /// Gives blocks back.
    Unmap,
    /// Brings completed writes to stable storage.
    Flush,
    /// Blocks read as zeroes from now on.
    WriteZeroes,
    /// Compares the buffers with the bdev.
    Compare,
    /// Compares the first buffers with the bdev, and writes the second ones if they are equal.
    CompareAndWrite,
    /// Gives up what is under way at the bdev, of all its users, and resets it.
    Reset,
}

impl Command {
    fn raw(self) -> spdk_sys::spdk_shim_io_type {
        match self {
            Command::Read => spdk_sys::SPDK_SHIM_IO_READ,
            Command::Write => spdk_sys::SPDK_SHIM_IO_WRITE,
            Command::Unmap => spdk_sys::SPDK_SHIM_IO_UNMAP,
            Command::Flush => spdk_sys::SPDK_SHIM_IO_FLUSH,
            Command::WriteZeroes => spdk_sys::SPDK_SHIM_IO_WRITE_ZEROES,
            Command::Compare => spdk_sys::SPDK_SHIM_IO_COMPARE,
            Command::CompareAndWrite => spdk_sys::SPDK_SHIM_IO_COMPARE_AND_WRITE,
            Command::Reset => spdk_sys::SPDK_SHIM_IO_RESET,
        }
    }
}

/// What a request is known by to whoever started it: two words of any meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The first word.
    pub token: u64,
    /// The second one.
    pub note: u32,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// As it was started with.
    pub tag: Tag,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was done.
    Good,
    /// SPDK did not take it after it had waited.
    Refused(Errno),
    /// The bdev did not do it.
    Failed(Failure),
}

/// What a bdev says about a request that failed, in the terms of NVMe and of SCSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// NVMe status code type.
    pub nvme_type: u16,
    /// NVMe status code.
    pub nvme_code: u16,
    /// SCSI status.
    pub scsi_status: u8,
    /// Sense key.
    pub sense_key: u8,
    /// Additional sense code and qualifier.
    pub additional: (u8, u8),
}

/// One request, in a place that does not move. SPDK has its address while it is under way.
#[repr(C)]
struct Place {
    /// First, so that its address is that of the place.
    io: spdk_shim_io,
    tag: Tag,
    number: u32,
    first: Vec<Piece>,
    second: Vec<Piece>,
    ended: *const Ended,
}

/// Places that a channel has from the start, and buffers that each has room for.
const PLACES: u32 = 128;
const BUFFERS: usize = 16;
/// Requests of a channel, at most.
const PLACES_MAX: usize = 1 << 16;

impl IoChannel {
    /// Opens a channel for `thread`. SPDK may allocate and, depending on the bdev, talk to a device.
    ///
    /// # Errors
    /// SPDK has no memory for it, or the bdev's module refuses it.
    pub fn open(thread: &Thread, descriptor: &Descriptor) -> Result<IoChannel, Errno> {
        // SAFETY: an open descriptor, on an SPDK thread (the proof).
        let raw = unsafe { spdk_sys::spdk_bdev_get_io_channel(descriptor.0.raw.as_ptr()) };
        let raw = NonNull::new(raw).ok_or(Errno::of(libc::ENOMEM))?;
        let numbers = UnsafeCell::new(VecDeque::with_capacity(PLACES as usize));
        let ended = Rc::new(Ended { numbers, lending: Cell::new(None) });
        let places: Vec<_> = (0..PLACES).map(|number| Place::boxed(number, &ended)).collect();
        let vacant = (0..PLACES).rev().collect();
        let (descriptor, _thread) = (descriptor.clone(), thread.clone());
        Ok(IoChannel { raw, places, vacant, ended, waits: 0, descriptor, _thread })
    }

    /// From here on `mover` moves the data of reads and writes, if the bdev [lends](crate::BdevInfo::lends) its memory. Buffers need not
    /// be registered then, and nobody but the processor touches them. Whether it does.
    pub fn move_by(&mut self, mover: Move) -> bool {
        let lending = self.descriptor.0.lends.map(|block| Lending { mover, block_size: block as usize, start: 0 });
        self.ended.lending.set(lending);
        lending.is_some()
    }

    /// Requests under way, those included that have ended and were not taken.
    #[must_use]
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// The bdev.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Begins a request on `blocks` blocks from `lba` on, with these buffers, `second` only for
    /// [`CompareAndWrite`](Command::CompareAndWrite). It ends in [`finished`](IoChannel::finished), after a later poll, once. What SPDK
    /// has no room for waits.
    ///
    /// # Safety
    /// Each buffer is an address and a length, and stays mapped, readable and writable until the request has ended.
    ///
    /// # Errors
    /// SPDK refuses it: blocks beyond the end, another total length, a kind that the bdev does not know, a bdev that is
    /// not open for writing. Or there are 65,536 already (`EBUSY`).
    #[inline]
    pub unsafe fn start(
        &mut self,
        command: Command,
        lba: u64,
        blocks: u64,
        tag: Tag,
        buffers: impl Iterator<Item = (*mut u8, usize)>,
        second: impl Iterator<Item = (*mut u8, usize)>,
    ) -> Result<(), Errno> {
        // SAFETY: buffers stay where they are (a promise of the caller's).
        unsafe { self.begin(command.raw(), lba, blocks, tag, buffers, second) }
    }

    /// As [`start`](IoChannel::start).
    #[inline]
    unsafe fn begin(
        &mut self,
        io_type: spdk_sys::spdk_shim_io_type,
        lba: u64,
        blocks: u64,
        tag: Tag,
        buffers: impl Iterator<Item = (*mut u8, usize)>,
        second: impl Iterator<Item = (*mut u8, usize)>,
    ) -> Result<(), Errno> {
        let Some(number) = self.vacant.pop().or_else(|| self.grow()) else { return Err(Errno::of(libc::EBUSY)) };
        let place = self.places[number as usize].get();
        let moves = matches!(io_type, spdk_sys::SPDK_SHIM_IO_READ | spdk_sys::SPDK_SHIM_IO_WRITE);
        let lends = self.ended.lending.get().filter(|_| moves);
        if let Some(lending) = lends {
            fetch(lending.start.wrapping_add(lending.offset(lba)));
        }
        // SAFETY: nobody else has a vacant place; the channel lives on this thread. Lists and places stay where they are until
        // the callback, and buffers, too (a promise of the caller's).
        let status = unsafe {
            (*place).prepare(io_type, lba, blocks, tag, buffers, second);
            if lends.is_some() {
                (*place).borrow();
            }
            spdk_sys::spdk_shim_io_start(
                place.cast::<spdk_shim_io>(),
                self.descriptor.0.raw.as_ptr(),
                self.raw.as_ptr(),
            )
        };
        Errno::check(status).inspect_err(|_| self.vacant.push(number))
    }

    /// Has the bdev give up the requests that `chosen` says yes to, if it can: they end as ever, most of them with the NVMe
    /// status Command Abort Requested. Those that wait for room are not begun any more (`ECANCELED`). For each that the bdev is
    /// asked to give up one more request ends, known by `tag`.
    pub fn abort(&mut self, tag: Tag, mut chosen: impl FnMut(Tag) -> bool) {
        for at in 0..self.places.len() {
            let place = self.places[at].get();
            // SAFETY: on this thread, and no callback runs now.
            let wanted = unsafe { chosen((*place).tag) };
            if wanted && !self.vacant.contains(&(at as u32)) {
                // SAFETY: as above; there are no buffers. The victim is known to SPDK by its address, and compared only.
                let begun = unsafe {
                    spdk_sys::spdk_shim_io_give_up(place.cast());
                    self.begin(spdk_sys::SPDK_SHIM_IO_ABORT, place.addr() as u64, 0, tag, iter::empty(), iter::empty())
                };
                if begun.is_err() {
                    return; // the bdev aborts nothing, or has no room: requests end in their own time
                }
            }
        }
    }

    /// None of the requests that wait for room are begun any more: they end with `ECANCELED`.
    pub fn give_up_waiting(&mut self) {
        for place in &self.places {
            // SAFETY: on this thread, and no callback runs now; of a place that does not wait nobody looks at it.
            unsafe { spdk_sys::spdk_shim_io_give_up(place.get().cast()) };
        }
    }

    #[cold]
    fn grow(&mut self) -> Option<u32> {
        let number = u32::try_from(self.places.len()).ok().filter(|&number| (number as usize) < PLACES_MAX)?;
        self.places.push(Place::boxed(number, &self.ended));
        let room = self.places.len();
        self.vacant.reserve(room); // its way back must not allocate
        // SAFETY: on this thread, and no callback runs now.
        let ended = unsafe { &mut *self.ended.numbers.get() };
        ended.reserve(room - ended.len());
        Some(number)
    }

    /// Hands every request that has ended since the last call to `each`, in the order of their ends. Returns their number.
    #[inline]
    pub fn finished(&mut self, mut each: impl FnMut(Finished)) -> usize {
        let mut count = 0;
        // SAFETY: on this thread; callbacks run in `Thread::poll` only, and `each` does not see this list: it is read anew each time.
        while let Some(number) = unsafe { (*self.ended.numbers.get()).pop_front() } {
            // SAFETY: its callback was called, so that the place is this channel's again.
            let place = unsafe { &*self.places[number as usize].get() };
            let finished = Finished { tag: place.tag, outcome: place.outcome() };
            self.waits += place.io.waits;
            self.vacant.push(number);
            count += 1;
            each(finished);
        }
        count
    }

    /// How often requests that have finished had to wait until SPDK had room for them.
    #[must_use]
    #[inline]
    pub fn waits(&self) -> u64 {
        self.waits
    }
}

impl Place {
    fn boxed(number: u32, ended: &Rc<Ended>) -> Box<UnsafeCell<Place>> {
        let io = spdk_shim_io {
            type_: 0,
            iov_count: 0,
            iov: ptr::null_mut(),
            second_iov: ptr::null_mut(),
            second_iov_count: 0,
            reserved: 0,
            lba: 0,
            blocks: 0,
            done: Some(io_done),
            move_: Some(io_move),
            outcome: 0,
            code: 0,
            nvme_type: 0,
            nvme_code: 0,
            scsi_status: 0,
            sense_key: 0,
            asc: 0,
            ascq: 0,
            waits: 0,
            private_: [0; 10],
        };
        let list = || Vec::with_capacity(BUFFERS);
        Box::new(UnsafeCell::new(Place {
            io,
            tag: Tag { token: 0, note: 0 },
            number,
            first: list(),
            second: list(),
            ended: Rc::as_ptr(ended),
        }))
    }

    /// A read or a write that was prepared becomes one that borrows the bdev's memory.
    #[inline]
    fn borrow(&mut self) {
        self.io.type_ = match self.io.type_ {
            spdk_sys::SPDK_SHIM_IO_READ => spdk_sys::SPDK_SHIM_IO_LENT_READ,
            _ => spdk_sys::SPDK_SHIM_IO_LENT_WRITE,
        };
    }

    #[inline]
    fn prepare(
        &mut self,
        io_type: spdk_sys::spdk_shim_io_type,
        lba: u64,
        blocks: u64,
        tag: Tag,
        buffers: impl Iterator<Item = (*mut u8, usize)>,
        second: impl Iterator<Item = (*mut u8, usize)>,
    ) {
        let piece = |(address, len): (*mut u8, usize)| Piece { address, len };
        self.first.clear();
        self.first.extend(buffers.map(piece));
        self.second.clear();
        self.second.extend(second.map(piece));
        self.tag = tag;
        self.io.type_ = io_type;
        self.io.waits = 0;
        self.io.lba = lba;
        self.io.blocks = blocks;
        self.io.iov = self.first.as_mut_ptr().cast();
        self.io.iov_count = self.first.len() as i32;
        self.io.second_iov = self.second.as_mut_ptr().cast();
        self.io.second_iov_count = self.second.len() as i32;
    }

    #[inline]
    fn outcome(&self) -> Outcome {
        let io = &self.io;
        match io.outcome {
            spdk_sys::SPDK_SHIM_GOOD => Outcome::Good,
            spdk_sys::SPDK_SHIM_REFUSED => Outcome::Refused(Errno::of(io.code)),
            _ => Outcome::Failed(Failure {
                nvme_type: io.nvme_type,
                nvme_code: io.nvme_code,
                scsi_status: io.scsi_status,
                sense_key: io.sense_key,
                additional: (io.asc, io.ascq),
            }),
        }
    }
}

extern "C" fn io_move(io: *mut spdk_shim_io, lent: *mut iovec, count: i32) {
    // SAFETY: a place as in `io_done`, which nobody else uses while its request is under way. SPDK lends so many pieces until this
    // returns, and the request's buffers are mapped until it has ended.
    unsafe {
        let place = &*io.cast::<Place>();
        let lent = std::slice::from_raw_parts(lent.cast::<Piece>(), usize::try_from(count).unwrap_or(0));
        let lending = &(*place.ended).lending;
        let (Some(terms), Some(first)) = (lending.get(), lent.first()) else { return };
        (terms.mover)(place.io.type_ == spdk_sys::SPDK_SHIM_IO_LENT_WRITE, lent, &place.first);
        let start = (first.address as usize).wrapping_sub(terms.offset(place.io.lba));
        lending.set(Some(Lending { start, ..terms }));
    }
}

/// Brings a cache line near, if there is one: the data moves when all requests of a batch have been started, and from the
/// second line on the processor sees the pattern.
#[inline]
fn fetch(address: usize) {
    // SAFETY: every x86-64 processor has the instruction; it touches nothing and faults nowhere.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(ptr::without_provenance(address));
    }
}

extern "C" fn io_done(io: *mut spdk_shim_io) {
    // SAFETY: the first field of a place, whose channel lives, on its thread, or was lost with all its places; nobody has a
    // reference to either now. There is room for every place, so that nothing is allocated.
    unsafe {
        let place = io.cast::<Place>();
        (*(*(*place).ended).numbers.get()).push_back((*place).number);
    }
}

impl Drop for IoChannel {
    fn drop(&mut self) {
        self.finished(|_| ());
        if self.outstanding() > 0 {
            tracing::error!(
                bdev = self.descriptor.name(),
                requests = self.outstanding(),
                "a channel was dropped while requests are under way: it stays open"
            );
            std::mem::forget(std::mem::take(&mut self.places));
            std::mem::forget(Rc::clone(&self.ended));
            std::mem::forget(self.descriptor.clone());
            std::mem::forget(self._thread.clone());
            return;
        }
        // SAFETY: opened once, on this thread, and nothing is outstanding.
        unsafe { spdk_sys::spdk_put_io_channel(self.raw.as_ptr()) };
    }
}

impl std::fmt::Debug for IoChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoChannel").field("bdev", &self.descriptor.name()).finish_non_exhaustive()
    }
}
