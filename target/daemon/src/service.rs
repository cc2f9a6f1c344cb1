//! One controller's socket: waits for front-ends and gives each connection shards on the pollers and a thread. What the
//! messages on it mean is `vhost-user`'s.
//!
//! One front-end at a time: a controller is one I_T nexus (R08). A connection whose peer is gone may still wait for its
//! last requests; the next front-end does not wait with it (R14).

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Sender};
use parking_lot::Mutex;
use reactor::{PollerHandle, SourceHandle};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use vhost_user::connection::{self, Answer, Backend, Connector, EffectError, Listener, SocketError, Stop};
use vhost_user::message::protocol;
use vhost_user::session::{DeviceInfo, Effect, Refusal, Session};
use vhost_user::{BackendChannel, Endpoint, EndpointParts, QuiesceClock, RingReport, RingStats};
use virtio_scsi::{Announcement, ChangeError, Controller, Limits, Release, Shard, Unit};

use crate::config::Mode;

/// Most memory regions of a front-end: what QEMU's ACPI memory hot-plug can ask for.
const MEM_SLOTS_MAX: u64 = 509;

/// A controller, its pollers, and what is counted about its connections.
pub struct Service {
    controller: Arc<Controller>,
    pollers: Vec<PollerHandle>,
    reports: Sender<RingReport>,
    stats: ServiceStats,
    /// Held while a connection begins, and while the controller changes: none misses a change.
    changing: Mutex<()>,
}

/// Counters of a controller's connections. Written by control threads.
#[derive(Debug, Default)]
pub struct ServiceStats {
    /// Connections that were accepted.
    pub sessions: AtomicU64,
    /// Front-ends that were turned away because one was connected.
    pub turned_away: AtomicU64,
    /// Messages that were refused.
    pub refused_messages: AtomicU64,
    /// Device resets.
    pub resets: AtomicU64,
    /// Memory tables that were put in force.
    pub memory_tables: AtomicU64,
    /// Connections there are now, those that only wait for their last requests included.
    live: Mutex<Vec<Live>>,
}

/// What others than its own thread see of a connection.
#[derive(Clone, Debug)]
struct Live {
    connected: Arc<AtomicU64>,
    quiesce: Arc<QuiesceClock>,
    rings: Arc<[Arc<RingStats>]>,
    shards: Arc<[SourceHandle<Shard>]>,
    requests: Arc<BackendChannel>,
}

/// How a socket is come by, made before anything runs so that errors end the start.
pub enum Socket {
    /// We listen.
    Listener(Listener),
    /// The front-end listens.
    Connector(Connector),
}

impl Socket {
    /// Binds, or prepares to connect.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub fn open(path: &Path, mode: Mode) -> Result<Socket, SocketError> {
        match mode {
            Mode::Server => Listener::bind(path).map(Socket::Listener),
            Mode::Client => Connector::new(path).map(Socket::Connector),
        }
    }
}

/// A connection that this controller's thread looks after.
struct FrontEnd {
    peer: UnixStream,
    connected: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// Hangs up when it is dropped: however serving ends, whoever looks at the socket sees it.
struct HangUp(UnixStream);

impl Service {
    /// A service that is not running.
    #[must_use]
    pub fn new(controller: Arc<Controller>, pollers: Vec<PollerHandle>, reports: Sender<RingReport>) -> Service {
        Service { controller, pollers, reports, stats: ServiceStats::default(), changing: Mutex::new(()) }
    }

    /// The controller.
    #[must_use]
    pub fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    /// Counters of its connections.
    #[must_use]
    pub fn stats(&self) -> &ServiceStats {
        &self.stats
    }

    /// Serves front-ends until `stop` is requested, then waits for the last request of the last one.
    pub fn run(self: &Arc<Self>, socket: Socket, stop: &Arc<Stop>) {
        let mut sessions: Vec<FrontEnd> = Vec::new();
        let result = match socket {
            Socket::Listener(listener) => self.listen(&listener, stop, &mut sessions),
            Socket::Connector(mut connector) => self.connect(&mut connector, stop, &mut sessions),
        };
        if let Err(error) = result {
            tracing::error!(controller = %self.controller.name(), "no longer reachable: {error}");
        }
        for session in sessions {
            let _ = session.thread.join();
        }
    }

