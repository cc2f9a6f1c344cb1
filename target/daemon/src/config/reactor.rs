//! The `[reactor]` section and lists of cores. Whether this process may use a core is not decided here: that depends on
//! the host, and `check` looks.

use std::ops::RangeInclusive;

use super::problem::Reason;
use super::reader::{Field, Place, Problems, Section, Unique};
use super::words::Idle;

/// The pollers: one pinned thread per core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reactor {
    /// Cores of the pollers, at least one, each once; default `[0]`.
    pub cores: Vec<usize>,
    /// What a poller does without work; default [`Idle::Adaptive`].
    pub idle: Idle,
}

/// Core numbers that `sched_setaffinity(2)` can name with the usual mask of 1024 bits.
pub(super) const CORES: RangeInclusive<u16> = 0..=1023;

/// Reads `[reactor]`. The cores come also on their own, because the controllers' pollers are checked against them.
pub(super) fn read(root: &mut Section<'_>, problems: &mut Problems) -> (Option<Reactor>, Option<Vec<usize>>) {
    let mut section = root.table("reactor", problems);
    let cores = match section.take("cores") {
        None => Some(vec![0]),
        Some(field) => core_list(field, problems).map(|cores| cores.into_iter().map(|(core, _)| core).collect()),
    };
    let idle = section.take("idle").map_or(Some(Idle::Adaptive), |field| field.word(problems));
    section.finish(problems);
    let reactor = cores.clone().zip(idle).map(|(cores, idle)| Reactor { cores, idle });
    (reactor, cores)
}

/// A list of cores with their places: not empty, no core twice. Nothing if an entry is wrong.
pub(super) fn core_list<'t>(field: Field<'t>, problems: &mut Problems) -> Option<Vec<(usize, Place<'t>)>> {
    let place = field.place().clone();
    let entries = field.into_list(problems)?;
    if entries.is_empty() {
        problems.at(&place, Reason::Empty);
        return None;
    }
    let mut unique = Unique::new();
    let cores: Vec<Option<(usize, Place<'t>)>> = entries
        .iter()
        .map(|entry| {
            let core = usize::from(entry.integer(CORES, problems)?);
            unique.claim(core, entry.place(), problems);
            Some((core, entry.place().clone()))
        })
        .collect();
    cores.into_iter().collect()
}
