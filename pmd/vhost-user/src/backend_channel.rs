//! The back-end's own requests: the socket that a front-end gives for them, and the only request that is made, that the
//! configuration space has changed. Whether it has is the device's business.

use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::net::{SendFlags, send};

use crate::message::protocol;

/// Where requests of the back-end go. Control threads only.
#[derive(Debug, Default)]
pub struct BackendChannel(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    socket: Option<OwnedFd>,
    protocol_features: u64,
}

impl BackendChannel {
    /// The front-end has given this socket, which it may take back by giving another.
    pub fn connect(&self, socket: OwnedFd) {
        self.0.lock().socket = Some(socket);
    }

    /// These protocol features were agreed.
    pub fn negotiated(&self, protocol_features: u64) {
        self.0.lock().protocol_features = protocol_features;
    }

    /// Tells the front-end that the configuration space is not what it was, if it has agreed to be told and listens. Does
    /// not wait: a front-end that does not read is not told. True if the message was sent.
    pub fn config_changed(&self) -> bool {
        let mut state = self.0.lock();
        let Some(socket) = state.socket.as_ref().filter(|_| state.protocol_features & protocol::CONFIG != 0) else {
            return false;
        };
        let sent = send(socket, &CONFIG_CHANGE, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let whole = sent == Ok(CONFIG_CHANGE.len());
        if !whole {
            state.socket = None; // half a message, or nobody there: nothing sensible can follow
        }
        whole
    }
}

/// VHOST_USER_BACKEND_CONFIG_CHANGE_MSG (2), version 1 in the flags, no body; three le32.
const CONFIG_CHANGE: [u8; 12] = [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn connected(features: u64) -> (BackendChannel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let channel = BackendChannel::default();
        channel.negotiated(features);
        channel.connect(ours.into());
        (channel, theirs)
    }

    #[test]
    fn r18_config_change_is_twelve_bytes_without_a_body() {
        let (channel, mut theirs) = connected(protocol::CONFIG | protocol::BACKEND_REQ);
        assert!(channel.config_changed());
        drop(channel);
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn r18_front_end_that_has_not_agreed_to_config_is_not_told() {
        assert!(!BackendChannel::default().config_changed());
        let (channel, mut theirs) = connected(protocol::BACKEND_REQ);
        assert!(!channel.config_changed());
        drop(channel);
        assert_eq!(theirs.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn front_end_that_does_not_read_or_is_gone_holds_nobody_up() {
        let (channel, theirs) = connected(protocol::CONFIG);
        let told = (0..1_000_000).take_while(|_| channel.config_changed()).count();
        assert!((1..1_000_000).contains(&told), "{told} messages fit");
        assert!(!channel.config_changed(), "and then no more");
        drop(theirs);
        let (channel, theirs) = connected(protocol::CONFIG);
        drop(theirs);
        assert!(!channel.config_changed());
        let channel = BackendChannel::default();
        channel.negotiated(protocol::CONFIG);
        channel.connect(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap());
        assert!(!channel.config_changed(), "no socket");
    }
}
