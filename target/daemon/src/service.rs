//! One device's socket: waits for front-ends and gives each connection shards on the pollers and a thread. What the
//! messages on it mean is `vhost-user`'s; what can be done to a device of one kind while it is served is in `service/scsi.rs`
//! and `service/net.rs`.
//!
//! One front-end at a time: a controller is one I_T nexus (R08), a net device has one driver. A connection whose peer is gone
//! may still wait for its last requests; the next front-end does not wait with it (R14).

mod net;
mod scsi;

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Sender};
use parking_lot::Mutex;
use reactor::{PollerHandle, SourceHandle, Tsc};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use stats::{Histogram, HistogramSnapshot};
use vhost_user::connection::{self, Answer, Backend, Connector, EffectError, Listener, SocketError, Stop};
use vhost_user::message::protocol;
use vhost_user::session::{DeviceInfo, Effect, Refusal, Session};
use vhost_user::{
    BackendChannel, Coalescing, Device, Endpoint, EndpointParts, QuiesceClock, RingReport, RingStats, Shard as _,
};
use virtio_net::NetDevice;
use virtio_scsi::Controller;

use crate::config::Mode;

/// Most memory regions of a front-end: what QEMU's ACPI memory hot-plug can ask for.
const MEM_SLOTS_MAX: u64 = 509;
/// What every device offers; some offer more ([`Device::protocol_features`]).
const PROTOCOL_FEATURES: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::BACKEND_REQ
    | protocol::CONFIG
    | protocol::RESET_DEVICE
    | protocol::CONFIGURE_MEM_SLOTS
    | protocol::STATUS;

/// A device, its pollers, and what is counted about its connections.
pub struct Service<D: Device> {
    device: Arc<D>,
    pollers: Vec<PollerHandle>,
    reports: Sender<RingReport>,
    stats: ServiceStats<D::Shard>,
    coalescing: Mutex<Coalescing>,
    /// Held while a connection begins, and while the device changes: none misses a change.
    changing: Mutex<()>,
}

/// A virtio-scsi controller that is served.
pub type ScsiService = Service<Controller>;

/// A virtio-net device that is served.
pub type NetService = Service<NetDevice>;

/// Counters of a device's connections. Written by control threads.
pub struct ServiceStats<S> {
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
    /// How long that took, in TSC ticks. Connections take turns at writing it.
    memory_table_ticks: Mutex<Box<Histogram>>,
    /// 1 while front-ends can connect.
    listening: AtomicU64,
    /// Connections there are now, those that only wait for their last requests included.
    live: Mutex<Vec<Live<S>>>,
}

/// What others than its own thread see of a connection.
struct Live<S> {
    connected: Arc<AtomicU64>,
    negotiated: Arc<Negotiated>,
    quiesce: Arc<QuiesceClock>,
    rings: Arc<[Arc<RingStats>]>,
    shards: Arc<[SourceHandle<S>]>,
    requests: Arc<BackendChannel>,
}

/// What a front-end has agreed to; 0 until it has.
#[derive(Debug, Default)]
struct Negotiated {
    features: AtomicU64,
    protocol_features: AtomicU64,
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

/// A connection that this device's thread looks after.
struct FrontEnd {
    peer: UnixStream,
    connected: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// Hangs up when it is dropped: however serving ends, whoever looks at the socket sees it.
struct HangUp(UnixStream);

impl<D: Device> Service<D> {
    /// A service that is not running.
    #[must_use]
    pub fn new(device: Arc<D>, pollers: Vec<PollerHandle>, reports: Sender<RingReport>) -> Service<D> {
        let (coalescing, changing) = (Mutex::new(Coalescing::OFF), Mutex::new(()));
        Service { device, pollers, reports, stats: ServiceStats::default(), coalescing, changing }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// Counters of its connections.
    #[must_use]
    pub fn stats(&self) -> &ServiceStats<D::Shard> {
        &self.stats
    }

    /// Its socket is open: front-ends can connect, even before [`Service::run`] has begun on its thread.
    pub fn opened(&self) {
        self.stats.listening.store(1, Ordering::Relaxed);
    }

    /// How calls to its drivers are coalesced.
    #[must_use]
    pub fn coalescing(&self) -> Coalescing {
        *self.coalescing.lock()
    }

    /// Coalesces calls like this from now on: when this returns, on every queue. Drivers notice nothing but that.
    pub fn set_coalescing(&self, coalescing: Coalescing) {
        let _alone = self.changing.lock();
        *self.coalescing.lock() = coalescing;
        self.tell(|shards| {
            (0..shards)
                .map(|_| move |shard: &mut D::Shard| shard.rings().set_coalescing(coalescing, Tsc::now()))
                .collect()
        });
    }

    /// Runs a job on every shard of every connection, made for as many shards as a connection has. Waits until all have
    /// run; what they return is dropped here, not on a poller.
    fn tell<J, R>(&self, jobs: impl Fn(usize) -> Vec<J>)
    where
        J: FnOnce(&mut D::Shard) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (done, results) = channel::unbounded();
        let connections: Vec<_> = self.stats.live.lock().iter().map(|live| Arc::clone(&live.shards)).collect();
        for shards in connections {
            for (shard, job) in shards.iter().zip(jobs(shards.len())) {
                let done = done.clone();
                shard.run(move |shard| drop(done.send(job(shard))));
            }
        }
        drop(done);
        results.into_iter().for_each(drop); // ends when the last job has run, or went with its shard
    }

