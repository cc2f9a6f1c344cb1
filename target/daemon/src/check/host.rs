//! What of a configuration this host does not allow: cores outside the allowed set, sockets that are taken, files that
//! are not there; and what an operator should know of this host. Nothing is changed on the host.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use guest_memory::free_huge_bytes_in;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::thread::{CpuSet, sched_getaffinity};

use super::Note;
use crate::config::{BdevKind, Config, File, Mode, PortKind};
use crate::http::{AccessError, Secrets};

/// Something that the configuration asks for and the host refuses.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A poller could not run on its core.
    #[error("reactor.cores[{index}] = {core}: this process may only use cores {allowed}")]
    CoreNotAllowed {
        /// Index in `reactor.cores`.
        index: usize,
        /// The core.
        core: usize,
        /// The allowed cores, as ranges.
        allowed: String,
    },
    /// The allowed set could not be read.
    #[error("reactor.cores: the cores this process may use are unknown: {0}")]
    CoresUnknown(io::Error),
    /// Another target, or another run of this one, serves the socket.
    #[error("{section}[{index}].socket = {path:?}: a process listens on this socket already")]
    SocketLive {
        /// Section of the device.
        section: &'static str,
        /// Its index there.
        index: usize,
        /// The socket.
        path: PathBuf,
    },
    /// The path is taken by something that must not be replaced.
    #[error("{section}[{index}].socket = {path:?}: exists and is not a socket")]
    NotASocket {
        /// Section of the device.
        section: &'static str,
        /// Its index there.
        index: usize,
        /// The path.
        path: PathBuf,
    },
    /// There is no such file, and nothing to make one from.
    #[error("bdev[{index}].path = {path:?}: {text}")]
    File {
        /// Index of the block device.
        index: usize,
        /// The path.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// A token or certificate of the HTTP port that cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Whether the socket is taken could not be found out.
    #[error("{section}[{index}].socket = {path:?}: {source}")]
    SocketUnknown {
        /// Section of the device.
        section: &'static str,
        /// Its index there.
        index: usize,
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Everything of `config` that this host does not allow now.
pub fn host_errors(config: &Config) -> Vec<HostError> {
    let mut errors = core_errors(&config.reactor.cores);
    errors.extend(Secrets::read(&config.metrics).err().map(HostError::from));
    errors.extend(config.bdevs.iter().enumerate().filter_map(|(index, bdev)| match &bdev.kind {
        BdevKind::File(file) => file_error(index, file),
        _ => None,
    }));
    let controllers = config.controllers.iter().enumerate();
    let scsi = controllers.map(|(index, device)| ("scsi", index, &device.socket, device.mode));
    let net = config.nets.iter().enumerate().map(|(index, device)| ("net", index, &device.socket, device.mode));
    let servers = scsi.chain(net).filter(|(.., mode)| *mode == Mode::Server);
    errors.extend(servers.filter_map(|(section, index, socket, _)| socket_error(section, index, socket)));
    errors
}

/// Every remark on what `config` finds on this host.
#[must_use]
pub fn host_notes(config: &Config) -> Vec<Note> {
    dpdk_memory(config, Path::new("/sys/kernel/mm/hugepages")).into_iter().collect()
}

/// `hugepages` is the kernel's folder with one folder for each size.
pub(super) fn dpdk_memory(config: &Config, hugepages: &Path) -> Option<Note> {
    let index = config.ports.iter().position(|port| matches!(port.kind, PortKind::Dpdk(_)))?;
    let text = "this host has no free huge pages, so DPDK's memory is in ordinary pages, which is slower, and hardware reaches it \
                with an IOMMU only (scripts/setup.sh --only hugepages, or raise vm.nr_hugepages)";
    (free_huge_bytes_in(hugepages) == 0)
        .then(|| Note { key: format!("port[{index}].kind = \"dpdk\""), text: text.to_owned() })
}

/// Looks at the file only: it may well be locked by the very target whose configuration this is.
fn file_error(index: usize, file: &File) -> Option<HostError> {
    let text = match file.path.metadata() {
        Ok(found) if found.is_file() || found.file_type().is_block_device() => return None,
        Ok(_) => "must be a regular file or a block device".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.size.is_some() && !file.read_only => {
            let directory = file.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            if directory.is_none_or(Path::is_dir) {
                return None; // it will be made
            }
            "there is no such directory".to_owned()
        }
        Err(error) => error.to_string(),
    };
    Some(HostError::File { index, path: file.path.clone(), text })
}

fn core_errors(cores: &[usize]) -> Vec<HostError> {
    let allowed = match sched_getaffinity(None) {
        Ok(allowed) => allowed,
        Err(error) => return vec![HostError::CoresUnknown(error.into())],
    };
    let refused = cores.iter().enumerate().filter(|(_, core)| **core >= CpuSet::MAX_CPU || !allowed.is_set(**core));
    refused.map(|(index, core)| HostError::CoreNotAllowed { index, core: *core, allowed: ranges(&allowed) }).collect()
}

/// The set as `0-3,8`.
fn ranges(set: &CpuSet) -> String {
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
    let runs = cores.chunk_by(|before, after| before + 1 == *after);
    let texts: Vec<String> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    texts.join(",")
}

fn socket_error(section: &'static str, index: usize, path: &Path) -> Option<HostError> {
    let path_buf = path.to_owned();
    match path.symlink_metadata() {
        // Nothing there, or no directory for it yet: nobody listens.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(source) => return Some(HostError::SocketUnknown { section, index, path: path_buf, source }),
        Ok(found) if !found.file_type().is_socket() => {
            return Some(HostError::NotASocket { section, index, path: path_buf });
        }
        Ok(_) => {}
    }
    match try_connect(path) {
        // EAGAIN: the listener's backlog is full.
        Ok(()) | Err(Errno::AGAIN) => Some(HostError::SocketLive { section, index, path: path_buf }),
        // A socket that somebody left behind.
        Err(Errno::CONNREFUSED | Errno::NOENT) => None,
        Err(error) => Some(HostError::SocketUnknown { section, index, path: path_buf, source: error.into() }),
    }
}

/// Connects and closes again. Not through `std`, whose connect waits while the backlog is full.
fn try_connect(path: &Path) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)
}
