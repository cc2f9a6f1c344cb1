//! A ring of the kernel's, and the system calls that go through it. The only place that hands addresses to the kernel;
//! what they are good for is decided in `channel`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use guest_memory::GuestSlice;
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{Builder, IoUring, opcode, squeue};
use rustix::event::EventfdFlags;
use rustix::pipe::PipeFlags;
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::config::RingError;

/// A ring for one file and one thread: whichever [begins](Ring::begin) to use it.
pub(crate) struct Ring {
    /// `None` once it is closed.
    uring: Option<IoUring>,
    /// Open for calls, those of one thread.
    begun: bool,
    /// Where the kernel's workers may run: where the thread may that made the ring.
    workers: Option<CpuSet>,
    /// Calls handed over and not yet reaped.
    under_way: usize,
    /// Some of them still have to be made.
    unsubmitted: bool,
    depth: usize,
    wake: Arc<OwnedFd>,
    /// Reads end of file once the kernel has let go of the ring and of everything in it.
    released: OwnedFd,
}

/// A system call to be made through the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call<'a> {
    Read {
        to: Memory<'a>,
        offset: u64,
    },
    /// `durable`: on stable storage when it completes.
    Write {
        from: Memory<'a>,
        offset: u64,
        durable: bool,
    },
    Fallocate {
        mode: i32,
        offset: u64,
        len: u64,
    },
    Fdatasync,
}

/// Where data comes from or goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory<'a> {
    One(GuestSlice),
    /// At most [`Ring::LIST_MAX`].
    List(&'a [IoVec]),
}

/// An entry of a list of buffers as the kernel reads it.
#[repr(transparent)]
pub(crate) struct IoVec(libc::iovec);

// SAFETY: an address and a length that this process never follows; like `GuestSlice`, which it is made from.
unsafe impl Send for IoVec {}

impl std::fmt::Debug for IoVec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:p}+{}", self.0.iov_base, self.0.iov_len)
    }
}

impl From<GuestSlice> for IoVec {
    fn from(slice: GuestSlice) -> IoVec {
        IoVec(libc::iovec { iov_base: slice.as_ptr().cast(), iov_len: slice.len() })
    }
}

impl Ring {
    /// Most buffers of one call (`IOV_MAX`).
    pub(crate) const LIST_MAX: usize = 1024;
    /// Most bytes of one call: below the kernel's own bound, and whole blocks.
    pub(crate) const BYTES_MAX: u64 = 1 << 30;

