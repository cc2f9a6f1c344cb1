//! Any bdev of the installed SPDK as a block device of a target.
//!
//! [`Spdk`] starts SPDK on a thread of its own (`management`) and gives each poller an SPDK thread, which its channels poll when
//! they have requests, and otherwise a [`SpdkPoller`], one more source in the poller's loop (`poller`, `turns`). A [`SpdkBdev`]
//! is one bdev; one that SPDK does not have yet is looked out for (`awaited`). A channel of it is opened where it is used: by the
//! first request, on the poller, because SPDK's channels cannot leave their thread (`channel`, over `home`); `lane` is the poller's
//! half, which turns requests into SPDK's and back. Guest memory is made known to SPDK as it is mapped (`memory`); data
//! in memory that SPDK could not take goes through buffers of its pool.
//!
//! No SCSI and no virtio in here, and nothing of SPDK that `spdk-rs` does not have. Without the feature `libspdk` the crate is
//! empty.
#![cfg_attr(not(feature = "libspdk"), allow(rustdoc::broken_intra_doc_links, reason = "the crate is empty then"))]
#![cfg(feature = "libspdk")]

mod awaited;
mod bdev;
mod channel;
mod config;
mod counters;
#[allow(unsafe_code, reason = "what cannot leave its thread is carried by others, untouched")]
mod home;
#[allow(unsafe_code, reason = "SPDK is given addresses of buffers, and its buffers are shown as slices")]
mod lane;
mod management;
#[allow(unsafe_code, reason = "memory that stays mapped is registered with SPDK")]
mod memory;
mod poller;
mod request;
mod status;
mod turns;

pub use awaited::Awaited;
pub use bdev::SpdkBdev;
pub use config::{Environment, SpdkConfig, SpdkError};
pub use counters::SpdkCounts;
pub use management::{BdevEvent, Spdk};
pub use memory::MemoryCounts;
pub use poller::SpdkPoller;
pub use spdk_rs::{Part, version};
