//! SPDK threads, polled by whoever made them.

use std::cell::Cell;
use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use spdk_sys::spdk_thread;

use crate::log::{self, Complaints};
use crate::message;
use crate::{Env, Errno};

/// An SPDK thread. It lives on the operating system's thread that made it, of which it is the current SPDK thread until it ends;
/// clones are the same thread. It runs when it is [polled](Thread::poll).
///
/// When the last clone is dropped the thread is made to exit, and polled until it has.
#[derive(Clone, Debug)]
pub struct Thread(Rc<Living>);

#[derive(Debug)]
struct Living {
    env: Env,
    raw: NonNull<spdk_thread>,
    handle: ThreadHandle,
    polling: Cell<bool>,
}

/// A way to an SPDK thread from anywhere.
#[derive(Clone, Debug)]
pub struct ThreadHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    /// `None` once the thread has begun to exit. Held for reading while a message is sent.
    raw: RwLock<Option<Address>>,
}

#[derive(Clone, Copy, Debug)]
struct Address(NonNull<spdk_thread>);

// SAFETY: an address. What is done with it from other threads is `spdk_thread_send_msg`, which any thread may call.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

/// The SPDK thread has ended, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the SPDK thread has ended")]
pub struct Gone;

/// Why there is no thread.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// This thread has one.
    #[error("SPDK thread {name:?}: this thread has an SPDK thread already")]
    Occupied {
        /// As asked for.
        name: String,
    },
    /// SPDK has no memory for it, or was not started.
    #[error("SPDK thread {name:?} could not be made{complaints}")]
    Create {
        /// As asked for.
        name: String,
        /// What SPDK said.
        complaints: Complaints,
    },
}

thread_local! {
    /// Set while this thread makes a thread for itself.
    static MAKING: Cell<bool> = const { Cell::new(false) };
    /// The SPDK thread of this thread; it is gone before its `Living` is.
    static CURRENT: Cell<*const Living> = const { Cell::new(ptr::null()) };
}

/// Threads that SPDK's modules have made for themselves; somebody has to poll them.
static OTHER_THREADS: Mutex<Vec<Address>> = Mutex::new(Vec::new());

/// SPDK's library of threads, before the first one. Room for so many messages that have been sent and not been received.
pub(crate) fn start_library() -> Result<(), Errno> {
    const MESSAGES: usize = (1 << 16) - 1;
    static STARTED: Mutex<Option<Result<(), Errno>>> = Mutex::new(None);
    // SAFETY: `created` takes what shim.h says; the first and only call (the lock, and what is in it).
    *STARTED
        .lock()
        .get_or_insert_with(|| Errno::check(unsafe { spdk_sys::spdk_shim_threads_start(Some(created), MESSAGES) }))
}

extern "C" fn created(thread: *mut spdk_thread) -> c_int {
    if let Some(thread) = NonNull::new(thread).filter(|_| !MAKING.get()) {
        OTHER_THREADS.lock().push(Address(thread));
    }
    0
}

impl Thread {
    /// Makes an SPDK thread for the calling thread. The first one of the process is SPDK's "app thread": what manages SPDK
    /// happens there.
    ///
    /// # Errors
    /// See [`ThreadError`].
    pub fn create(env: Env, name: &str) -> Result<Thread, ThreadError> {
        let name = name.replace('\0', "");
        if !CURRENT.get().is_null() {
            return Err(ThreadError::Occupied { name });
        }
        let (raw, complaints) = log::listen(|| {
            start_library().ok()?;
            let c_name = CString::new(name.as_str()).unwrap_or_default();
            MAKING.set(true);
            // SAFETY: the environment runs (the token), and the library was started; no core is asked for. The name is copied.
            let raw = unsafe { spdk_sys::spdk_thread_create(c_name.as_ptr(), ptr::null()) };
            MAKING.set(false);
            NonNull::new(raw)
        });
        let Some(raw) = raw else { return Err(ThreadError::Create { name, complaints }) };
        let handle = ThreadHandle(Arc::new(Shared { name, raw: RwLock::new(Some(Address(raw))) }));
        let living = Rc::new(Living { env, raw, handle, polling: Cell::new(false) });
        // SAFETY: a thread that was just made, which nobody else polls; it is taken back before it ends.
        unsafe { spdk_sys::spdk_set_thread(raw.as_ptr()) };
        CURRENT.set(Rc::as_ptr(&living));
        Ok(Thread(living))
    }

