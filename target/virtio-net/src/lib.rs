//! virtio-net as a device (virtio 1.3 §5.1): between virtqueues and a port.
//!
//! From the outside in: a [`NetDevice`] has an address, limits, counters, and queues of the port that it is plugged into; for
//! each connection it makes [`Shard`]s, one for every poller that owns queue pairs of it. A shard moves what its drivers send
//! to the port (`transmit.rs`), what the port has to the drivers (`receive.rs`), and serves the control queue (`control.rs`)
//! for front-ends that pass it on. What stands in front of every frame, and how much of it can be believed, is `header.rs`.
//!
//! What happens to frames beyond the port queue is the crate `port`'s; sockets and memory tables are `vhost-user`'s.
#![forbid(unsafe_code)]

mod announce;
mod control;
mod device;
mod filter;
mod header;
mod pair;
mod receive;
mod session;
mod shard;
mod stats;
mod transmit;
pub mod wire;

pub use device::{MTU_MIN, NetConfig, NetDevice, QUEUE_PAIRS_MAX};
pub use shard::Shard;
pub use stats::{DirectionStats, NetDrop, PairCounters, PairStats, SIZE_EDGES, ShardStats};
