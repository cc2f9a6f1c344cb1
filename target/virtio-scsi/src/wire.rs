//! Wire layout of virtio-scsi (virtio 1.3 §5.6): sizes, codes, and the few structures read and written. All integers are
//! little endian. No decision is made here.

use scsi::{CDB_LEN, Sense};

/// Device-readable part of a request: 8 bytes of LUN, id le64, task_attr, prio, crn, then `cdb_size` bytes of CDB (§5.6.6.1).
pub const REQUEST_LEN: usize = 19 + CDB_LEN;
/// The response without its sense bytes: sense_len le32, residual le32, status_qualifier le16, status u8, response u8.
pub const RESPONSE_HEADER_LEN: usize = 12;
/// Sense bytes after the response header: the default of `sense_size`, which a vhost-user front-end cannot change.
pub const SENSE_SIZE: usize = 96;
/// Device-writable part of a request before data-in.
pub const RESPONSE_LEN: usize = RESPONSE_HEADER_LEN + SENSE_SIZE;
/// The header of a command that ended well and left no byte of its buffers unused: no sense, no residual.
pub const GOOD: [u8; RESPONSE_HEADER_LEN] = [0; RESPONSE_HEADER_LEN];
/// Bytes of a sector, the unit of max_sectors (§5.6.4).
pub const SECTOR_LEN: u64 = 512;

/// VIRTIO_SCSI_S_* response codes (§5.6.6.1, §5.6.6.2).
pub mod response {
    /// The command reached the logical unit; its SCSI status counts.
    pub const OK: u8 = 0;
    /// Task management function complete.
    pub const FUNCTION_COMPLETE: u8 = 0;
    /// The CDB wants to move more than the buffers hold.
    pub const OVERRUN: u8 = 1;
    /// Aborted by a task management function.
    pub const ABORTED: u8 = 2;
    /// The target does not exist.
    pub const BAD_TARGET: u8 = 3;
    /// Cancelled by a reset.
    pub const RESET: u8 = 4;
    /// A retry on the same path is likely to work.
    pub const BUSY: u8 = 5;
    /// The way to the logical unit is gone; it may be there by another path.
    pub const TRANSPORT_FAILURE: u8 = 6;
    /// Other failure.
    pub const FAILURE: u8 = 9;
    /// Task management: the task is there.
    pub const FUNCTION_SUCCEEDED: u8 = 10;
    /// Task management: not supported.
    pub const FUNCTION_REJECTED: u8 = 11;
    /// Task management: the logical unit does not exist.
    pub const INCORRECT_LUN: u8 = 12;
    /// One more than the largest code.
    pub const COUNT: usize = 13;

    /// The name of a code as the specification spells it, in lower case: a metric label.
    #[must_use]
    pub fn name(code: usize) -> &'static str {
        const NAMES: [&str; COUNT] = [
            "ok",
            "overrun",
            "aborted",
            "bad_target",
            "reset",
            "busy",
            "transport_failure",
            "target_failure",
            "nexus_failure",
            "failure",
            "function_succeeded",
            "function_rejected",
            "incorrect_lun",
        ];
        NAMES.get(code).copied().unwrap_or("unknown")
    }
}

/// SCSI status codes (SAM-6 §5.3.1).
pub mod status {
    /// GOOD.
    pub const GOOD: u8 = 0x00;
    /// CHECK CONDITION.
    pub const CHECK_CONDITION: u8 = 0x02;
    /// TASK SET FULL.
    pub const TASK_SET_FULL: u8 = 0x28;
}

/// Task attributes (§5.6.6.1). Values above [`task_attr::ACA`] are reserved.
pub mod task_attr {
    /// No order.
    pub const SIMPLE: u8 = 0;
    /// After everything older.
    pub const ORDERED: u8 = 1;
    /// Head of queue.
    pub const HEAD_OF_QUEUE: u8 = 2;
    /// ACA: needs an auto contingent allegiance, which is not implemented (NORMACA 0).
    pub const ACA: u8 = 3;
}

