//! SPDK's environment: started once per process, with an EAL of its own or over one that runs already, and never ended.

use std::ffi::{CString, NulError};
use std::ptr;

use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::log::{self, Complaints};
use crate::{Errno, Gone};

/// Proof that SPDK's environment runs. Everything that needs it asks for one; copies are free.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    _running: (),
}

/// How an environment of its own is started.
#[derive(Clone, Debug, Default)]
pub struct EnvConfig {
    /// Memory for everything that SPDK makes, in MiB: of huge pages, or of ordinary ones. `None`: as much as there is.
    pub memory_mib: Option<u32>,
    /// Ordinary pages: no device can reach them without an IOMMU.
    pub no_huge: bool,
    /// Leaves PCI devices alone.
    pub no_pci: bool,
    /// Cores on which EAL's one thread may be. Where the caller may run, if empty.
    pub cores: Vec<usize>,
    /// Further arguments of EAL.
    pub arguments: Vec<String>,
}

/// Why the environment did not start. It cannot be tried again in this process.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// It was started before, or failed to.
    #[error("SPDK's environment is started once per process, and was")]
    Again,
    /// An argument cannot be passed on.
    #[error("SPDK's environment: an argument has a NUL character in it: {0}")]
    Argument(#[from] NulError),
    /// The affinity of the calling thread cannot be kept.
    #[error("SPDK's environment: the affinity of its caller: {0}")]
    Affinity(rustix::io::Errno),
    /// SPDK refused.
    #[error("SPDK's environment did not start: {errno}{complaints}")]
    Start {
        /// What it returned.
        errno: Errno,
        /// What it said.
        complaints: Complaints,
    },
}

static STARTED: Mutex<bool> = Mutex::new(false);

impl Env {
    /// Starts DPDK's EAL and SPDK's environment over it. The caller's affinity, which EAL narrows, is afterwards what it was.
    ///
    /// # Errors
    /// See [`EnvError`].
    pub fn start(config: &EnvConfig) -> Result<Env, EnvError> {
        let lcores = lcores(&config.cores).map(CString::new).transpose()?;
        let arguments = config.arguments.join(" ");
        let arguments = (!arguments.is_empty()).then(|| CString::new(arguments)).transpose()?;
        let raw = spdk_sys::spdk_shim_env_config {
            name: c"ringside".as_ptr(),
            lcores: lcores.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
            arguments: arguments.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
            mem_mib: config.memory_mib.map_or(-1, |mib| i32::try_from(mib).unwrap_or(i32::MAX)),
            no_pci: config.no_pci,
            no_huge: config.no_huge,
        };
        let before = sched_getaffinity(None).map_err(EnvError::Affinity)?;
        // SAFETY: strings that live until it returns; SPDK copies them. The first and only call (`once`).
        let started = once(|| unsafe { spdk_sys::spdk_shim_env_start(&raw) });
        restore(&before);
        started
    }

    /// Starts SPDK's environment over an EAL that this process has started: with `legacy_memory` if it was told `--no-huge` or
    /// `--legacy-mem`.
    ///
    /// # Safety
    /// `rte_eal_init` of the DPDK that SPDK was built with has succeeded in this process.
    ///
    /// # Errors
    /// See [`EnvError`].
    pub unsafe fn adopt(legacy_memory: bool) -> Result<Env, EnvError> {
        // SAFETY: EAL runs (a promise of the caller's); the first and only call (`once`).
        once(|| unsafe { spdk_sys::spdk_env_dpdk_post_init(legacy_memory) })
    }

    /// Time in ticks of [`ticks_per_second`](Env::ticks_per_second).
    #[must_use]
    #[inline]
    pub fn ticks(self) -> u64 {
        // SAFETY: reads the time-stamp counter.
        unsafe { spdk_sys::spdk_get_ticks() }
    }

    /// How fast ticks pass.
    #[must_use]
    pub fn ticks_per_second(self) -> u64 {
        // SAFETY: reads a variable that is set once.
        unsafe { spdk_sys::spdk_get_ticks_hz() }
    }
}

fn once(start: impl FnOnce() -> i32) -> Result<Env, EnvError> {
    let mut started = STARTED.lock();
    if std::mem::replace(&mut *started, true) {
        return Err(EnvError::Again);
    }
    log::take_over();
    let (status, complaints) = log::listen(start);
    Errno::check(status).map_err(|errno| EnvError::Start { errno, complaints })?;
    Ok(Env { _running: () })
}

/// EAL's one thread, and where it may be.
fn lcores(cores: &[usize]) -> Option<String> {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    (!cores.is_empty()).then(|| format!("0@({})", cores.join(",")))
}

fn restore(affinity: &CpuSet) {
    if let Err(errno) = sched_setaffinity(None, affinity) {
        tracing::warn!(%errno, "the affinity of the thread that started SPDK could not be restored");
    }
}

impl From<Gone> for Errno {
    fn from(_: Gone) -> Errno {
        Errno::of(libc::ESHUTDOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lcores_has_one_thread_of_eal_that_may_be_on_every_core() {
        assert_eq!(lcores(&[0, 2, 130]), Some("0@(0,2,130)".to_owned()));
        assert_eq!(lcores(&[]), None);
    }
}
