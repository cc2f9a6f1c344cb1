//! The lock that keeps a second server off a file. Advisory, as all locks of files; held by the open file description,
//! so it ends with the last descriptor, whatever else the process closes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Locks the whole file against other writers (`exclusive`), or against those only. `false`: somebody has it.
///
/// The same kind of lock that QEMU takes on parts of its images, so the two see each other.
pub(crate) fn lock(file: BorrowedFd<'_>, exclusive: bool) -> io::Result<bool> {
    match set(file, if exclusive { libc::F_WRLCK } else { libc::F_RDLCK }) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the lock up. It would end with the last descriptor anyway, but the kernel keeps one of its own for a while
/// after a ring was closed.
pub(crate) fn unlock(file: BorrowedFd<'_>) {
    if let Err(error) = set(file, libc::F_UNLCK) {
        tracing::warn!("unlocking a file: {error}");
    }
}

fn set(file: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    let range = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0, // to the end, wherever that will be
        l_pid: 0, // as this kind of lock wants it
    };
    // SAFETY: the command reads one `flock`, which lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
