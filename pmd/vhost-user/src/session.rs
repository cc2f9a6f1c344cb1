//! A vhost-user conversation as the back-end sees it: one request in, the effects on the device and the reply out.
//!
//! Sans-IO: no socket, no thread, no clock, no mapping. Descriptors pass through untouched. The session knows what was
//! negotiated, the memory table and the state of each ring *as the messages say*; whoever performs the effects
//! ([`crate::connection::Backend`]) owns what really happens to memory and rings.
//!
//! Order is not policed where real front-ends differ: SET_VRING_ENABLE, CALL, ERR and KICK may come before
//! SET_FEATURES, SET_OWNER may be missing, GET_VRING_BASE may come first, the memory table may come again at any time.
//! A ring starts as soon as it was kicked and its size, its addresses, the features and a memory table are known.
//!
//! Quoted texts are QEMU's `docs/interop/vhost-user.rst`.

mod outcome;
mod regions;
mod rings;

use guest_memory::RegionConfig;

use crate::message::{DecodeError, F_PROTOCOL_FEATURES, Request, RequestCode, protocol};
use rings::{Ring, RingState};

pub use outcome::{Effect, Outcome, Refusal, Reply, RingConfig};
pub use regions::RegionRefusal;

/// What the device offers, fixed for the life of a connection.
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo {
    /// Feature bits offered by GET_FEATURES. Bit 30 is added when there are protocol features.
    pub features: u64,
    /// Feature bits that SET_FEATURES may carry although they are not offered; they are dropped. QEMU's
    /// vhost-user-scsi sets bits that come from its own command line (bit 2, VIRTIO_SCSI_F_CHANGE).
    pub tolerated_features: u64,
    /// Protocol feature bits offered ([`crate::message::protocol`]).
    pub protocol_features: u64,
    /// Number of queues, 1 to [`QUEUES_MAX`].
    pub queues: u16,
    /// Largest ring, in descriptors; a power of two up to 32768.
    pub queue_size_max: u16,
    /// Most memory regions at a time with CONFIGURE_MEM_SLOTS, at least 1.
    pub max_mem_slots: u64,
}

/// Most queues of one device: SET_VRING_KICK, CALL and ERR have 8 bits for the index.
pub const QUEUES_MAX: u16 = 256;

/// virtio 1.3 §2.1: the driver accepted the features and the device agreed.
const STATUS_FEATURES_OK: u8 = 0x08;
/// virtio 1.3 §2.1: the device broke down and has to be reset. The device's bit, never the driver's.
pub const STATUS_DEVICE_NEEDS_RESET: u8 = 0x40;
/// VIRTIO_F_RING_PACKED (virtio 1.3 §6): packed ring layout.
pub const F_RING_PACKED: u64 = 1 << 34;

/// The back-end's side of one connection.
#[derive(Debug)]
pub struct Session {
    device: DeviceInfo,
    /// Agreed features, without tolerated bits; `None` until SET_FEATURES and after a device reset by status.
    features: Option<u64>,
    protocol_features: u64,
    status: u8,
    regions: Vec<RegionConfig>,
    rings: Vec<Ring>,
    undo: Option<Undo>,
}

/// What the last request replaced, should its effect fail.
#[derive(Debug)]
enum Undo {
    Features(Option<u64>),
    Regions(Vec<RegionConfig>),
}

impl Session {
    /// A conversation that has not begun.
    ///
    /// # Panics
    /// If `device` is outside its bounds.
    pub fn new(device: DeviceInfo) -> Session {
        assert!((1..=QUEUES_MAX).contains(&device.queues), "queues: {}", device.queues);
        assert!(device.queue_size_max.is_power_of_two(), "queue_size_max: {}", device.queue_size_max);
        assert!(device.max_mem_slots >= 1, "max_mem_slots: 0");
        Session {
            device,
            features: None,
            protocol_features: 0,
            status: 0,
            regions: Vec::new(),
            rings: (0..device.queues).map(|_| Ring::default()).collect(),
            undo: None,
        }
    }

