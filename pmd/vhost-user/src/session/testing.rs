//! What the session tests share: a conversation in messages as they travel, told back as short lines.

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::message::{self, VringAddresses, mem_table_body, region_body, vring_addr_body, vring_state_body};

pub(super) const VERSION_1: u64 = 1 << 32;
/// VIRTIO_SCSI_F_HOTPLUG, what the test device offers beside VERSION_1.
pub(super) const HOTPLUG: u64 = 1 << 1;
/// VIRTIO_SCSI_F_CHANGE, tolerated.
pub(super) const CHANGE: u64 = 1 << 2;
pub(super) const BIT_30: u64 = 1 << 30;
pub(super) const MIB: u64 = 1 << 20;

/// A scsi controller with one request queue.
pub(super) fn device() -> DeviceInfo {
    DeviceInfo {
        features: VERSION_1 | HOTPLUG,
        tolerated_features: CHANGE,
        protocol_features: protocol::MQ
            | protocol::REPLY_ACK
            | protocol::CONFIG
            | protocol::RESET_DEVICE
            | protocol::CONFIGURE_MEM_SLOTS
            | protocol::STATUS,
        queues: 3,
        queue_size_max: 1024,
        max_mem_slots: 32,
    }
}

pub(super) fn fd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

/// Memory at one address for guest and front-end, as DPDK and SPDK have it.
pub(super) fn region(start: u64, size: u64) -> RegionConfig {
    RegionConfig { guest_addr: start, size, user_addr: start, mmap_offset: 0 }
}

/// Addresses of a ring that differ from ring to ring.
pub(super) fn addresses(index: u32) -> VringAddresses {
    let start = MIB + u64::from(index) * 0x1_0000;
    VringAddresses {
        desc_user: start,
        avail_user: start + 0x4000,
        used_user: start + 0x8000,
        ..VringAddresses::default()
    }
}

/// A conversation; every message goes through the codec.
pub(super) struct Talk {
    pub(super) session: Session,
    /// Descriptors that came out of effects, still open.
    pub(super) held: Vec<OwnedFd>,
}

impl Talk {
    pub(super) fn new() -> Talk {
        Talk::with(device())
    }

    pub(super) fn with(device: DeviceInfo) -> Talk {
        Talk { session: Session::new(device), held: Vec::new() }
    }

    /// Says one message with need_reply not looked at; the answer is `effect, effect -> reply`.
    pub(super) fn say(&mut self, code: u32, body: &[u8], fd_count: usize) -> String {
        let outcome = self.outcome(code, body, fd_count);
        self.tell(outcome)
    }

    pub(super) fn outcome(&mut self, code: u32, body: &[u8], fd_count: usize) -> Outcome {
        let fds = (0..fd_count).map(|_| fd()).collect();
        match message::decode(RequestCode(code), body, fds) {
            Ok(request) => self.session.on(request),
            Err(error) => self.session.on_malformed(error),
        }
    }

    pub(super) fn tell(&mut self, outcome: Outcome) -> String {
        let Outcome { effects, reply, refused } = outcome;
        let effects: Vec<_> = effects.into_iter().map(|effect| self.line(effect)).collect();
        let refused = refused.map(|refusal| format!(" ({refusal})")).unwrap_or_default();
        format!("{} -> {reply:?}{refused}", effects.join(", ")).trim_start().to_string()
    }

