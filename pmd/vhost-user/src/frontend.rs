//! The front-end's end of a vhost-user socket: a small blocking client for the bench and for tests.
//!
//! One method per message, no state machine: the caller decides the order, and [`Frontend::send_raw`] sends what no
//! honest front-end would. It does not own memory or rings; the driver side of a ring is `virtqueue`'s.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest_memory::RegionConfig;
use rustix::net::{RecvFlags, SendFlags};

use crate::connection::{receive, send};
use crate::message::{
    F_PROTOCOL_FEATURES, Header, RequestCode, StreamError, VringAddresses, config_body, mem_table_body, protocol,
    region_body, vring_addr_body, vring_state_body,
};

/// A connected front-end.
#[derive(Debug)]
pub struct Frontend {
    stream: UnixStream,
    /// REPLY_ACK was negotiated: every message without a reply of its own asks for an acknowledgement.
    acknowledged: bool,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Feature bits, bit 30 included.
    pub features: u64,
    /// Protocol feature bits.
    pub protocol_features: u64,
}

/// A reply as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawReply {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: Vec<u8>,
}

/// What can go wrong with a back-end.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// Nobody listens there.
    #[error("cannot connect to {path:?}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The socket failed.
    #[error("{code}: socket: {source}")]
    Socket {
        /// The message that was sent or waited for.
        code: RequestCode,
        /// The answer; `WouldBlock` is the time-out.
        source: io::Error,
    },
    /// The back-end closed the connection.
    #[error("{code}: the back-end closed the connection")]
    Closed {
        /// The message that was sent or waited for.
        code: RequestCode,
    },
    /// The back-end did not do it.
    #[error("{code}: the back-end acknowledged with {value}, must be 0")]
    Refused {
        /// The message.
        code: RequestCode,
        /// The acknowledgement.
        value: u64,
    },
    /// Not a vhost-user header.
    #[error("broken reply: {0}")]
    Stream(#[from] StreamError),
    /// A reply to something else, or none.
    #[error("{code}: reply with request {got} and reply flag {reply}, must be {code} and true")]
    Unrelated {
        /// The message.
        code: RequestCode,
        /// The code in the reply.
        got: RequestCode,
        /// Its reply flag.
        reply: bool,
    },
    /// A reply of the wrong size.
    #[error("{code}: reply of {size} bytes, must be {expected}")]
    ReplySize {
        /// The message.
        code: RequestCode,
        /// Size of the reply's body in bytes.
        size: usize,
        /// What it must be.
        expected: usize,
    },
    /// A reply about another ring or range than asked for.
    #[error("{code}: reply about {got}, asked for {asked}")]
    ReplyContent {
        /// The message.
        code: RequestCode,
        /// Index or offset in the reply.
        got: u32,
        /// Index or offset in the request.
        asked: u32,
    },
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, FrontendError>;

impl Frontend {
    /// Connects to a listening back-end.
    ///
    /// # Errors
    /// [`FrontendError::Connect`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Frontend> {
        let path = path.as_ref();
        let connected = UnixStream::connect(path);
        let stream = connected.map_err(|source| FrontendError::Connect { path: path.into(), source })?;
        Ok(Frontend::from_stream(stream))
    }

    /// On a socket that is connected to a back-end and blocks.
    pub fn from_stream(stream: UnixStream) -> Frontend {
        Frontend { stream, acknowledged: false }
    }

    /// How long to wait for a reply; `None`, the default, for ever.
    ///
    /// # Errors
    /// A time-out of 0.
    pub fn set_reply_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    /// Agrees on features and, if both sides have bit 30, on protocol features; takes what is offered of what is
    /// wanted. Bit 30 itself is added.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn negotiate(&mut self, wanted: u64, wanted_protocol: u64) -> Result<Negotiated> {
        let offered = self.features()?;
        let mut protocol_features = 0;
        if offered & F_PROTOCOL_FEATURES != 0 {
            protocol_features = self.protocol_features()? & wanted_protocol;
            self.set_protocol_features(protocol_features)?;
        }
        let features = offered & (wanted | F_PROTOCOL_FEATURES);
        self.set_features(features)?;
        Ok(Negotiated { features, protocol_features })
    }

    /// GET_FEATURES.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn features(&mut self) -> Result<u64> {
        self.ask_number(RequestCode::GET_FEATURES)
    }

    /// SET_FEATURES.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_features(&mut self, features: u64) -> Result<()> {
        self.tell(RequestCode::SET_FEATURES, &features.to_le_bytes(), &[])
    }

    /// GET_PROTOCOL_FEATURES.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn protocol_features(&mut self) -> Result<u64> {
        self.ask_number(RequestCode::GET_PROTOCOL_FEATURES)
    }

    /// SET_PROTOCOL_FEATURES. With REPLY_ACK this and all later messages are acknowledged.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.acknowledged = features & protocol::REPLY_ACK != 0;
        self.tell(RequestCode::SET_PROTOCOL_FEATURES, &features.to_le_bytes(), &[])
    }

    /// SET_OWNER.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_owner(&mut self) -> Result<()> {
        self.tell(RequestCode::SET_OWNER, &[], &[])
    }

    /// RESET_OWNER.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn reset_owner(&mut self) -> Result<()> {
        self.tell(RequestCode::RESET_OWNER, &[], &[])
    }

    /// GET_QUEUE_NUM.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn queue_num(&mut self) -> Result<u64> {
        self.ask_number(RequestCode::GET_QUEUE_NUM)
    }

    /// SET_MEM_TABLE, at most 8 regions.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_mem_table(&mut self, regions: &[(RegionConfig, BorrowedFd<'_>)]) -> Result<()> {
        let body = mem_table_body(regions.iter().map(|(region, _)| region));
        let fds: Vec<_> = regions.iter().map(|(_, fd)| *fd).collect();
        self.tell(RequestCode::SET_MEM_TABLE, &body, &fds)
    }

    /// GET_MAX_MEM_SLOTS.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn max_mem_slots(&mut self) -> Result<u64> {
        self.ask_number(RequestCode::GET_MAX_MEM_SLOTS)
    }

    /// ADD_MEM_REG.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn add_region(&mut self, region: &RegionConfig, fd: BorrowedFd<'_>) -> Result<()> {
        self.tell(RequestCode::ADD_MEM_REG, &region_body(region), &[fd])
    }

    /// REM_MEM_REG.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn remove_region(&mut self, region: &RegionConfig) -> Result<()> {
        self.tell(RequestCode::REM_MEM_REG, &region_body(region), &[])
    }

    /// SET_VRING_NUM.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        self.tell(RequestCode::SET_VRING_NUM, &vring_state_body(index, size), &[])
    }

    /// SET_VRING_ADDR.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_vring_addr(&mut self, index: u32, addresses: &VringAddresses) -> Result<()> {
        self.tell(RequestCode::SET_VRING_ADDR, &vring_addr_body(index, addresses), &[])
    }

    /// SET_VRING_BASE.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.tell(RequestCode::SET_VRING_BASE, &vring_state_body(index, base), &[])
    }

    /// GET_VRING_BASE: stops the ring; where it would go on.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn vring_base(&mut self, index: u32) -> Result<u32> {
        let code = RequestCode::GET_VRING_BASE;
        let body = self.ask(code, &vring_state_body(index, 0), 8)?;
        same(code, index, u32_at(&body, 0))?;
        Ok(u32_at(&body, 4))
    }

    /// SET_VRING_KICK; without a descriptor the ring is polled.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_vring_kick(&mut self, index: u8, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.tell_vring_fd(RequestCode::SET_VRING_KICK, index, fd)
    }

    /// SET_VRING_CALL; without a descriptor we poll.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_vring_call(&mut self, index: u8, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.tell_vring_fd(RequestCode::SET_VRING_CALL, index, fd)
    }

    /// SET_VRING_ERR.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_vring_err(&mut self, index: u8, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.tell_vring_fd(RequestCode::SET_VRING_ERR, index, fd)
    }

    /// SET_VRING_ENABLE.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_vring_enable(&mut self, index: u32, enabled: bool) -> Result<()> {
        let body = vring_state_body(index, u32::from(enabled));
        self.tell(RequestCode::SET_VRING_ENABLE, &body, &[])
    }

    /// SET_BACKEND_REQ_FD.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_backend_request_fd(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        self.tell(RequestCode::SET_BACKEND_REQ_FD, &[], &[fd])
    }

    /// GET_CONFIG: `size` bytes of the configuration space from `offset`.
    ///
    /// # Errors
    /// See [`FrontendError`]; a back-end that refuses sends an empty range ([`FrontendError::ReplySize`]).
    pub fn config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>> {
        let code = RequestCode::GET_CONFIG;
        let request = config_body(offset, 0, &vec![0; size as usize]);
        let mut body = self.ask(code, &request, request.len())?;
        same(code, offset, u32_at(&body, 0))?;
        Ok(body.split_off(CONFIG_HEADER_LEN))
    }

    /// SET_CONFIG, as a driver writes it (no live migration).
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        self.tell(RequestCode::SET_CONFIG, &config_body(offset, 0, bytes), &[])
    }

    /// GET_STATUS.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn status(&mut self) -> Result<u64> {
        self.ask_number(RequestCode::GET_STATUS)
    }

    /// SET_STATUS; 0 resets the device.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn set_status(&mut self, status: u8) -> Result<()> {
        self.tell(RequestCode::SET_STATUS, &u64::from(status).to_le_bytes(), &[])
    }

    /// RESET_DEVICE.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn reset_device(&mut self) -> Result<()> {
        self.tell(RequestCode::RESET_DEVICE, &[], &[])
    }

    /// Sends bytes as they are, descriptors with the first of them.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send_raw(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut fds = fds;
        let mut rest = bytes;
        while !rest.is_empty() {
            match send(&self.stream, rest, fds, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    fds = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for one reply, whatever it answers.
    ///
    /// # Errors
    /// [`FrontendError::Closed`], [`FrontendError::Socket`] (time-out included) and [`FrontendError::Stream`].
    pub fn recv_reply(&mut self) -> Result<RawReply> {
        self.recv_reply_to(RequestCode(0))
    }

    /// Sends a message that has no reply of its own and, with REPLY_ACK, waits for its acknowledgement.
    fn tell(&mut self, code: RequestCode, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_request(code, self.acknowledged, body, fds)?;
        if !self.acknowledged {
            return Ok(());
        }
        match u64_at(&self.matching_reply(code, 8)?) {
            0 => Ok(()),
            value => Err(FrontendError::Refused { code, value }),
        }
    }

    /// Bits 0-7 are the ring, bit 8 says that no descriptor is attached.
    fn tell_vring_fd(&mut self, code: RequestCode, index: u8, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let flag = if fd.is_none() { 0x100 } else { 0 };
        self.tell(code, &(u64::from(index) | flag).to_le_bytes(), fd.as_slice())
    }

    /// Sends a message that has a reply of its own and waits for it.
    fn ask(&mut self, code: RequestCode, body: &[u8], reply_size: usize) -> Result<Vec<u8>> {
        self.send_request(code, false, body, &[])?;
        self.matching_reply(code, reply_size)
    }

    fn ask_number(&mut self, code: RequestCode) -> Result<u64> {
        self.ask(code, &[], 8).map(|body| u64_at(&body))
    }

    fn send_request(&mut self, code: RequestCode, need_reply: bool, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let header = Header { code, reply: false, need_reply, size: body.len() as u32 };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(body);
        self.send_raw(&bytes, fds).map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => FrontendError::Closed { code },
            _ => FrontendError::Socket { code, source },
        })
    }

    fn matching_reply(&mut self, code: RequestCode, expected: usize) -> Result<Vec<u8>> {
        let RawReply { header, body } = self.recv_reply_to(code)?;
        if header.code != code || !header.reply {
            return Err(FrontendError::Unrelated { code, got: header.code, reply: header.reply });
        }
        if body.len() != expected {
            return Err(FrontendError::ReplySize { code, size: body.len(), expected });
        }
        Ok(body)
    }

    fn recv_reply_to(&mut self, code: RequestCode) -> Result<RawReply> {
        let mut bytes = [0; Header::LEN];
        self.fill(code, &mut bytes)?;
        let header = Header::decode(&bytes)?;
        let mut body = vec![0; header.size as usize];
        self.fill(code, &mut body)?;
        Ok(RawReply { header, body })
    }

    fn fill(&mut self, code: RequestCode, buffer: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        // No reply that we ask for carries a descriptor.
        let mut fds: Vec<OwnedFd> = Vec::new();
        while filled < buffer.len() {
            match receive(&self.stream, &mut buffer[filled..], &mut fds, RecvFlags::empty()) {
                Ok(received) if received.bytes == 0 => return Err(FrontendError::Closed { code }),
                Ok(received) => filled += received.bytes,
                Err(source) => match source.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => return Err(FrontendError::Closed { code }),
                    _ => return Err(FrontendError::Socket { code, source }),
                },
            }
        }
        Ok(())
    }
}

impl AsFd for Frontend {
    /// The socket, to wait on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Offset, size and flags before the bytes of the configuration space.
const CONFIG_HEADER_LEN: usize = 12;

fn same(code: RequestCode, asked: u32, got: u32) -> Result<()> {
    if asked == got { Ok(()) } else { Err(FrontendError::ReplyContent { code, got, asked }) }
}

fn u32_at(body: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]])
}

fn u64_at(body: &[u8]) -> u64 {
    u64::from(u32_at(body, 0)) | u64::from(u32_at(body, 4)) << 32
}

#[cfg(test)]
mod tests;
