//! Which cores this thread may use, checking a list of poller cores against them, and pinning; starting threads is `reactor`'s.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fmt::Write;
use std::io;
use thiserror::Error;

/// Checks a list of poller cores: not empty, no core twice, each allowed for the calling thread. So call it, and
/// [`Reactor::start`](crate::Reactor::start) which does, before [`control_affinity`] narrows the set.
pub fn check(cores: &[usize]) -> Result<(), AffinityError> {
    let allowed = allowed()?;
    if cores.is_empty() {
        return Err(AffinityError::Empty);
    }
    for (index, &core) in cores.iter().enumerate() {
        if cores[..index].contains(&core) {
            return Err(AffinityError::Duplicate { core });
        }
        if !allowed.contains(&core) {
            return Err(AffinityError::NotAllowed { core, allowed: ranges(&allowed) });
        }
    }
    Ok(())
}

/// Puts the calling thread, and the threads that it will spawn, on the allowed cores that are not in `poller_cores`. Where
/// none are left, nothing changes. Returns the cores in force. For the main thread, after the reactor started and
/// before any control thread.
pub fn control_affinity(poller_cores: &[usize]) -> Result<Vec<usize>, AffinityError> {
    let allowed = allowed()?;
    let others: Vec<usize> = allowed.iter().copied().filter(|core| !poller_cores.contains(core)).collect();
    if others.is_empty() {
        return Ok(allowed);
    }
    let mut set = CpuSet::new();
    others.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set)
        .map_err(|errno| AffinityError::Set { cores: ranges(&others), source: errno.into() })?;
    Ok(others)
}

/// The cores that the calling thread may run on, ascending.
pub fn allowed() -> Result<Vec<usize>, AffinityError> {
    let set = sched_getaffinity(None).map_err(|errno| AffinityError::Read(errno.into()))?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Pins the calling thread to one core.
pub(crate) fn pin(core: usize) -> Result<(), AffinityError> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(AffinityError::Pin { core, source: io::Error::last_os_error() })
    }
}

/// Why a list of cores is no good, or a thread is not where it should be.
#[derive(Debug, Error)]
pub enum AffinityError {
    /// No poller at all.
    #[error("cores: the list is empty, at least one core is needed")]
    Empty,
    /// Two pollers on one core.
    #[error("cores: core {core} is listed more than once")]
    Duplicate {
        /// The core in question.
        core: usize,
    },
    /// A core that does not exist, or that a cpuset or a `taskset` keeps from this process.
    #[error("cores: core {core} is not in the set allowed for this process, {allowed}")]
    NotAllowed {
        /// The core in question.
        core: usize,
        /// The allowed cores, as in `0-3,8`.
        allowed: String,
    },
    /// The kernel does not tell the allowed cores.
    #[error("cannot read the set of cores allowed for this process: {0}")]
    Read(#[source] io::Error),
    /// The kernel does not let a poller have its core.
    #[error("cannot pin a poller to core {core}: {source}")]
    Pin {
        /// The core in question.
        core: usize,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel does not accept the cores of the control threads.
    #[error("cannot put the control threads on cores {cores}: {source}")]
    Set {
        /// The cores asked for, as in `0-3,8`.
        cores: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Ascending cores the way the kernel writes them: `0-3,8`.
fn ranges(cores: &[usize]) -> String {
    let mut text = String::new();
    for run in cores.chunk_by(|left, right| left + 1 == *right) {
        let comma = if text.is_empty() { "" } else { "," };
        let (first, last) = (run[0], run[run.len() - 1]);
        let dash = if first == last { String::new() } else { format!("-{last}") };
        write!(text, "{comma}{first}{dash}").expect("a String takes any text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_cores_read_as_the_kernel_writes_them() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[5]), "5");
        assert_eq!(ranges(&[0, 1, 2, 3, 8]), "0-3,8");
        assert_eq!(ranges(&[1, 3, 4]), "1,3-4");
    }

    #[test]
    fn check_of_no_cores_is_refused() {
        let error = check(&[]).expect_err("nothing to run on");
        assert_eq!(error.to_string(), "cores: the list is empty, at least one core is needed");
    }

    #[test]
    fn check_of_a_core_listed_twice_names_it() {
        let core = allowed().expect("readable")[0];
        let error = check(&[core, core]).expect_err("listed twice");
        assert_eq!(error.to_string(), format!("cores: core {core} is listed more than once"));
    }

    #[test]
    fn check_of_a_core_not_allowed_names_it_and_the_allowed_set() {
        let allowed = allowed().expect("readable");
        for core in [allowed[allowed.len() - 1] + 1, 1023, 1024, usize::MAX] {
            let error = check(&[allowed[0], core]).expect_err("not allowed").to_string();
            let set = ranges(&allowed);
            let wanted = format!("cores: core {core} is not in the set allowed for this process, {set}");
            assert_eq!(error, wanted);
        }
    }

    #[test]
    fn check_of_every_allowed_core_passes() {
        check(&allowed().expect("readable")).expect("allowed");
    }

    #[test]
    fn control_affinity_leaves_poller_cores_where_others_remain() {
        let before = allowed().expect("readable");
        let (poller, others) = before.split_first().expect("there is a core");
        let applied = std::thread::spawn({
            let poller = *poller;
            move || {
                let applied = control_affinity(&[poller]).expect("applied");
                assert_eq!(applied, allowed().expect("readable"));
                applied
            }
        });
        let applied = applied.join().expect("the thread ends well");
        assert_eq!(applied, if others.is_empty() { &before[..] } else { others });
    }

    #[test]
    fn control_affinity_without_a_core_left_changes_nothing() {
        let before = allowed().expect("readable");
        let applied = control_affinity(&before).expect("nothing to apply");
        assert_eq!((&applied, &allowed().expect("readable")), (&before, &before));
    }
}
