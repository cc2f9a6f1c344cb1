//! A virtio-scsi device without socket and without threads: a controller of the test's choice, its shards, which the
//! test polls by hand, and the driver side of every ring in real shared memory. What happens between two polls is up to
//! the test, so every interleaving can be had, and nothing depends on time.
//!
//! Guest memory is two neighbouring regions of a MiB. The rings are in the lower one, from guest address 0 on, buffers
//! in the upper one: [`BUFFERS`] is the border.

mod disks;
mod driver;
mod guest;
mod hotplug;
mod message;
mod noise;
mod rings;

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bdev::Gate;
use crossbeam::channel::{self, Receiver, Sender};
use guest_memory::MemTable;
use reactor::{IdlePolicy, PollerHandle, Reactor, ReactorConfig, Source, Tsc};
use rustix::event::{EventfdFlags, eventfd};
use vhost_user::{ConnectionParts, Device as Model, Notifier, RingReport, RingSet, RingStats, Shard as _, Stopped};
use virtio_scsi::{Controller, ControllerConfig, Limit, Limits, ShardStats, Unit};
use virtqueue::{DeviceQueue, DriverQueue, Features, RingFormat, Segment};

use self::rings::{addresses_in, device_addresses, driver_addresses};

pub use disks::{fill, medium, unit, unit_with};
pub use guest::{Guest, Snapshot, USER_BASE};
pub use hotplug::{CHANGE, HOTPLUG, INQUIRY, event_of, report_luns};
pub use message::{
    Message, RESPONSE_LEN, Reply, Request, TEST_UNIT_READY, UNWRITTEN, lun, read_10, task_management, write_10,
};
pub use noise::Noise;

/// Index of the control queue.
pub const CONTROL: u16 = 0;
/// Index of the event queue.
pub const EVENT: u16 = 1;
/// Index of the first request queue.
pub const FIRST: u16 = 2;
/// Guest address of the first buffer, and of the border between the two regions.
pub const BUFFERS: u64 = MIB;
/// Where guest memory ends.
pub const END: u64 = 2 * MIB;

const MIB: u64 = 1 << 20;
const REGIONS: &[(u64, usize)] = &[(0, BUFFERS as usize), (BUFFERS, (END - BUFFERS) as usize)];
/// How often a device is polled until something must have happened. No request takes more than a few polls.
const POLLS_MAX: usize = 10_000;

/// What a device is made of. Change what the test is about.
pub struct Setup {
    /// Transport limits.
    pub limits: Limits,
    /// Number of request queues.
    pub request_queues: u16,
    /// Size of every ring in descriptors.
    pub ring_size: u16,
    /// Number of shards.
    pub shards: usize,
    /// Whether event indices were negotiated.
    pub event_idx: bool,
    /// How rings lie in memory.
    pub format: RingFormat,
    /// Whether VIRTIO_F_IN_ORDER was negotiated.
    pub in_order: bool,
    /// Logical units.
    pub units: Vec<Arc<Unit>>,
    /// Where bdevs hold requests, if the test lets them. The device opens it when it is dropped.
    pub gate: Gate,
}

impl Setup {
    /// One request queue of 128 descriptors on one shard, default limits, a gate that nobody waits at.
    #[must_use]
    pub fn of(units: impl Into<Vec<Arc<Unit>>>) -> Setup {
        Setup {
            limits: Limits::default(),
            request_queues: 1,
            ring_size: 128,
            shards: 1,
            event_idx: false,
            format: RingFormat::Split,
            in_order: false,
            units: units.into(),
            gate: Gate::closed(),
        }
    }
}

/// The device, and its driver.
///
/// When it is dropped, everything in flight is let go and must come to its end: no test leaves a request behind.
pub struct Device<D: Model = Controller> {
    /// The controller, or whatever device it is.
    pub controller: D,
    /// The guest's memory.
    pub guest: Guest,
    /// Its shards.
    pub shards: Vec<D::Shard>,
    /// Where its bdevs hold requests.
    pub gate: Gate,
    /// Faults that were reported.
    pub reports: Receiver<RingReport>,
    /// Counters of each ring, by ring index.
    pub ring_stats: Vec<Arc<RingStats>>,
    routes: Vec<usize>,
    queues: Vec<Queue>,
    kind: RingKind,
    /// Where the next buffer goes, unless something lives there.
    next_buffer: u64,
    /// Buffers in use: first address, and the address behind the last.
    live: BTreeMap<u64, u64>,
    /// Those of them that no chain has been made of yet.
    loose: Vec<u64>,
    next_token: usize,
    polls: u64,
    ring_size: u16,
    sender: Sender<RingReport>,
    handles: Vec<PollerHandle>,
    /// Only for the handles that two shards wake each other by.
    _reactor: Option<Reactor>,
}

