//! Ports: what frames go to and come from on the far side of a net device. The trait, and the native ports.
//!
//! A [`Port`] is plugged into by a device ([`Port::attach`]), which gets one [`PortQueue`] for each of its queue pairs.
//! A port queue lives on one poller; it moves [`Frame`]s in bursts, from segments that somebody else owns: guest memory on
//! the way out, the port's own memory or another guest's on the way in. Nothing is copied in between; who consumes a frame
//! copies it once.
//!
//! Directions are the device's: *tx* is what the guest sends, *rx* is what it receives.
//!
//! Who is left more to do than it can, by an [`Offload`] of a frame that it got, does it in software: [`Segmenter`].
//!
//! Native ports: [`Loopback`] gives every queue pair its own frames back, [`Switch`] connects devices with one another and with
//! one uplink.
//!
//! No virtio in here, and no DPDK: that is `virtio-net`, and `port-dpdk` beside this crate.
#![forbid(unsafe_code)]

mod checksum;
mod frame;
mod headers;
mod loopback;
mod offload;
mod port;
mod segment;
mod stats;
mod switch;
#[cfg(test)]
mod testing;

pub use checksum::Sum;
pub use frame::{Frame, FrameBatch, peek};
pub use headers::{BadHeaders, ETHERNET_LEN, HEADERS_MAX, Headers, Network, Transport};
pub use loopback::{Loopback, LoopbackConfig};
pub use offload::{Checksum, Offload, Offloads, Segmentation};
pub use port::{AttachError, Attachment, BadMac, Buffers, Link, Mac, Port, PortQueue, Traits};
pub use segment::{BadOffload, Cut, OutFrame, Pieces, SEGMENTS_MAX, Segmenter};
pub use stats::{DropCause, PortStats};
pub use switch::{BadSwitch, Switch, SwitchConfig, SwitchStats, Uplink};

/// Frames moved at once: what one burst holds at most.
pub const BURST: usize = 32;