    /// A ring for up to `depth` calls on `file` at a time.
    pub(crate) fn new(file: BorrowedFd<'_>, depth: u32) -> Result<Ring, RingError> {
        let uring = build(depth)?;
        let failed = |action| move |source: io::Error| RingError::Call { action, source };
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| failed("eventfd")(errno.into()))?;
        // The ring holds the only writing end of a pipe: it is closed when the kernel has ended the last call.
        let (released, held) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("pipe")(errno.into()))?;
        let submitter = uring.submitter();
        submitter.register_files(&[file.as_raw_fd(), held.as_raw_fd()]).map_err(failed("registering the file"))?;
        submitter.register_eventfd(wake.as_raw_fd()).map_err(failed("registering an eventfd"))?;
        let mut ring = Ring {
            uring: Some(uring),
            begun: false,
            workers: sched_getaffinity(None).ok(),
            under_way: 0,
            unsubmitted: false,
            depth: depth as usize,
            wake: Arc::new(wake),
            released,
        };
        ring.notify(false);
        Ok(ring)
    }

    /// Whether [`begin`](Ring::begin) was called by the thread that uses it.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// From now on the ring belongs to the calling thread, which makes all calls. A few system calls, once.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        let workers = self.workers;
        let uring = self.uring();
        match uring.submitter().register_enable_rings() {
            Err(error) if error.raw_os_error() != Some(libc::EBADFD) => return Err(error),
            Ok(_) | Err(_) => {} // EBADFD: a beginning that came only so far
        }
        // The kernel knows this thread as one that uses rings, and has workers for it, from the first call on.
        // SAFETY: a call without addresses.
        unsafe { uring.submission().push(&opcode::Nop::new().build()) }.map_err(io::Error::other)?;
        uring.submit_and_wait(1)?;
        uring.completion().for_each(drop);
        self.begun = true;
        // Workers go anywhere unless told otherwise, to the cores of pollers, too. Whoever opened the ring was kept off
        // those, if there are others; if there are none, anywhere it is.
        if let (Some(workers), Ok(own)) = (workers, sched_getaffinity(None))
            && (0..CpuSet::MAX_CPU).all(|core| !(workers.is_set(core) && own.is_set(core)))
            && let Err(error) = self.uring().submitter().register_iowq_aff(&cpu_set(&workers))
        {
            tracing::debug!("io_uring workers may run on every core: {error}"); // before 5.14
        }
        Ok(())
    }

    /// Whether one more call fits.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way < self.depth
    }

    /// Hands a call over; it is made by the next [`enter`](Ring::enter). `name` comes back with its result.
    ///
    /// # Panics
    /// If there is no [room](Ring::has_room).
    ///
    /// # Safety
    /// The memory of the call, and its list, stay where they are, are mapped and, the list, unchanged until the result
    /// has been reaped or the ring is dropped.
    pub(crate) unsafe fn push(&mut self, call: Call<'_>, name: u32) {
        let entry = entry(call).user_data(u64::from(name));
        // SAFETY: the addresses in the entry are good for as long as the kernel uses them: promised by the caller.
        let pushed = unsafe { self.uring().submission().push(&entry) };
        assert!(pushed.is_ok(), "a full ring: {} calls under way", self.under_way);
        self.under_way += 1;
        self.unsubmitted = true;
    }

    /// Ends what is under way, and returns when no address is used by the kernel any more. The ring is of no use after.
    pub(crate) fn close(&mut self) {
        if self.uring.take().is_none() || self.under_way == 0 {
            return; // it is closed and unmapped: from here on nothing is begun
        }
        let mut byte = [0u8; 1];
        loop {
            match rustix::io::read(&self.released, &mut byte) {
                Ok(0) => return,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!("waiting for an io_uring to end: {errno}");
                    return;
                }
            }
        }
    }

    /// Whether calls wait to be made, or the kernel wants this thread to finish some.
    pub(crate) fn wants_enter(&mut self) -> bool {
        if self.unsubmitted {
            return true;
        }
        let queue = self.uring().submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether calls wait to be made.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.unsubmitted
    }

    /// The system call: makes what was handed over and finishes what the kernel has for this thread.
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        let result = self.uring().submit();
        let left = self.uring().submission().len();
        self.unsubmitted = left > 0;
        match result {
            Ok(_) => Ok(()),
            // Too much at once: what was not taken is still there for the next time.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes the results that are there: names, and what the calls returned (negative: an errno).
    pub(crate) fn reap(&mut self, results: &mut Vec<(u32, i32)>) {
        let before = results.len();
        results.extend(self.uring().completion().map(|entry| (entry.user_data() as u32, entry.result())));
        self.under_way -= results.len() - before;
    }

    /// Becomes readable with each result, while [`notify`](Ring::notify) is on.
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The same, for who else may have something for the poller.
    pub(crate) fn waker(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.wake)
    }

    pub(crate) fn notify(&mut self, on: bool) {
        let queue = self.uring().completion();
        if on {
            queue.enable_eventfd();
        } else {
            queue.disable_eventfd();
        }
    }

    fn uring(&mut self) -> &mut IoUring {
        self.uring.as_mut().expect("open until its channel is dropped")
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads all of `to` at once, past any ring: does the file system take transfers like that?
pub(crate) fn read_once(file: BorrowedFd<'_>, to: GuestSlice, offset: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel writes to exactly the bytes of the slice, whose memory the caller keeps.
    let read = unsafe { libc::pread(file.as_raw_fd(), to.as_ptr().cast(), to.len(), offset) };
    match usize::try_from(read) {
        Ok(read) if read == to.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The set as the binding wants it.
fn cpu_set(set: &CpuSet) -> libc::cpu_set_t {
    // SAFETY: an array of integers, of which no core is in the set when all are zero.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)) {
        // SAFETY: sets a bit in an array of at least `MAX_CPU` of them; out of bounds it would panic.
        unsafe { libc::CPU_SET(core, &mut cores) };
    }
    cores
}

/// The best kind of ring that this kernel has.
fn build(depth: u32) -> Result<IoUring, RingError> {
    let kinds: [fn(&mut Builder) -> &mut Builder; 3] = [
        // 6.1: one thread, which finishes calls when it asks for results
        |builder| builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all(),
        // 5.19: no interrupt for a thread that comes by anyway
        |builder| builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all(),
        |builder| builder,
    ];
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for kind in kinds {
        match kind(IoUring::builder().dontfork().setup_r_disabled()).build(depth) {
            Ok(uring) => return Ok(uring),
            Err(error) => last = error,
        }
        if last.raw_os_error() != Some(libc::EINVAL) {
            break;
        }
    }
    match last.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Err(RingError::Missing(last)),
        _ => Err(RingError::Call { action: "setting up a ring", source: last }),
    }
}

fn entry(call: Call<'_>) -> squeue::Entry {
    let length = |slice: GuestSlice| u32::try_from(slice.len()).expect("at most BYTES_MAX");
    let count = |list: &[IoVec]| u32::try_from(list.len()).expect("at most LIST_MAX");
    match call {
        Call::Read { to: Memory::One(slice), offset } => {
            opcode::Read::new(FILE, slice.as_ptr(), length(slice)).offset(offset).build()
        }
        Call::Read { to: Memory::List(list), offset } => {
            opcode::Readv::new(FILE, list.as_ptr().cast(), count(list)).offset(offset).build()
        }
        Call::Write { from: Memory::One(slice), offset, durable } => {
            opcode::Write::new(FILE, slice.as_ptr(), length(slice)).offset(offset).rw_flags(flags(durable)).build()
        }
        Call::Write { from: Memory::List(list), offset, durable } => {
            opcode::Writev::new(FILE, list.as_ptr().cast(), count(list)).offset(offset).rw_flags(flags(durable)).build()
        }
        Call::Fallocate { mode, offset, len } => opcode::Fallocate::new(FILE, len).offset(offset).mode(mode).build(),
        Call::Fdatasync => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
    }
}

fn flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

/// The place of the file in the ring's table.
const FILE: Fixed = Fixed(0);

#[cfg(test)]
mod tests;
