//! What a file device is made from, and why there is none. Finding out is done in `open`.

use std::io;
use std::path::PathBuf;

use bdev::GeometryError;

/// A file device as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// A regular file or a block device.
    pub path: PathBuf,
    /// Size in bytes. A file that is missing or empty is made that long, without any block behind it; of one that is
    /// there it must be the size. `None`: the size that it has.
    pub size: Option<u64>,
    /// Bytes per logical block: 512 or 4096.
    pub block_size: u32,
    /// Past the page cache of the host (`O_DIRECT`), if the file system lets it.
    pub direct: bool,
    /// Refuse writes, and open the file for reading only.
    pub read_only: bool,
    /// When written data is on stable storage.
    pub cache: Cache,
}

impl FileConfig {
    /// The file at `path` as it is: direct, writable, with a write cache, blocks of 512 bytes.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> FileConfig {
        FileConfig {
            path: path.into(),
            size: None,
            block_size: 512,
            direct: true,
            read_only: false,
            cache: Cache::Writeback,
        }
    }
}

/// When written data is on stable storage; see the table in the documentation of the crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// After the next flush.
    #[default]
    Writeback,
    /// When the write completes.
    Writethrough,
    /// After the next flush, and never in the page cache of the host: a file system without `O_DIRECT` is refused.
    None,
}

/// Why there is no such device. Every text names the key and the value.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path cannot be opened.
    #[error("path {path:?}: {source}{hint}")]
    Open {
        /// As asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
        /// What may help, in brackets after a space; or empty.
        hint: &'static str,
    },
    /// It is a directory, a pipe …
    #[error("path {path:?} is {found}, must be a regular file or a block device")]
    Kind {
        /// As asked for.
        path: PathBuf,
        /// What it is, with its article.
        found: &'static str,
    },
    /// Somebody else serves it.
    #[error("path {path:?} is locked: another process, or another bdev of this one, uses it")]
    Locked {
        /// As asked for.
        path: PathBuf,
    },
    /// A file system without locks, or the like.
    #[error("path {path:?}: {action}: {source}")]
    Call {
        /// As asked for.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The size is not the one that was asked for.
    #[error(
        "size is {wanted} bytes, but {path:?} has {found}: leave size out to take the file as it is, or change the file"
    )]
    OtherSize {
        /// As asked for.
        path: PathBuf,
        /// As asked for.
        wanted: u64,
        /// Size of the file.
        found: u64,
    },
    /// Nothing to serve.
    #[error("path {path:?} is empty: give a size to make it one of that size")]
    Empty {
        /// As asked for.
        path: PathBuf,
    },
    /// Not a size for any device.
    #[error("path {path:?}: {source}")]
    Geometry {
        /// As asked for.
        path: PathBuf,
        /// What is wrong with it.
        source: GeometryError,
    },
    /// [`Cache::None`] with a page cache.
    #[error("cache = \"none\" needs O_DIRECT on {path:?}: {why}")]
    NotDirect {
        /// As asked for.
        path: PathBuf,
        /// Why it cannot be had.
        why: String,
    },
    /// No ring to be had.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl FileError {
    /// Whether somebody else has it, who may be on the way out.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            FileError::Locked { .. } => true,
            FileError::Open { source, .. } => source.kind() == io::ErrorKind::ResourceBusy,
            _ => false,
        }
    }
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// A kernel without it, or one that was told not to offer it.
    #[error(
        "this kernel offers no io_uring ({0}): file bdevs need Linux 5.11 or newer, sysctl kernel.io_uring_disabled = 0 \
         and a seccomp filter (container) that lets io_uring_setup through"
    )]
    Missing(io::Error),
    /// A kernel that has it, but is too old or short of something.
    #[error("io_uring: {action}: {source}")]
    Call {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
