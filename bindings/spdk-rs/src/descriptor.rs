//! A bdev that was opened: what it is, what happens to it, what it has done.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use spdk_sys::{spdk_bdev, spdk_bdev_desc, spdk_shim_bdev_info, spdk_shim_bdev_stat};

use crate::message::guarded;
use crate::{Errno, Thread, ThreadHandle};

/// An open bdev. Clones are the same; the last one, of those that channels have, too, closes it on the thread that opened it.
#[derive(Clone)]
pub struct Descriptor(pub(crate) Arc<Opened>);

pub(crate) struct Opened {
    pub(crate) raw: NonNull<spdk_bdev_desc>,
    thread: ThreadHandle,
    events: NonNull<Events>,
    name: String,
    /// Bytes of a block, if it lends its memory.
    pub(crate) lends: Option<u32>,
}

// SAFETY: addresses. Opening, closing and asking happen on one thread; other threads open channels with it, which SPDK allows.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

type Events = Box<dyn Fn(Event) + Send>;

/// What happens to a bdev that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is to go. It goes when every descriptor is closed; requests to it fail from now on.
    Remove,
    /// It has another number of blocks.
    Resize,
}

/// What a bdev says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BdevInfo {
    /// Its name, which need not be the one that it was opened with: that may be an alias.
    pub name: String,
    /// What kind of device it is, in the words of its module: "Malloc disk".
    pub product: String,
    /// Number of blocks.
    pub block_count: u64,
    /// Bytes of a block, with its metadata if that is interleaved.
    pub block_size: u32,
    /// Bytes of a physical block.
    pub physical_block_size: u32,
    /// Bytes of metadata with each block; 0 for none.
    pub metadata_size: u32,
    /// Blocks after which a request is cut, or would better be; 0 for none.
    pub optimal_boundary: u32,
    /// Blocks that are written together, at least 1.
    pub write_unit: u32,
    /// It is made of memory, which it lends: see [`IoChannel::move_by`](crate::IoChannel::move_by).
    pub lends: bool,
    /// Most blocks of a compare-and-write.
    pub compare_write_max: u32,
    /// Alignment of buffers in bytes, a power of two. SPDK copies what is not aligned.
    pub alignment: u32,
    /// Whether completed writes may be lost until they were flushed.
    pub write_cache: bool,
    /// Whether blocks are written in zones only.
    pub zoned: bool,
    /// What it can do by itself; SPDK does some of the rest for it.
    pub io_types: IoTypes,
}

/// A set of kinds of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoTypes(u32);

impl IoTypes {
    /// Whether it can give blocks back.
    #[must_use]
    pub fn unmap(self) -> bool {
        self.has(spdk_sys::SPDK_SHIM_IO_UNMAP)
    }

    /// Whether it can be flushed.
    #[must_use]
    pub fn flush(self) -> bool {
        self.has(spdk_sys::SPDK_SHIM_IO_FLUSH)
    }

    /// Whether it can be reset.
    #[must_use]
    pub fn reset(self) -> bool {
        self.has(spdk_sys::SPDK_SHIM_IO_RESET)
    }

    /// Whether it can write.
    #[must_use]
    pub fn write(self) -> bool {
        self.has(spdk_sys::SPDK_SHIM_IO_WRITE)
    }

    /// Whether it writes zeroes without being given them. SPDK writes them for one that can only write.
    #[must_use]
    pub fn write_zeroes(self) -> bool {
        self.has(spdk_sys::SPDK_SHIM_IO_WRITE_ZEROES)
    }

    /// Whether it compares. SPDK compares for one that can only read.
    #[must_use]
    pub fn compare(self) -> bool {
        self.has(spdk_sys::SPDK_SHIM_IO_COMPARE)
    }

    /// Whether it compares and writes. SPDK does so, under a lock of the blocks, for one that can only read and write.
    #[must_use]
    pub fn compare_and_write(self) -> bool {
        self.has(spdk_sys::SPDK_SHIM_IO_COMPARE_AND_WRITE)
    }

