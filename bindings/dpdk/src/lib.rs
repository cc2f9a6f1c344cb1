//! DPDK for Rust: EAL, threads, mempools, mbufs and Ethernet ports, as much of it as moving frames in bursts takes.
//!
//! [`Eal`] is the token that everything else is made from. A [`Port`] is an Ethernet device; [`Port::start`] hands out its
//! queues, and it stays started for as long as one of them lives. [`RxQueue`] and [`TxQueue`] move [`Burst`]s of
//! [`Mbuf`]s. A thread that does that registers once ([`register_thread`]), which gives it the caches of the mempools.
//!
//! Knows nothing of who uses it: no guest memory, no virtio. Linux on x86-64. Without the feature `libdpdk` the crate is
//! empty.
//!
//! # What makes this sound
//! * Nothing can be made without [`Eal`], of which there is none before `rte_eal_init` has succeeded.
//! * Mempools live as long as the process, so an mbuf cannot outlive the one it came from. They are made with a handler
//!   that any number of threads may use at once.
//! * An [`Mbuf`] is owned by one place: what is sent is gone, what is dropped goes back to its pool. No reference to its
//!   bytes is ever made, because a device may write them (memif shares them with its peer): they are copied.
//! * A port cannot be stopped, configured or closed while one of its queues lives, and each queue exists once. Everything
//!   else that is done to a port from any thread takes its lock.
#![cfg(feature = "libdpdk")]
#![allow(unsafe_code, reason = "calls into DPDK; the argument for each is at its block")]

mod burst;
mod eal;
mod errno;
mod log;
mod mbuf;
mod mempool;
mod port;
mod queue;
mod rss;
mod start;
mod statistics;
mod thread;

pub use burst::Burst;
pub use eal::{Eal, EalConfig, EalError};
pub use errno::Errno;
pub use log::Complaints;
pub use mbuf::{Mbuf, RxChecksum, Segments, TooManySegments, TxFlags, TxHeaders};
pub use mempool::{Mempool, MempoolConfig, MempoolError, NoMbufs};
pub use port::{Link, Port, PortError, PortInfo, RxOffloads, TxOffloads};
pub use queue::{RxQueue, TxQueue};
pub use start::{PortConfig, QueuePair};
pub use statistics::Statistics;
pub use thread::{register_thread, thread_is_registered};

/// The version of DPDK that is linked, as it prints itself: "DPDK 22.11.11".
#[must_use]
pub fn version() -> String {
    // SAFETY: returns a string that lives as long as the process, and needs no EAL.
    let text = unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_version()) };
    text.to_string_lossy().into_owned()
}