/// What was negotiated that changes how rings work.
#[derive(Clone, Copy)]
struct RingKind {
    format: RingFormat,
    features: Features,
    in_order: bool,
}

struct Queue {
    driver: DriverQueue,
    /// Chains that have not come back, by token.
    out: BTreeMap<usize, Out>,
}

struct Out {
    segments: Vec<Segment>,
    buffers: Vec<u64>,
}

impl Device {
    /// A new session: every ring is started and enabled, POWER ON is still to be reported by every unit.
    ///
    /// # Panics
    /// If the setup makes no sense, or the machine has no room for it.
    #[must_use]
    pub fn new(setup: Setup) -> Device {
        let Setup { limits, request_queues, ring_size, shards, event_idx, format, in_order, units, gate } = setup;
        let controller = Controller::new(ControllerConfig {
            name: "test".into(),
            request_queues,
            queue_size_max: 1024,
            in_order,
            limits,
            units,
        });
        let kind = RingKind { format, features: Features { event_idx }, in_order };
        Device::build(controller, ring_size, kind, gate, handles(shards))
    }

    /// As [`Device::new`], and every unit has reported its unit attention.
    ///
    /// # Panics
    /// As [`Device::new`].
    #[must_use]
    pub fn ready(setup: Setup) -> Device {
        let units = setup.units.clone();
        let mut device = Device::new(setup);
        for unit in units {
            let reply = device.answer(FIRST, Request::new(lun(unit.target, unit.lun), &TEST_UNIT_READY));
            assert_eq!(reply.sense(), Some((0x06, 0x29, 0x01)));
        }
        device
    }

    // --- what the operator sees ---

    /// Counters of a shard.
    #[must_use]
    pub fn stats(&self, shard: usize) -> Arc<ShardStats> {
        Arc::clone(&self.controller.stats()[shard])
    }

    /// Sum of a counter over all shards.
    pub fn count(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.controller.stats().iter().map(|stats| counter(stats)).sum()
    }

    /// Refusals of a unit's commands by a limit.
    #[must_use]
    pub fn refused(&self, unit: usize, limit: Limit) -> u64 {
        self.count(|stats| stats.units[unit].refused[limit as usize].value())
    }

    /// Responses with this code.
    #[must_use]
    pub fn responses(&self, code: u8) -> u64 {
        self.count(|stats| stats.responses[usize::from(code)].value())
    }

    /// Commands in flight of a unit.
    #[must_use]
    pub fn in_flight(&self, unit: usize) -> u64 {
        self.count(|stats| stats.units[unit].in_flight.value())
    }
}

impl<D: Model> Device<D> {
    /// A device of any kind, with one shard for each of these pollers, or one. Every ring is started and enabled.
    ///
    /// # Panics
    /// If the machine has no room for it.
    #[must_use]
    pub fn over(
        controller: D,
        ring_size: u16,
        features: Features,
        gate: Gate,
        handles: Vec<PollerHandle>,
        reactor: Option<Reactor>,
    ) -> Device<D> {
        let kind = RingKind { format: RingFormat::Split, features, in_order: false };
        Device::build(controller, ring_size, kind, gate, (handles, reactor))
    }

    fn build(
        controller: D,
        ring_size: u16,
        kind: RingKind,
        gate: Gate,
        (handles, reactor): (Vec<PollerHandle>, Option<Reactor>),
    ) -> Device<D> {
        let (sender, reports) = channel::bounded(64);
        let guest = Guest::new(REGIONS);
        let mut device = Device {
            controller,
            guest,
            shards: Vec::new(),
            gate,
            reports,
            ring_stats: Vec::new(),
            routes: Vec::new(),
            queues: Vec::new(),
            ring_size,
            kind,
            next_buffer: BUFFERS,
            live: BTreeMap::new(),
            loose: Vec::new(),
            next_token: 0,
            polls: 0,
            sender,
            handles,
            _reactor: reactor,
        };
        device.connect();
        device
    }

