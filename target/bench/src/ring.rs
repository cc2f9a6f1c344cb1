//! Ring formats and sizes, as the command lines name them. The rings themselves are `virtqueue`'s.

use anyhow::{bail, ensure};
use serde::Serialize;

/// Ring formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Ring {
    /// Split virtqueues (virtio 1.3 §2.7).
    Split,
    /// Packed virtqueues (virtio 1.3 §2.8).
    Packed,
}

/// Descriptors of a ring at most (virtio 1.3 §2.7).
pub(crate) const SIZE_MAX: u32 = 32768;

/// Checks `--ring` and `--queue-size`.
///
/// # Errors
/// Names the option, its value and the bound.
pub(crate) fn check(ring: Ring, queue_size: u16) -> anyhow::Result<()> {
    if ring == Ring::Packed {
        bail!("--ring packed: packed rings are not built into this version, only split");
    }
    ensure!(queue_size.is_power_of_two(), "--queue-size {queue_size}: must be a power of two");
    Ok(())
}
