//! A listening unix socket that cleans up after crashed predecessors and never after living ones. No thread in here:
//! the owner calls [`Listener::accept`] in a loop of its own.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::connector::connect_now;
use super::log_budget::LogBudget;
use super::stop::Stop;

/// A bound and listening socket; its path goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the path, to know it again.
    identity: (u64, u64),
}

/// Longest path of a unix socket in bytes (`sun_path` less its final 0).
const PATH_MAX: usize = 107;
/// Pause after `accept` failed for want of descriptors or memory, which only others can end.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Why a socket path cannot be used. Each text names it.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel has no room for it.
    #[error("socket path {path:?}: {length} bytes, must be 1 to {PATH_MAX}")]
    PathLength {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Its directory does not exist; it is not created.
    #[error("socket path {path:?}: the directory {parent:?} does not exist")]
    NoDirectory {
        /// The path.
        path: PathBuf,
        /// Its directory.
        parent: PathBuf,
    },
    /// Somebody answers there.
    #[error("socket path {path:?}: a live process listens on it")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else has that name; it is never deleted.
    #[error("socket path {path:?}: exists and is no socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("socket path {path:?}: cannot {action}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The answer.
        source: io::Error,
    },
}

impl Listener {
    /// Binds `path`. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: impl Into<PathBuf>) -> Result<Listener, SocketError> {
        let path = path.into();
        check_path(&path)?;
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(&path)?;
                UnixListener::bind(&path)
            }
            result => result,
        };
        let failed = |action| {
            let path = path.clone();
            move |source: io::Error| match source.kind() {
                io::ErrorKind::AddrInUse => SocketError::InUse { path },
                _ => SocketError::Io { path, action, source },
            }
        };
        let listener = listener.map_err(failed("bind"))?;
        listener.set_nonblocking(true).map_err(failed("configure"))?;
        let identity = identity(&path).map_err(failed("inspect"))?;
        Ok(Listener { listener, path, identity })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next front-end; `None` once `stop` is requested. A front-end that gave up meanwhile is skipped,
    /// and lack of descriptors or memory is waited out.
    ///
    /// # Errors
    /// Any other failure of `accept`; it would come again.
    pub fn accept(&self, stop: &Stop) -> io::Result<Option<UnixStream>> {
        let mut log = LogBudget::default();
        while stop.wait_for(&self.listener, PollFlags::IN)? {
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(error) if passing(&error) => {}
                Err(error) if exhausted(&error) => {
                    if log.spend(Instant::now()).is_some() {
                        tracing::warn!(path = ?self.path, "cannot accept a front-end: {error}");
                    }
                    stop.wait(EXHAUSTED_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Drop for Listener {
    /// Removes the path, unless somebody else has put another socket there.
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = ?self.path, "cannot remove the socket: {error}");
        }
    }
}

pub(super) fn check_path(path: &Path) -> Result<(), SocketError> {
    let length = path.as_os_str().as_bytes().len();
    if !(1..=PATH_MAX).contains(&length) {
        return Err(SocketError::PathLength { path: path.into(), length });
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => return Ok(()),
    };
    if !parent.is_dir() {
        return Err(SocketError::NoDirectory { path: path.into(), parent: parent.into() });
    }
    Ok(())
}

/// Removes a socket that refuses connections, and nothing else.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |action| move |source| SocketError::Io { path: path.into(), action, source };
    let file_type = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("inspect")(error)),
    };
    if !file_type.is_socket() {
        return Err(SocketError::NotASocket { path: path.into() });
    }
    match connect_now(path) {
        // WouldBlock: its queue is full. A live socket of another type ends up in the last arm (EPROTOTYPE).
        Ok(_) => Err(SocketError::InUse { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(?path, "removing a stale socket");
            fs::remove_file(path).map_err(failed("remove the stale socket"))
        }
        Err(error) => Err(failed("find out whether it is in use")(error)),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The front-end, or nothing at all, happened between poll and accept.
fn passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

fn exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|&e| errno == Some(e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::thread;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn listener_fresh_path_accepts_and_removes_the_path_when_dropped() {
        let directory = directory();
        let path = directory.path().join("s");
        let stop = Stop::new().unwrap();
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(listener.path(), path);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(listener.accept(&stop).unwrap().is_some());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn listener_stop_requested_ends_a_waiting_accept() {
        let directory = directory();
        let stop = Stop::new().unwrap();
        let listener = Listener::bind(directory.path().join("s")).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| listener.accept(&stop));
            stop.request();
            assert!(waiting.join().unwrap().unwrap().is_none());
        });
    }

    #[test]
    fn listener_stale_socket_is_replaced() {
        let directory = directory();
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a crashed process leaves its socket");
        let listener = Listener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        drop(listener);
    }

    #[test]
    fn listener_live_socket_is_an_error_and_stays_usable() {
        let directory = directory();
        let path = directory.path().join("s");
        let _first = Listener::bind(&path).unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("socket path {path:?}: a live process listens on it"));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn listener_live_socket_with_full_queue_is_an_error() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let directory = directory();
        let path = directory.path().join("s");
        let busy = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&busy, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&busy, 0).unwrap();
        let _fills_the_queue = UnixStream::connect(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(SocketError::InUse { .. })));
        assert!(path.exists());
    }

    #[test]
    fn listener_live_socket_of_another_type_is_not_removed() {
        let directory = directory();
        let path = directory.path().join("s");
        let _datagram = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(SocketError::Io { .. })));
        assert!(path.exists());
    }

    #[test]
    fn listener_path_of_a_file_is_an_error_and_the_file_stays() {
        let directory = directory();
        let path = directory.path().join("s");
        fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("socket path {path:?}: exists and is no socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn listener_symbolic_link_to_a_file_is_an_error_and_both_stay() {
        let directory = directory();
        let (path, file) = (directory.path().join("s"), directory.path().join("f"));
        fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(&file, &path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(SocketError::NotASocket { .. })));
        assert!(path.is_symlink() && file.exists());
    }

    #[test]
    fn listener_missing_directory_is_named_and_not_created() {
        let directory = directory();
        let parent = directory.path().join("missing");
        let error = Listener::bind(parent.join("s")).unwrap_err();
        assert!(error.to_string().ends_with(&format!("the directory {parent:?} does not exist")));
        assert!(!parent.exists());
    }

    #[test]
    fn listener_path_too_long_is_named_with_its_bound() {
        let path = format!("/{}", "s".repeat(107));
        let error = Listener::bind(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("socket path {path:?}: 108 bytes, must be 1 to 107"));
    }

    #[test]
    fn listener_dropped_after_a_successor_took_the_path_leaves_it() {
        let directory = directory();
        let path = directory.path().join("s");
        let first = Listener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Listener::bind(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
    }
}
