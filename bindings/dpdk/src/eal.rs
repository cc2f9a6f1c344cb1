//! DPDK's environment: started once per process, never ended. Which arguments are good is the caller's.

use std::ffi::{CString, c_char, c_int};

use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Errno;
use crate::log::{self, Complaints};

/// Proof that EAL runs. Everything that needs it asks for one; copies are free.
#[derive(Clone, Copy, Debug)]
pub struct Eal {
    _running: (),
}

/// How EAL is started.
#[derive(Clone, Debug, Default)]
pub struct EalConfig {
    /// Its arguments, without the program's name: see DPDK's "EAL parameters".
    pub arguments: Vec<String>,
    /// Where its own threads may run: those are started while the caller is confined to these cores. Where the caller may
    /// run, if empty.
    pub cores: Vec<usize>,
}

/// Why EAL did not start. It cannot be tried again in this process.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// It was started before, or failed to.
    #[error("DPDK's EAL is started once per process, and was")]
    Again,
    /// An argument cannot be passed on.
    #[error("EAL argument '{argument}': {reason}")]
    Argument {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The cores for its threads cannot be had.
    #[error("EAL's threads cannot be confined to cores {cores:?}: {errno}")]
    Cores {
        /// The cores that were asked for.
        cores: Vec<usize>,
        /// The kernel's reason.
        errno: rustix::io::Errno,
    },
    /// `rte_eal_init` failed.
    #[error("DPDK's EAL did not start with '{arguments}': {explanation}{complaints}")]
    Init {
        /// The arguments.
        arguments: String,
        /// `rte_errno` in words, and what it means here.
        explanation: String,
        /// What DPDK said.
        complaints: Complaints,
    },
}

static STARTED: Mutex<bool> = Mutex::new(false);

impl Eal {
    /// Starts EAL. The caller's affinity, which `rte_eal_init` narrows to one core, is afterwards what it was before.
    ///
    /// # Errors
    /// See [`EalError`].
    pub fn start(config: &EalConfig) -> Result<Eal, EalError> {
        let arguments = c_arguments(&config.arguments)?;
        let mut started = STARTED.lock();
        if *started {
            return Err(EalError::Again);
        }
        log::take_over();
        let confined =
            Confined::to(&config.cores).map_err(|errno| EalError::Cores { cores: config.cores.clone(), errno })?;
        *started = true;
        let (errno, complaints) = log::listen(|| init(arguments));
        drop(confined);
        match errno {
            None => Ok(Eal { _running: () }),
            Some(errno) => {
                Err(EalError::Init { arguments: config.arguments.join(" "), explanation: explain(errno), complaints })
            }
        }
    }
}

/// Arguments that do not return to the caller, but print and exit.
const EXITING: [&str; 2] = ["-h", "--help"];

fn c_arguments(arguments: &[String]) -> Result<Vec<CString>, EalError> {
    let bad = |argument: &str, reason| EalError::Argument { argument: argument.to_owned(), reason };
    let mut all = vec![c"dpdk".to_owned()];
    for argument in arguments {
        if EXITING.contains(&argument.as_str()) {
            return Err(bad(argument, "would end the process"));
        }
        all.push(CString::new(argument.as_str()).map_err(|_| bad(argument, "has a NUL character in it"))?);
    }
    Ok(all)
}

/// `None` if it went well.
fn init(arguments: Vec<CString>) -> Option<Errno> {
    // EAL keeps pointers to them, and may reorder the array.
    let pointers: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let count = pointers.len() as c_int;
    let pointers = Box::leak(pointers.into_boxed_slice());
    // SAFETY: `count` strings that live for ever in an array that does; the first and only call (the caller holds STARTED).
    let status = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
    (status < 0).then(Errno::last)
}

/// What DPDK's manual says about `rte_errno` after `rte_eal_init`, in the words of somebody who has to repair it.
fn explain(errno: Errno) -> String {
    use rustix::io::Errno as E;
    let hint = match E::from_raw_os_error(errno.raw()) {
        E::ACCESS => "permissions: hugepages, devices and locked memory want root or CAP_IPC_LOCK and CAP_SYS_ADMIN",
        E::AGAIN => {
            "a device or the configuration of another DPDK process is in use; --in-memory or another --file-prefix helps"
        }
        E::INVAL => "an argument is wrong",
        E::NOMEM => "not enough memory: free hugepages, or --no-huge with -m MIB",
        E::NODEV => "a bus or device could not be probed",
        E::NOENT => "no hugepages: reserve some, or use --no-huge with -m MIB",
        E::NOSYS => "the kernel or processor lacks something that DPDK needs",
        E::PROTO => "the PCI bus could not be read; --no-pci leaves it alone",
        E::ALREADY => "it was started before",
        _ => return errno.to_string(),
    };
    format!("{errno}: {hint}")
}

/// The calling thread's affinity, narrowed; dropping it restores what was there. Saved in any case.
struct Confined(CpuSet);

impl Confined {
    fn to(cores: &[usize]) -> Result<Confined, rustix::io::Errno> {
        let before = Confined(sched_getaffinity(None)?);
        if !cores.is_empty() {
            let mut set = CpuSet::new();
            for &core in cores.iter().filter(|&&core| core < CpuSet::MAX_CPU) {
                set.set(core);
            }
            sched_setaffinity(None, &set)?;
        }
        Ok(before)
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        if let Err(errno) = sched_setaffinity(None, &self.0) {
            tracing::warn!(%errno, "the affinity of the thread that started DPDK could not be restored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_would_exit_or_cannot_be_c_strings_are_refused() {
        for bad in ["--help", "-h", "a\0b"] {
            assert!(matches!(c_arguments(&[bad.to_owned()]), Err(EalError::Argument { .. })), "{bad:?}");
        }
        assert_eq!(c_arguments(&["--no-pci".to_owned()]).unwrap(), [c"dpdk".to_owned(), c"--no-pci".to_owned()]);
    }

    #[test]
    fn explanation_names_errno_and_remedy() {
        assert_eq!(explain(Errno::of(-22)), "Invalid argument (22): an argument is wrong");
        assert!(explain(Errno::of(-1)).ends_with("(1)"));
    }
}
