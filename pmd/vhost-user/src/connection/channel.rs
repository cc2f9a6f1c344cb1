//! One `recvmsg` and one `sendmsg` with descriptors (SCM_RIGHTS). Loops, waiting and meaning are the callers'.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::message::FDS_MAX;

/// What one receive brought.
pub(crate) struct Received {
    /// Bytes; 0 is the end of the stream.
    pub(crate) bytes: usize,
    /// More descriptors were sent than arrived (MSG_CTRUNC).
    pub(crate) fds_lost: bool,
}

/// Receives up to `buffer.len()` bytes (not 0) and appends the descriptors that come with them.
pub(crate) fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(buffer)];
    let result = recvmsg(stream, &mut slices, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(Received { bytes: result.bytes, fds_lost: result.flags.contains(ReturnFlags::CTRUNC) })
}

/// Sends some of `bytes`, and all of `fds` with their first byte; how many bytes went.
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(fds));
        assert!(fits, "the buffer was made for {} descriptors", fds.len());
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags)?)
}