/// Feature bits of the device (§5.6.3).
pub mod feature {
    /// Hot-plug and hot-unplug of logical units by events.
    pub const HOTPLUG: u64 = 1 << 1;
    /// Parameter changes by events.
    pub const CHANGE: u64 = 1 << 2;
    /// Indirect descriptors (§6).
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Event indexes (§6).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The vhost-user bit that announces protocol features.
    pub const VHOST_USER_PROTOCOL: u64 = 1 << 30;
    /// Virtio 1 (§6).
    pub const VERSION_1: u64 = 1 << 32;
    /// Packed rings (§6).
    pub const RING_PACKED: u64 = 1 << 34;
    /// Buffers are used in the order that they were made available in (§6).
    pub const IN_ORDER: u64 = 1 << 35;
}

/// A request header that was read, once, from guest memory.
#[derive(Clone, Copy, Debug)]
pub struct RequestHeader<'a>(&'a [u8; REQUEST_LEN]);

impl<'a> RequestHeader<'a> {
    /// The header in these bytes.
    #[must_use]
    #[inline(always)]
    pub fn of(bytes: &'a [u8; REQUEST_LEN]) -> RequestHeader<'a> {
        RequestHeader(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8; REQUEST_LEN] {
        self.0
    }

    /// The LUN field, not yet understood.
    #[must_use]
    #[inline(always)]
    pub fn lun(&self) -> &'a [u8; 8] {
        self.0.first_chunk().expect("51 bytes")
    }

    /// The command's identifier, which task management refers to.
    #[must_use]
    #[inline(always)]
    pub fn tag(&self) -> u64 {
        u64::from_le_bytes(*self.0[8..].first_chunk().expect("43 bytes"))
    }

    /// Task attribute. The priority and the CRN behind it are ignored, as the specification allows.
    #[must_use]
    #[inline(always)]
    pub fn task_attr(&self) -> u8 {
        self.0[16]
    }

    /// Command descriptor block.
    #[must_use]
    #[inline(always)]
    pub fn cdb(&self) -> &'a [u8; CDB_LEN] {
        self.0.last_chunk().expect("51 bytes")
    }
}

/// The first bytes of a response.
#[must_use]
#[inline]
pub fn response_header(response: u8, status: u8, sense_len: u32, residual: u32) -> [u8; RESPONSE_HEADER_LEN] {
    let mut bytes = [0; RESPONSE_HEADER_LEN];
    bytes[..4].copy_from_slice(&sense_len.to_le_bytes());
    bytes[4..8].copy_from_slice(&residual.to_le_bytes());
    // bytes 8-9, status_qualifier, stay 0 (SAM-6 §5.3.2: no information)
    bytes[10] = status;
    bytes[11] = response;
    bytes
}

/// A whole response that carries sense data in descriptor or in fixed format. Returns the bytes and how many of them
/// count.
#[must_use]
pub fn check_condition(sense: &Sense, descriptor_format: bool, residual: u32) -> ([u8; RESPONSE_LEN], usize) {
    let mut bytes = [0; RESPONSE_LEN];
    let data = sense.bytes(descriptor_format);
    let header = response_header(response::OK, status::CHECK_CONDITION, data.len() as u32, residual);
    bytes[..RESPONSE_HEADER_LEN].copy_from_slice(&header);
    bytes[RESPONSE_HEADER_LEN..][..data.len()].copy_from_slice(&data);
    (bytes, RESPONSE_HEADER_LEN + data.len())
}

/// Control queue requests (§5.6.6.2).
pub mod control {
    /// Task management function: type le32, subtype le32, 8 bytes of LUN, id le64; response u8.
    pub const TMF: u32 = 0;
    /// Asynchronous notification query: type le32, 8 bytes of LUN, event_requested le32; event_actual le32, response u8.
    pub const AN_QUERY: u32 = 1;
    /// Asynchronous notification subscription: the same layout.
    pub const AN_SUBSCRIBE: u32 = 2;
    /// Device-readable bytes of a task management function.
    pub const TMF_LEN: usize = 24;
    /// Device-readable bytes of an asynchronous notification request.
    pub const AN_LEN: usize = 16;
    /// Device-writable bytes of an asynchronous notification request.
    pub const AN_RESPONSE_LEN: usize = 5;
}

