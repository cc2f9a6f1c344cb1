//! The `[dpdk]` section: what DPDK's environment is started with. It is started only if a `[[port]]` needs it.

use super::problem::Reason;
use super::reader::{Field, Problems, Section};

/// DPDK's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dpdk {
    /// Further arguments of its start, none of them empty; see "EAL parameters" of DPDK. What they say of memory, cores and
    /// devices replaces what is chosen otherwise. Default: none.
    pub eal_args: Vec<String>,
}

/// Whether this program can have ports of kind `dpdk`.
pub const DPDK_BUILT: bool = cfg!(feature = "dpdk");

/// Reads `[dpdk]`.
pub(super) fn read(root: &mut Section<'_>, problems: &mut Problems) -> Option<Dpdk> {
    let mut section = root.table("dpdk", problems);
    let eal_args = match section.take("eal_args") {
        None => Some(Vec::new()),
        Some(field) => arguments(field, problems),
    };
    section.finish(problems);
    eal_args.map(|eal_args| Dpdk { eal_args })
}

/// Texts that a C program can be given.
pub(super) fn arguments(field: Field<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let read: Vec<Option<String>> = field.into_list(problems)?.iter().map(|field| argument(field, problems)).collect();
    read.into_iter().collect()
}

/// A text that a C program can be given.
pub(super) fn argument(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.string(problems)?;
    let reason = match text {
        "" => Reason::Empty,
        _ if text.contains('\0') => Reason::NulInPath,
        _ => return Some(text.to_owned()),
    };
    problems.at(field.place(), reason);
    None
}