    /// Whether single requests can be aborted.
    #[must_use]
    pub fn abort(self) -> bool {
        self.has(spdk_sys::SPDK_SHIM_IO_ABORT)
    }

    fn has(self, io_type: spdk_sys::spdk_shim_io_type) -> bool {
        self.0 & 1 << io_type != 0
    }
}

/// What a bdev has done since it was there, for all its users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes read.
    pub read_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes given back.
    pub unmapped_bytes: u64,
    /// Unmaps.
    pub unmaps: u64,
}

/// Why a bdev is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SPDK has none of that name, now.
    #[error("SPDK has no bdev {name:?}")]
    Missing {
        /// As asked for.
        name: String,
    },
    /// Somebody else has it: another bdev stands on it.
    #[error("SPDK's bdev {name:?} is claimed: another bdev stands on it")]
    Claimed {
        /// As asked for.
        name: String,
    },
    /// Anything else.
    #[error("SPDK's bdev {name:?}: {errno}")]
    Refused {
        /// As asked for.
        name: String,
        /// SPDK's reason.
        errno: Errno,
    },
}

impl Opened {
    /// On the thread that opened it.
    fn info(&self) -> BdevInfo {
        let mut info = MaybeUninit::<spdk_shim_bdev_info>::uninit();
        // SAFETY: an open descriptor, on its thread; the shim writes all of it, and its strings live as long as the descriptor.
        unsafe {
            spdk_sys::spdk_shim_bdev_info(self.raw.as_ptr(), info.as_mut_ptr());
            let info = info.assume_init();
            BdevInfo {
                name: owned(info.name),
                product: owned(info.product),
                block_count: info.block_count,
                block_size: info.block_size,
                physical_block_size: info.physical_block_size,
                metadata_size: info.metadata_size,
                optimal_boundary: info.optimal_boundary,
                write_unit: info.write_unit.max(1),
                lends: info.lends,
                compare_write_max: info.compare_write_max,
                alignment: info.alignment.max(1),
                write_cache: info.write_cache,
                zoned: info.zoned,
                io_types: IoTypes(info.io_types),
            }
        }
    }
}

impl Descriptor {
    /// Opens the bdev of that name, or alias, on `thread`; for writing, too, if `write`. `events` hears there of what happens
    /// to it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        thread: &Thread,
        name: &str,
        write: bool,
        events: impl Fn(Event) + Send + 'static,
    ) -> Result<Descriptor, OpenError> {
        let refuse = |errno: Errno| {
            let name = name.to_owned();
            match errno.raw() {
                libc::ENODEV => OpenError::Missing { name },
                libc::EPERM => OpenError::Claimed { name },
                _ => OpenError::Refused { name, errno },
            }
        };
        let c_name = CString::new(name).map_err(|_| refuse(Errno::of(libc::EINVAL)))?;
        let events: *mut Events = Box::into_raw(Box::new(Box::new(events)));
        let mut raw = ptr::null_mut();
        // SAFETY: on an SPDK thread (the proof); the context lives until the descriptor is closed.
        let status = unsafe {
            spdk_sys::spdk_bdev_open_ext(c_name.as_ptr(), write, Some(event), events.cast::<c_void>(), &mut raw)
        };
        match (Errno::check(status), NonNull::new(raw), NonNull::new(events)) {
            (Ok(()), Some(raw), Some(events)) => {
                let mut opened = Opened { raw, thread: thread.handle(), events, name: name.to_owned(), lends: None };
                let info = opened.info();
                opened.lends = info.lends.then_some(info.block_size);
                Ok(Descriptor(Arc::new(opened)))
            }
            (result, ..) => {
                // SAFETY: made above, and SPDK does not have it.
                drop(unsafe { Box::from_raw(events) });
                Err(refuse(result.err().unwrap_or(Errno::of(libc::ENODEV))))
            }
        }
    }

    /// The name that it was opened with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it says about itself now.
    ///
    /// # Panics
    /// If the calling thread is not the one that opened it.
    #[must_use]
    pub fn info(&self) -> BdevInfo {
        self.assert_home();
        self.0.info()
    }

    /// Has `done` called on this thread, later, with what the bdev has done so far.
    ///
    /// # Panics
    /// If the calling thread is not the one that opened it.
    pub fn statistics(&self, done: impl FnOnce(Result<Statistics, Errno>) + 'static) {
        self.assert_home();
        let call = Box::new(StatCall { stat: MaybeUninit::zeroed(), _open: self.clone(), done: Box::new(done) });
        let call = Box::into_raw(call);
        // SAFETY: an open descriptor, which the call holds; the call lives until `stat_done`.
        unsafe {
            let stat = (*call).stat.as_mut_ptr();
            let status =
                spdk_sys::spdk_shim_bdev_stat(self.0.raw.as_ptr(), stat, Some(stat_done), call.cast::<c_void>());
            if status != 0 {
                stat_done(call.cast::<c_void>(), status);
            }
        }
    }

    fn assert_home(&self) {
        let here = Thread::current().is_some_and(|thread| thread.handle().is(&self.0.thread));
        assert!(here, "SPDK's bdev {:?} is used on the thread that opened it", self.0.name);
    }
}

