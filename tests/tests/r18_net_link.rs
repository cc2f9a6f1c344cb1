//! R18 for net devices: a front-end that reads the configuration space is told when the link of the port goes down or up.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use port::{AttachError, Attachment, Link, Loopback, LoopbackConfig, Port, PortQueue, Traits};
use ringside::watch::Watch;
use tests::live::PATIENCE;
use tests::net::rig::NetSetup;
use vhost_user::frontend::Frontend;
use vhost_user::message::protocol;

/// A loopback whose plug can be pulled.
struct Cable {
    port: Loopback,
    up: AtomicBool,
}

impl Port for Cable {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn traits(&self) -> Traits {
        self.port.traits()
    }

    fn link(&self) -> Link {
        Link { up: self.up.load(Ordering::Relaxed), speed_mbps: Some(1000) }
    }

    fn attach(&self, device: &Attachment) -> Result<Vec<Box<dyn PortQueue>>, AttachError> {
        self.port.attach(device)
    }
}

#[test]
fn r18_front_end_with_a_channel_for_it_is_told_of_a_link_that_goes_down_and_comes_up() {
    let cable = Arc::new(Cable { port: Loopback::new("cable", LoopbackConfig::default()), up: AtomicBool::new(true) });
    let rig = NetSetup::new(Arc::clone(&cable) as Arc<dyn Port>, 1).start().expect("there is a core");
    let (_reports, faults) = crossbeam::channel::bounded(1);
    let watch = Watch::start(faults, Arc::default(), Vec::new(), vec![Arc::clone(rig.service())]).unwrap();
    let mut frontend = Frontend::connect(rig.socket()).unwrap();
    frontend.set_reply_timeout(Some(PATIENCE)).unwrap();
    let wanted = protocol::REPLY_ACK | protocol::CONFIG | protocol::BACKEND_REQ;
    assert_eq!(frontend.negotiate(1 << 32, wanted).unwrap().protocol_features, wanted, "all of them are offered");
    let (theirs, mut ours) = UnixStream::pair().unwrap();
    frontend.set_backend_request_fd(theirs.as_fd()).unwrap();
    drop(theirs);
    // Byte 6 is the status (virtio 1.3 §5.1.4), of which bit 0 says that the link is up; from byte 12 on is the speed.
    assert_eq!(frontend.config(6, 2).unwrap(), [1, 0]);
    assert_eq!(frontend.config(12, 4).unwrap(), [0xe8, 0x03, 0, 0]);
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    for up in [false, true] {
        cable.up.store(up, Ordering::Relaxed);
        let mut message = [0; 12];
        ours.read_exact(&mut message).unwrap();
        assert_eq!(message, [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], "CONFIG_CHANGE");
        assert_eq!(frontend.config(6, 2).unwrap(), [u8::from(up), 0]);
    }
    watch.stop();
}