    /// Serves front-ends until `stop` is requested, then waits for the last request of the last one.
    pub fn run(self: &Arc<Self>, socket: Socket, stop: &Arc<Stop>) {
        let mut sessions: Vec<FrontEnd> = Vec::new();
        self.opened();
        let result = match socket {
            Socket::Listener(listener) => self.listen(&listener, stop, &mut sessions),
            Socket::Connector(mut connector) => self.connect(&mut connector, stop, &mut sessions),
        };
        self.stats.listening.store(0, Ordering::Relaxed);
        if let Err(error) = result {
            tracing::error!(controller = %self.device.name(), "no longer reachable: {error}");
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
                    controller = %self.device.name(),
                    "a second front-end was turned away: one is connected, and a device serves one at a time"
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
                tracing::error!(controller = %self.device.name(), "a front-end cannot be served: {error}");
            })
            .ok()
    }

    fn try_begin(self: &Arc<Self>, stream: UnixStream, stop: &Arc<Stop>) -> io::Result<FrontEnd> {
        let (service, stop) = (Arc::clone(self), Arc::clone(stop));
        let (peer, hang_up) = (stream.try_clone()?, HangUp(stream.try_clone()?));
        let connected = Arc::new(AtomicU64::new(1));
        let its = Arc::clone(&connected);
        let name = format!("vhost-{}", self.device.name());
        let session = move || service.session(stream, &stop, its, hang_up);
        let thread = thread::Builder::new().name(name).spawn(session)?;
        Ok(FrontEnd { peer, connected, thread })
    }

    fn session(&self, stream: UnixStream, stop: &Stop, connected: Arc<AtomicU64>, hang_up: HangUp) {
        let _span = tracing::info_span!("vhost", controller = %self.device.name()).entered();
        self.stats.sessions.fetch_add(1, Ordering::Relaxed);
        let (live, endpoint) = self.connection(connected);
        let mut backend = Counted {
            device: &*self.device,
            endpoint,
            stats: &self.stats,
            requests: &live.requests,
            negotiated: &live.negotiated,
        };
        connection::serve(stream, Session::new(self.device_info()), &mut backend, stop);
        live.connected.store(0, Ordering::Relaxed);
        drop(hang_up); // the next front-end may come
        backend.endpoint.close();
        self.stats.live.lock().retain(|other| !Arc::ptr_eq(&other.quiesce, &live.quiesce));
    }

    /// A new connection: shards on the pollers, and the control half over them.
    fn connection(&self, connected: Arc<AtomicU64>) -> (Live<D::Shard>, Endpoint<D::Shard>) {
        let _unchanged = self.changing.lock();
        let mut connection = self.device.connect(&self.pollers, &self.reports);
        let coalescing = self.coalescing();
        connection.shards.iter_mut().for_each(|shard| shard.rings().set_coalescing(coalescing, Tsc::now()));
        let shards: Vec<_> =
            self.pollers.iter().zip(connection.shards).map(|(poller, shard)| poller.add(shard)).collect();
        let rings = connection.ring_stats.clone().into();
        let live = Live {
            connected,
            negotiated: Arc::default(),
            quiesce: Arc::default(),
            rings,
            shards: shards.clone().into(),
            requests: Arc::default(),
        };
        self.stats.live.lock().push(live.clone());
        let device = Arc::clone(&self.device);
        let endpoint = Endpoint::new(EndpointParts {
            name: Arc::clone(self.device.name()),
            shards,
            routes: connection.routes,
            ring_stats: connection.ring_stats,
            config: Box::new(move || device.config_space()),
            quiesce: Arc::clone(&live.quiesce),
        });
        (live, endpoint)
    }

