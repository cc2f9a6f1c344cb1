//! A vhost-user device for tests, behind a real socket and with real rings. What it does with what is on the rings is a
//! [`Behaviour`]'s; this part follows the specification, and is in no hurry.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use guest_memory::{Mapping, MemTable};
use vhost_user::Notifier;
use vhost_user::connection::{Answer, Backend, Connector, EffectError, Listener, Stop, serve};
use vhost_user::session::{DeviceInfo, Effect, RingConfig, Session};
use virtqueue::{DeviceQueue, Features, RingAddresses, RingFormat};

/// What a device does with its rings.
pub(crate) trait Behaviour: Send + 'static {
    /// Looks at the rings once; true if the connection is to be closed.
    fn poll(&mut self, wires: &mut Wires) -> bool;

    /// The configuration space.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// What a front-end has set up.
pub(crate) struct Wires {
    pub features: u64,
    pub table: Arc<MemTable>,
    pub rings: Vec<Ring>,
    /// Rings that were stopped one by one.
    pub stopped: usize,
}

#[derive(Default)]
pub(crate) struct Ring {
    pub queue: Option<DeviceQueue>,
    pub enabled: bool,
    pub call: Option<Notifier>,
    pub err: Option<Notifier>,
}

/// A device that listens on a socket, or connects to one, until it is dropped.
pub(crate) struct Device {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

struct State {
    wires: Wires,
    behaviour: Box<dyn Behaviour>,
}

/// Which side of the socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

impl Device {
    pub(crate) fn start(info: DeviceInfo, side: Side, behaviour: impl Behaviour) -> Device {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let stop = Stop::new().unwrap();
        let state = Arc::new(Mutex::new(State { wires: Wires::new(info.queues), behaviour: Box::new(behaviour) }));
        let mut next = front_ends(&path, side, &stop);
        let connection = {
            let (stop, mut backend) = (stop.clone(), Shared(Arc::clone(&state)));
            thread::spawn(move || {
                while let Some(stream) = next() {
                    serve(stream, Session::new(info), &mut backend, &stop);
                    backend.lock().wires.rings.fill_with(Ring::default);
                }
            })
        };
        let poller = {
            let (stop, shared) = (stop.clone(), Shared(Arc::clone(&state)));
            thread::spawn(move || {
                while !stop.requested() {
                    let State { wires, behaviour } = &mut *shared.lock();
                    if behaviour.poll(wires) {
                        stop.request();
                    }
                    thread::yield_now();
                }
            })
        };
        Device { path, state, stop, threads: vec![connection, poller], _directory: directory }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Rings that were stopped one by one.
    pub(crate) fn stopped(&self) -> usize {
        self.state.lock().unwrap().wires.stopped
    }
}

/// One connection after the other.
fn front_ends(path: &Path, side: Side, stop: &Stop) -> Box<dyn FnMut() -> Option<UnixStream> + Send> {
    let stop = stop.clone();
    if side == Side::Server {
        let listener = Listener::bind(path).unwrap();
        return Box::new(move || listener.accept(&stop).unwrap());
    }
    let mut connector = Connector::new(path).unwrap();
    Box::new(move || connector.connect(&stop))
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.request();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Backend for Shared {
    fn perform(&mut self, effect: Effect) -> Result<Answer, EffectError> {
        let wires = &mut self.lock().wires;
        match effect {
            Effect::SetFeatures(features) => wires.features = features,
            Effect::SetMemTable(regions) => {
                let map = |(config, fd): &(_, OwnedFd)| Arc::new(Mapping::map(fd.as_fd(), config).unwrap());
                wires.table = Arc::new(MemTable::new(regions.iter().map(map).collect()).unwrap());
            }
            Effect::StartRing { index, config, .. } => wires.start(index, config),
            Effect::StopRing { index } => {
                wires.stopped += 1;
                let queue = wires.rings[usize::from(index)].queue.take().unwrap();
                return Ok(Answer::Base(queue.next_avail().into()));
            }
            Effect::EnableRing { index, enabled } => wires.rings[usize::from(index)].enabled = enabled,
            Effect::SetCall { index, fd } => wires.rings[usize::from(index)].call = fd.map(Notifier::new),
            Effect::SetErr { index, fd } => wires.rings[usize::from(index)].err = fd.map(Notifier::new),
            other => return Err(EffectError::new(format!("{other:?}"))),
        }
        Ok(Answer::Done)
    }

    fn config(&self) -> Vec<u8> {
        self.lock().behaviour.config()
    }

    fn needs_reset(&self) -> bool {
        false
    }
}

impl Wires {
    fn new(rings: u16) -> Wires {
        Wires { features: 0, table: Arc::default(), rings: (0..rings).map(|_| Ring::default()).collect(), stopped: 0 }
    }

    fn start(&mut self, index: u16, config: RingConfig) {
        let packed = self.features >> 34 & 1 != 0;
        let format = if packed { RingFormat::Packed } else { RingFormat::Split };
        let [desc, avail, used] = format.area_lens(config.size);
        let part = |addr, len| self.table.translate_user(addr, len).unwrap();
        let areas = RingAddresses {
            desc: part(config.desc_user, desc),
            avail: part(config.avail_user, avail),
            used: part(config.used_user, used),
        };
        let features = Features { event_idx: self.features >> 29 & 1 != 0 };
        let mut queue = DeviceQueue::new(format, config.size, areas, config.base, features).unwrap();
        queue.disable_notifications();
        self.rings[usize::from(index)].queue = Some(queue);
    }
}

impl Ring {
    /// The ring, if it runs.
    pub(crate) fn running(&mut self) -> Option<&mut DeviceQueue> {
        self.queue.as_mut().filter(|_| self.enabled)
    }

    /// Shows the driver what was completed, and calls it if it wants that.
    pub(crate) fn publish(&mut self) {
        if self.running().is_some_and(DeviceQueue::publish) {
            self.call.as_ref().unwrap().signal();
        }
    }

    /// Says that the ring is broken.
    pub(crate) fn report_broken(&self) {
        self.err.as_ref().unwrap().signal();
    }
}
