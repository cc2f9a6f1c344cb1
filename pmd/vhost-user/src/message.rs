//! The vhost-user wire format: headers, request codes, requests with checked bodies and descriptors, replies.
//!
//! Bytes in, values out, and back. Nothing in here reads a socket, knows the state of a conversation or what a device
//! offers: that is `connection` and `session`. Integers are in native byte order, which is little endian on the one
//! platform there is. Section names are those of the protocol text in QEMU, `docs/interop/vhost-user.rst`.

mod codes;
mod encode;

use std::os::fd::OwnedFd;

use guest_memory::RegionConfig;

pub use codes::RequestCode;
pub use encode::{config_body, mem_table_body, region_body, reply, vring_addr_body, vring_state_body};

/// Feature bit that announces the protocol features (bit 30, "Communication"); no virtio driver ever sees it.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;

/// Bits of GET_PROTOCOL_FEATURES ("Protocol features").
pub mod protocol {
    /// Several queues; GET_QUEUE_NUM.
    pub const MQ: u64 = 1 << 0;
    /// SEND_RARP.
    pub const RARP: u64 = 1 << 2;
    /// The front-end may ask for an acknowledgement of any message.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// NET_SET_MTU.
    pub const MTU: u64 = 1 << 4;
    /// SET_BACKEND_REQ_FD: a socket for requests of the back-end.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// GET_CONFIG, SET_CONFIG.
    pub const CONFIG: u64 = 1 << 9;
    /// RESET_DEVICE.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// SET_STATUS, GET_STATUS.
    pub const STATUS: u64 = 1 << 16;
}

/// Longest body that is read, in bytes. The longest defined one has 268 (configuration space of 256).
pub const BODY_MAX: u32 = 4096;
/// Most descriptors that one message carries: a memory table of 8 regions.
pub const FDS_MAX: usize = 8;
/// Size of the largest device configuration space that GET_CONFIG and SET_CONFIG reach, in bytes.
pub const CONFIG_SPACE_MAX: u32 = 256;

/// What stands before every body ("Header"), 12 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked, or what is answered.
    pub code: RequestCode,
    /// The message is a reply (flag bit 2).
    pub reply: bool,
    /// The sender asks for an acknowledgement (flag bit 3); it counts only after REPLY_ACK was negotiated.
    pub need_reply: bool,
    /// Size of the body in bytes, at most [`BODY_MAX`].
    pub size: u32,
}

impl Header {
    /// Size on the wire in bytes.
    pub const LEN: usize = 12;

    /// Reads a header.
    ///
    /// # Errors
    /// A version other than 1 or a body above [`BODY_MAX`]: where the next message begins is then unknown, so the
    /// stream is broken. Flag bits above 3 are ignored, as other back-ends do.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Header, StreamError> {
        let code = RequestCode(u32_at(bytes, 0));
        let flags = u32_at(bytes, 4);
        let size = u32_at(bytes, 8);
        if flags & FLAG_VERSION_MASK != FLAG_VERSION {
            return Err(StreamError::Version { code, version: flags & FLAG_VERSION_MASK });
        }
        if size > BODY_MAX {
            return Err(StreamError::TooLong { code, size });
        }
        let (reply, need_reply) = (flags & FLAG_REPLY != 0, flags & FLAG_NEED_REPLY != 0);
        Ok(Header { code, reply, need_reply, size })
    }

    /// Writes the header.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut flags = FLAG_VERSION;
        if self.reply {
            flags |= FLAG_REPLY;
        }
        if self.need_reply {
            flags |= FLAG_NEED_REPLY;
        }
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.code.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }
}

const FLAG_VERSION_MASK: u32 = 0x3;
const FLAG_VERSION: u32 = 0x1;
const FLAG_REPLY: u32 = 1 << 2;
const FLAG_NEED_REPLY: u32 = 1 << 3;

