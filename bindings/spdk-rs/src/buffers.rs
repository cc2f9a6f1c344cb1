//! Buffers of SPDK's pool (iobuf), which devices can reach: for data that comes from memory that they cannot.

use std::ptr::NonNull;

use crate::Thread;

/// The calling thread's way into SPDK's pool of buffers.
#[derive(Debug)]
pub struct Buffers {
    raw: NonNull<spdk_sys::spdk_shim_buffers>,
    small: u32,
    large: u32,
    /// Last, so that the SPDK thread is there when the pool is left.
    _thread: Thread,
}

/// A buffer out of the pool. It has to be [given back](Buffers::give): dropping it loses it.
#[derive(Debug)]
#[must_use = "a buffer that is dropped is lost to the pool"]
pub struct Buffer {
    address: NonNull<u8>,
    len: u32,
}

/// The pool has too few buffers for one more user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SPDK's pool of buffers has too few for another thread (iobuf_set_options in SPDK's configuration)")]
pub struct BuffersError;

/// Who uses the pool, as its statistics name it.
pub(crate) const USER: &std::ffi::CStr = c"ringside";
/// Buffers that each thread keeps: the pool is shared beyond that.
const SMALL_KEPT: u32 = 8;
const LARGE_KEPT: u32 = 2;

impl Buffers {
    /// Opens the pool for `thread`. Subsystems have been started.
    ///
    /// # Errors
    /// [`BuffersError`].
    pub fn open(thread: &Thread) -> Result<Buffers, BuffersError> {
        let (mut small, mut large) = (0, 0);
        // SAFETY: a thread that is current (it lives here); the user was registered before subsystems were started, and without
        // subsystems there is no pool: that is refused. Two numbers are written.
        let raw = unsafe {
            spdk_sys::spdk_shim_buffers_sizes(&mut small, &mut large);
            spdk_sys::spdk_shim_buffers_open(USER.as_ptr(), SMALL_KEPT, LARGE_KEPT)
        };
        let raw = NonNull::new(raw).ok_or(BuffersError)?;
        Ok(Buffers { raw, small, large, _thread: thread.clone() })
    }

    /// Bytes of the largest buffer.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.large as usize
    }

    /// A buffer of `len` bytes, at most [`len_max`](Buffers::len_max); `None` if there is none at the moment.
    #[must_use]
    pub fn take(&mut self, len: usize) -> Option<Buffer> {
        let len = u32::try_from(len).ok().filter(|&len| len <= self.large)?;
        // The pool goes by the length, also when it takes the buffer back.
        let len = if len <= self.small { self.small } else { self.large };
        // SAFETY: on its thread, a length that the pool has.
        let address = unsafe { spdk_sys::spdk_shim_buffers_take(self.raw.as_ptr(), len) };
        Some(Buffer { address: NonNull::new(address.cast())?, len })
    }

    /// Gives a buffer back that came from here.
    pub fn give(&mut self, buffer: Buffer) {
        // SAFETY: on its thread, taken with that length, and gone from here on.
        unsafe { spdk_sys::spdk_shim_buffers_give(self.raw.as_ptr(), buffer.address.as_ptr().cast(), buffer.len) };
    }
}

impl Buffer {
    /// Where it is. Its bytes are whoever's holds it, and a device's while a request uses them.
    #[must_use]
    pub fn address(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// Bytes in it.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.len as usize
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: on its thread, once. What was taken and not given back is lost, not freed.
        unsafe { spdk_sys::spdk_shim_buffers_close(self.raw.as_ptr()) };
    }
}
