//! Runs a session on a socket: reads messages, has their effects performed, sends the replies.
//!
//! One thread per connected front-end, so a slow or hostile one blocks only itself: there are no time-outs on the
//! peer, and every wait ends at once when a stop is requested. What a message means is the session's business; what
//! its effects do to the device is the [`Backend`]'s.

mod channel;
mod connector;
mod listener;
pub(crate) mod log_budget;
mod stop;

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags};

pub(crate) use channel::{receive, send};
pub use connector::Connector;
pub use listener::{Listener, SocketError};
pub use stop::Stop;

use crate::message::{self, DecodeError, FDS_MAX, Header, RequestCode, StreamError, config_body, vring_state_body};
use crate::session::{Effect, Outcome, Refusal, Reply, STATUS_DEVICE_NEEDS_RESET, Session};
use log_budget::LogBudget;

/// The device behind a connection, as the thread of that connection sees it. Every call may block that thread; a stop
/// that is requested meanwhile is the implementation's to notice.
pub trait Backend {
    /// Does what `effect` says; see there for what holds when it returns.
    ///
    /// # Errors
    /// The front-end gets a non-zero acknowledgement if it asked for one. The device is then as if this effect had
    /// never come; in particular the old memory table stays in force.
    fn perform(&mut self, effect: Effect) -> Result<Answer, EffectError>;

    /// The device's configuration space as of now. Reads behind its end give 0.
    fn config(&self) -> Vec<u8>;

    /// Whether the device broke down: DEVICE_NEEDS_RESET in the next status reply (R19).
    fn needs_reset(&self) -> bool;

    /// The front-end has agreed to these protocol features.
    fn negotiated(&mut self, protocol_features: u64) {
        let _ = protocol_features;
    }

    /// Told of every refused message, to be counted; it was logged already.
    fn refused(&mut self, _refusal: &Refusal) {}
}

/// What comes back from an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// [`Effect::StopRing`] is done, and this is where the ring goes on: see
    /// [`RingConfig::base`](crate::session::RingConfig::base).
    Base(u32),
}

/// Why an effect could not be performed, for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EffectError(String);

impl EffectError {
    /// From anything that has a text.
    pub fn new(text: impl fmt::Display) -> EffectError {
        EffectError(text.to_string())
    }
}

/// How a connection ended.
#[derive(Debug)]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
    /// Messages read.
    pub messages: u64,
    /// How many of them were refused.
    pub refused: u64,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// The front-end closed it between two messages.
    #[error("the front-end disconnected")]
    Disconnected,
    /// A stop was requested.
    #[error("stop requested")]
    Stopped,
    /// The bytes no longer make sense.
    #[error("broken stream: {0}")]
    Broken(#[from] StreamError),
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
}

/// Serves one front-end until it goes away or `stop` is requested. The socket is closed on return; nothing is done to
/// the rings then, that is for the owner of `backend` to do.
///
/// Log lines carry no name: enter a span that names the device.
pub fn serve<B: Backend + ?Sized>(stream: UnixStream, session: Session, backend: &mut B, stop: &Stop) -> Closed {
    tracing::info!("front-end connected");
    let mut connection =
        Connection { link: Link { stream, stop }, session, log: LogBudget::default(), messages: 0, refused: 0 };
    let reason = loop {
        if let Err(reason) = connection.serve_one(backend) {
            break reason;
        }
    };
    // Seen by the front-end even where somebody holds another descriptor of this socket.
    let _ = connection.link.stream.shutdown(Shutdown::Both);
    let Connection { messages, refused, .. } = connection;
    match reason {
        CloseReason::Disconnected | CloseReason::Stopped => {
            tracing::info!(messages, refused, "connection closed: {reason}");
        }
        CloseReason::Broken(_) | CloseReason::Socket(_) => {
            tracing::warn!(messages, refused, "connection closed: {reason}");
        }
    }
    Closed { reason, messages, refused }
}

struct Connection<'a> {
    link: Link<'a>,
    session: Session,
    log: LogBudget,
    messages: u64,
    refused: u64,
}

