//! What the tests of connection and front-end share: a device that writes down its effects, served on a socket pair.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SendFlags;

use super::*;
use crate::message::protocol;
use crate::session::DeviceInfo;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const BIT_30: u64 = 1 << 30;
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn device_info() -> DeviceInfo {
    DeviceInfo {
        features: VERSION_1,
        tolerated_features: 0,
        protocol_features: protocol::MQ
            | protocol::REPLY_ACK
            | protocol::BACKEND_REQ
            | protocol::CONFIG
            | protocol::RESET_DEVICE
            | protocol::CONFIGURE_MEM_SLOTS
            | protocol::STATUS,
        queues: 4,
        queue_size_max: 256,
        max_mem_slots: 16,
    }
}

/// Writes down what it is told to do. Clones share everything.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    done: Arc<Mutex<Vec<String>>>,
    refused: Arc<Mutex<Vec<String>>>,
    /// Effects whose text begins like this fail.
    fail: Arc<Mutex<Option<&'static str>>>,
    pub(crate) broken: Arc<AtomicBool>,
    held: Arc<Mutex<Vec<OwnedFd>>>,
}

impl Recorder {
    /// What was done since the last call.
    pub(crate) fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.done.lock())
    }

    pub(crate) fn refusals(&self) -> Vec<String> {
        std::mem::take(&mut self.refused.lock())
    }

    pub(crate) fn fail(&self, effect: Option<&'static str>) {
        *self.fail.lock() = effect;
    }

    /// Descriptors received so far.
    pub(crate) fn held(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.held.lock())
    }

    fn describe(&self, effect: Effect) -> String {
        let hold = |fd: Option<OwnedFd>| {
            let text = if fd.is_some() { "fd" } else { "none" };
            self.held.lock().extend(fd);
            text
        };
        match effect {
            Effect::SetMemTable(regions) => {
                let count = regions.len();
                self.held.lock().extend(regions.into_iter().map(|(_, fd)| fd));
                format!("table of {count}")
            }
            Effect::AddRegion(region, fd) => format!("add {:#x} {}", region.guest_addr, hold(Some(fd))),
            Effect::RemoveRegion(region) => format!("remove {:#x}", region.guest_addr),
            Effect::StartRing { index, config, kick } => {
                format!("start {index} size {} base {} kick {}", config.size, config.base, hold(kick))
            }
            Effect::SetKick { index, fd } => format!("kick {index} {}", hold(fd)),
            Effect::SetCall { index, fd } => format!("call {index} {}", hold(fd)),
            Effect::SetErr { index, fd } => format!("err {index} {}", hold(fd)),
            Effect::SetBackendRequestFd(fd) => format!("backend request {}", hold(Some(fd))),
            other => format!("{other:?}"),
        }
    }
}

impl Backend for Recorder {
    fn perform(&mut self, effect: Effect) -> Result<Answer, EffectError> {
        let answer = match effect {
            Effect::StopRing { index } => Answer::Base(1000 + u32::from(index)),
            _ => Answer::Done,
        };
        let text = self.describe(effect);
        if self.fail.lock().is_some_and(|start| text.starts_with(start)) {
            return Err(EffectError::new(format!("{text}: asked to fail")));
        }
        self.done.lock().push(text);
        Ok(answer)
    }

    /// Bytes 0 to 35, as long as the space of virtio-scsi.
    fn config(&self) -> Vec<u8> {
        (0..36).collect()
    }

    fn needs_reset(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn refused(&mut self, refusal: &Refusal) {
        self.refused.lock().push(refusal.to_string());
    }
}

/// A served connection; the test is the front-end.
pub(crate) struct Served {
    pub(crate) peer: UnixStream,
    /// The server's end, to see how much it has left unread.
    server: UnixStream,
    pub(crate) device: Recorder,
    pub(crate) stop: Stop,
    thread: thread::JoinHandle<Closed>,
}

impl Served {
    pub(crate) fn new() -> Served {
        let (peer, stream) = UnixStream::pair().unwrap();
        let server = stream.try_clone().unwrap();
        let device = Recorder::default();
        let stop = Stop::new().unwrap();
        let thread = {
            let (mut device, stop) = (device.clone(), stop.clone());
            thread::spawn(move || serve(stream, Session::new(device_info()), &mut device, &stop))
        };
        Served { peer, server, device, stop, thread }
    }

    /// Sends bytes, descriptors with the first of them.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let sent = send(&self.peer, bytes, &fds, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// Waits until the server has read everything sent so far, so that the next bytes are a piece of their own.
    pub(crate) fn drained(&self) {
        while rustix::io::ioctl_fionread(&self.server).unwrap() > 0 {
            thread::yield_now();
        }
    }

    /// Reads exactly `N` bytes.
    pub(crate) fn receive<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        std::io::Read::read_exact(&mut &self.peer, &mut bytes).unwrap();
        bytes
    }

    /// GET_QUEUE_NUM is answered: the stream is in step, and everything before has been performed.
    pub(crate) fn in_step(&self) {
        self.send(&GET_QUEUE_NUM, &[]);
        assert_eq!(self.receive(), [17, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    }

    pub(crate) fn negotiate_reply_ack(&self) {
        self.send(&[16, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0], &[]);
        self.in_step();
    }

    /// Sends a whole message that asks for an acknowledgement; the acknowledgement.
    pub(crate) fn acknowledged(&self, code: u8, body: &[u8], fds: &[OwnedFd]) -> u64 {
        self.send(&message(code, 9, body), fds);
        let reply: [u8; 20] = self.receive();
        assert_eq!(reply[..12], [code, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0]);
        u64::from_le_bytes(reply[12..].try_into().unwrap())
    }

    /// Hangs up; how the connection ended.
    pub(crate) fn hang_up(self) -> Closed {
        drop(self.peer);
        self.thread.join().unwrap()
    }

    /// How the connection ended, without hanging up.
    pub(crate) fn closed(self) -> Closed {
        self.thread.join().unwrap()
    }
}

pub(crate) const GET_QUEUE_NUM: [u8; 12] = [17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

pub(crate) fn message(code: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![code, 0, 0, 0, flags, 0, 0, 0];
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn fds(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap()).collect()
}