struct StatCall {
    stat: MaybeUninit<spdk_shim_bdev_stat>,
    _open: Descriptor,
    done: Box<dyn FnOnce(Result<Statistics, Errno>)>,
}

extern "C" fn stat_done(context: *mut c_void, status: i32) {
    // SAFETY: `Box::into_raw` of this type; called once. The numbers were zeroes, and may have been written.
    let (call, stat) = unsafe {
        let call = Box::from_raw(context.cast::<StatCall>());
        let stat = call.stat.assume_init();
        (call, stat)
    };
    let statistics = Statistics {
        read_bytes: stat.read_bytes,
        reads: stat.reads,
        written_bytes: stat.written_bytes,
        writes: stat.writes,
        unmapped_bytes: stat.unmapped_bytes,
        unmaps: stat.unmaps,
    };
    let result = Errno::check(status).map(|()| statistics);
    guarded("statistics of a bdev", || (call.done)(result));
}

extern "C" fn event(kind: spdk_sys::spdk_bdev_event_type, _bdev: *mut spdk_bdev, context: *mut c_void) {
    let event = match kind {
        spdk_sys::SPDK_SHIM_EVENT_REMOVE => Event::Remove,
        spdk_sys::SPDK_SHIM_EVENT_RESIZE => Event::Resize,
        _ => return,
    };
    // SAFETY: lives until the descriptor is closed, on this thread, after which SPDK reports nothing.
    let events = unsafe { &*context.cast::<Events>() };
    guarded("an event of a bdev", || events(event));
}

/// # Safety
/// Null, or a string that lives through the call.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: a string (a promise of the caller's).
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Descriptor").field(&self.0.name).finish()
    }
}

/// What is closed on the thread that opened it.
struct Closing {
    raw: NonNull<spdk_bdev_desc>,
    events: NonNull<Events>,
}

// SAFETY: addresses on their way to the thread that they belong to.
unsafe impl Send for Closing {}

impl Closing {
    fn close(self) {
        // SAFETY: on the thread that opened it, after its last user; nobody is told of anything afterwards.
        unsafe {
            spdk_sys::spdk_bdev_close(self.raw.as_ptr());
            drop(Box::from_raw(self.events.as_ptr()));
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let closing = Closing { raw: self.raw, events: self.events };
        // Always by message, also from the thread itself: it may be in the middle of an event.
        if self.thread.send(move || closing.close()).is_err() {
            tracing::error!(bdev = self.name, "an SPDK bdev stays open: the thread that opened it has ended");
        }
    }
}
