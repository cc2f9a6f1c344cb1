//! A small vhost-user-scsi device for tests: a disk in memory behind a real socket and real rings, which does to chosen
//! commands what no device should. It follows the standards where it is not told otherwise, and is in no hurry.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use guest_memory::{GuestSlice, Mapping, MemTable};
use std::os::fd::AsFd;
use vhost_user::Notifier;
use vhost_user::connection::{Answer, Backend, EffectError, Listener, Stop, serve};
use vhost_user::message::protocol;
use vhost_user::session::{DeviceInfo, Effect, RingConfig, Session};
use virtio_scsi::wire::{ConfigSpace, feature};
use virtqueue::split::SplitDevice;
use virtqueue::{ChainBatch, Features, RingAddresses, SplitLayout};

/// What happens to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twist {
    /// What the standards say.
    None,
    /// This response and status, and nothing moves.
    Answer { response: u8, status: u8 },
    /// CHECK CONDITION with this sense key and code.
    Sense { key: u8, asc: u8 },
    /// GOOD, and nothing moves.
    Lose,
    /// What it says, at another LBA.
    At { lba: u64 },
    /// Nothing at all, and it never comes back.
    Hang,
    /// The ring reports that it is broken.
    Break,
    /// The connection is closed.
    Close,
}

/// A command as a test sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub opcode: u8,
    pub lba: u64,
    /// Commands before it with data to move.
    pub transfers: u64,
}

/// Decides about each command.
pub(super) type Script = Box<dyn FnMut(Seen) -> Twist + Send>;

/// A device that listens on a socket until it is dropped.
pub(super) struct Device {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

/// What the connection and the poller share.
struct State {
    script: Script,
    features: u64,
    table: Arc<MemTable>,
    rings: Vec<Ring>,
    disk: Vec<u8>,
    transfers: u64,
    stopped: usize,
}

#[derive(Default)]
struct Ring {
    queue: Option<SplitDevice>,
    enabled: bool,
    call: Option<Notifier>,
    err: Option<Notifier>,
}

pub(super) const BLOCK: usize = 512;
/// 1 MiB.
pub(super) const BLOCKS: u64 = 2048;
/// Control, event and this many request queues.
pub(super) const REQUEST_QUEUES: u16 = 4;
const OFFERED: u64 = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
const QUEUES: u16 = 2 + REQUEST_QUEUES;
const QUEUE_SIZE_MAX: u16 = 256;

impl Device {
    pub(super) fn start(script: impl FnMut(Seen) -> Twist + Send + 'static) -> Device {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = Listener::bind(&path).unwrap();
        let stop = Stop::new().unwrap();
        let state = Arc::new(Mutex::new(State::new(Box::new(script))));
        let connection = {
            let (stop, mut backend) = (stop.clone(), Shared(Arc::clone(&state)));
            thread::spawn(move || {
                while let Ok(Some(stream)) = listener.accept(&stop) {
                    serve(stream, Session::new(info()), &mut backend, &stop);
                    backend.lock().hang_up();
                }
            })
        };
        let poller = {
            let (stop, shared) = (stop.clone(), Shared(Arc::clone(&state)));
            thread::spawn(move || {
                while !stop.requested() {
                    if shared.lock().poll() {
                        stop.request();
                    }
                    thread::yield_now();
                }
            })
        };
        Device { path, state, stop, threads: vec![connection, poller], _directory: directory }
    }