/// Why a stream cannot be read any further: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The version in the flags is not 1.
    #[error("{code}: version {version} in the header flags, must be 1")]
    Version {
        /// Code in that header.
        code: RequestCode,
        /// Low two bits of its flags.
        version: u32,
    },
    /// The header announces a body that no message has.
    #[error("{code}: body of {size} bytes announced, at most {BODY_MAX}")]
    TooLong {
        /// Code in that header.
        code: RequestCode,
        /// Announced size in bytes.
        size: u32,
    },
    /// A reply where only requests travel.
    #[error("{code}: the reply flag is set, but nothing was asked on this socket")]
    UnexpectedReply {
        /// Code in that header.
        code: RequestCode,
    },
    /// The peer went away inside a message.
    #[error("the stream ended {missing} bytes before the end of a message")]
    Truncated {
        /// Bytes that were still to come (of the header, or of the body).
        missing: usize,
    },
}

/// Addresses and flags of a ring ("A vring address description").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VringAddresses {
    /// Descriptor table, as an address of the front-end.
    pub desc_user: u64,
    /// Used ring, as an address of the front-end.
    pub used_user: u64,
    /// Available ring, as an address of the front-end.
    pub avail_user: u64,
    /// Guest physical address of the used ring for the dirty log.
    pub log_guest: u64,
    /// Bit 0: writes to the used ring are to be logged.
    pub flags: u32,
}

/// A request of the front-end whose body and descriptors have the form that the protocol asks for.
///
/// What needs knowledge of the device or of the conversation (ring indices, offered features, overlapping regions) is
/// checked by the session.
#[derive(Debug)]
pub enum Request {
    /// GET_FEATURES.
    GetFeatures,
    /// SET_FEATURES.
    SetFeatures(u64),
    /// SET_OWNER.
    SetOwner,
    /// RESET_OWNER (deprecated).
    ResetOwner,
    /// SET_MEM_TABLE: at most 8 regions, each with the file it is mapped from.
    SetMemTable(Vec<(RegionConfig, OwnedFd)>),
    /// SET_VRING_NUM.
    SetVringNum {
        /// Ring.
        index: u32,
        /// Number of descriptors.
        size: u32,
    },
    /// SET_VRING_ADDR.
    SetVringAddr {
        /// Ring.
        index: u32,
        /// Where its parts are.
        addresses: VringAddresses,
    },
    /// SET_VRING_BASE.
    SetVringBase {
        /// Ring.
        index: u32,
        /// Next available index (split), or both indices with their wrap counters (packed).
        base: u32,
    },
    /// GET_VRING_BASE.
    GetVringBase {
        /// Ring.
        index: u32,
    },
    /// SET_VRING_KICK; no descriptor means that the ring is polled.
    SetVringKick {
        /// Ring.
        index: u32,
        /// Event descriptor of the driver's notifications.
        fd: Option<OwnedFd>,
    },
    /// SET_VRING_CALL; no descriptor means that the driver polls.
    SetVringCall {
        /// Ring.
        index: u32,
        /// Event descriptor of our notifications.
        fd: Option<OwnedFd>,
    },
    /// SET_VRING_ERR.
    SetVringErr {
        /// Ring.
        index: u32,
        /// Event descriptor that tells of a broken ring.
        fd: Option<OwnedFd>,
    },
    /// GET_PROTOCOL_FEATURES.
    GetProtocolFeatures,
    /// SET_PROTOCOL_FEATURES.
    SetProtocolFeatures(u64),
    /// GET_QUEUE_NUM.
    GetQueueNum,
    /// SET_VRING_ENABLE.
    SetVringEnable {
        /// Ring.
        index: u32,
        /// On or off.
        enabled: bool,
    },
    /// SEND_RARP: the MAC address of the guest.
    SendRarp([u8; 6]),
    /// NET_SET_MTU: bytes.
    NetSetMtu(u16),
    /// SET_BACKEND_REQ_FD: the socket for requests of the back-end.
    SetBackendReqFd(OwnedFd),
    /// GET_CONFIG; the range lies within [`CONFIG_SPACE_MAX`].
    GetConfig {
        /// First byte.
        offset: u32,
        /// Bytes.
        size: u32,
        /// As sent; they are echoed.
        flags: u32,
    },
    /// SET_CONFIG; the range lies within [`CONFIG_SPACE_MAX`].
    SetConfig {
        /// First byte.
        offset: u32,
        /// The live migration flag: read-only fields may be set.
        migration: bool,
        /// New contents.
        bytes: Vec<u8>,
    },
    /// RESET_DEVICE.
    ResetDevice,
    /// GET_MAX_MEM_SLOTS.
    GetMaxMemSlots,
    /// ADD_MEM_REG.
    AddMemReg(RegionConfig, OwnedFd),
    /// REM_MEM_REG; a descriptor that came along is closed unused.
    RemMemReg(RegionConfig),
    /// SET_STATUS.
    SetStatus(u8),
    /// GET_STATUS.
    GetStatus,
    /// Everything else, known to the protocol or not: this back-end does not serve it.
    Unknown(RequestCode),
}

