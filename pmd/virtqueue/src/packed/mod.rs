//! Packed virtqueues (virtio 1.3 §2.8). Linux on x86-64: the little-endian fields are read and written as they are.
//!
//! One ring of descriptors serves both directions: the driver writes available descriptors one after the other, the device
//! overwrites them with used ones in the order of completion, and two flags of a descriptor say whose it is. `rings` gives
//! the fields names, `position` counts rounds, `chain` is where the descriptors of a chain are; `device` and `driver` are the
//! two sides, of the same shape as those of a split ring. `raw` lets tests write what no driver would.

mod chain;
mod complete;
mod device;
mod driver;
mod events;
mod fetch;
mod position;
mod raw;
mod rings;
mod runs;

pub use device::PackedDevice;
pub use driver::{PackedChain, PackedDriver};
pub use raw::RawPacked;
pub use rings::PackedLayout;
