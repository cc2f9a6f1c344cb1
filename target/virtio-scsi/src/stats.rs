//! What one shard counts. Written by its poller only, read by anyone; a block outlives its shard and serves the next one,
//! so that counters never go back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::stats::{Counter, Histogram};
use vhost_user::RingStats;

use crate::unit_stats::UnitBlocks;
use crate::wire::{event, response};

/// Counters of one shard.
#[derive(Debug)]
pub struct ShardStats {
    in_use: AtomicBool,
    /// Per logical unit, by its index in the controller's map.
    pub units: UnitBlocks,
    /// Per virtqueue of the shard: its index in the device, and its counters.
    pub rings: Box<[(u16, Arc<RingStats>)]>,
    /// Responses to requests, by response code.
    pub responses: [Counter; response::COUNT],
    /// Commands that ended with CHECK CONDITION, by sense key; those included that no logical unit answered.
    pub sense_keys: [Counter; SENSE_KEY_NAMES.len()],
    /// Events that were given to the driver, in the order of [`event::NAMES`].
    pub events: [Counter; event::NAMES.len()],
    /// Events that the driver had no buffer for.
    pub events_missed: Counter,
    /// Chains that had no room for a response (R12): a bare used entry went back.
    pub no_response_room: Counter,
    /// Refusals by a transport limit of requests whose LUN does not exist.
    pub absent_refused: [Counter; Limit::ALL.len()],
    /// Task management functions that were answered, by function and response code.
    pub tmfs: [[Counter; response::COUNT]; TMF_NAMES.len()],
    /// From the pop of a task management function to its used entry, in TSC ticks.
    pub tmf_duration: Histogram,
}

/// Names of the task management functions by subtype (virtio 1.3 §5.6.6.2); the last one stands for all others.
pub const TMF_NAMES: [&str; 9] = [
    "abort_task",
    "abort_task_set",
    "clear_aca",
    "clear_task_set",
    "i_t_nexus_reset",
    "logical_unit_reset",
    "query_task",
    "query_task_set",
    "unknown",
];

/// Names of the sense keys by value (SPC-5, sense key): metric labels.
pub const SENSE_KEY_NAMES: [&str; 16] = [
    "no_sense",
    "recovered_error",
    "not_ready",
    "medium_error",
    "hardware_error",
    "illegal_request",
    "unit_attention",
    "data_protect",
    "blank_check",
    "vendor_specific",
    "copy_aborted",
    "aborted_command",
    "reserved",
    "volume_overflow",
    "miscompare",
    "completed",
];

/// A transport limit that refuses commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Commands in flight (R02).
    CmdPerLun,
    /// Bytes of a command (R01).
    MaxSectors,
    /// Segments of a command (R04).
    SegMax,
}

impl Limit {
    /// Every limit, in the order of their discriminants.
    pub const ALL: [Limit; 3] = [Limit::CmdPerLun, Limit::MaxSectors, Limit::SegMax];

    /// The limit's name in configuration and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Limit::CmdPerLun => "cmd_per_lun",
            Limit::MaxSectors => "max_sectors",
            Limit::SegMax => "seg_max",
        }
    }
}

impl ShardStats {
    pub(crate) fn new(units: usize, rings: &[u16]) -> ShardStats {
        ShardStats {
            in_use: AtomicBool::new(true),
            units: UnitBlocks::new(units),
            rings: rings.iter().map(|index| (*index, Arc::default())).collect(),
            responses: Default::default(),
            sense_keys: Default::default(),
            events: Default::default(),
            events_missed: Counter::default(),
            no_response_room: Counter::default(),
            absent_refused: Default::default(),
            tmfs: Default::default(),
            tmf_duration: Histogram::default(),
        }
    }

    /// Whether this block could be taken: its last shard is gone.
    pub(crate) fn claim(&self) -> bool {
        self.in_use.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The shard is gone: the next one may go on counting here.
    pub(crate) fn release(&self) {
        self.units.iter().for_each(|unit| unit.in_flight.set(0));
        self.in_use.store(false, Ordering::Release);
    }
}