impl Connection<'_> {
    fn serve_one<B: Backend + ?Sized>(&mut self, backend: &mut B) -> Result<(), CloseReason> {
        let Frame { header, body, fds, fds_lost } = self.link.read_frame()?;
        self.messages += 1;
        let code = header.code;
        tracing::debug!(bytes = body.len(), fds = fds.len(), "{code}");
        let request = if fds_lost {
            drop(fds); // those that did arrive: nothing of a refused message is open any more when it is answered
            Err(DecodeError::DescriptorsLost { code })
        } else {
            message::decode(code, &body, fds)
        };
        let outcome = match request {
            Ok(request) => self.session.on(request),
            Err(error) => self.session.on_malformed(error),
        };
        if code == RequestCode::SET_PROTOCOL_FEATURES {
            backend.negotiated(self.session.protocol_features());
        }
        let Outcome { effects, reply, refused } = outcome;
        if let Some(refusal) = &refused {
            self.refused += 1;
            self.warn(format_args!("refused {refusal}"));
            backend.refused(refusal);
        }
        let performed = self.perform(code, effects, reply, backend);
        let ok = refused.is_none() && performed;
        match self.reply_body(reply, header.need_reply, ok, backend) {
            Some(body) => self.link.write(&message::reply(code, &body)),
            None => Ok(()),
        }
    }

    /// Performs effects in order; whether all went well. Behind a failed one no ring is started any more.
    fn perform<B: Backend + ?Sized>(
        &mut self,
        code: RequestCode,
        effects: Vec<Effect>,
        reply: Reply,
        backend: &mut B,
    ) -> bool {
        let mut ok = true;
        let mut unperformed = Vec::new();
        for effect in effects {
            if !ok && matches!(effect, Effect::StartRing { .. }) {
                unperformed.push(effect);
                continue;
            }
            match (backend.perform(effect), reply) {
                (Ok(Answer::Base(base)), Reply::VringBase { index }) => {
                    self.session.stopped_at(index, base);
                }
                (Ok(_), _) => {}
                (Err(error), _) => {
                    ok = false;
                    self.warn(format_args!("{code} failed: {error}"));
                }
            }
        }
        if !ok {
            self.session.take_back(unperformed);
        }
        ok
    }

    fn reply_body<B: Backend + ?Sized>(
        &self,
        reply: Reply,
        need_reply: bool,
        ok: bool,
        backend: &B,
    ) -> Option<Vec<u8>> {
        let number = |value: u64| Some(value.to_le_bytes().to_vec());
        match reply {
            Reply::Ack if need_reply => number(u64::from(!ok)),
            Reply::None | Reply::Ack => None,
            Reply::U64(value) => number(value),
            Reply::VringBase { index } => Some(vring_state_body(index, self.session.base(index)).to_vec()),
            Reply::Config { offset, size, flags } => {
                let mut bytes: Vec<u8> =
                    backend.config().into_iter().skip(offset as usize).take(size as usize).collect();
                bytes.resize(size as usize, 0);
                Some(config_body(offset, flags, &bytes))
            }
            Reply::ConfigError => Some(config_body(0, 0, &[])),
            Reply::Status => {
                let broken = if backend.needs_reset() { STATUS_DEVICE_NEEDS_RESET } else { 0 };
                number(u64::from(self.session.status() | broken))
            }
        }
    }

    /// A front-end decides how many lines it causes, so they have a budget.
    fn warn(&mut self, line: fmt::Arguments<'_>) {
        match self.log.spend(Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("{line}"),
            Some(dropped) => tracing::warn!(dropped, "{line}"),
        }
    }
}

/// One message as it was read.
struct Frame {
    header: Header,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
    fds_lost: bool,
}

/// The socket, read and written without blocking in the kernel, so that a stop is noticed anywhere.
struct Link<'a> {
    stream: UnixStream,
    stop: &'a Stop,
}

impl Link<'_> {
    /// Reads one message. Its bytes may come in any pieces, its descriptors with any of them; bytes of the next message
    /// are never touched, so neither are its descriptors.
    fn read_frame(&self) -> Result<Frame, CloseReason> {
        let mut descriptors = Descriptors::default();
        let mut bytes = [0; Header::LEN];
        self.read(&mut bytes, &mut descriptors, true)?;
        let header = Header::decode(&bytes)?;
        if header.reply {
            return Err(StreamError::UnexpectedReply { code: header.code }.into());
        }
        let mut body = vec![0; header.size as usize];
        self.read(&mut body, &mut descriptors, false)?;
        Ok(Frame { header, body, fds: descriptors.fds, fds_lost: descriptors.lost })
    }

    /// Fills `buffer`. The stream may end before its first byte only `at_boundary` of two messages.
    fn read(&self, buffer: &mut [u8], descriptors: &mut Descriptors, at_boundary: bool) -> Result<(), CloseReason> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.wait(PollFlags::IN)?;
            let rest = &mut buffer[filled..];
            match receive(&self.stream, rest, &mut descriptors.fds, RecvFlags::DONTWAIT) {
                Ok(received) if received.bytes == 0 => {
                    if at_boundary && filled == 0 {
                        return Err(CloseReason::Disconnected);
                    }
                    return Err(StreamError::Truncated { missing: buffer.len() - filled }.into());
                }
                Ok(received) => {
                    filled += received.bytes;
                    descriptors.lost |= received.fds_lost;
                    if descriptors.fds.len() > FDS_MAX {
                        descriptors.fds.truncate(FDS_MAX);
                        descriptors.lost = true;
                    }
                }
                Err(error) if retry(&error) => {}
                Err(error) => return Err(gone_or(error)),
            }
        }
        Ok(())
    }

    /// Sends `bytes`, in one piece wherever the socket takes it: some front-ends receive a reply with one call.
    fn write(&self, bytes: &[u8]) -> Result<(), CloseReason> {
        let mut sent = 0;
        while sent < bytes.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.stream, &bytes[sent..], &[], flags) {
                Ok(count) => sent += count,
                Err(error) if retry(&error) => self.wait(PollFlags::OUT)?,
                Err(error) => return Err(gone_or(error)),
            }
        }
        Ok(())
    }

    fn wait(&self, events: PollFlags) -> Result<(), CloseReason> {
        match self.stop.wait_for(&self.stream, events) {
            Ok(true) => Ok(()),
            Ok(false) => Err(CloseReason::Stopped),
            Err(error) => Err(CloseReason::Socket(error)),
        }
    }
}

/// What came along with the bytes of one message.
#[derive(Default)]
struct Descriptors {
    fds: Vec<OwnedFd>,
    lost: bool,
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn gone_or(error: io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CloseReason::Disconnected,
        _ => CloseReason::Socket(error),
    }
}

#[cfg(test)]
mod rust_vmm_tests;
#[cfg(test)]
mod serve_tests;
#[cfg(test)]
pub(crate) mod testing;
