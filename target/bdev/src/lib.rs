//! Block devices as pollers see them: the trait, and the native devices that need nothing but memory.
//!
//! From the bottom up: [`Io`] is one request and [`Status`] what can become of it, [`Geometry`] is the size of a device
//! and the last check before it is touched, [`Bdev`] is a device and [`IoChannel`] one poller's way into it,
//! [`Channel`] spares the memory-speed devices, which are [`AtOnce`], the virtual call. [`Null`] and [`Malloc`] are devices; [`Delay`] makes
//! one slow, [`Faulty`] makes one fail, [`Ordered`] keeps completions in order, [`Counted`] counts what one does. [`Exclusion`] is what makes a compare-and-write
//! atomic. [`testing`] has a device that records requests and fails on demand.
//!
//! No SCSI and no virtio in here, no file, no thread, and no clock: time is a parameter. Devices that need a system
//! call or a foreign library are crates of their own that implement the trait.
//!
//! # Who may rely on what
//!
//! * The caller of [`IoChannel::submit`] has checked range, transfer length and `read_only`. Devices check range and
//!   length once more before they touch memory, and answer with a [`Status`], never with a panic.
//! * The list of buffers belongs to the caller again as soon as `submit` returns. The *bytes* belong to the device
//!   until the I/O has completed: their mapping must live that long.
//! * A request that was answered with [`Submitted::Pending`] completes exactly once, in a later [`IoChannel::poll`] of
//!   the same channel. Requests may complete in any order; order is the business of whoever submits.
//! * Block data is raced by guests and by the pollers that share a device. It moves by raw copies only, and nothing in
//!   here looks at it.
#![forbid(unsafe_code)]

mod blocks;
mod channel;
mod counted;
mod delay;
mod device;
mod exclusion;
mod faulty;
mod geometry;
mod io;
mod malloc;
mod null;
mod ordered;
mod parked;
mod resets;
pub mod scatter;
pub mod testing;

pub use blocks::CounterBlocks;
pub use channel::{AtOnce, Channel, Work};
pub use counted::{BdevTotals, Counted, OpKind};
pub use delay::{Delay, DelayConfig, DelayError, Gate};
pub use device::{Abilities, Bdev, BdevInfo, IoChannel, Provisioning};
pub use exclusion::{Exclusion, Turn};
pub use faulty::{Effect, FaultPlan, FaultPlanError, Faulty};
pub use geometry::{Geometry, GeometryError};
pub use io::{BlockRun, BlockRuns, Completion, Extent, Io, Op, Status, Submitted, Token};
pub use malloc::{Malloc, MallocError};
pub use null::Null;
pub use ordered::Ordered;
pub use resets::{ResetWatch, Resets};