    /// Takes one request: what has to be done, in this order, and how to answer.
    ///
    /// If an effect fails, [`Session::take_back`] has to be called before the next request.
    pub fn on(&mut self, request: Request) -> Outcome {
        self.undo = None;
        let mut effects = Vec::new();
        match self.apply(request, &mut effects) {
            Ok(reply) => {
                self.start_ready_rings(&mut effects);
                let reply = gate_ack(reply, self.protocol_features);
                Outcome { effects, reply, refused: None }
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Answers a message that did not decode. Nothing changes.
    pub fn on_malformed(&mut self, error: DecodeError) -> Outcome {
        self.undo = None;
        self.refuse(Refusal::Malformed(error))
    }

    /// Goes back behind the last request because one of its effects failed: old features or memory table, and the
    /// rings in `unperformed` wait again for what they lack. `unperformed` holds the [`Effect::StartRing`]s of that
    /// outcome that came after the failed effect; any other effect is to be performed all the same.
    pub fn take_back(&mut self, unperformed: Vec<Effect>) {
        match self.undo.take() {
            Some(Undo::Features(features)) => self.features = features,
            Some(Undo::Regions(regions)) => self.regions = regions,
            None => {}
        }
        for effect in unperformed {
            if let Effect::StartRing { index, kick, .. } = effect {
                self.rings[usize::from(index)].state = RingState::Waiting(kick);
            }
        }
    }

    /// Remembers where a stopped ring stands: the answer to [`Effect::StopRing`] of a GET_VRING_BASE.
    pub fn stopped_at(&mut self, index: u32, base: u32) {
        if let Some(ring) = self.rings.get_mut(index as usize) {
            ring.base = Some(base);
        }
    }

    /// Where a ring starts next, 0 for a ring that does not exist.
    pub fn base(&self, index: u32) -> u32 {
        self.rings.get(index as usize).and_then(|ring| ring.base).unwrap_or(0)
    }

    /// The status byte that the front-end set; the device's own bit comes from the back-end.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The agreed features, bit 30 included.
    pub fn features(&self) -> Option<u64> {
        self.features
    }

    /// The agreed protocol features.
    pub fn protocol_features(&self) -> u64 {
        self.protocol_features
    }

    /// What this session was made for.
    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn apply(&mut self, request: Request, effects: &mut Vec<Effect>) -> Result<Reply, Refusal> {
        match request {
            Request::GetFeatures => return Ok(Reply::U64(self.offered_features())),
            Request::SetFeatures(value) => self.set_features(value, effects)?,
            Request::SetOwner => {}
            Request::ResetOwner => self.disable_rings(effects),
            Request::GetProtocolFeatures => return Ok(Reply::U64(self.device.protocol_features)),
            Request::SetProtocolFeatures(value) => self.set_protocol_features(value)?,
            Request::GetQueueNum => return Ok(Reply::U64(self.device.queues.into())),
            Request::SetMemTable(regions) => self.set_mem_table(regions, effects)?,
            Request::GetMaxMemSlots => return Ok(Reply::U64(self.device.max_mem_slots)),
            Request::AddMemReg(region, fd) => self.add_region(region, fd, effects)?,
            Request::RemMemReg(region) => self.remove_region(region, effects)?,
            Request::SetVringNum { index, size } => self.set_ring_size(index, size)?,
            Request::SetVringAddr { index, addresses } => self.set_ring_addresses(index, addresses)?,
            Request::SetVringBase { index, base } => self.set_ring_base(index, base)?,
            Request::GetVringBase { index } => return self.stop_ring(index, effects),
            Request::SetVringKick { index, fd } => self.kick_ring(index, fd, effects)?,
            Request::SetVringCall { index, fd } => {
                let index = self.ring_index(RequestCode::SET_VRING_CALL, index)?;
                effects.push(Effect::SetCall { index, fd });
            }
            Request::SetVringErr { index, fd } => {
                let index = self.ring_index(RequestCode::SET_VRING_ERR, index)?;
                effects.push(Effect::SetErr { index, fd });
            }
            Request::SetVringEnable { index, enabled } => self.enable_ring(index, enabled, effects)?,
            Request::SendRarp(mac) => {
                self.needs(RequestCode::SEND_RARP, protocol::RARP)?;
                effects.push(Effect::SendRarp(mac));
            }
            Request::NetSetMtu(mtu) => {
                self.needs(RequestCode::NET_SET_MTU, protocol::MTU)?;
                effects.push(Effect::SetMtu(mtu));
            }
            Request::SetBackendReqFd(fd) => {
                self.needs(RequestCode::SET_BACKEND_REQ_FD, protocol::BACKEND_REQ)?;
                effects.push(Effect::SetBackendRequestFd(fd));
            }
            Request::GetConfig { offset, size, flags } => {
                self.needs(RequestCode::GET_CONFIG, protocol::CONFIG)?;
                return Ok(Reply::Config { offset, size, flags });
            }
            Request::SetConfig { offset, migration, bytes } => {
                self.needs(RequestCode::SET_CONFIG, protocol::CONFIG)?;
                effects.push(Effect::SetConfig { offset, migration, bytes });
            }
            Request::ResetDevice => {
                self.needs(RequestCode::RESET_DEVICE, protocol::RESET_DEVICE)?;
                self.reset(effects);
            }
            Request::SetStatus(status) => self.set_status(status, effects)?,
            Request::GetStatus => return Ok(Reply::Status),
            Request::Unknown(code) => return Err(Refusal::Unsupported { code }),
        }
        Ok(Reply::Ack)
    }

    fn refuse(&self, refusal: Refusal) -> Outcome {
        // Whoever asks for REPLY_ACK in vain takes it as agreed and waits for an acknowledgement.
        let negotiated = match refusal {
            Refusal::ProtocolFeatures { value, offered, .. } => self.protocol_features | value & offered,
            _ => self.protocol_features,
        };
        let reply = gate_ack(refusal.reply(), negotiated);
        Outcome { effects: Vec::new(), reply, refused: Some(refusal) }
    }

    /// Messages behind a protocol feature are served where it is offered, negotiated or not: some front-ends skip
    /// the negotiation on a second connection.
    fn needs(&self, code: RequestCode, bit: u64) -> Result<(), Refusal> {
        if self.device.protocol_features & bit == 0 {
            return Err(Refusal::NotOffered { code, bit: bit.trailing_zeros() });
        }
        Ok(())
    }

    fn offered_features(&self) -> u64 {
        let protocol = if self.device.protocol_features == 0 { 0 } else { F_PROTOCOL_FEATURES };
        self.device.features | protocol
    }

    fn set_features(&mut self, value: u64, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let offered = self.offered_features();
        let running = self.rings.iter().any(Ring::started);
        let extra = value & !(offered | self.device.tolerated_features);
        if extra != 0 {
            if !running {
                self.features = None;
                self.status &= !STATUS_FEATURES_OK;
            }
            return Err(Refusal::Features { extra, offered });
        }
        let agreed = value & offered;
        if running {
            return match self.features {
                Some(features) if features == agreed => Ok(()),
                features => Err(Refusal::FeaturesWhileRunning { value: agreed, running: features.unwrap_or_default() }),
            };
        }
        self.undo = Some(Undo::Features(self.features.replace(agreed)));
        effects.push(Effect::SetFeatures(agreed));
        Ok(())
    }

    fn set_protocol_features(&mut self, value: u64) -> Result<(), Refusal> {
        let offered = self.device.protocol_features;
        if value & !offered != 0 {
            return Err(Refusal::ProtocolFeatures { value, extra: value & !offered, offered });
        }
        self.protocol_features = value;
        Ok(())
    }

    /// virtio 1.3 §2.1 and §3.1.1. Writing 0 resets the device and its features, not the connection: the memory table
    /// and the protocol features stay.
    fn set_status(&mut self, status: u8, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.needs(RequestCode::SET_STATUS, protocol::STATUS)?;
        if status == 0 {
            self.features = None;
            self.reset(effects);
            return Ok(());
        }
        // Front-ends read the status, add bits and write it back: the device's own bit is not theirs to keep.
        self.status = status & !STATUS_DEVICE_NEEDS_RESET;
        if self.features.is_none() {
            self.status &= !STATUS_FEATURES_OK;
        }
        Ok(())
    }

    /// RESET_DEVICE: "disable all rings and reset all internal device state to the initial state, ready to be
    /// reinitialized". Rings lose size, addresses, base and kick. Features, memory table and the call and err
    /// descriptors belong to the connection and stay: QEMU sends err descriptors only once.
    fn reset(&mut self, effects: &mut Vec<Effect>) {
        for (index, ring) in (0u16..).zip(&self.rings) {
            if ring.started() {
                effects.push(Effect::StopRing { index });
            }
        }
        self.disable_rings(effects);
        self.rings.fill_with(Ring::default);
        self.status = 0;
        effects.push(Effect::ResetDevice);
    }
}

/// An acknowledgement is sent only "with this protocol extension negotiated"; the connection looks whether the message
/// asked for it.
fn gate_ack(reply: Reply, negotiated: u64) -> Reply {
    match reply {
        Reply::Ack if negotiated & protocol::REPLY_ACK == 0 => Reply::None,
        other => other,
    }
}

#[cfg(test)]
mod conversation_tests;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod testing;
