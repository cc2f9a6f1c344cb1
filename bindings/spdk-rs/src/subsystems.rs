//! SPDK's subsystems: started from a configuration in SPDK's own JSON, ended in the other order. And its RPC server.

use std::cell::Cell;
use std::ffi::{CString, c_int, c_void};
use std::rc::Rc;
use std::thread;

use crate::buffers::USER;
use crate::log::{self, Complaints};
use crate::thread::poll_others;
use crate::{Errno, Thread};

/// SPDK's subsystems, running: block devices and what they need. Ended when it is dropped, which waits until every descriptor
/// and every channel is closed.
#[derive(Debug)]
pub struct Subsystems {
    thread: Thread,
}

/// Why subsystems did not start. They cannot be started again in this process.
#[derive(Debug, thiserror::Error)]
pub enum SubsystemError {
    /// The calling thread is not the one that manages SPDK: the first that was made.
    #[error("SPDK's subsystems are started on its first thread")]
    OtherThread,
    /// A step failed.
    #[error("{step}: {errno}{complaints}")]
    Step {
        /// What was being done, or which part of the configuration is wrong.
        step: String,
        /// What SPDK returned.
        errno: Errno,
        /// What it said.
        complaints: Complaints,
    },
}

/// A part of SPDK's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is called in errors.
    pub name: String,
    /// Its text, as SPDK's applications read (`save_config` writes such files).
    pub json: Vec<u8>,
}

/// `SPDK_RPC_RUNTIME`: what methods may be called from now on.
const RUNTIME: u32 = 2;

impl Subsystems {
    /// Starts them on `thread`, the first SPDK thread of the process, with a configuration in parts, one after the other. Polls
    /// until it is done; other threads have to be polled meanwhile.
    ///
    /// # Errors
    /// See [`SubsystemError`]. What the configuration has that SPDK refuses is an error.
    pub fn start(thread: &Thread, configuration: &[Part]) -> Result<Subsystems, SubsystemError> {
        // SAFETY: asks about the calling thread.
        if !unsafe { spdk_sys::spdk_shim_on_app_thread() } {
            return Err(SubsystemError::OtherThread);
        }
        // SAFETY: a name that lives for ever. A second user of the same name is refused, and then it is there already.
        unsafe { spdk_sys::spdk_shim_buffers_register(USER.as_ptr()) };
        let subsystems = Subsystems { thread: thread.clone() };
        configuration.iter().try_for_each(|part| subsystems.load(part))?;
        // SAFETY: on the first thread; `done` is called once with the context.
        subsystems.step("starting SPDK's subsystems", |done, context| unsafe {
            spdk_sys::spdk_subsystem_init(done, context);
        })?;
        // SAFETY: a variable of SPDK's, on the thread that reads it.
        unsafe { spdk_sys::spdk_rpc_set_state(RUNTIME) };
        configuration.iter().try_for_each(|part| subsystems.load(part))?;
        Ok(subsystems)
    }

    /// Has SPDK carry out those methods of a part of the configuration that its state allows: some before subsystems start, the
    /// others afterwards.
    fn load(&self, part: &Part) -> Result<(), SubsystemError> {
        // It is changed in place while it is read.
        let mut copy = part.json.clone();
        // SAFETY: on the first thread; SPDK makes a copy of the text; `done` is called once with the context.
        self.step(&part.name, |done, context| unsafe {
            let len = isize::try_from(copy.len()).unwrap_or(isize::MAX);
            spdk_sys::spdk_subsystem_load_config(copy.as_mut_ptr().cast(), len, done, context, true);
        })
    }

    fn step(
        &self,
        step: &str,
        begin: impl FnOnce(spdk_sys::spdk_subsystem_init_fn, *mut c_void),
    ) -> Result<(), SubsystemError> {
        let ended = Rc::new(Cell::new(None));
        let (status, complaints) = log::listen(|| {
            begin(Some(note_status), Rc::into_raw(Rc::clone(&ended)).cast_mut().cast());
            poll_until(&self.thread, || ended.get())
        });
        Errno::check(status).map_err(|errno| SubsystemError::Step { step: step.to_owned(), errno, complaints })
    }

    /// Starts SPDK's JSON-RPC server on a socket, which is made there.
    ///
    /// # Errors
    /// The path is not one, or is taken.
    pub fn serve_rpc(&self, path: &str) -> Result<Rpc, SubsystemError> {
        let refuse = |errno, complaints| {
            let step = format!("SPDK's RPC server on {path:?}");
            SubsystemError::Step { step, errno, complaints }
        };
        let c_path = CString::new(path).map_err(|_| refuse(Errno::of(libc::EINVAL), Complaints::default()))?;
        // SAFETY: on the thread that manages SPDK; the path is copied, and there are no options.
        let (status, complaints) =
            log::listen(|| unsafe { spdk_sys::spdk_rpc_initialize(c_path.as_ptr(), std::ptr::null()) });
        Errno::check(status).map_err(|errno| refuse(errno, complaints))?;
        Ok(Rpc { path: c_path, _thread: self.thread.clone() })
    }
}

/// SPDK's JSON-RPC server. It answers when the thread that it was started on is polled, and ends when this is dropped.
#[derive(Debug)]
pub struct Rpc {
    path: CString,
    /// It does not leave its thread.
    _thread: Thread,
}

impl Drop for Rpc {
    fn drop(&mut self) {
        // SAFETY: started with that path, on this thread.
        unsafe { spdk_sys::spdk_rpc_server_finish(self.path.as_ptr()) };
    }
}

impl Drop for Subsystems {
    fn drop(&mut self) {
        let ended = Rc::new(Cell::new(None::<()>));
        // SAFETY: on the first thread; `note_end` is called once with the context.
        unsafe {
            spdk_sys::spdk_subsystem_fini(Some(note_end), Rc::into_raw(Rc::clone(&ended)).cast_mut().cast());
        }
        poll_until(&self.thread, || ended.get());
    }
}

/// Polls what manages SPDK until there is an answer.
fn poll_until<T>(thread: &Thread, mut answer: impl FnMut() -> Option<T>) -> T {
    loop {
        let busy = thread.poll() | poll_others(thread);
        if let Some(answer) = answer() {
            return answer;
        }
        if !busy {
            thread::yield_now();
        }
    }
}

extern "C" fn note_status(status: c_int, context: *mut c_void) {
    // SAFETY: `Rc::into_raw` of this type, once for this call, which is on the same thread.
    unsafe { Rc::from_raw(context.cast::<Cell<Option<i32>>>()) }.set(Some(status));
}

extern "C" fn note_end(context: *mut c_void) {
    // SAFETY: as above.
    unsafe { Rc::from_raw(context.cast::<Cell<Option<()>>>()) }.set(Some(()));
}
