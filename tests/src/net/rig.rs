//! A net device put together by hand: real pollers, a real socket, and a port of the test's choice.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Receiver};
use port::Port;
use reactor::{IdlePolicy, Reactor, ReactorConfig};
use ringside::config::Mode;
use ringside::service::{NetService, Socket};
use tempfile::TempDir;
use vhost_user::RingReport;
use vhost_user::connection::Stop;
use virtio_net::{NetConfig, NetDevice};

use crate::live::PATIENCE;
use crate::live::rig::cores;
use crate::wire::MAC;

/// The running device. Everything ends when it is dropped.
pub struct NetRig {
    dir: TempDir,
    service: Arc<NetService>,
    reports: Receiver<RingReport>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    reactor: Option<Reactor>,
}

/// A device to be.
pub struct NetSetup {
    /// Where its frames go and come from.
    pub port: Arc<dyn Port>,
    /// Queue pairs.
    pub queue_pairs: u16,
    /// Pollers that they are dealt out over.
    pub pollers: usize,
    /// Which side of the socket listens.
    pub mode: Mode,
}

impl NetSetup {
    /// A device of so many queue pairs that listens, on one poller.
    #[must_use]
    pub fn new(port: Arc<dyn Port>, queue_pairs: u16) -> NetSetup {
        NetSetup { port, queue_pairs, pollers: 1, mode: Mode::Server }
    }

    /// Starts it. `None`, said loudly, if this process may not use as many cores.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(self) -> Option<NetRig> {
        let cores = cores(self.pollers)?;
        let reactor = Reactor::start(&ReactorConfig { cores, idle: IdlePolicy::Adaptive }).expect("pollers");
        let config = NetConfig {
            name: "net0".into(),
            queue_pairs: self.queue_pairs,
            queue_size_max: 1024,
            mac: MAC,
            mtu: 9000,
            offloads: true,
            isolated: false,
        };
        let device = NetDevice::new(config, self.port, reactor.pollers()).expect("a port that takes it");
        let (sender, reports) = channel::bounded(1024);
        let service = Arc::new(NetService::new(Arc::new(device), reactor.pollers().to_vec(), sender));
        let dir = tempfile::tempdir().expect("a directory");
        let socket = Socket::open(&dir.path().join(SOCKET), self.mode).expect("a socket");
        let stop = Arc::new(Stop::new().expect("an eventfd"));
        let thread = {
            let (service, stop) = (Arc::clone(&service), Arc::clone(&stop));
            thread::spawn(move || service.run(socket, &stop))
        };
        Some(NetRig { dir, service, reports, stop, thread: Some(thread), reactor: Some(reactor) })
    }
}

impl NetRig {
    /// Where its socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    /// Its service.
    #[must_use]
    pub fn service(&self) -> &Arc<NetService> {
        &self.service
    }

    /// The next report of a halted ring, if there is one.
    #[must_use]
    pub fn report(&self) -> Option<RingReport> {
        self.reports.try_recv().ok()
    }

    /// Waits for the next report of a halted ring, which comes after the signal of its err descriptor.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn wait_report(&self) -> RingReport {
        self.reports.recv_timeout(PATIENCE).expect("it is reported")
    }
}

impl Drop for NetRig {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // where it panicked, the test has failed already
        }
        self.reactor = None;
    }
}

const SOCKET: &str = "net0";
