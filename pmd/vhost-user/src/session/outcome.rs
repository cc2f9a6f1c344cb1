//! What a session answers to one request: effects, a reply, perhaps a refusal. Values only.

use std::os::fd::OwnedFd;

use guest_memory::RegionConfig;

use super::RegionRefusal;
use crate::message::{DecodeError, RequestCode};

/// The outcome of one request.
#[derive(Debug)]
pub struct Outcome {
    /// What has to be done, in this order.
    pub effects: Vec<Effect>,
    /// How to answer after that.
    pub reply: Reply,
    /// Set if the request was refused: there are no effects then, and an acknowledgement is an error.
    pub refused: Option<Refusal>,
}

/// One thing to be done to the device. Effects mirror what the messages say about each ring, so whoever performs them
/// keeps per ring: enabled or not, call and err descriptor (from before the ring starts and across stops and resets)
/// and, while it is started, its configuration and kick descriptor.
#[derive(Debug)]
pub enum Effect {
    /// These features were agreed, bit 30 included. No ring is started.
    SetFeatures(u64),
    /// These regions, instead of all others. Started rings go on in the new table: their addresses are to be
    /// translated again. Regions that are gone are not to be touched after this returns.
    SetMemTable(Vec<(RegionConfig, OwnedFd)>),
    /// One more region.
    AddRegion(RegionConfig, OwnedFd),
    /// This region is gone (as it was added, the offset included) and not to be touched after this returns.
    RemoveRegion(RegionConfig),
    /// The ring starts. A ring that does not map is not an error of this effect (it stays still, with its err
    /// descriptor signalled), as the table may come again.
    StartRing {
        /// Ring.
        index: u16,
        /// Size, start and addresses.
        config: RingConfig,
        /// The driver's notifications; without it the ring is polled.
        kick: Option<OwnedFd>,
    },
    /// The ring stops: nothing is fetched, what is in flight ends, used entries are published. Answered with the
    /// index at which the ring would go on ([`crate::connection::Answer::Base`]).
    StopRing {
        /// Ring.
        index: u16,
    },
    /// The ring, started or not, is to be processed or not to be processed once started. After a disable returns,
    /// nothing is fetched or written.
    EnableRing {
        /// Ring.
        index: u16,
        /// On or off.
        enabled: bool,
    },
    /// Another kick descriptor for a started ring.
    SetKick {
        /// Ring.
        index: u16,
        /// The driver's notifications; without it the ring is polled.
        fd: Option<OwnedFd>,
    },
    /// The call descriptor of a ring, started or not.
    SetCall {
        /// Ring.
        index: u16,
        /// Our notifications; without it the driver polls.
        fd: Option<OwnedFd>,
    },
    /// The err descriptor of a ring, started or not.
    SetErr {
        /// Ring.
        index: u16,
        /// To be signalled when the ring breaks.
        fd: Option<OwnedFd>,
    },
    /// The device returns to its initial state; its rings were stopped and disabled by effects before this one. After
    /// it returns nothing is written to guest memory and no call is made (R14, R15).
    ResetDevice,
    /// The socket for requests of the back-end.
    SetBackendRequestFd(OwnedFd),
    /// The driver writes the configuration space.
    SetConfig {
        /// First byte.
        offset: u32,
        /// Live migration: read-only fields may be set, too. No permission by itself: rust-vmm's front-end sets this
        /// flag in ordinary writes.
        migration: bool,
        /// New contents.
        bytes: Vec<u8>,
    },
    /// Announce this MAC address of the guest (net).
    SendRarp([u8; 6]),
    /// The MTU of the guest in bytes (net).
    SetMtu(u16),
}

/// Where and how a ring starts. Addresses are the front-end's own, to be translated by the table's user addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Number of descriptors.
    pub size: u16,
    /// Next available index (split). Packed: bits 0-14 available, 15 its wrap counter, 16-30 used, 31 its wrap counter.
    pub base: u32,
    /// Descriptor table.
    pub desc_user: u64,
    /// Available ring.
    pub avail_user: u64,
    /// Used ring.
    pub used_user: u64,
    /// Bit 0: log writes to the used ring.
    pub flags: u32,
    /// Guest physical address of the used ring for the dirty log.
    pub log_guest: u64,
}

/// How a message is answered once its effects were performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Not at all.
    None,
    /// If its header asks for it: 0 if all went well, else 1.
    Ack,
    /// With this number.
    U64(u64),
    /// With the index and the base of a ring: the answer of its `StopRing`, else what the session knows.
    VringBase {
        /// Ring, as asked for.
        index: u32,
    },
    /// With this part of the configuration space; bytes behind its end are 0.
    Config {
        /// First byte.
        offset: u32,
        /// Bytes.
        size: u32,
        /// To be echoed.
        flags: u32,
    },
    /// With an empty part of the configuration space, which means an error.
    ConfigError,
    /// With the status byte, DEVICE_NEEDS_RESET included.
    Status,
}