    fn device_info(&self) -> DeviceInfo {
        DeviceInfo {
            features: self.device.features(),
            tolerated_features: 0,
            protocol_features: PROTOCOL_FEATURES | self.device.protocol_features(),
            queues: self.device.queues(),
            queue_size_max: self.device.queue_size_max(),
            max_mem_slots: MEM_SLOTS_MAX,
        }
    }
}

impl<S> ServiceStats<S> {
    /// Front-ends that are connected now: 0 or 1.
    #[must_use]
    pub fn connected(&self) -> u64 {
        self.live.lock().iter().map(|live| live.connected.load(Ordering::Relaxed)).sum()
    }

    /// Whether front-ends can connect.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed) == 1
    }

    /// Features and protocol features that the connected front-end has agreed to; none until it has.
    #[must_use]
    pub fn negotiated(&self) -> Option<(u64, u64)> {
        let live = self.live.lock();
        let negotiated = &live.iter().find(|live| live.is_connected())?.negotiated;
        let features = negotiated.features.load(Ordering::Relaxed);
        (features != 0).then(|| (features, negotiated.protocol_features.load(Ordering::Relaxed)))
    }

    /// How long it took to put memory tables in force, in TSC ticks.
    #[must_use]
    pub fn memory_table_ticks(&self) -> HistogramSnapshot {
        self.memory_table_ticks.lock().snapshot()
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
}

impl<S> Default for ServiceStats<S> {
    fn default() -> ServiceStats<S> {
        ServiceStats {
            sessions: AtomicU64::default(),
            turned_away: AtomicU64::default(),
            refused_messages: AtomicU64::default(),
            resets: AtomicU64::default(),
            memory_tables: AtomicU64::default(),
            memory_table_ticks: Mutex::default(),
            listening: AtomicU64::default(),
            live: Mutex::default(),
        }
    }
}

impl<S> Live<S> {
    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed) == 1
    }
}

impl<S> Clone for Live<S> {
    fn clone(&self) -> Live<S> {
        Live {
            connected: Arc::clone(&self.connected),
            negotiated: Arc::clone(&self.negotiated),
            quiesce: Arc::clone(&self.quiesce),
            rings: Arc::clone(&self.rings),
            shards: Arc::clone(&self.shards),
            requests: Arc::clone(&self.requests),
        }
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
struct Counted<'a, D: Device> {
    device: &'a D,
    endpoint: Endpoint<D::Shard>,
    stats: &'a ServiceStats<D::Shard>,
    requests: &'a BackendChannel,
    negotiated: &'a Negotiated,
}

impl<D: Device> Backend for Counted<'_, D> {
    fn perform(&mut self, effect: Effect) -> Result<Answer, EffectError> {
        let began = Tsc::now();
        let (mut reset, mut memory) = (false, false);
        match &effect {
            Effect::ResetDevice => reset = true,
            Effect::SetMemTable(_) | Effect::AddRegion(..) | Effect::RemoveRegion(_) => memory = true,
            Effect::SetFeatures(features) => self.negotiated.features.store(*features, Ordering::Relaxed),
            _ => {}
        }
        let answer = match effect {
            Effect::SetBackendRequestFd(socket) => {
                self.requests.connect(socket);
                Answer::Done
            }
            Effect::SetMtu(mtu) => {
                self.device.set_mtu(mtu).map_err(EffectError::new)?;
                Answer::Done
            }
            effect => self.endpoint.perform(effect)?,
        };
        if reset {
            self.stats.resets.fetch_add(1, Ordering::Relaxed);
        }
        if memory {
            self.stats.memory_tables.fetch_add(1, Ordering::Relaxed);
            self.stats.memory_table_ticks.lock().record(Tsc::now() - began);
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
        self.negotiated.protocol_features.store(protocol_features, Ordering::Relaxed);
        self.requests.negotiated(protocol_features);
    }

    fn refused(&mut self, _refusal: &Refusal) {
        self.stats.refused_messages.fetch_add(1, Ordering::Relaxed);
    }
}
