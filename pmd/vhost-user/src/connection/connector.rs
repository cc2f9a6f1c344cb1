//! Client mode: the front-end listens (virtio-user `server=1`, QEMU `server=on`) and the back-end keeps knocking.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::listener::{SocketError, check_path};
use super::stop::Stop;

/// Connects to a listening front-end, again and again.
#[derive(Debug)]
pub struct Connector {
    path: PathBuf,
    last_attempt: Option<Instant>,
    /// What the last attempt failed with, to log only what is new.
    last_failure: Option<io::ErrorKind>,
}

/// From one attempt to the next, after a failure and after a lost connection.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(500);

impl Connector {
    /// For the front-end that will listen at `path`; it need not do so yet.
    ///
    /// # Errors
    /// A path that no socket can have, or whose directory does not exist.
    pub fn new(path: impl Into<PathBuf>) -> Result<Connector, SocketError> {
        let path = path.into();
        check_path(&path)?;
        Ok(Connector { path, last_attempt: None, last_failure: None })
    }

    /// Where it connects to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the front-end accepts; `None` once `stop` is requested. Two attempts are 500 ms apart, the first one
    /// after a lost connection included.
    pub fn connect(&mut self, stop: &Stop) -> Option<UnixStream> {
        loop {
            let elapsed = self.last_attempt.map_or(ATTEMPT_INTERVAL, |last| last.elapsed());
            if stop.wait(ATTEMPT_INTERVAL.saturating_sub(elapsed)) {
                return None;
            }
            self.last_attempt = Some(Instant::now());
            match connect_now(&self.path) {
                Ok(stream) => {
                    self.last_failure = None;
                    return Some(stream);
                }
                Err(error) => self.log_if_new(&error),
            }
        }
    }

    fn log_if_new(&mut self, error: &io::Error) {
        if self.last_failure.replace(error.kind()) != Some(error.kind()) {
            tracing::info!(path = ?self.path, "waiting for the front-end to listen: {error}");
        }
    }
}

/// Connects without waiting: a full queue of the listener is an error (`WouldBlock`), not a wait. The stream blocks.
pub(super) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn connector_front_end_that_listens_later_is_found_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let stop = Stop::new().unwrap();
        let mut connector = Connector::new(&path).unwrap();
        assert_eq!(connector.path(), path);
        thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                let first = connector.connect(&stop).unwrap();
                drop(first);
                connector.connect(&stop).unwrap()
            });
            let listener = UnixListener::bind(&path).unwrap();
            let (mut first, _) = listener.accept().unwrap();
            let (_second, _) = listener.accept().unwrap();
            assert!(first.write_all(b"x").is_err(), "the first connection was closed");
            connecting.join().unwrap();
        });
    }

    #[test]
    fn connector_stop_requested_ends_the_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let stop = Stop::new().unwrap();
        let mut connector = Connector::new(directory.path().join("s")).unwrap();
        thread::scope(|scope| {
            let connecting = scope.spawn(|| connector.connect(&stop));
            stop.request();
            assert!(connecting.join().unwrap().is_none());
        });
    }

    #[test]
    fn connector_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = Connector::new(directory.path().join("missing/s")).unwrap_err();
        assert!(matches!(error, SocketError::NoDirectory { .. }));
    }
}
