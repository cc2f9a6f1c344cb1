//! SPDK's block devices for Rust: environment, threads, subsystems, bdevs and their I/O channels, as much of it as serving
//! any bdev from a program's own pollers takes. SPDK's reactors are not used, and not linked.
//!
//! [`Env`] is the token that everything else is made from. A [`Thread`] is an SPDK thread that lives on the operating system's
//! thread that made it, and runs when that one polls it; the first one is SPDK's management, where [`Subsystems`] are started
//! and a [`Descriptor`] is opened. An [`IoChannel`] is a thread's way into a bdev. [`Registered`] memory is what devices
//! can reach without a copy, and [`Buffers`] are where the copy goes otherwise.
//!
//! Knows nothing of who uses it: no guest memory, no virtio. Linux on x86-64. Without the feature `libspdk` the crate is
//! empty.
//!
//! # What makes this sound
//! * Nothing can be made without [`Env`], of which there is none before SPDK's environment has started.
//! * An SPDK thread never leaves the thread that made it: [`Thread`], [`IoChannel`] and [`Buffers`] are not `Send`, and hold
//!   the SPDK thread alive. Who is elsewhere has a [`ThreadHandle`] and sends closures, which fails once the thread is gone.
//! * A descriptor is closed on the thread that opened it, after the last channel that was opened with it.
//! * A request lives in a place of its channel that does not move and is not used again before its callback was called. That
//!   the buffers live as long is the one thing that the caller promises ([`IoChannel::start`]).
#![cfg_attr(not(feature = "libspdk"), allow(rustdoc::broken_intra_doc_links, reason = "the crate is empty then"))]
#![cfg(feature = "libspdk")]
#![allow(unsafe_code, reason = "calls into SPDK; the argument for each is at its block")]

mod buffers;
mod channel;
mod descriptor;
mod env;
mod errno;
mod log;
mod memory;
mod message;
mod registrations;
mod subsystems;
mod thread;

pub use buffers::{Buffer, Buffers, BuffersError};
pub use channel::{Command, Failure, Finished, IoChannel, Move, Outcome, Piece, Tag};
pub use descriptor::{BdevInfo, Descriptor, Event, IoTypes, OpenError, Statistics};
pub use env::{Env, EnvConfig, EnvError};
pub use errno::Errno;
pub use log::Complaints;
pub use memory::Registered;
pub use registrations::{Presence, Registrations};
pub use subsystems::{Part, Rpc, SubsystemError, Subsystems};
pub use thread::{Gone, Thread, ThreadError, ThreadHandle, poll_others};

/// The version of SPDK that is linked, as it prints itself: "SPDK v26.05".
#[must_use]
pub fn version() -> String {
    // SAFETY: returns a string that lives as long as the process, and needs no environment.
    let text = unsafe { std::ffi::CStr::from_ptr(spdk_sys::spdk_shim_version_string()) };
    text.to_string_lossy().into_owned()
}
