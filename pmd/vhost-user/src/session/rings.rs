//! The state of each ring as messages change it: configuration, kick, enabled or not. No ring memory is touched.

use std::os::fd::OwnedFd;

use virtqueue::RingFormat;

use super::{Effect, F_RING_PACKED, Refusal, Reply, RingConfig, Session};
use crate::message::{F_PROTOCOL_FEATURES, RequestCode, VringAddresses};

/// What messages have said about one ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    size: Option<u16>,
    addresses: Option<VringAddresses>,
    /// What the front-end said, or was told when the ring stopped.
    pub(super) base: Option<u32>,
    /// "Ring states": tracked while the ring is stopped, too.
    enabled: bool,
    pub(super) state: RingState,
}

/// Stopped, kicked, or started.
#[derive(Debug, Default)]
pub(super) enum RingState {
    #[default]
    Stopped,
    /// SET_VRING_KICK came, but something else is missing.
    Waiting(Option<OwnedFd>),
    Started,
}

impl Ring {
    pub(super) fn started(&self) -> bool {
        matches!(self.state, RingState::Started)
    }

    fn config(&self, packed: bool) -> Option<RingConfig> {
        let (size, addresses) = (self.size?, self.addresses?);
        Some(RingConfig {
            size,
            base: self.base.unwrap_or(if packed { RingFormat::Packed } else { RingFormat::Split }.first_base()),
            desc_user: addresses.desc_user,
            avail_user: addresses.avail_user,
            used_user: addresses.used_user,
            flags: addresses.flags,
            log_guest: addresses.log_guest,
        })
    }
}

impl Session {
    /// SET_VRING_NUM (R16).
    pub(super) fn set_ring_size(&mut self, index: u32, size: u32) -> Result<(), Refusal> {
        let max = self.device.queue_size_max;
        let packed = self.features.unwrap_or_default() & F_RING_PACKED != 0;
        let (index, ring) = self.stopped_ring(RequestCode::SET_VRING_NUM, index)?;
        match u16::try_from(size) {
            Ok(size) if (1..=max).contains(&size) && (packed || size.is_power_of_two()) => {
                ring.size = Some(size);
                Ok(())
            }
            _ => Err(Refusal::RingSize { index, size, max }),
        }
    }

    /// SET_VRING_ADDR. On a started ring only the log flag may change: QEMU toggles it that way.
    pub(super) fn set_ring_addresses(&mut self, index: u32, new: VringAddresses) -> Result<(), Refusal> {
        let code = RequestCode::SET_VRING_ADDR;
        let index = self.ring_index(code, index)?;
        let ring = &mut self.rings[usize::from(index)];
        let places = |a: &VringAddresses| (a.desc_user, a.avail_user, a.used_user);
        if ring.started() && ring.addresses.as_ref().map(places) != Some(places(&new)) {
            return Err(Refusal::RingStarted { code, index });
        }
        ring.addresses = Some(new);
        Ok(())
    }

    /// SET_VRING_BASE. Packed rings put more than an index into it.
    pub(super) fn set_ring_base(&mut self, index: u32, base: u32) -> Result<(), Refusal> {
        let packed = self.features.unwrap_or(self.device.features) & F_RING_PACKED != 0;
        let (index, ring) = self.stopped_ring(RequestCode::SET_VRING_BASE, index)?;
        if base > 0xffff && !packed {
            return Err(Refusal::RingBase { index, base });
        }
        ring.base = Some(base);
        Ok(())
    }

    /// SET_VRING_KICK: the ring starts, now or when the rest is known. Nothing waits for the descriptor to be
    /// signalled, as the ring is polled.
    pub(super) fn kick_ring(
        &mut self,
        index: u32,
        fd: Option<OwnedFd>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let index = self.ring_index(RequestCode::SET_VRING_KICK, index)?;
        let ring = &mut self.rings[usize::from(index)];
        if ring.started() {
            effects.push(Effect::SetKick { index, fd });
        } else {
            ring.state = RingState::Waiting(fd);
        }
        Ok(())
    }

    /// GET_VRING_BASE: "stop ring upon receiving". Size, addresses, base and enabled are kept, the kick is not.
    pub(super) fn stop_ring(&mut self, index: u32, effects: &mut Vec<Effect>) -> Result<Reply, Refusal> {
        let ring = self.ring_index(RequestCode::GET_VRING_BASE, index)?;
        let state = std::mem::take(&mut self.rings[usize::from(ring)].state);
        if matches!(state, RingState::Started) {
            effects.push(Effect::StopRing { index: ring });
        }
        Ok(Reply::VringBase { index })
    }

    /// SET_VRING_ENABLE, in any state of the ring. Said again, it is performed again: a ring that did not map gets
    /// another chance.
    pub(super) fn enable_ring(&mut self, index: u32, enabled: bool, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let index = self.ring_index(RequestCode::SET_VRING_ENABLE, index)?;
        self.rings[usize::from(index)].enabled = enabled;
        effects.push(Effect::EnableRing { index, enabled });
        Ok(())
    }

    /// RESET_OWNER: "It is recommended that back-ends either ignore this message, or use it to disable all rings."
    pub(super) fn disable_rings(&mut self, effects: &mut Vec<Effect>) {
        for (index, ring) in (0u16..).zip(&mut self.rings) {
            if std::mem::take(&mut ring.enabled) {
                effects.push(Effect::EnableRing { index, enabled: false });
            }
        }
    }

    /// Starts every ring that was kicked and lacks nothing any more.
    pub(super) fn start_ready_rings(&mut self, effects: &mut Vec<Effect>) {
        let Some(features) = self.features else { return };
        if self.regions.is_empty() {
            return;
        }
        for (index, ring) in (0u16..).zip(&mut self.rings) {
            let Some(config) = ring.config(features & F_RING_PACKED != 0) else { continue };
            let kick = match std::mem::take(&mut ring.state) {
                RingState::Waiting(kick) => kick,
                other => {
                    ring.state = other;
                    continue;
                }
            };
            // "If F_PROTOCOL_FEATURES has not been negotiated, the ring starts directly in the enabled state."
            if features & F_PROTOCOL_FEATURES == 0 && !ring.enabled {
                ring.enabled = true;
                effects.push(Effect::EnableRing { index, enabled: true });
            }
            ring.state = RingState::Started;
            effects.push(Effect::StartRing { index, config, kick });
        }
    }

    pub(super) fn ring_index(&self, code: RequestCode, index: u32) -> Result<u16, Refusal> {
        let queues = self.device.queues;
        match u16::try_from(index) {
            Ok(ring) if ring < queues => Ok(ring),
            _ => Err(Refusal::RingIndex { code, index, queues }),
        }
    }

    fn stopped_ring(&mut self, code: RequestCode, index: u32) -> Result<(u16, &mut Ring), Refusal> {
        let index = self.ring_index(code, index)?;
        let ring = &mut self.rings[usize::from(index)];
        if ring.started() {
            return Err(Refusal::RingStarted { code, index });
        }
        Ok((index, ring))
    }
}
