//! The vhost-user conversation that all devices have in common: connecting, agreeing on features, starting the rings, seeing
//! that the device is gone, stopping the rings. What a device type asks for beyond that is its module's, what is on the
//! rings the queues'.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use vhost_user::Notifier;
use vhost_user::connection::{Listener, Stop};
use vhost_user::frontend::{Frontend, FrontendError, Negotiated};
use vhost_user::message::{F_PROTOCOL_FEATURES, VringAddresses, protocol};
use virtqueue::Features;

use crate::memory::{Memory, RingPlace};

/// A connection to a device.
#[derive(Debug)]
pub(crate) struct Link {
    frontend: Frontend,
    /// How long a reply may take.
    patience: Duration,
    negotiated: Negotiated,
    ring_name: RingName,
    /// By ring index.
    fds: Vec<Arc<RingFds>>,
}

/// What the ring of an index is for.
pub(crate) type RingName = fn(usize) -> &'static str;

/// The notifications of one ring, all ours.
#[derive(Debug)]
pub(crate) struct RingFds {
    pub kick: Notifier,
    pub call: Notifier,
    pub err: Notifier,
}

/// Why a device cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// Its process ended, or it does not want us any more.
    #[error("the device closed the connection")]
    Closed,
    /// It signalled the err descriptor of a ring.
    #[error("the device reports that ring {index} ({name}) is broken")]
    RingBroken {
        /// Index of the ring.
        index: usize,
        /// What it is for.
        name: &'static str,
    },
}

impl RingFds {
    pub(crate) fn new() -> anyhow::Result<Arc<RingFds>> {
        let notifier = || {
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("eventfd")?;
            anyhow::Ok(Notifier::new(fd))
        };
        Ok(Arc::new(RingFds { kick: notifier()?, call: notifier()?, err: notifier()? }))
    }
}

impl Link {
    /// Connects to a device that listens.
    ///
    /// # Errors
    /// Nobody listens; the text names `what` should be on the socket.
    pub(crate) fn connect(path: &Path, patience: Duration, what: &str, ring_name: RingName) -> anyhow::Result<Link> {
        let frontend = Frontend::connect(path)
            .map_err(|error| anyhow!("{error}: is a target running, with a {what} on this socket?"))?;
        Link::new(frontend, patience, ring_name)
    }

    /// Listens until a device connects.
    ///
    /// # Errors
    /// The path cannot be used, none connects within `patience`, or `interrupt` is readable.
    pub(crate) fn accept(
        path: &Path,
        patience: Duration,
        interrupt: BorrowedFd<'_>,
        ring_name: RingName,
    ) -> anyhow::Result<Link> {
        let listener = Listener::bind(path)?;
        let (over, done) = (Stop::new().context("eventfd")?, Stop::new().context("eventfd")?);
        let stream = thread::scope(|scope| {
            let accepting = scope.spawn(|| {
                let stream = listener.accept(&over);
                done.request();
                stream
            });
            let mut fds = [done.as_fd(), interrupt].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let waited = wait(&mut fds, patience);
            over.request();
            let stream = accepting.join().map_err(|_| anyhow!("the accepting thread panicked"))?;
            waited?;
            ensure!(fds[1].revents().is_empty(), "interrupted");
            stream.context("accept")
        })?;
        let stream = stream.with_context(|| format!("{}: no device connected within {patience:?}", path.display()))?;
        Link::new(Frontend::from_stream(stream), patience, ring_name)
    }

    fn new(frontend: Frontend, patience: Duration, ring_name: RingName) -> anyhow::Result<Link> {
        let negotiated = Negotiated { features: 0, protocol_features: 0 };
        let mut link = Link { frontend, patience, negotiated, ring_name, fds: Vec::new() };
        link.set_patience(patience)?;
        link.tell(Frontend::set_owner)?;
        Ok(link)
    }

    /// Agrees on features: those that both sides have of `wanted`, of which the device must have the `needed` ones, and the
    /// same of protocol features.
    ///
    /// # Errors
    /// The device lacks something; the text names it.
    pub(crate) fn negotiate(&mut self, wanted: u64, wanted_protocol: u64, needed: &[Needed]) -> anyhow::Result<()> {
        self.negotiated = self.tell(|frontend| frontend.negotiate(wanted, wanted_protocol))?;
        match needed.iter().find(|needed| self.negotiated.features >> needed.bit & 1 == 0) {
            None => Ok(()),
            Some(lacking) => bail!("{lacking}"),
        }
    }

    fn set_patience(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.patience = patience;
        self.frontend.set_reply_timeout(Some(patience)).context("socket")
    }

    /// A message, and an error with a text of its own: no cause is told twice, and a time-out is called one.
    pub(crate) fn tell<T>(
        &mut self,
        message: impl FnOnce(&mut Frontend) -> Result<T, FrontendError>,
    ) -> anyhow::Result<T> {
        message(&mut self.frontend).map_err(|error| match error {
            FrontendError::Socket { code, source } if source.kind() == io::ErrorKind::WouldBlock => {
                anyhow!("{code}: no reply within {:?}", self.patience)
            }
            other => anyhow!("{other}"),
        })
    }

    pub(crate) fn has(&self, protocol_feature: u64) -> bool {
        self.negotiated.protocol_features & protocol_feature != 0
    }

