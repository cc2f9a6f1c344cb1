//! A target put together by hand: real pollers, real sockets, and block devices of the test's choice. One controller is
//! always there for the load. What a configuration file makes of a target is `running.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use bdev::{Bdev, Delay, Gate, Malloc};
use crossbeam::channel::{self, Receiver};
use reactor::{IdlePolicy, PollerHandle, Reactor, ReactorConfig, affinity};
use ringside::config::Mode;
use ringside::health::Health;
use ringside::metrics::{Exporter, Format, Sources};
use ringside::service::{ScsiService, Socket};
use tempfile::TempDir;
use vhost_user::RingReport;
use vhost_user::connection::Stop;
use virtio_scsi::{Controller, ControllerConfig, Limits, Unit};

use super::PATIENCE;
use super::exposition::Exposition;
use super::load::{self, Load};
use crate::device::unit;

/// A controller to be.
pub struct Setup {
    name: String,
    mode: Mode,
    queues: u16,
    queue_size_max: u16,
    limits: Limits,
    units: Vec<Arc<Unit>>,
    gates: Vec<Gate>,
}

/// The running target. When it is dropped, gates are opened and everything ends.
pub struct Rig {
    dir: TempDir,
    services: Vec<Arc<ScsiService>>,
    gates: Vec<Gate>,
    reports: Receiver<RingReport>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
    reactor: Option<Reactor>,
}

/// Blocks of a test disk.
const DISK_LEN: u64 = 1 << 20;
/// The neighbour's controller.
const LOAD: &str = "load";

impl Setup {
    /// A listening controller with four request queues and no LUN.
    #[must_use]
    pub fn new(name: &str) -> Setup {
        Setup {
            name: name.into(),
            mode: Mode::Server,
            queues: 4,
            queue_size_max: 256,
            limits: Limits::default(),
            units: Vec::new(),
            gates: Vec::new(),
        }
    }

    /// Connects to the front-end instead of listening.
    #[must_use]
    pub fn client_mode(self) -> Setup {
        Setup { mode: Mode::Client, ..self }
    }

    /// Other limits.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Setup {
        Setup { limits, ..self }
    }

    /// Rings of up to this size.
    #[must_use]
    pub fn queue_size_max(self, queue_size_max: u16) -> Setup {
        Setup { queue_size_max, ..self }
    }

    /// One LUN more of target 0, on this device.
    #[must_use]
    pub fn on(mut self, lun: u16, bdev: Arc<dyn Bdev>) -> Setup {
        self.units.push(unit(0, lun, bdev));
        self
    }

    /// One LUN more of target 0, on a disk in memory.
    #[must_use]
    pub fn disk(self, lun: u16) -> Setup {
        let name = format!("{}-{lun}", self.name);
        self.on(lun, malloc(&name, DISK_LEN))
    }

    /// One LUN more of target 0, on a disk in memory whose requests wait at `gate` before they are performed.
    #[must_use]
    pub fn held(mut self, lun: u16, gate: &Gate) -> Setup {
        self.gates.push(gate.clone());
        let name = format!("{}-{lun}", self.name);
        let bdev = Arc::new(Delay::held(malloc(&name, DISK_LEN), gate));
        self.on(lun, bdev)
    }

    /// Opens this gate, too, when the rig ends.
    #[must_use]
    pub fn gate(mut self, gate: &Gate) -> Setup {
        self.gates.push(gate.clone());
        self
    }

    fn controller(self) -> Controller {
        Controller::new(ControllerConfig {
            name: self.name.into(),
            request_queues: self.queues,
            queue_size_max: self.queue_size_max,
            in_order: false,
            limits: self.limits,
            units: self.units,
        })
    }
}

impl Rig {
    /// Starts one controller, on one poller.
    #[must_use]
    pub fn start(setup: Setup) -> Rig {
        Rig::spread(setup, 1).expect("there is a core")
    }

