//! The vhost-user conversation: agreeing with the device, starting its rings, seeing that it is gone, stopping its rings.
//! What is on the rings is the queues' business.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use vhost_user::Notifier;
use vhost_user::frontend::{Frontend, FrontendError, Negotiated};
use vhost_user::message::{F_PROTOCOL_FEATURES, VringAddresses, protocol};
use virtio_scsi::wire::{CONFIG_LEN, SENSE_SIZE, feature};
use virtqueue::Features;

use super::Args;
use super::layout::{FIRST_REQUEST_RING, Layout, Memory};

/// A connection to a device.
#[derive(Debug)]
pub(super) struct Link {
    frontend: Frontend,
    /// How long a reply may take.
    patience: Duration,
    negotiated: Negotiated,
    limits: Option<Limits>,
    /// By ring index, control and event ring included.
    fds: Vec<Arc<RingFds>>,
}

/// The notifications of one ring, all ours.
#[derive(Debug)]
pub(super) struct RingFds {
    pub kick: Notifier,
    pub call: Notifier,
    pub err: Notifier,
}

/// What the config space says that the device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub max_sectors: u32,
    pub cmd_per_lun: u32,
}

/// Why a device cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Its process ended, or it does not want us any more.
    #[error("the device closed the connection")]
    Closed,
    /// It signalled the err descriptor of a ring.
    #[error("the device reports that ring {index} ({}) is broken", ring_name(*index))]
    RingBroken {
        /// Index of the ring.
        index: usize,
    },
}

impl RingFds {
    pub(super) fn new() -> anyhow::Result<Arc<RingFds>> {
        let notifier = || {
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("eventfd")?;
            anyhow::Ok(Notifier::new(fd))
        };
        Ok(Arc::new(RingFds { kick: notifier()?, call: notifier()?, err: notifier()? }))
    }
}

impl Link {
    /// Connects and agrees on features.
    ///
    /// # Errors
    /// Nobody listens, or the device does not have what is needed; the text names it.
    pub(super) fn connect(args: &Args, path: &Path) -> anyhow::Result<Link> {
        let frontend = Frontend::connect(path)
            .map_err(|error| anyhow!("{error}: is a target running, with a controller on this socket?"))?;
        let nothing = Negotiated { features: 0, protocol_features: 0 };
        let mut link = Link { frontend, patience: Duration::MAX, negotiated: nothing, limits: None, fds: Vec::new() };
        link.set_patience(args.stall_timeout)?;
        link.tell(Frontend::set_owner)?;
        let indirect = if args.indirect { feature::INDIRECT_DESC } else { 0 };
        let wanted = feature::VERSION_1 | feature::EVENT_IDX | indirect;
        let wanted_protocol = protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG | protocol::STATUS;
        link.negotiated = link.tell(|frontend| frontend.negotiate(wanted, wanted_protocol))?;
        let features = link.negotiated.features;
        ensure!(features & feature::VERSION_1 != 0, "the device does not offer VIRTIO_F_VERSION_1 (bit 32)");
        ensure!(
            features & indirect == indirect,
            "--indirect: the device does not offer VIRTIO_F_INDIRECT_DESC (bit 28)"
        );
        link.check_queues(args)?;
        link.read_config(args)?;
        if link.has(protocol::STATUS) {
            link.agree_on_status()?;
        }
        Ok(link)
    }

    fn set_patience(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.patience = patience;
        self.frontend.set_reply_timeout(Some(patience)).context("socket")
    }

    /// A message, and an error with a text of its own: no cause is told twice, and a time-out is called one.
    fn tell<T>(&mut self, message: impl FnOnce(&mut Frontend) -> Result<T, FrontendError>) -> anyhow::Result<T> {
        message(&mut self.frontend).map_err(|error| match error {
            FrontendError::Socket { code, source } if source.kind() == io::ErrorKind::WouldBlock => {
                anyhow!("{code}: no reply within {:?}", self.patience)
            }
            other => anyhow!("{other}"),
        })
    }

    fn has(&self, protocol_feature: u64) -> bool {
        self.negotiated.protocol_features & protocol_feature != 0
    }

    fn check_queues(&mut self, args: &Args) -> anyhow::Result<()> {
        if self.has(protocol::MQ) {
            let there = self.tell(Frontend::queue_num)?;
            let requests = there.saturating_sub(u64::from(FIRST_REQUEST_RING));
            let queues = args.queues;
            ensure!(requests >= u64::from(queues), "--queues {queues}: the device has {requests} request queues");
        }
        Ok(())
    }