    fn listen(self: &Arc<Self>, listener: &Listener, stop: &Arc<Stop>, sessions: &mut Vec<FrontEnd>) -> io::Result<()> {
        while let Some(stream) = listener.accept(stop)? {
            reap(sessions);
            if sessions.iter().any(FrontEnd::connected) {
                self.stats.turned_away.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    controller = %self.controller.name(),
                    "a second front-end was turned away: one is connected, and a controller serves one at a time"
                );
                continue;
            }
            sessions.extend(self.begin(stream, stop));
        }
        Ok(())
    }

    fn connect(
        self: &Arc<Self>,
        connector: &mut Connector,
        stop: &Arc<Stop>,
        sessions: &mut Vec<FrontEnd>,
    ) -> io::Result<()> {
        while let Some(stream) = connector.connect(stop) {
            reap(sessions);
            let Some(session) = self.begin(stream, stop) else { continue };
            // Until the front-end hangs up or we do; its requests, and a stop that waits for them, may last longer (R14).
            session.wait_gone()?;
            sessions.push(session);
        }
        Ok(())
    }

    /// Serves a front-end. Where descriptors or threads have run out it is turned away, said in the log: the next one
    /// may find some.
    fn begin(self: &Arc<Self>, stream: UnixStream, stop: &Arc<Stop>) -> Option<FrontEnd> {
        let begun = self.try_begin(stream, stop);
        begun
            .inspect_err(|error| {
                tracing::error!(controller = %self.controller.name(), "a front-end cannot be served: {error}");
            })
            .ok()
    }

    fn try_begin(self: &Arc<Self>, stream: UnixStream, stop: &Arc<Stop>) -> io::Result<FrontEnd> {
        let (service, stop) = (Arc::clone(self), Arc::clone(stop));
        let (peer, hang_up) = (stream.try_clone()?, HangUp(stream.try_clone()?));
        let connected = Arc::new(AtomicU64::new(1));
        let its = Arc::clone(&connected);
        let name = format!("vhost-{}", self.controller.name());
        let session = move || service.session(stream, &stop, its, hang_up);
        let thread = thread::Builder::new().name(name).spawn(session)?;
        Ok(FrontEnd { peer, connected, thread })
    }

    fn session(&self, stream: UnixStream, stop: &Stop, connected: Arc<AtomicU64>, hang_up: HangUp) {
        let _span = tracing::info_span!("vhost", controller = %self.controller.name()).entered();
        self.stats.sessions.fetch_add(1, Ordering::Relaxed);
        let (live, endpoint) = self.connection(connected);
        let mut backend = Counted { endpoint, stats: &self.stats, requests: &live.requests };
        connection::serve(stream, Session::new(self.device_info()), &mut backend, stop);
        live.connected.store(0, Ordering::Relaxed);
        drop(hang_up); // the next front-end may come
        backend.endpoint.close();
        self.stats.live.lock().retain(|other| !Arc::ptr_eq(&other.quiesce, &live.quiesce));
    }

    /// A new connection: shards on the pollers, and the control half over them.
    fn connection(&self, connected: Arc<AtomicU64>) -> (Live, Endpoint<Shard>) {
        let _unchanged = self.changing.lock();
        let connection = self.controller.connect(&self.pollers, &self.reports);
        let shards: Vec<_> =
            self.pollers.iter().zip(connection.shards).map(|(poller, shard)| poller.add(shard)).collect();
        let rings = connection.ring_stats.clone().into();
        let live =
            Live { connected, quiesce: Arc::default(), rings, shards: shards.clone().into(), requests: Arc::default() };
        self.stats.live.lock().push(live.clone());
        let controller = Arc::clone(&self.controller);
        let endpoint = Endpoint::new(EndpointParts {
            name: Arc::clone(self.controller.name()),
            shards,
            routes: connection.routes,
            ring_stats: connection.ring_stats,
            config: Box::new(move || controller.config_space().to_vec()),
            quiesce: Arc::clone(&live.quiesce),
        });
        (live, endpoint)
    }