    /// What was agreed on.
    pub(crate) fn features(&self) -> u64 {
        self.negotiated.features
    }

    /// virtio 1.3 §3.1.1: the device says whether it takes the features, if it knows of a status.
    pub(crate) fn agree_on_status(&mut self) -> anyhow::Result<()> {
        if !self.has(protocol::STATUS) {
            return Ok(());
        }
        self.tell(|frontend| frontend.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK))?;
        let status = self.tell(Frontend::status)?;
        let features = self.negotiated.features;
        ensure!(
            status & u64::from(FEATURES_OK) != 0,
            "the device does not take features {features:#x}: status {status:#x} lacks FEATURES_OK"
        );
        Ok(())
    }

    /// What was agreed on that the rings have to know.
    pub(crate) fn ring_features(&self) -> Features {
        Features { event_idx: self.negotiated.features >> EVENT_IDX & 1 != 0 }
    }

    /// Gives the device the memory and starts every ring. Rings and their memory have to be as they are to be found.
    pub(crate) fn start(
        &mut self,
        memory: &Memory,
        queue_size: u16,
        rings: &[RingPlace],
        fds: Vec<Arc<RingFds>>,
    ) -> anyhow::Result<()> {
        self.fds = fds;
        self.tell(|frontend| frontend.set_mem_table(&[memory.region()]))?;
        for (index, place) in rings.iter().enumerate() {
            self.start_ring(memory, queue_size, place, index).with_context(|| self.name(index))?;
        }
        if self.negotiated.features & F_PROTOCOL_FEATURES != 0 {
            for index in 0..self.fds.len() {
                self.tell(|frontend| frontend.set_vring_enable(index as u32, true))?;
            }
        }
        if self.has(protocol::STATUS) {
            self.tell(|frontend| frontend.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK))?;
        }
        Ok(())
    }

    fn name(&self, index: usize) -> String {
        format!("ring {index} ({})", (self.ring_name)(index))
    }

    fn start_ring(&mut self, memory: &Memory, size: u16, place: &RingPlace, index: usize) -> anyhow::Result<()> {
        let fds = Arc::clone(&self.fds[index]);
        let (short, index) = (index as u8, index as u32);
        self.tell(|frontend| frontend.set_vring_num(index, size.into()))
            .with_context(|| format!("--queue-size {size}"))?;
        let addresses = VringAddresses {
            desc_user: memory.user_addr(place.desc),
            avail_user: memory.user_addr(place.avail),
            used_user: memory.user_addr(place.used),
            ..VringAddresses::default()
        };
        self.tell(|frontend| {
            frontend.set_vring_base(index, place.format.first_base())?;
            frontend.set_vring_addr(index, &addresses)?;
            frontend.set_vring_call(short, Some(fds.call.as_fd()))?;
            frontend.set_vring_err(short, Some(fds.err.as_fd()))?;
            // Last: with it the ring starts.
            frontend.set_vring_kick(short, Some(fds.kick.as_fd()))
        })
    }

    /// Stops every ring, one after the other. Nothing may be in flight, or this takes as long as that, up to `patience`.
    pub(crate) fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.set_patience(patience)?;
        for index in 0..self.fds.len() {
            let stopped = self.tell(|frontend| frontend.vring_base(index as u32));
            stopped.with_context(|| format!("stopping {}", self.name(index)))?;
        }
        Ok(())
    }

    /// The descriptors that tell of trouble, to be waited for.
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let socket = PollFd::new(&self.frontend, PollFlags::RDHUP);
        let errs = self.fds.iter().map(|fds| PollFd::new(&fds.err, PollFlags::IN));
        std::iter::once(socket).chain(errs).collect()
    }

    /// What [`Link::poll_fds`] say after a wait.
    pub(crate) fn trouble(&self, polled: &[PollFd<'_>]) -> Option<Trouble> {
        match polled.iter().position(|fd| !fd.revents().is_empty())? {
            0 => Some(Trouble::Closed),
            after => Some(Trouble::RingBroken { index: after - 1, name: (self.ring_name)(after - 1) }),
        }
    }

    /// Waits for trouble, at most for `timeout`.
    ///
    /// # Errors
    /// The trouble.
    pub(crate) fn watch(&self, timeout: Duration) -> anyhow::Result<()> {
        let mut fds = self.poll_fds();
        wait(&mut fds, timeout)?;
        match self.trouble(&fds) {
            Some(trouble) => bail!(trouble),
            None => Ok(()),
        }
    }
}

/// `poll` that takes a signal for the end of its time.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: Duration) -> anyhow::Result<()> {
    let timeout = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(fds, Some(&timeout)) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        Err(error) => Err(error).context("poll"),
    }
}

/// A feature that a run cannot do without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    /// The option that wants it, if there is one.
    pub option: Option<&'static str>,
    /// Its name in the specification.
    pub name: &'static str,
    /// Its bit.
    pub bit: u32,
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Needed { option, name, bit } = self;
        match option {
            Some(option) => write!(f, "{option}: the device does not offer {name} (bit {bit})"),
            None => write!(f, "the device does not offer {name} (bit {bit})"),
        }
    }
}

/// VIRTIO_F_EVENT_IDX, the bit.
const EVENT_IDX: u32 = 29;

/// Device status bits (virtio 1.3 §2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
