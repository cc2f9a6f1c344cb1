//! Ports of the installed DPDK: any Ethernet device that it has a driver for, as a [`::port::Port`].
//!
//! [`start_eal`] starts DPDK with arguments that fit this machine and these ports; a [`DpdkPort`] is one device. Frames that a
//! guest sends are copied into mbufs, in bursts; frames that are received are shown where they are, and freed when they are
//! done. What a port's hardware cannot do to a frame is done by [`::port::Segmenter`], and headers that hardware is to act upon
//! are looked at in the copy, which no guest can change any more.
//!
//! No virtio in here, and nothing of DPDK that `dpdk` does not have. Without the feature `libdpdk` the crate is empty.
#![cfg(feature = "libdpdk")]

mod config;
mod eal;
#[allow(unsafe_code, reason = "memory of mbufs is shown as slices, like a guest's")]
mod memory;
mod outgoing;
mod pool;
mod port;
mod queue;
mod request;
mod spread;

pub use config::{DpdkConfig, DpdkPortConfig};
pub use dpdk::{Eal, version};
pub use eal::{Plan, StartedEal, start_eal};
pub use port::{DpdkPort, OpenError};