    fn line(&mut self, effect: Effect) -> String {
        match effect {
            Effect::SetFeatures(features) => format!("features {features:#x}"),
            Effect::SetMemTable(regions) => {
                let starts: Vec<_> = regions.iter().map(|(r, _)| format!("{:#x}", r.guest_addr)).collect();
                self.held.extend(regions.into_iter().map(|(_, fd)| fd));
                format!("table [{}]", starts.join(" "))
            }
            Effect::AddRegion(region, fd) => {
                self.held.push(fd);
                format!("add {:#x}", region.guest_addr)
            }
            Effect::RemoveRegion(region) => format!("remove {:#x}+{:#x}", region.guest_addr, region.mmap_offset),
            Effect::StartRing { index, config, kick } => {
                let RingConfig { size, base, desc_user, .. } = config;
                format!("start {index} size {size} base {base} desc {desc_user:#x} {}", self.fd(kick))
            }
            Effect::StopRing { index } => format!("stop {index}"),
            Effect::EnableRing { index, enabled: true } => format!("enable {index}"),
            Effect::EnableRing { index, enabled: false } => format!("disable {index}"),
            Effect::SetKick { index, fd } => format!("kick {index} {}", self.fd(fd)),
            Effect::SetCall { index, fd } => format!("call {index} {}", self.fd(fd)),
            Effect::SetErr { index, fd } => format!("err {index} {}", self.fd(fd)),
            Effect::ResetDevice => "reset".to_string(),
            Effect::SetBackendRequestFd(fd) => format!("backend request {}", self.fd(Some(fd))),
            Effect::SetConfig { offset, migration, bytes } => format!("config {offset} {migration} {bytes:?}"),
            Effect::SendRarp(mac) => format!("rarp {mac:?}"),
            Effect::SetMtu(mtu) => format!("mtu {mtu}"),
        }
    }

    fn fd(&mut self, fd: Option<OwnedFd>) -> &'static str {
        let text = if fd.is_some() { "fd" } else { "polled" };
        self.held.extend(fd);
        text
    }

    pub(super) fn set_features(&mut self, features: u64) -> String {
        self.say(2, &features.to_le_bytes(), 0)
    }

    pub(super) fn set_protocol_features(&mut self, features: u64) -> String {
        self.say(16, &features.to_le_bytes(), 0)
    }

    pub(super) fn set_mem_table(&mut self, regions: &[RegionConfig]) -> String {
        self.say(5, &mem_table_body(regions.iter()), regions.len())
    }

    pub(super) fn add_region(&mut self, region: &RegionConfig) -> String {
        self.say(37, &region_body(region), 1)
    }

    pub(super) fn remove_region(&mut self, region: &RegionConfig) -> String {
        self.say(38, &region_body(region), 0)
    }

    pub(super) fn num(&mut self, index: u32, size: u32) -> String {
        self.say(8, &vring_state_body(index, size), 0)
    }

    pub(super) fn addr(&mut self, index: u32, addresses: &VringAddresses) -> String {
        self.say(9, &vring_addr_body(index, addresses), 0)
    }

    pub(super) fn base(&mut self, index: u32, base: u32) -> String {
        self.say(10, &vring_state_body(index, base), 0)
    }

    /// GET_VRING_BASE.
    pub(super) fn stop(&mut self, index: u32) -> String {
        self.say(11, &vring_state_body(index, 0), 0)
    }

    pub(super) fn kick(&mut self, index: u8) -> String {
        self.say(12, &[index, 0, 0, 0, 0, 0, 0, 0], 1)
    }

    pub(super) fn call(&mut self, index: u8) -> String {
        self.say(13, &[index, 0, 0, 0, 0, 0, 0, 0], 1)
    }

    pub(super) fn err(&mut self, index: u8) -> String {
        self.say(14, &[index, 0, 0, 0, 0, 0, 0, 0], 1)
    }

    pub(super) fn enable(&mut self, index: u32, enabled: bool) -> String {
        self.say(18, &vring_state_body(index, enabled.into()), 0)
    }

    pub(super) fn set_status(&mut self, status: u8) -> String {
        self.say(39, &u64::from(status).to_le_bytes(), 0)
    }

    /// Features with bit 30, REPLY_ACK, memory at 1 MiB.
    pub(super) fn negotiated() -> Talk {
        let mut talk = Talk::new();
        talk.set_protocol_features(device().protocol_features);
        talk.set_features(VERSION_1 | BIT_30);
        talk.set_mem_table(&[region(MIB, MIB)]);
        talk
    }

    /// As [`Talk::negotiated`], with a started ring.
    pub(super) fn running(index: u8) -> Talk {
        let mut talk = Talk::negotiated();
        talk.num(index.into(), 128);
        talk.addr(index.into(), &addresses(index.into()));
        let started = talk.kick(index);
        assert!(started.starts_with(&format!("start {index} ")), "{started}");
        talk
    }
}
