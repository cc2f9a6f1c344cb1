//! The device: what its channels share, and how they are opened. How the file itself is opened stands in `open`.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bdev::{Bdev, BdevInfo, Channel, Completion, CounterBlocks, Exclusion, Geometry, Io, IoChannel, Status, Submitted};
use reactor::clock::Tsc;

use crate::channel::FileChannel;
use crate::config::{Cache, FileConfig, FileError};
use crate::counters::{ChannelCounters, FileCounts};
use crate::seeker::Seeker;
use crate::{lock, open};

/// A file, or a block device of the host, as a block device. Locked against other processes for as long as it, or a
/// channel of it, lives.
#[derive(Debug)]
pub struct File {
    info: BdevInfo,
    pub(crate) shared: Arc<Shared>,
    notes: Vec<String>,
}

/// What all channels of a file have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub fd: OwnedFd,
    pub geometry: Geometry,
    pub direct: Option<Alignment>,
    pub read_only: bool,
    pub writethrough: bool,
    pub exclusion: Exclusion,
    pub counters: CounterBlocks<ChannelCounters>,
    /// Data was lost on its way to stable storage: nothing is said to be there any more.
    pub sync_failed: AtomicBool,
    /// Who finds the holes of a regular file; started with the first channel.
    seeker: OnceLock<Option<Seeker>>,
    regular: bool,
    /// The file system has no holes.
    pub no_holes: AtomicBool,
    /// The file system writes no zeroes.
    pub no_zeroes: AtomicBool,
}

/// What transfers past the page cache have to keep to, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Of addresses.
    pub memory: usize,
    /// Of offsets in the file, and of the length of every buffer.
    pub length: usize,
}

impl File {
    /// Opens the file, creates it if it is missing and has a size, locks it, and finds out what it can do.
    ///
    /// # Errors
    /// Whatever of it cannot be done; see [`FileError`].
    pub fn open(name: impl Into<String>, config: &FileConfig) -> Result<File, FileError> {
        let opened = open::open(config)?;
        let name = name.into();
        let info = BdevInfo { read_only: config.read_only, ..open::info(name, config, &opened) };
        let shared = Shared {
            fd: opened.fd,
            geometry: opened.geometry,
            direct: opened.direct,
            read_only: config.read_only,
            writethrough: config.cache == Cache::Writethrough,
            exclusion: Exclusion::default(),
            counters: CounterBlocks::default(),
            sync_failed: AtomicBool::new(false),
            seeker: OnceLock::new(),
            regular: opened.regular,
            no_holes: AtomicBool::new(!opened.holes),
            no_zeroes: AtomicBool::new(false),
        };
        let file = File { info, shared: Arc::new(shared), notes: opened.notes };
        // Whether there are rings to be had is found out here, where somebody reads the error.
        drop(FileChannel::open(&file.shared)?);
        Ok(file)
    }

    /// What differs from what was asked for, a line each: worth a warning to the operator.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether transfers go past the page cache of the host.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.shared.direct.is_some()
    }

    /// What its channels have counted so far.
    #[must_use]
    pub fn counts(&self) -> FileCounts {
        FileCounts::sum(&self.shared.counters)
    }

    /// Whether a flush has failed, so that all of them do until the device is [reset](Bdev::reset).
    #[must_use]
    pub fn sync_failed(&self) -> bool {
        self.shared.sync_failed.load(Ordering::Relaxed)
    }
}

impl Bdev for File {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn open(&self) -> Channel {
        let channel: Box<dyn IoChannel> = match FileChannel::open(&self.shared) {
            Ok(channel) => Box::new(channel.asking(self.shared.seeker())),
            Err(error) => {
                tracing::error!(bdev = %self.info.name, "no channel: {error}");
                Box::new(NoChannel)
            }
        };
        Channel::from(channel)
    }

    /// Forgets that a flush has failed: whoever resets the device knows that data may be lost.
    fn reset(&self) {
        self.shared.sync_failed.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// On a control thread: the new thread runs where that one may.
    fn seeker(&self) -> Option<Seeker> {
        let start = || Seeker::start(self.fd(), self.geometry).inspect_err(|error| tracing::warn!("a thread: {error}"));
        self.seeker.get_or_init(|| if self.regular { start().ok() } else { None }).clone()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock::unlock(self.fd());
    }
}

/// A channel of a device for which the kernel had no ring any more.
struct NoChannel;

impl IoChannel for NoChannel {
    fn submit(&mut self, _: &Io<'_>, _: Tsc) -> Submitted {
        Submitted::Done(Status::Gone)
    }

    fn poll(&mut self, _: Tsc, _: &mut Vec<Completion>) -> usize {
        0
    }

    fn next_deadline(&self) -> Option<Tsc> {
        None
    }
}

impl fmt::Debug for FileChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileChannel")
    }
}