    /// A logical unit comes. When this returns, every request queue finds it, and guests have been told.
    ///
    /// # Errors
    /// It cannot be: its address is taken, or no block of it fits through the limits.
    pub fn add_lun(&self, unit: Arc<Unit>) -> Result<(), ChangeError> {
        let _alone = self.changing.lock();
        let addition = self.controller.add(unit)?;
        self.tell(|shards| {
            let parts = addition.for_connection(shards).into_iter();
            parts.map(|part| move |shard: &mut Shard| shard.add_unit(part)).collect()
        });
        self.announce(addition.announcement());
        Ok(())
    }

    /// A logical unit goes (R22). When this returns, no request queue finds it any more, and guests have been told; its
    /// block device is in use until the [`Release`] is over.
    ///
    /// # Errors
    /// There is none at that address.
    pub fn remove_lun(&self, target: u8, lun: u16) -> Result<Release, ChangeError> {
        let _alone = self.changing.lock();
        let removal = self.controller.remove(target, lun)?;
        self.tell(|shards| {
            let parts = (0..shards).map(|_| removal.for_shard());
            parts.map(|part| move |shard: &mut Shard| shard.remove_unit(part)).collect()
        });
        self.announce(removal.announcement());
        Ok(removal.into_release())
    }

    /// Other limits. When this returns they hold on every request queue; what is in flight beyond them ends in its own
    /// time. Front-ends that can be told hear that the configuration space has changed (R18).
    ///
    /// # Errors
    /// One of them is outside its bounds.
    pub fn set_limits(&self, limits: Limits) -> Result<(), ChangeError> {
        let _alone = self.changing.lock();
        let before = self.controller.config_space();
        self.controller.set_limits(limits, || {
            self.tell(|shards| (0..shards).map(|_| move |shard: &mut Shard| shard.set_limits(limits)).collect());
        })?;
        if self.controller.config_space() != before {
            let live = self.stats.live.lock();
            let told = live.iter().filter(|live| live.requests.config_changed()).count();
            tracing::debug!(controller = %self.controller.name(), told, "the configuration space has changed");
        }
        Ok(())
    }

    /// A logical unit gets another capacity, at most what its block device has (R18). Guests are told.
    ///
    /// # Errors
    /// There is no such unit, or the capacity is outside its bounds.
    pub fn resize_lun(&self, target: u8, lun: u16, block_count: u64) -> Result<(), ChangeError> {
        let _alone = self.changing.lock();
        self.announce(self.controller.resize(target, lun, block_count)?);
        Ok(())
    }

    /// Runs a job on every shard of every connection, made for as many shards as a connection has. Waits until all have
    /// run; what they return is dropped here, not on a poller.
    fn tell<J, R>(&self, jobs: impl Fn(usize) -> Vec<J>)
    where
        J: FnOnce(&mut Shard) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (done, results) = channel::unbounded();
        for shards in self.stats.shards() {
            for (shard, job) in shards.iter().zip(jobs(shards.len())) {
                let done = done.clone();
                shard.run(move |shard| drop(done.send(job(shard))));
            }
        }
        drop(done);
        results.into_iter().for_each(drop); // ends when the last job has run, or went with its shard
    }

    /// Tells the front-end. Connections that only wait for their last requests have nobody to be told.
    fn announce(&self, announcement: Announcement) {
        let live = self.stats.live.lock();
        for live in live.iter().filter(|live| live.connected.load(Ordering::Relaxed) == 1) {
            if let Some(first) = live.shards.first() {
                first.run(move |shard| shard.announce(announcement));
            }
        }
    }

    fn device_info(&self) -> DeviceInfo {
        DeviceInfo {
            features: self.controller.features(),
            tolerated_features: 0,
            protocol_features: protocol::MQ
                | protocol::REPLY_ACK
                | protocol::BACKEND_REQ
                | protocol::CONFIG
                | protocol::RESET_DEVICE
                | protocol::CONFIGURE_MEM_SLOTS
                | protocol::STATUS,
            queues: self.controller.queues(),
            queue_size_max: self.controller.queue_size_max(),
            max_mem_slots: MEM_SLOTS_MAX,
        }
    }
}