/// Why the body or the descriptors of one message are refused. The stream goes on with the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body has the wrong size.
    #[error("{code}: body of {size} bytes, must be {expected}")]
    Size {
        /// The message.
        code: RequestCode,
        /// Size of its body in bytes.
        size: usize,
        /// What it must be.
        expected: usize,
    },
    /// Too few or too many descriptors.
    #[error("{code}: {count} file descriptors attached, must be {expected}")]
    Descriptors {
        /// The message.
        code: RequestCode,
        /// How many came.
        count: usize,
        /// How many belong to it.
        expected: usize,
    },
    /// The kernel dropped descriptors on the way to us.
    #[error("{code}: file descriptors were lost (more than {FDS_MAX} attached, or this process may open no more)")]
    DescriptorsLost {
        /// The message.
        code: RequestCode,
    },
    /// A field has a value outside its range.
    #[error("{code}: {field} is {value:#x}, must be {bound}")]
    Value {
        /// The message.
        code: RequestCode,
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        bound: &'static str,
    },
}

impl DecodeError {
    /// The message that was refused.
    pub fn code(&self) -> RequestCode {
        match *self {
            DecodeError::Size { code, .. }
            | DecodeError::Descriptors { code, .. }
            | DecodeError::DescriptorsLost { code }
            | DecodeError::Value { code, .. } => code,
        }
    }
}

/// Reads one request from its code, body and descriptors. Descriptors that do not end up in the request are closed.
///
/// # Errors
/// A known message with a body of the wrong size, the wrong number of descriptors or a value outside the protocol.
/// Codes that are not served decode to [`Request::Unknown`], whatever they carry.
pub fn decode(code: RequestCode, body: &[u8], fds: Vec<OwnedFd>) -> Result<Request, DecodeError> {
    let parts = Parts { code, body, fds };
    match code {
        RequestCode::GET_FEATURES => parts.bare(Request::GetFeatures),
        RequestCode::SET_FEATURES => parts.number().map(Request::SetFeatures),
        RequestCode::SET_OWNER => parts.bare(Request::SetOwner),
        RequestCode::RESET_OWNER => parts.bare(Request::ResetOwner),
        RequestCode::SET_MEM_TABLE => parts.mem_table(),
        RequestCode::SET_VRING_NUM => parts.vring_state().map(|(index, size)| Request::SetVringNum { index, size }),
        RequestCode::SET_VRING_ADDR => parts.vring_addr(),
        RequestCode::SET_VRING_BASE => parts.vring_state().map(|(index, base)| Request::SetVringBase { index, base }),
        RequestCode::GET_VRING_BASE => parts.vring_state().map(|(index, _)| Request::GetVringBase { index }),
        RequestCode::SET_VRING_KICK => parts.vring_fd().map(|(index, fd)| Request::SetVringKick { index, fd }),
        RequestCode::SET_VRING_CALL => parts.vring_fd().map(|(index, fd)| Request::SetVringCall { index, fd }),
        RequestCode::SET_VRING_ERR => parts.vring_fd().map(|(index, fd)| Request::SetVringErr { index, fd }),
        RequestCode::GET_PROTOCOL_FEATURES => parts.bare(Request::GetProtocolFeatures),
        RequestCode::SET_PROTOCOL_FEATURES => parts.number().map(Request::SetProtocolFeatures),
        RequestCode::GET_QUEUE_NUM => parts.bare(Request::GetQueueNum),
        RequestCode::SET_VRING_ENABLE => parts.vring_enable(),
        RequestCode::SEND_RARP => parts.rarp(),
        RequestCode::NET_SET_MTU => parts.mtu(),
        RequestCode::SET_BACKEND_REQ_FD => parts.backend_req_fd(),
        RequestCode::GET_CONFIG => parts.get_config(),
        RequestCode::SET_CONFIG => parts.set_config(),
        RequestCode::RESET_DEVICE => parts.bare(Request::ResetDevice),
        RequestCode::GET_MAX_MEM_SLOTS => parts.bare(Request::GetMaxMemSlots),
        RequestCode::ADD_MEM_REG => parts.add_mem_reg(),
        RequestCode::REM_MEM_REG => parts.rem_mem_reg(),
        RequestCode::SET_STATUS => parts.status(),
        RequestCode::GET_STATUS => parts.bare(Request::GetStatus),
        unknown => Ok(Request::Unknown(unknown)),
    }
}

