//! Virtqueues, both sides: the device side that pollers fetch from, and the driver side of the load generator and of
//! tests. Knows no request format, no vhost-user message, no eventfd and no thread.
//!
//! From the outside in: [`split::SplitDevice`] pops descriptor chains into a [`ChainBatch`], takes completions and
//! publishes them; a guest that breaks the rules ends in a [`Fault`]. [`split::SplitDriver`] adds buffers and takes
//! them back. [`DeviceQueue`] is a ring of either format, and what holds chains back that have to be used in order
//! ([`InOrderDevice`]). What both ring formats share (chains, faults, segments, addresses, the event index rule) stands in this
//! crate's root; a ring format is a module, and the packed one goes beside `split` in the same shape.
//!
//! # Who may rely on what
//!
//! * Everything the driver writes is hostile. Each ring field and each descriptor is read once into a local value and
//!   then checked; indices of our own are never read back from shared memory.
//! * Whatever the driver does, an operation takes time bounded by the ring's size times the batch, and never panics.
//! * Slices in a [`ChainBatch`] point into guest memory. They are usable for as long as the [`guest_memory::MemTable`]
//!   they were translated with; see that crate for who keeps it alive.
//! * A virtqueue belongs to one thread at a time (`&mut self`), so nothing in here locks.
#![forbid(unsafe_code)]

mod chain;
mod event;
mod fault;
mod follow;
mod in_order;
pub mod packed;
mod queue;
mod setup;
pub mod split;
mod transfer;

pub use chain::{Chain, ChainBatch, ShortChain};
pub use fault::{Fault, FaultReason};
pub use in_order::InOrderDevice;
pub use packed::PackedLayout;
pub use queue::{DeviceQueue, DriverQueue, Prepared, RingFormat};
pub use setup::{Area, Features, RingAddresses, SetupError};
pub use split::SplitLayout;
pub use transfer::{Full, Segment, Used, UsedFault};