    /// virtio 1.3 §5.6.4. A device without a config space is taken as it is.
    fn read_config(&mut self, args: &Args) -> anyhow::Result<()> {
        if !self.has(protocol::CONFIG) {
            return Ok(());
        }
        let config = self.tell(|frontend| match frontend.config(0, CONFIG_LEN as u32) {
            // An empty range is how a back-end says no.
            Err(FrontendError::ReplySize { .. }) => Ok(None),
            other => other.map(Some),
        });
        let Some(bytes) = config? else { return Ok(()) };
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (num_queues, sense_size, cdb_size) = (word(0), word(20), word(24));
        let queues = args.queues;
        ensure!(num_queues >= u32::from(queues), "--queues {queues}: the device has {num_queues} request queues");
        ensure!(
            sense_size as usize == SENSE_SIZE && cdb_size == 32,
            "config space: sense_size {sense_size} and cdb_size {cdb_size}, only 96 and 32 are understood"
        );
        self.limits = Some(Limits { max_sectors: word(8), cmd_per_lun: word(12) });
        Ok(())
    }

    /// virtio 1.3 §3.1.1: the device says whether it takes the features.
    fn agree_on_status(&mut self) -> anyhow::Result<()> {
        self.tell(|frontend| frontend.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK))?;
        let status = self.tell(Frontend::status)?;
        let features = self.negotiated.features;
        ensure!(
            status & u64::from(FEATURES_OK) != 0,
            "the device does not take features {features:#x}: status {status:#x} lacks FEATURES_OK"
        );
        Ok(())
    }

    /// What the device's config space says that it takes, if it has one.
    pub(super) fn limits(&self) -> Option<Limits> {
        self.limits
    }

    /// What was agreed on that the rings have to know.
    pub(super) fn ring_features(&self) -> Features {
        Features { event_idx: self.negotiated.features & feature::EVENT_IDX != 0 }
    }

    /// Gives the device the memory and starts every ring. Rings and their memory have to be as they are to be found.
    pub(super) fn start(&mut self, memory: &Memory, layout: &Layout, fds: Vec<Arc<RingFds>>) -> anyhow::Result<()> {
        self.fds = fds;
        self.tell(|frontend| frontend.set_mem_table(&[memory.region()]))?;
        for index in 0..self.fds.len() {
            self.start_ring(memory, layout, index).with_context(|| format!("ring {index} ({})", ring_name(index)))?;
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

    fn start_ring(&mut self, memory: &Memory, layout: &Layout, index: usize) -> anyhow::Result<()> {
        let place = &layout.rings[index];
        let fds = Arc::clone(&self.fds[index]);
        let size = layout.queue_size;
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
            frontend.set_vring_base(index, 0)?;
            frontend.set_vring_addr(index, &addresses)?;
            frontend.set_vring_call(short, Some(fds.call.as_fd()))?;
            frontend.set_vring_err(short, Some(fds.err.as_fd()))?;
            // Last: with it the ring starts.
            frontend.set_vring_kick(short, Some(fds.kick.as_fd()))
        })
    }

    /// Stops every ring, one after the other. Nothing may be in flight, or this takes as long as that, up to `patience`.
    pub(super) fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.set_patience(patience)?;
        for index in 0..self.fds.len() {
            let stopped = self.tell(|frontend| frontend.vring_base(index as u32));
            stopped.with_context(|| format!("stopping ring {index} ({})", ring_name(index)))?;
        }
        Ok(())
    }

    /// The descriptors that tell of trouble, to be waited for.
    pub(super) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let socket = PollFd::new(&self.frontend, PollFlags::RDHUP);
        let errs = self.fds.iter().map(|fds| PollFd::new(&fds.err, PollFlags::IN));
        std::iter::once(socket).chain(errs).collect()
    }

    /// What [`Link::poll_fds`] say after a wait.
    pub(super) fn trouble(polled: &[PollFd<'_>]) -> Option<Trouble> {
        match polled.iter().position(|fd| !fd.revents().is_empty())? {
            0 => Some(Trouble::Closed),
            after => Some(Trouble::RingBroken { index: after - 1 }),
        }
    }

    /// Waits for trouble, at most for `timeout`.
    ///
    /// # Errors
    /// The trouble.
    pub(super) fn watch(&self, timeout: Duration) -> anyhow::Result<()> {
        let mut fds = self.poll_fds();
        wait(&mut fds, timeout)?;
        match Link::trouble(&fds) {
            Some(trouble) => bail!(trouble),
            None => Ok(()),
        }
    }
}

/// `poll` that takes a signal for the end of its time.
pub(super) fn wait(fds: &mut [PollFd<'_>], timeout: Duration) -> anyhow::Result<()> {
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

fn ring_name(index: usize) -> &'static str {
    match index {
        0 => "control",
        1 => "event",
        _ => "request",
    }
}

/// Device status bits (virtio 1.3 §2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