impl ServiceStats {
    /// Front-ends that are connected now: 0 or 1.
    #[must_use]
    pub fn connected(&self) -> u64 {
        self.live.lock().iter().map(|live| live.connected.load(Ordering::Relaxed)).sum()
    }

    /// The shards of every connection.
    fn shards(&self) -> Vec<Arc<[SourceHandle<Shard>]>> {
        self.live.lock().iter().map(|live| Arc::clone(&live.shards)).collect()
    }

    /// Connections that have not ended, those included whose front-end is gone.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.lock().len()
    }

    /// How long, in seconds, the oldest waiter has waited for requests in flight to end.
    #[must_use]
    pub fn quiesce_wait_s(&self) -> f64 {
        self.live.lock().iter().map(|live| live.quiesce.age().as_secs_f64()).fold(0.0, f64::max)
    }

    /// Descriptors of the request rings that the connected front-end has started.
    #[must_use]
    pub fn request_ring_capacity(&self) -> u64 {
        let live = self.live.lock();
        let connected = live.iter().filter(|live| live.connected.load(Ordering::Relaxed) == 1);
        let rings = connected.flat_map(|live| &live.rings[usize::from(virtio_scsi::FIRST_REQUEST_QUEUE)..]);
        rings.map(|ring| ring.size.value()).sum()
    }
}

impl FrontEnd {
    /// Whether its front-end is still there. One that was killed is gone at once, even before its thread has noticed.
    fn connected(&self) -> bool {
        let hung_up = self.hung_up(Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap_or(false);
        if hung_up {
            self.connected.store(0, Ordering::Relaxed);
        }
        !hung_up
    }

    /// Waits until one side or the other has hung up.
    fn wait_gone(&self) -> io::Result<()> {
        while !self.hung_up(None)? {}
        self.connected.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn hung_up(&self, patience: Option<&Timespec>) -> io::Result<bool> {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let mut fds = [PollFd::new(&self.peer, PollFlags::RDHUP)];
        match rustix::event::poll(&mut fds, patience) {
            Ok(_) => Ok(fds[0].revents().intersects(gone)),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both); // fails where it was hung up already
    }
}

fn reap(sessions: &mut Vec<FrontEnd>) {
    for ended in sessions.extract_if(.., |session| session.thread.is_finished()) {
        let _ = ended.thread.join();
    }
}

/// The endpoint, with its messages counted.
struct Counted<'a> {
    endpoint: Endpoint<Shard>,
    stats: &'a ServiceStats,
    requests: &'a BackendChannel,
}

impl Backend for Counted<'_> {
    fn perform(&mut self, effect: Effect) -> Result<Answer, EffectError> {
        let counter = match &effect {
            Effect::ResetDevice => Some(&self.stats.resets),
            Effect::SetMemTable(_) | Effect::AddRegion(..) | Effect::RemoveRegion(_) => Some(&self.stats.memory_tables),
            _ => None,
        };
        let answer = match effect {
            Effect::SetBackendRequestFd(socket) => {
                self.requests.connect(socket);
                Answer::Done
            }
            effect => self.endpoint.perform(effect)?,
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }

    fn config(&self) -> Vec<u8> {
        self.endpoint.config()
    }

    fn needs_reset(&self) -> bool {
        self.endpoint.needs_reset()
    }

    fn negotiated(&mut self, protocol_features: u64) {
        self.requests.negotiated(protocol_features);
    }

    fn refused(&mut self, _refusal: &Refusal) {
        self.stats.refused_messages.fetch_add(1, Ordering::Relaxed);
    }
}