/// Events (§5.6.6.3): event le32, 8 bytes of LUN, reason le32.
pub mod event {
    /// No event: only the flag for missed ones counts.
    pub const NO_EVENT: u32 = 0;
    /// A logical unit came or went, or was reset.
    pub const TRANSPORT_RESET: u32 = 1;
    /// A parameter of a logical unit changed.
    pub const PARAM_CHANGE: u32 = 3;
    /// Added to the event: the driver has posted too few buffers, and events were lost.
    pub const EVENTS_MISSED: u32 = 0x8000_0000;
    /// Reason of a transport reset: look at the address again.
    pub const RESCAN: u32 = 1;
    /// Reason of a transport reset: the logical unit is gone.
    pub const REMOVED: u32 = 2;
    /// Bytes of an event.
    pub const LEN: usize = 16;
    /// Names of the events that are sent: metric labels.
    pub const NAMES: [&str; 4] = ["no_event", "rescan", "removed", "param_change"];
}

/// Fields of the config space (§5.6.4), which are the device's limits in the driver's eyes.
#[derive(Clone, Copy, Debug)]
pub struct ConfigSpace {
    /// Number of request queues.
    pub num_queues: u32,
    /// Largest number of data segments per direction.
    pub seg_max: u32,
    /// Largest transfer in 512-byte sectors.
    pub max_sectors: u32,
    /// Largest number of commands in flight per LUN.
    pub cmd_per_lun: u32,
}

/// Size of the config space in bytes.
pub const CONFIG_LEN: usize = 36;

impl ConfigSpace {
    /// The bytes that GET_CONFIG answers with.
    #[must_use]
    pub fn bytes(&self) -> [u8; CONFIG_LEN] {
        const MAX_CHANNEL: u16 = 0;
        const MAX_TARGET: u16 = 255;
        const MAX_LUN: u32 = 16383;
        let mut bytes = [0; CONFIG_LEN];
        let words = [
            self.num_queues,
            self.seg_max,
            self.max_sectors,
            self.cmd_per_lun,
            event::LEN as u32,
            SENSE_SIZE as u32,
            CDB_LEN as u32,
            u32::from(MAX_CHANNEL) | u32::from(MAX_TARGET) << 16,
            MAX_LUN,
        ];
        for (at, word) in bytes.chunks_exact_mut(4).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r20_config_space_has_inclusive_maxima() {
        let config = ConfigSpace { num_queues: 4, seg_max: 126, max_sectors: 65535, cmd_per_lun: 128 };
        #[rustfmt::skip]
        assert_eq!(config.bytes(), [
            4, 0, 0, 0,  126, 0, 0, 0,  0xff, 0xff, 0, 0,  128, 0, 0, 0,  16, 0, 0, 0,  96, 0, 0, 0,  32, 0, 0, 0,
            0, 0,  255, 0,  0xff, 0x3f, 0, 0,
        ]);
    }

    #[test]
    fn response_header_puts_each_field_where_the_specification_says() {
        assert_eq!(response_header(9, 2, 18, 0x0102_0304), [18, 0, 0, 0, 4, 3, 2, 1, 0, 0, 2, 9]);
    }

    #[test]
    fn check_condition_carries_descriptor_sense_where_it_is_wanted() {
        let (bytes, len) = check_condition(&Sense::INVALID_OPCODE, true, 0);
        assert_eq!(len, 20);
        assert_eq!(bytes[..20], [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x72, 0x05, 0x20, 0x00, 0, 0, 0, 0]);
    }

    #[test]
    fn check_condition_carries_fixed_sense() {
        let (bytes, len) = check_condition(&Sense::INVALID_OPCODE, false, 512);
        assert_eq!(len, 30);
        assert_eq!(bytes[..12], [18, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0]);
        assert_eq!((bytes[12] & 0x7f, bytes[14], bytes[24], bytes[25]), (0x70, 0x05, 0x20, 0x00));
        assert!(bytes[30..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn request_header_fields_come_from_their_offsets() {
        let mut bytes = [0u8; REQUEST_LEN];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8;
        }
        let header = RequestHeader::of(&bytes);
        assert_eq!(*header.lun(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(header.tag(), 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(header.task_attr(), 16);
        assert_eq!((header.cdb()[0], header.cdb()[31]), (19, 50));
    }
}
