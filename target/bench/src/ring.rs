//! Ring formats and sizes, as the command lines name them. The rings themselves are `virtqueue`'s.

use anyhow::ensure;
use serde::Serialize;
use virtqueue::RingFormat;

use crate::link::Needed;

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
    let fits = ring == Ring::Packed || queue_size.is_power_of_two();
    ensure!(fits, "--queue-size {queue_size}: must be a power of two with --ring split");
    Ok(())
}

impl From<Ring> for RingFormat {
    fn from(ring: Ring) -> RingFormat {
        match ring {
            Ring::Split => RingFormat::Split,
            Ring::Packed => RingFormat::Packed,
        }
    }
}

/// What a run with `--in-order` needs of the device.
pub(crate) const IN_ORDER: Needed = Needed { option: Some("--in-order"), name: "VIRTIO_F_IN_ORDER", bit: 35 };
/// What a run with packed rings needs of the device.
pub(crate) const PACKED: Needed = Needed { option: Some("--ring packed"), name: "VIRTIO_F_RING_PACKED", bit: 34 };