    /// Starts one controller over this many pollers. `None`, said loudly, if this process may not use as many cores.
    ///
    /// # Panics
    /// If the target does not start.
    #[must_use]
    pub fn spread(setup: Setup, pollers: usize) -> Option<Rig> {
        let cores = cores(pollers)?;
        let reactor = Reactor::start(&ReactorConfig { cores, idle: IdlePolicy::Adaptive }).expect("pollers");
        let (sender, reports) = channel::bounded(1024);
        let mut rig = Rig {
            dir: tempfile::tempdir().expect("a directory"),
            services: Vec::new(),
            gates: setup.gates.clone(),
            reports,
            stop: Arc::new(Stop::new().expect("an eventfd")),
            threads: Vec::new(),
            reactor: Some(reactor),
        };
        let neighbour = Setup::new(LOAD).on(0, malloc(LOAD, load::DISK_LEN));
        for setup in [setup, neighbour] {
            let mode = setup.mode;
            let service = ScsiService::new(Arc::new(setup.controller()), rig.pollers().to_vec(), sender.clone());
            rig.serve(Arc::new(service), mode);
        }
        Some(rig)
    }

    fn serve(&mut self, service: Arc<ScsiService>, mode: Mode) {
        let path = self.socket(service.controller().name());
        let socket = Socket::open(&path, mode).expect("a socket");
        self.services.push(Arc::clone(&service));
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || service.run(socket, &stop)));
    }

    /// Where a controller's socket is.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The service of the controller under test.
    #[must_use]
    pub fn service(&self) -> &Arc<ScsiService> {
        &self.services[0]
    }

    /// Blocks of counters that the controller under test has made; they are meant to be used again.
    #[must_use]
    pub fn controller_blocks(&self) -> usize {
        self.service().controller().stats().len()
    }

    /// The pollers.
    ///
    /// # Panics
    /// If the rig has ended.
    #[must_use]
    pub fn pollers(&self) -> &[PollerHandle] {
        self.reactor.as_ref().expect("running").pollers()
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

    /// Puts the neighbour to work.
    #[must_use]
    pub fn load(&self) -> Load {
        Load::start(self.socket(LOAD))
    }

    /// Ends the neighbour's work.
    ///
    /// # Panics
    /// If it saw an error, or was ever disconnected.
    pub fn undisturbed(&self, load: Load) {
        let stats = self.services[1].stats();
        assert_eq!((stats.sessions.load(Ordering::Relaxed), stats.live()), (1, 1), "sessions of the load");
        load.finish();
    }

    /// What a scrape would see.
    ///
    /// # Panics
    /// If the text is not as it should be.
    #[must_use]
    pub fn metrics(&self) -> Exposition {
        let exporter = Exporter::new(Sources {
            controllers: self.services.clone(),
            health: Arc::new(Health::new(self.pollers(), &[], &[])),
            ..Sources::default()
        });
        Exposition::parse(&exporter.text(Format::Prometheus)).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.gates.iter().for_each(Gate::open);
        self.stop.request();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // where one panicked, the test has failed already
        }
        self.reactor = None;
    }
}

/// A disk in memory.
///
/// # Panics
/// If there is no memory for it.
#[must_use]
pub fn malloc(name: &str, size: u64) -> Arc<dyn Bdev> {
    Arc::new(Malloc::new(name, size, 512).expect("memory for a disk"))
}

/// Cores for this many pollers, spread over what this process may use; `None`, said loudly, if those are fewer.
///
/// # Panics
/// If the kernel does not tell the cores.
#[must_use]
pub fn cores(count: usize) -> Option<Vec<usize>> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let allowed = affinity::allowed().expect("the kernel tells the cores");
    if allowed.len() < count {
        eprintln!("SKIPPED: needs {count} cores, this process may use {}", allowed.len());
        return None;
    }
    // Tests that run at once, as threads or as processes, should not all crowd the first core.
    let first = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() as usize;
    Some((0..count).map(|k| allowed[(first + k) % allowed.len()]).collect())
}