/// Why a request was refused. The connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its form was wrong.
    #[error(transparent)]
    Malformed(DecodeError),
    /// This back-end does not serve it.
    #[error("{code}: not supported")]
    Unsupported {
        /// The request.
        code: RequestCode,
    },
    /// It needs a protocol feature that is not offered.
    #[error("{code}: needs protocol feature bit {bit}, which is not offered")]
    NotOffered {
        /// The request.
        code: RequestCode,
        /// Number of the bit.
        bit: u32,
    },
    /// SET_FEATURES with bits that are neither offered nor tolerated.
    #[error("SET_FEATURES: bits {extra:#x} were not offered, must be within {offered:#x}")]
    Features {
        /// The bits.
        extra: u64,
        /// What is offered.
        offered: u64,
    },
    /// SET_FEATURES while rings run on others.
    #[error("SET_FEATURES: {value:#x} while rings run, must stay {running:#x}")]
    FeaturesWhileRunning {
        /// What was asked.
        value: u64,
        /// What was agreed before.
        running: u64,
    },
    /// SET_PROTOCOL_FEATURES with bits that are not offered.
    #[error("SET_PROTOCOL_FEATURES: bits {extra:#x} were not offered, must be within {offered:#x}")]
    ProtocolFeatures {
        /// What was asked.
        value: u64,
        /// The bits.
        extra: u64,
        /// What is offered.
        offered: u64,
    },
    /// No such ring.
    #[error("{code}: ring index {index}, must be below {queues}")]
    RingIndex {
        /// The request.
        code: RequestCode,
        /// The index.
        index: u32,
        /// Number of rings.
        queues: u16,
    },
    /// SET_VRING_NUM (R16).
    #[error("SET_VRING_NUM: size {size} of ring {index}, must be a power of two from 1 to {max}")]
    RingSize {
        /// Ring.
        index: u16,
        /// Asked size in descriptors.
        size: u32,
        /// Largest size in descriptors.
        max: u16,
    },
    /// SET_VRING_BASE beyond what an index holds.
    #[error("SET_VRING_BASE: base {base} of ring {index}, must be at most 65535")]
    RingBase {
        /// Ring.
        index: u16,
        /// Asked base.
        base: u32,
    },
    /// A started ring cannot change this way.
    #[error("{code}: ring {index} is started, must be stopped by GET_VRING_BASE first")]
    RingStarted {
        /// The request.
        code: RequestCode,
        /// Ring.
        index: u16,
    },
    /// A memory region.
    #[error("{code}: {refusal}")]
    Region {
        /// The request.
        code: RequestCode,
        /// What is wrong with it.
        refusal: RegionRefusal,
    },
}

impl Refusal {
    /// The request that was refused.
    pub fn code(&self) -> RequestCode {
        match self {
            Refusal::Malformed(error) => error.code(),
            Refusal::Unsupported { code }
            | Refusal::NotOffered { code, .. }
            | Refusal::RingIndex { code, .. }
            | Refusal::RingStarted { code, .. }
            | Refusal::Region { code, .. } => *code,
            Refusal::Features { .. } | Refusal::FeaturesWhileRunning { .. } => RequestCode::SET_FEATURES,
            Refusal::ProtocolFeatures { .. } => RequestCode::SET_PROTOCOL_FEATURES,
            Refusal::RingSize { .. } => RequestCode::SET_VRING_NUM,
            Refusal::RingBase { .. } => RequestCode::SET_VRING_BASE,
        }
    }

    /// The answer: whoever waits for one gets one.
    pub(super) fn reply(&self) -> Reply {
        let code = self.code();
        match (code, self) {
            (RequestCode::GET_CONFIG, _) => Reply::ConfigError,
            (RequestCode::GET_VRING_BASE, Refusal::RingIndex { index, .. }) => Reply::VringBase { index: *index },
            // The index could not be read: one that no device has.
            (RequestCode::GET_VRING_BASE, _) => Reply::VringBase { index: u32::MAX },
            (RequestCode::GET_STATUS, _) => Reply::Status,
            (code, Refusal::Unsupported { .. }) if code.solicits_reply() => Reply::U64(1),
            (code, _) if code.solicits_reply() => Reply::U64(0),
            _ => Reply::Ack,
        }
    }
}
