//! The vhost-user protocol, back-end side: how a front-end (QEMU, cloud-hypervisor, DPDK virtio-user, SPDK, our own
//! bench) hands its memory and rings to a device, and how the device lets them go again.
//!
//! From the bottom up: [`message`] is the wire format. [`session`] is the conversation without any I/O: a request in,
//! effects and a reply out. [`connection`] runs a session on a socket, on a thread that may block. [`frontend`] is the
//! other end, a small client for the bench and for tests.
//!
//! A connection's device has two halves: [`Endpoint`] performs the session's effects on the connection's thread, and a
//! [`RingSet`] in each [`Shard`] is what of them lives on a poller.
//!
//! Nothing in here knows a device type, and no message handling runs on a poller.
#![forbid(unsafe_code)]

mod backend_channel;
pub mod connection;
mod device;
mod endpoint;
pub mod frontend;
pub mod message;
mod notify;
mod ring_set;
mod ring_stats;
pub mod session;

pub use backend_channel::BackendChannel;
pub use device::{ConnectionParts, Device};
pub use endpoint::{Endpoint, EndpointParts, F_EVENT_IDX, QuiesceClock, Shard};
pub use notify::Notifier;
pub use ring_set::{Coalescing, RingReport, RingSet, Stopped, Ticket};
pub use ring_stats::RingStats;