    /// The front-end goes, and another one comes: new shards, new rings.
    ///
    /// # Panics
    /// If something is in flight.
    pub fn reconnect(&mut self) {
        for shard in &mut self.shards {
            assert_eq!(shard.rings().in_flight(), 0);
        }
        self.shards.clear();
        self.connect();
    }

    /// The front-end maps other memory, empty, for the guest: rings are stopped, tables changed, new rings started.
    ///
    /// # Panics
    /// If requests are in flight that do not end.
    pub fn replace_memory(&mut self) {
        for index in 0..self.controller.queues() {
            let stopped = self.stop(index);
            self.run();
            let _ = stopped.try_recv().expect("a ring that has stopped");
        }
        self.guest = Guest::new(REGIONS);
        self.start_rings();
    }

    fn connect(&mut self) {
        let ConnectionParts { shards, routes, ring_stats } = self.controller.connect(&self.handles, &self.sender);
        (self.shards, self.routes, self.ring_stats) = (shards, routes, ring_stats);
        self.start_rings();
    }

    fn start_rings(&mut self) {
        self.queues = (0..self.controller.queues()).map(|index| self.make_queue(index, self.ring_size)).collect();
        let table = self.guest.table();
        let retired = self.swap_table(table);
        assert!(retired.iter().all(|old| old.try_recv().is_ok()), "nothing is in flight yet");
        for index in 0..self.controller.queues() {
            self.start(index, self.kind.format.first_base());
            self.rings(index).enable(index);
        }
    }

    // --- what the connection's control half would do ---

    /// The rings of the shard that owns ring `index`.
    pub fn rings(&mut self, index: u16) -> &mut RingSet {
        self.shards[self.routes[usize::from(index)]].rings()
    }

    /// Starts a ring at a base. What the ring holds stays.
    pub fn start(&mut self, index: u16, base: u32) {
        let size = self.queues[usize::from(index)].driver.size();
        let table = Arc::clone(self.rings(index).table());
        let RingKind { format, features, in_order } = self.kind;
        let addresses = device_addresses(&table, format, index, size);
        let queue = DeviceQueue::new(format, size, addresses, base, features).expect("a ring that can be");
        let queue = if in_order { queue.in_order() } else { queue };
        drop(self.rings(index).start(index, queue, None));
    }

    /// Asks a ring to stop; the answer comes when it has.
    pub fn stop(&mut self, index: u16) -> Receiver<Stopped> {
        let (back, stopped) = channel::bounded(1);
        self.rings(index).stop(index, back);
        stopped
    }

    /// Asks a ring to fetch no more; the answer comes when nothing is in flight.
    pub fn disable(&mut self, index: u16) -> Receiver<()> {
        let (back, disabled) = channel::bounded(1);
        self.rings(index).disable(index, back);
        disabled
    }

    /// Stops a ring, lets the driver make a new one in its place, and starts that: what a driver does after an error.
    ///
    /// # Panics
    /// If requests are in flight that do not end.
    pub fn restart(&mut self, index: u16) {
        let stopped = self.stop(index);
        self.run();
        let _ = stopped.try_recv().expect("a ring that has stopped");
        let size = self.queues[usize::from(index)].driver.size();
        self.renew(index, size);
        self.start(index, self.kind.format.first_base());
    }

    /// The driver makes a new ring, of a size of its choice, where the old one was. The ring must be stopped.
    ///
    /// # Panics
    /// If there cannot be such a ring.
    pub fn renew(&mut self, index: u16, size: u16) {
        self.queues[usize::from(index)] = self.make_queue(index, size);
    }

    fn make_queue(&self, index: u16, size: u16) -> Queue {
        let RingKind { format, features, in_order } = self.kind;
        let addresses = driver_addresses(&self.guest, format, index, size);
        let mut driver = DriverQueue::new(format, size, addresses, features).expect("a ring that can be");
        if in_order {
            driver.expect_in_order();
        }
        Queue { driver, out: BTreeMap::new() }
    }