    pub(super) fn honest() -> Device {
        Device::start(|_| Twist::None)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Rings that were stopped one by one.
    pub(super) fn stopped(&self) -> usize {
        self.state.lock().unwrap().stopped
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.request();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn info() -> DeviceInfo {
    DeviceInfo {
        features: OFFERED,
        tolerated_features: 0,
        protocol_features: protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG | protocol::STATUS,
        queues: QUEUES,
        queue_size_max: QUEUE_SIZE_MAX,
        max_mem_slots: 8,
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
        let mut state = self.lock();
        match effect {
            Effect::SetFeatures(features) => state.features = features,
            Effect::SetMemTable(regions) => {
                let map =
                    |(config, fd): &(_, std::os::fd::OwnedFd)| Arc::new(Mapping::map(fd.as_fd(), config).unwrap());
                state.table = Arc::new(MemTable::new(regions.iter().map(map).collect()).unwrap());
            }
            Effect::StartRing { index, config, .. } => state.start(index, config),
            Effect::StopRing { index } => {
                state.stopped += 1;
                let queue = state.rings[usize::from(index)].queue.take().unwrap();
                return Ok(Answer::Base(queue.next_avail().into()));
            }
            Effect::EnableRing { index, enabled } => state.rings[usize::from(index)].enabled = enabled,
            Effect::SetCall { index, fd } => state.rings[usize::from(index)].call = fd.map(Notifier::new),
            Effect::SetErr { index, fd } => state.rings[usize::from(index)].err = fd.map(Notifier::new),
            other => return Err(EffectError::new(format!("{other:?}"))),
        }
        Ok(Answer::Done)
    }

    fn config(&self) -> Vec<u8> {
        let num_queues = REQUEST_QUEUES.into();
        ConfigSpace { num_queues, seg_max: 126, max_sectors: 128, cmd_per_lun: 64 }.bytes().to_vec()
    }

    fn needs_reset(&self) -> bool {
        false
    }
}

impl State {
    fn new(script: Script) -> State {
        State {
            script,
            features: 0,
            table: Arc::default(),
            rings: (0..QUEUES).map(|_| Ring::default()).collect(),
            disk: vec![0; BLOCKS as usize * BLOCK],
            transfers: 0,
            stopped: 0,
        }
    }

    fn hang_up(&mut self) {
        self.rings.fill_with(Ring::default);
    }

    fn start(&mut self, index: u16, config: RingConfig) {
        let part = |addr, len| self.table.translate_user(addr, len).unwrap();
        let areas = RingAddresses {
            desc: part(config.desc_user, SplitLayout::desc_len(config.size)),
            avail: part(config.avail_user, SplitLayout::avail_len(config.size)),
            used: part(config.used_user, SplitLayout::used_len(config.size)),
        };
        let features = Features { event_idx: self.features & feature::EVENT_IDX != 0 };
        let mut queue = SplitDevice::new(config.size, areas, config.base as u16, features).unwrap();
        queue.disable_notifications();
        self.rings[usize::from(index)].queue = Some(queue);
    }

    /// Serves what is on the request rings; true if the connection is to be closed.
    fn poll(&mut self) -> bool {
        let mut batch = ChainBatch::new(8, 64);
        for index in 2..self.rings.len() {
            let mut ring = std::mem::take(&mut self.rings[index]);
            let close = self.poll_ring(&mut ring, &mut batch);
            self.rings[index] = ring;
            if close {
                return true;
            }
        }
        false
    }

    fn poll_ring(&mut self, ring: &mut Ring, batch: &mut ChainBatch) -> bool {
        let Some(queue) = ring.queue.as_mut().filter(|_| ring.enabled) else { return false };
        queue.pop(&Arc::clone(&self.table), 8, batch);
        for chain in batch.chains() {
            let (readable, writable) = (batch.readable(chain), batch.writable(chain));
            let header: [u8; 51] = readable[0].read_array().unwrap();
            match self.serve(&header, readable.get(1).copied(), writable) {
                Twist::Close => return true,
                Twist::Break => {
                    ring.err.as_ref().unwrap().signal();
                }
                Twist::Hang => {}
                _ => queue.complete(chain.head, chain.writable_bytes as u32),
            }
        }
        if queue.publish() {
            ring.call.as_ref().unwrap().signal();
        }
        false
    }

    fn serve(&mut self, header: &[u8; 51], data_out: Option<GuestSlice>, writable: &[GuestSlice]) -> Twist {
        let cdb = &header[19..];
        let opcode = cdb[0];
        let long = matches!(opcode, 0x88 | 0x8a);
        let lba_bytes = if long { &cdb[2..10] } else { &cdb[2..6] };
        let lba = lba_bytes.iter().fold(0, |lba, byte| lba << 8 | u64::from(*byte));
        let transfer = matches!(opcode, 0x28 | 0x2a | 0x88 | 0x8a);
        let twist = (self.script)(Seen { opcode, lba, transfers: self.transfers });
        self.transfers += u64::from(transfer);
        let mut response = [0; 12];
        match twist {
            Twist::Answer { response: code, status } => (response[11], response[10]) = (code, status),
            Twist::Sense { key, asc } => {
                response[10] = 2;
                response[0] = 18;
                let sense = [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, 0, 0, 0, 0, 0];
                writable[0].subslice(12, 18).unwrap().write(&sense);
            }
            Twist::None if header[1] != 0 => response[11] = 3, // one target only
            Twist::None | Twist::At { .. } => {
                let lba = if let Twist::At { lba } = twist { lba } else { lba };
                self.perform(header, lba, data_out, writable.get(1).copied());
            }
            Twist::Lose | Twist::Hang | Twist::Break | Twist::Close => {}
        }
        writable[0].write(&response);
        twist
    }

    fn perform(&mut self, header: &[u8; 51], lba: u64, data_out: Option<GuestSlice>, data_in: Option<GuestSlice>) {
        let at = lba as usize * BLOCK;
        match header[19] {
            0x12 => {
                let there = header[2] & 0x3f == 0 && header[3] == 0;
                data_in.unwrap().write(&[if there { 0 } else { 0x7f }]);
            }
            0x9e => {
                let mut capacity = [0; 32];
                capacity[..8].copy_from_slice(&(BLOCKS - 1).to_be_bytes());
                capacity[8..12].copy_from_slice(&(BLOCK as u32).to_be_bytes());
                data_in.unwrap().write(&capacity);
            }
            0x28 | 0x88 => {
                let slice = data_in.unwrap();
                slice.write(&self.disk[at..at + slice.len()]);
            }
            0x2a | 0x8a => {
                let slice = data_out.unwrap();
                slice.read(&mut self.disk[at..at + slice.len()]);
            }
            _ => {}
        }
    }
}