    /// The SPDK thread of the calling thread.
    #[must_use]
    pub fn current() -> Option<Thread> {
        let living = CURRENT.get();
        if living.is_null() {
            return None;
        }
        // SAFETY: from `Rc::as_ptr`, and reset before the last of them is dropped, on this thread.
        Some(Thread(unsafe {
            Rc::increment_strong_count(living);
            Rc::from_raw(living)
        }))
    }

    /// Runs what there is to do: messages, pollers of SPDK's modules, and with them the callbacks of requests. Says whether
    /// there was anything. From within itself it does nothing.
    #[inline]
    pub fn poll(&self) -> bool {
        self.poll_at(0)
    }

    /// As [`Thread::poll`], by whoever has just looked at the time-stamp counter, which SPDK would do otherwise.
    #[inline]
    pub fn poll_at(&self, ticks: u64) -> bool {
        if self.0.polling.replace(true) {
            return false;
        }
        // SAFETY: the thread lives here, and is not polled at the moment; 0 is the usual number of messages, and as a
        // time it is "now".
        let busy = unsafe { spdk_sys::spdk_thread_poll(self.0.raw.as_ptr(), 0, ticks) } > 0;
        self.0.polling.set(false);
        busy
    }

    /// In how many ticks a timed poller is due. `None`: there is none.
    #[must_use]
    pub fn next_expiration(&self) -> Option<u64> {
        // SAFETY: the thread lives here.
        let ticks = unsafe { spdk_sys::spdk_thread_next_poller_expiration(self.0.raw.as_ptr()) };
        (ticks != 0).then(|| ticks.saturating_sub(self.0.env.ticks()))
    }

    /// A way to it from anywhere.
    #[must_use]
    pub fn handle(&self) -> ThreadHandle {
        self.0.handle.clone()
    }

    /// The token that it was made with.
    #[must_use]
    pub fn env(&self) -> Env {
        self.0.env
    }
}

/// Polls the threads that SPDK's modules have made for themselves. Says whether there was anything to do. Only the first SPDK
/// thread does so; on another one nothing happens.
pub fn poll_others(management: &Thread) -> bool {
    // SAFETY: asks about the calling thread, whose SPDK thread `management` is.
    if !unsafe { spdk_sys::spdk_shim_on_app_thread() } {
        return false;
    }
    let threads = OTHER_THREADS.lock().clone();
    let mut busy = false;
    for Address(thread) in threads {
        // SAFETY: made by a module, and polled only here; the manager's thread is current again afterwards. One that has
        // exited is destroyed once, and forgotten.
        unsafe {
            busy |= spdk_sys::spdk_thread_poll(thread.as_ptr(), 0, 0) > 0;
            if spdk_sys::spdk_thread_is_exited(thread.as_ptr()) {
                OTHER_THREADS.lock().retain(|other| other.0 != thread);
                spdk_sys::spdk_thread_destroy(thread.as_ptr());
            }
        }
    }
    debug_assert!(CURRENT.get() == Rc::as_ptr(&management.0));
    busy
}

impl ThreadHandle {
    /// The thread's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether both are ways to the same thread.
    pub(crate) fn is(&self, other: &ThreadHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Has the thread run `work` when it is polled next. What panics there is logged.
    ///
    /// # Errors
    /// [`Gone`]: `work` is dropped.
    pub fn send(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Gone> {
        let alive = self.0.raw.read();
        let Some(Address(raw)) = *alive else { return Err(Gone) };
        let context = message::context(Box::new(work));
        // SAFETY: the thread does not exit while the lock is held. `run` gets the context once; if it is not sent, it is dropped.
        unsafe {
            let sent = spdk_sys::spdk_thread_send_msg(raw.as_ptr(), Some(message::run), context);
            if sent != 0 {
                message::discard(context);
                return Err(Gone);
            }
        }
        Ok(())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        *self.handle.0.raw.write() = None;
        let raw = self.raw.as_ptr();
        CURRENT.set(ptr::null());
        // SAFETY: the thread lives here and is current; nobody can send it anything any more, and channels hold it, so there are
        // none. Once it has exited it is destroyed, and then nothing knows of it.
        unsafe {
            spdk_sys::spdk_set_thread(raw);
            spdk_sys::spdk_thread_exit(raw);
            while !spdk_sys::spdk_thread_is_exited(raw) {
                spdk_sys::spdk_thread_poll(raw, 0, 0);
            }
            spdk_sys::spdk_set_thread(ptr::null_mut());
            spdk_sys::spdk_thread_destroy(raw);
        }
    }
}