    /// Gives every shard a new memory table. Each old one comes back when nothing uses it any more.
    pub fn swap_table(&mut self, table: MemTable) -> Vec<Receiver<Arc<MemTable>>> {
        let table = Arc::new(table);
        let mut rings = Vec::new();
        for (index, queue) in self.queues.iter().enumerate() {
            let index = index as u16;
            if let Some(addresses) = addresses_in(&table, self.kind.format, index, queue.driver.size()) {
                rings.push((index, addresses));
            }
        }
        let swap = |shard: &mut D::Shard| {
            let (back, old) = channel::bounded(1);
            shard.rings().swap_table(Arc::clone(&table), &rings, back);
            old
        };
        self.shards.iter_mut().map(swap).collect()
    }

    /// Gives the ring a new err descriptor; the other end is returned.
    pub fn err(&mut self, index: u16) -> Notifier {
        let (theirs, ours) = event_pair();
        drop(self.rings(index).set_err(index, Some(theirs)));
        ours
    }

    /// Gives the ring a new call descriptor; the other end is returned.
    pub fn call(&mut self, index: u16) -> Notifier {
        let (theirs, ours) = event_pair();
        drop(self.rings(index).set_call(index, Some(theirs)));
        ours
    }

    // --- polling ---

    /// Polls every shard once. Returns the work done.
    pub fn poll(&mut self) -> usize {
        let now = self.next_poll();
        self.shards.iter_mut().map(|shard| shard.poll(now)).sum()
    }

    /// Polls one shard once.
    pub fn poll_shard(&mut self, shard: usize) -> usize {
        let now = self.next_poll();
        self.shards[shard].poll(now)
    }

    /// The time of the next poll: at least 2 µs after the last one, so that a ring is left alone for one poll at most.
    fn next_poll(&mut self) -> Tsc {
        self.polls += 1;
        Tsc::now() + self.polls * Tsc::ticks(2_000)
    }

    /// Polls until nothing happens any more.
    ///
    /// # Panics
    /// If that takes for ever.
    pub fn run(&mut self) {
        // A task management function goes from shard to shard and back; each step may take a poll without work.
        const QUIET: usize = 4;
        let mut quiet = 0;
        for _ in 0..POLLS_MAX {
            quiet = if self.poll() == 0 { quiet + 1 } else { 0 };
            if quiet == QUIET {
                return;
            }
        }
        panic!("the device is still busy after {POLLS_MAX} polls");
    }

    /// Whether the gauge says that the ring is halted.
    #[must_use]
    pub fn broken(&self, index: u16) -> bool {
        self.ring_stats[usize::from(index)].broken.value() == 1
    }
}

impl<D: Model> Drop for Device<D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.gate.open();
        self.run();
        for shard in &mut self.shards {
            assert_eq!(shard.rings().in_flight(), 0, "requests that never ended");
        }
        let any: &dyn Any = &self.controller;
        if let Some(controller) = any.downcast_ref::<Controller>() {
            for place in controller.places() {
                let unit = usize::from(place.index);
                let in_flight: u64 = controller.stats().iter().map(|stats| stats.units[unit].in_flight.value()).sum();
                assert_eq!(in_flight, 0, "commands in flight of unit {unit} in the end");
            }
        }
    }
}

/// A poller for each shard, if there is more than one, and what they live in.
pub(crate) fn handles(shards: usize) -> (Vec<PollerHandle>, Option<Reactor>) {
    let reactor = (shards > 1).then(start_reactor);
    match &reactor {
        Some(first) => (vec![first.pollers()[0].clone(); shards], reactor),
        None => (Vec::new(), None),
    }
}

/// Pollers that are only there to be woken: shards of a test are polled by the test.
fn start_reactor() -> Reactor {
    let cores = reactor::affinity::allowed().expect("the cores of this process");
    let config = ReactorConfig { cores: vec![cores[0]], idle: IdlePolicy::Adaptive };
    Reactor::start(&config).expect("a poller")
}

/// A descriptor that can be kicked.
///
/// # Panics
/// If this process may open no more.
#[must_use]
pub fn event() -> Notifier {
    event_pair().0
}

/// Two ends of one eventfd.
fn event_pair() -> (Notifier, Notifier) {
    let fd: OwnedFd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let other = fd.try_clone().expect("a descriptor more");
    (Notifier::new(fd), Notifier::new(other))
}
