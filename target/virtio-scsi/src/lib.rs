//! virtio-scsi as a device (virtio 1.3 §5.6): between virtqueues and SCSI.
//!
//! From the outside in: a [`Controller`] has limits, a map of logical units and counters; for each connection it makes
//! [`Shard`]s, one for every poller that owns queues of it. A shard pops chains, runs the order of checks on each
//! (`request.rs`), gives what is left to SCSI and the block devices, and serves the control queue (`control.rs`). Shards
//! of one connection meet in the nexus (`nexus.rs`): shared command counts, unit attentions, and the fence that a task
//! management function closes over every queue (`fence.rs`, `sweep.rs`).
//!
//! What a CDB means is the crate `scsi`'s; where blocks are is `bdev`'s; sockets and memory tables are `vhost-user`'s.
#![forbid(unsafe_code)]

mod address;
mod capability;
mod control;
mod controller;
mod data;
mod events;
mod fence;
mod inventory;
mod limits;
mod lun_map;
mod nexus;
mod order;
mod pending;
mod request;
mod shard;
mod stats;
mod sweep;
mod unit_stats;
pub mod wire;

pub use address::{Address, LUN_MAX};
pub use capability::logical_unit_config;
pub use controller::{CONTROL_QUEUE, Controller, ControllerConfig, EVENT_QUEUE, FIRST_REQUEST_QUEUE, default_seg_max};
pub use inventory::{
    Addition, Announcement, Change, ChangeError, Place, Release, Removal, ShardAddition, ShardRemoval,
};
pub use limits::{CommandSlot, Credits, Limits, OnCommandLimit, OnTransferLimit};
pub use lun_map::{Addressee, LunMap, Unit};
pub use shard::Shard;
pub use stats::{Limit, SENSE_KEY_NAMES, ShardStats, TMF_NAMES};
pub use unit_stats::{UnitBlocks, UnitStats};
