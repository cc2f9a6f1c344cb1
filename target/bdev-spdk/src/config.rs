//! How SPDK is started, and why it may not be.

use std::path::PathBuf;

use spdk_rs::Part;

/// How SPDK is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpdkConfig {
    /// A file with the configuration of its subsystems and bdevs, as SPDK's own `save_config` writes it.
    pub config: Option<PathBuf>,
    /// More of it, after the file.
    pub inline: Vec<Part>,
    /// Where SPDK's JSON-RPC server listens. None: there is none.
    pub rpc_socket: Option<PathBuf>,
    /// Memory for SPDK in MiB, of an environment of its own. None: what it takes, or a sensible amount of ordinary memory.
    pub memory_mib: Option<u32>,
    /// Ordinary memory even where there are huge pages, of an environment of its own.
    pub ordinary_memory: bool,
    /// PCI addresses of devices that SPDK may take, of an environment of its own. None of them: it leaves PCI alone.
    pub pci: Vec<String>,
    /// Cores of pollers: SPDK's own threads keep off them where there are others.
    pub poller_cores: Vec<usize>,
}

/// What SPDK's environment stands on.
#[derive(Clone, Copy, Debug)]
pub enum Environment {
    /// An EAL of its own.
    Own,
    /// The EAL that DPDK's ports use, and whether it was started with `--no-huge` or `--legacy-mem`.
    #[cfg(feature = "libdpdk")]
    Shared(dpdk::Eal, bool),
}

impl SpdkError {
    /// Whether it is only that SPDK has no bdev of that name, now.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, SpdkError::Open(spdk_rs::OpenError::Missing { .. }))
    }
}

/// Why there is no SPDK, or no such bdev. Every text names what it is about.
#[derive(Debug, thiserror::Error)]
pub enum SpdkError {
    /// The configuration file cannot be read.
    #[error("config {path:?}: {source}")]
    Config {
        /// As asked for.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// SPDK's environment did not start.
    #[error(transparent)]
    Env(#[from] spdk_rs::EnvError),
    /// There is no SPDK thread for a poller, or for its management.
    #[error(transparent)]
    Thread(#[from] spdk_rs::ThreadError),
    /// SPDK's subsystems did not start, mostly because of something in the configuration file.
    #[error(transparent)]
    Subsystems(#[from] spdk_rs::SubsystemError),
    /// No thread of the operating system.
    #[error("a thread for SPDK: {0}")]
    Spawn(std::io::Error),
    /// SPDK, or the poller, has ended.
    #[error("SPDK has ended")]
    Ended,
    /// SPDK has no such bdev for us.
    #[error(transparent)]
    Open(#[from] spdk_rs::OpenError),
    /// It is one that guests could not use.
    #[error("SPDK's bdev {name:?} {what}")]
    Unfit {
        /// Its name.
        name: String,
        /// What is in the way.
        what: String,
    },
}