/// One message, about to be taken apart.
struct Parts<'a> {
    code: RequestCode,
    body: &'a [u8],
    fds: Vec<OwnedFd>,
}

impl Parts<'_> {
    /// A message without body and descriptors.
    fn bare(self, request: Request) -> Result<Request, DecodeError> {
        self.shape(0, 0)?;
        Ok(request)
    }

    /// "A single 64-bit integer".
    fn number(&self) -> Result<u64, DecodeError> {
        self.shape(8, 0)?;
        Ok(u64_at(self.body, 0))
    }

    /// "A vring state description": index, number.
    fn vring_state(&self) -> Result<(u32, u32), DecodeError> {
        self.shape(8, 0)?;
        Ok((u32_at(self.body, 0), u32_at(self.body, 4)))
    }

    fn vring_enable(&self) -> Result<Request, DecodeError> {
        let (index, num) = self.vring_state()?;
        match num {
            0 | 1 => Ok(Request::SetVringEnable { index, enabled: num == 1 }),
            other => Err(self.value("num", other.into(), "0 or 1")),
        }
    }

    fn vring_addr(&self) -> Result<Request, DecodeError> {
        self.shape(40, 0)?;
        let flags = u32_at(self.body, 4);
        if flags > 1 {
            return Err(self.value("flags", flags.into(), "0 or 1 (log)"));
        }
        let addresses = VringAddresses {
            desc_user: u64_at(self.body, 8),
            used_user: u64_at(self.body, 16),
            avail_user: u64_at(self.body, 24),
            log_guest: u64_at(self.body, 32),
            flags,
        };
        Ok(Request::SetVringAddr { index: u32_at(self.body, 0), addresses })
    }

    /// SET_VRING_KICK, CALL, ERR: bits 0-7 are the ring, bit 8 says that no descriptor is attached.
    fn vring_fd(mut self) -> Result<(u32, Option<OwnedFd>), DecodeError> {
        self.size(8)?;
        let value = u64_at(self.body, 0);
        if value > 0x1ff {
            return Err(self.value("payload", value, "a ring index in bits 0-7 and a flag in bit 8"));
        }
        self.descriptors(if value & 0x100 == 0 { 1 } else { 0 })?;
        Ok((u32::from(value as u8), self.fds.pop()))
    }

    /// "Memory regions description".
    fn mem_table(self) -> Result<Request, DecodeError> {
        if self.body.len() < 8 {
            return Err(self.wrong_size(8));
        }
        let count = u32_at(self.body, 0) as usize;
        if count > FDS_MAX {
            return Err(self.value("number of regions", count as u64, "at most 8"));
        }
        self.shape(8 + REGION_LEN * count, count)?;
        let regions = self.body[8..].chunks_exact(REGION_LEN).map(region);
        Ok(Request::SetMemTable(regions.zip(self.fds).collect()))
    }

    /// "Single memory region description".
    fn add_mem_reg(mut self) -> Result<Request, DecodeError> {
        self.size(8 + REGION_LEN)?;
        let fd = self.only_fd()?;
        Ok(Request::AddMemReg(region(&self.body[8..]), fd))
    }

    /// "The back-end MAY accept messages with one file descriptor" and "MUST close it without using it".
    fn rem_mem_reg(self) -> Result<Request, DecodeError> {
        self.size(8 + REGION_LEN)?;
        if self.fds.len() > 1 {
            self.descriptors(0)?;
        }
        Ok(Request::RemMemReg(region(&self.body[8..])))
    }

    fn rarp(&self) -> Result<Request, DecodeError> {
        self.shape(8, 0)?;
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.body[..6]);
        Ok(Request::SendRarp(mac))
    }

    fn mtu(&self) -> Result<Request, DecodeError> {
        let value = self.number()?;
        match u16::try_from(value) {
            Ok(mtu) => Ok(Request::NetSetMtu(mtu)),
            Err(_) => Err(self.value("MTU", value, "at most 0xffff")),
        }
    }

    fn status(&self) -> Result<Request, DecodeError> {
        let value = self.number()?;
        match u8::try_from(value) {
            Ok(status) => Ok(Request::SetStatus(status)),
            Err(_) => Err(self.value("status", value, "at most 0xff")),
        }
    }

    fn backend_req_fd(mut self) -> Result<Request, DecodeError> {
        self.size(0)?;
        self.only_fd().map(Request::SetBackendReqFd)
    }

    fn get_config(&self) -> Result<Request, DecodeError> {
        let (offset, size, flags) = self.config_range()?;
        Ok(Request::GetConfig { offset, size, flags })
    }

    fn set_config(&self) -> Result<Request, DecodeError> {
        let (offset, _, flags) = self.config_range()?;
        if flags > 1 {
            return Err(self.value("flags", flags.into(), "0 or 1 (live migration)"));
        }
        let bytes = self.body[CONFIG_HEADER_LEN..].to_vec();
        Ok(Request::SetConfig { offset, migration: flags == 1, bytes })
    }

    /// "Virtio device config space": offset, size and flags, then as many bytes as `size` says.
    fn config_range(&self) -> Result<(u32, u32, u32), DecodeError> {
        if self.body.len() < CONFIG_HEADER_LEN {
            return Err(self.wrong_size(CONFIG_HEADER_LEN));
        }
        let (offset, size) = (u32_at(self.body, 0), u32_at(self.body, 4));
        let end = u64::from(offset) + u64::from(size);
        if size == 0 {
            return Err(self.value("size", 0, "at least 1"));
        }
        if end > u64::from(CONFIG_SPACE_MAX) {
            return Err(self.value("offset + size", end, "at most 0x100"));
        }
        self.shape(CONFIG_HEADER_LEN + size as usize, 0)?;
        Ok((offset, size, u32_at(self.body, 8)))
    }

    fn only_fd(&mut self) -> Result<OwnedFd, DecodeError> {
        self.descriptors(1)?;
        self.fds.pop().ok_or_else(|| self.wrong_count(1))
    }

    fn shape(&self, size: usize, fds: usize) -> Result<(), DecodeError> {
        self.size(size)?;
        self.descriptors(fds)
    }

    fn size(&self, expected: usize) -> Result<(), DecodeError> {
        if self.body.len() == expected { Ok(()) } else { Err(self.wrong_size(expected)) }
    }

    fn descriptors(&self, expected: usize) -> Result<(), DecodeError> {
        if self.fds.len() == expected { Ok(()) } else { Err(self.wrong_count(expected)) }
    }

    fn wrong_size(&self, expected: usize) -> DecodeError {
        DecodeError::Size { code: self.code, size: self.body.len(), expected }
    }

    fn wrong_count(&self, expected: usize) -> DecodeError {
        DecodeError::Descriptors { code: self.code, count: self.fds.len(), expected }
    }

    fn value(&self, field: &'static str, value: u64, bound: &'static str) -> DecodeError {
        DecodeError::Value { code: self.code, field, value, bound }
    }
}

/// Size of one region on the wire.
const REGION_LEN: usize = 32;
/// Size of what stands before the bytes of the configuration space.
const CONFIG_HEADER_LEN: usize = 12;

fn region(bytes: &[u8]) -> RegionConfig {
    RegionConfig {
        guest_addr: u64_at(bytes, 0),
        size: u64_at(bytes, 8),
        user_addr: u64_at(bytes, 16),
        mmap_offset: u64_at(bytes, 24),
    }
}

/// The caller has checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

/// The caller has checked the length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests;
