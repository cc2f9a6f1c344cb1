//! The control half of a connection: carries out what the session decided, on the shards that live on pollers.
//!
//! Everything slow happens here, on the connection's own thread: mapping and unmapping memory, waiting for requests to
//! end. Shards get ready-made parts through their inbox. Nothing in here decides whether a message is allowed: that is
//! the session's.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError};
use guest_memory::{Mapping, MemTable, RegionConfig};
use parking_lot::Mutex;
use reactor::{Source, SourceHandle};
use virtqueue::{DeviceQueue, Features, RingAddresses, RingFormat};

use crate::connection::log_budget::LogBudget;
use crate::connection::{Answer, Backend, EffectError};
use crate::notify::Notifier;
use crate::ring_set::{RingSet, Stopped};
use crate::ring_stats::RingStats;
use crate::session::{Effect, F_RING_PACKED, RingConfig};

/// VIRTIO_F_EVENT_IDX (virtio 1.3 §6).
pub const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_IN_ORDER (virtio 1.3 §6).
pub const F_IN_ORDER: u64 = 1 << 35;

/// What a device model's shard gives to the control half.
pub trait Shard: Source {
    /// Whether chains may be completed in another order than they were popped in. Where VIRTIO_F_IN_ORDER was agreed on, its
    /// rings put that right; a device that keeps the order by itself needs none of that.
    const COMPLETES_IN_ANY_ORDER: bool = false;

    /// The rings that it owns.
    fn rings(&mut self) -> &mut RingSet;

    /// The device was reset: every ring is stopped. Forget what belonged to the driver.
    fn reset(&mut self);

    /// The driver has accepted these features. For devices of which not only the rings look at them.
    fn set_features(&mut self, features: u64) {
        let _ = features;
    }

    /// SEND_RARP: the guest with this address has come here and cannot announce itself. Called on the first shard.
    fn send_rarp(&mut self, mac: [u8; 6]) {
        let _ = mac;
    }
}

/// Who waits for a connection's requests to end, and since when: a metric (R14).
#[derive(Debug, Default)]
pub struct QuiesceClock(Mutex<Option<Instant>>);

/// One connection's shards, and what they need to know about each other.
pub struct Endpoint<S: Shard> {
    name: Arc<str>,
    shards: Vec<SourceHandle<S>>,
    /// Shard that owns the ring, by ring index.
    routes: Vec<usize>,
    ring_stats: Vec<Arc<RingStats>>,
    config: Box<dyn Fn() -> Vec<u8> + Send>,
    table: Arc<MemTable>,
    features: u64,
    started: BTreeMap<u16, RingConfig>,
    /// Rings that should run but do not map: tried again when the memory changes or the ring is enabled (R16).
    unmapped: BTreeMap<u16, (RingConfig, Option<OwnedFd>)>,
    quiesce: Arc<QuiesceClock>,
    resets: u64,
    /// A front-end decides how often its rings do not start.
    log: LogBudget,
}

/// What an [`Endpoint`] is made of.
pub struct EndpointParts<S: Shard> {
    /// Name of the controller, for logs.
    pub name: Arc<str>,
    /// One handle a shard.
    pub shards: Vec<SourceHandle<S>>,
    /// Position in `shards` of each ring's owner, by ring index.
    pub routes: Vec<usize>,
    /// Counters of each ring, by ring index.
    pub ring_stats: Vec<Arc<RingStats>>,
    /// The device's config space as it is now.
    pub config: Box<dyn Fn() -> Vec<u8> + Send>,
    /// Tells how long somebody has been waiting.
    pub quiesce: Arc<QuiesceClock>,
}

impl QuiesceClock {
    /// How long the oldest waiter has been waiting; zero if nobody is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock() = since;
    }
}

impl<S: Shard> Endpoint<S> {
    /// An endpoint with no memory and no ring started.
    #[must_use]
    pub fn new(parts: EndpointParts<S>) -> Endpoint<S> {
        let EndpointParts { name, shards, routes, ring_stats, config, quiesce } = parts;
        // What takes time is this half's business; in builds with debug assertions that is checked.
        shards.iter().for_each(|shard| shard.run(|_| guest_memory::never_map_on_this_thread()));
        Endpoint {
            name,
            shards,
            routes,
            ring_stats,
            config,
            table: Arc::default(),
            features: 0,
            started: BTreeMap::new(),
            unmapped: BTreeMap::new(),
            quiesce,
            resets: 0,
            log: LogBudget::default(),
        }
    }

    /// How often the front-end has reset the device.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// The front-end is gone: fetching ends at once, requests end in their own time, then shards and memory go. Blocks
    /// until then, so that nothing of the connection is left when it returns.
    pub fn close(mut self) {
        let rings: Vec<u16> = (0..self.routes.len() as u16).collect();
        if let Err(error) = self.stop_rings(&rings) {
            tracing::error!(controller = %self.name, "closing: {error}");
        }
        for shard in self.shards.drain(..) {
            drop(shard.remove());
        }
    }

    fn shard(&self, index: u16) -> Result<&SourceHandle<S>, EffectError> {
        let route = self.routes.get(usize::from(index));
        route.map(|shard| &self.shards[*shard]).ok_or_else(|| {
            EffectError::new(format!("ring {index}: the device has rings 0 to {}", self.routes.len().saturating_sub(1)))
        })
    }

    /// Runs `f` on the rings of the shard that owns ring `index`, and waits for its result.
    fn on_ring<R: Send + 'static>(
        &self,
        index: u16,
        f: impl FnOnce(&mut RingSet) -> R + Send + 'static,
    ) -> Result<R, EffectError> {
        self.shard(index)?.call(move |shard| f(shard.rings())).map_err(|_| self.shard_gone())
    }

    fn shard_gone(&self) -> EffectError {
        EffectError::new(format!("controller {}: a shard has failed, see the log before", self.name))
    }

    /// Waits for something that ends when requests in flight do. Says so after a second.
    fn await_quiet<T>(&self, what: &str, receiver: &Receiver<T>) -> Result<T, EffectError> {
        let since = Instant::now();
        self.quiesce.set(Some(since));
        let mut told = false;
        let result = loop {
            match receiver.recv_timeout(Duration::from_secs(1)) {
                Ok(value) => break Ok(value),
                Err(RecvTimeoutError::Disconnected) => break Err(self.shard_gone()),
                Err(RecvTimeoutError::Timeout) if !told => {
                    told = true;
                    tracing::warn!(controller = %self.name, "{what}: requests in flight have not ended after 1 s");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        self.quiesce.set(None);
        if told {
            tracing::info!(controller = %self.name, "{what}: quiet after {:.1} s", since.elapsed().as_secs_f64());
        }
        result
    }

    fn stop_rings(&mut self, rings: &[u16]) -> Result<Vec<Stopped>, EffectError> {
        // All of them stop fetching before the first one is waited for.
        let mut waits = Vec::with_capacity(rings.len());
        for &index in rings {
            self.unmapped.remove(&index);
            let (back, stopped) = channel::bounded(1);
            self.shard(index)?.run(move |shard| shard.rings().stop(index, back));
            waits.push((index, stopped));
        }
        let mut all = Vec::with_capacity(rings.len());
        for (index, stopped) in waits {
            self.started.remove(&index);
            all.push(self.await_quiet(&format!("stopping ring {index}"), &stopped)?);
        }
        Ok(all)
    }

    fn start_ring(&mut self, index: u16, config: RingConfig, kick: Option<OwnedFd>) -> Result<(), EffectError> {
        let queue = match self.queue_for(&config) {
            Ok(queue) => queue,
            Err(text) => {
                // R16: not the message's fault; the ring does not start, and that is seen on its err descriptor.
                self.tell(index, format_args!("ring does not start: {text}"));
                self.unmapped.insert(index, (config, kick));
                return self.on_ring(index, move |rings| rings.refuse_start(index));
            }
        };
        if let Some(resumed) = queue.resumed_at() {
            let base = config.base;
            self.tell(
                index,
                format_args!("base {base:#x} given, but nothing from {resumed:#x} on was answered: resuming there"),
            );
        }
        let kick = kick.map(Notifier::new);
        drop(self.on_ring(index, move |rings| rings.start(index, queue, kick))?);
        tracing::debug!(controller = %self.name, ring = index, size = config.size, base = config.base, "ring started");
        self.started.insert(index, config);
        Ok(())
    }

    /// Starts a ring that did not map before, if it maps now.
    fn retry(&mut self, index: u16) -> Result<(), EffectError> {
        match self.unmapped.remove(&index) {
            Some((config, kick)) => self.start_ring(index, config, kick),
            None => Ok(()),
        }
    }

    fn format(&self) -> RingFormat {
        if self.features & F_RING_PACKED != 0 { RingFormat::Packed } else { RingFormat::Split }
    }

    fn queue_for(&self, config: &RingConfig) -> Result<DeviceQueue, String> {
        let format = self.format();
        let addresses = ring_addresses(&self.table, config, format)?;
        let features = Features { event_idx: self.features & F_EVENT_IDX != 0 };
        let queue = DeviceQueue::new(format, config.size, addresses, config.base, features);
        let in_order = S::COMPLETES_IN_ANY_ORDER && self.features & F_IN_ORDER != 0;
        queue.map(|queue| if in_order { queue.in_order() } else { queue }).map_err(|error| error.to_string())
    }

    /// Logs a line about a ring, as often as the budget allows.
    fn tell(&mut self, ring: u16, line: fmt::Arguments<'_>) {
        if let Some(left_out) = self.log.spend(Instant::now()) {
            tracing::warn!(controller = %self.name, ring, left_out, "{line}");
        }
    }

    fn disable_ring(&mut self, index: u16) -> Result<(), EffectError> {
        let (back, disabled) = channel::bounded(1);
        self.shard(index)?.run(move |shard| shard.rings().disable(index, back));
        self.await_quiet(&format!("disabling ring {index}"), &disabled)
    }

    fn reset(&mut self) -> Result<(), EffectError> {
        let rings: Vec<u16> = (0..self.routes.len() as u16).collect();
        self.stop_rings(&rings)?;
        for shard in &self.shards {
            shard.call(Shard::reset).map_err(|_| self.shard_gone())?;
        }
        self.resets += 1;
        Ok(())
    }

    /// Gives every shard the new table and waits until none uses the old one; then the old one is unmapped, here.
    fn swap_table(&mut self, table: MemTable) -> Result<(), EffectError> {
        let table = Arc::new(table);
        let mut moved = Vec::new();
        let mut lost = Vec::new();
        for (index, config) in &self.started {
            match ring_addresses(&table, config, self.format()) {
                Ok(addresses) => moved.push((*index, addresses)),
                Err(text) => lost.push((*index, text)),
            }
        }
        for (index, text) in lost {
            self.tell(index, format_args!("new memory table: {text}"));
        }
        let moved: Arc<[(u16, RingAddresses)]> = moved.into();
        let (back, retired) = channel::bounded(self.shards.len());
        for shard in &self.shards {
            let (table, moved, back) = (Arc::clone(&table), Arc::clone(&moved), back.clone());
            shard.run(move |shard| shard.rings().swap_table(table, &moved, back));
        }
        drop(back);
        for _ in 0..self.shards.len() {
            drop(self.await_quiet("changing the memory table", &retired)?);
        }
        self.table = table;
        let unmapped: Vec<u16> = self.unmapped.keys().copied().collect();
        unmapped.into_iter().try_for_each(|index| self.retry(index))
    }

    fn map(&self, regions: &[(RegionConfig, OwnedFd)]) -> Result<Vec<Arc<Mapping>>, EffectError> {
        let mut mappings = Vec::with_capacity(regions.len());
        for (config, fd) in regions {
            let mapping = Mapping::map(fd.as_fd(), config).map_err(|error| EffectError::new(error.to_string()))?;
            tracing::debug!(
                controller = %self.name,
                "mapped guest addresses {:#x}+{:#x}", config.guest_addr, config.size
            );
            mappings.push(Arc::new(mapping));
        }
        Ok(mappings)
    }
}

impl<S: Shard> Backend for Endpoint<S> {
    fn perform(&mut self, effect: Effect) -> Result<Answer, EffectError> {
        let text = |error: guest_memory::TableError| EffectError::new(error.to_string());
        match effect {
            Effect::SetFeatures(features) => {
                self.features = features;
                self.shards.iter().for_each(|shard| shard.run(move |shard| shard.set_features(features)));
            }
            Effect::SetMemTable(regions) => {
                let table = MemTable::new(self.map(&regions)?).map_err(text)?;
                self.swap_table(table)?;
            }
            Effect::AddRegion(config, fd) => {
                let mapping = self.map(&[(config, fd)])?.remove(0);
                self.swap_table(self.table.with(mapping).map_err(text)?)?;
            }
            Effect::RemoveRegion(config) => self.swap_table(self.table.without(&config).map_err(text)?)?,
            Effect::StartRing { index, config, kick } => self.start_ring(index, config, kick)?,
            Effect::StopRing { index } => {
                let stopped = self.stop_rings(&[index])?;
                return Ok(stopped[0].base.map_or(Answer::Done, Answer::Base));
            }
            Effect::EnableRing { index, enabled: true } => {
                self.retry(index)?;
                self.on_ring(index, move |rings| rings.enable(index))?;
            }
            Effect::EnableRing { index, enabled: false } => self.disable_ring(index)?,
            Effect::SetKick { index, fd } if self.unmapped.contains_key(&index) => {
                self.unmapped.entry(index).and_modify(|(_, kick)| *kick = fd);
            }
            Effect::SetKick { index, fd } => {
                let kick = fd.map(Notifier::new);
                drop(self.on_ring(index, move |rings| rings.set_kick(index, kick))?);
            }
            Effect::SetCall { index, fd } => {
                let call = fd.map(Notifier::new);
                drop(self.on_ring(index, move |rings| rings.set_call(index, call))?);
            }
            Effect::SetErr { index, fd } => {
                let err = fd.map(Notifier::new);
                drop(self.on_ring(index, move |rings| rings.set_err(index, err))?);
            }
            Effect::ResetDevice => self.reset()?,
            Effect::SendRarp(mac) => self.shards[0].run(move |shard| shard.send_rarp(mac)),
            other => return Err(EffectError::new(format!("{other:?}: not supported by this device"))),
        }
        Ok(Answer::Done)
    }

    fn config(&self) -> Vec<u8> {
        (self.config)()
    }

    fn needs_reset(&self) -> bool {
        self.ring_stats.iter().any(|ring| ring.broken.value() != 0)
    }
}

fn ring_addresses(table: &MemTable, config: &RingConfig, format: RingFormat) -> Result<RingAddresses, String> {
    let part = |name, addr, len| {
        table.translate_user(addr, len).ok_or_else(|| {
            format!("{name} at user address {addr:#x}, {len} bytes: not in one region of the memory table")
        })
    };
    let [desc, avail, used] = format.area_lens(config.size);
    let names = match format {
        RingFormat::Split => ["descriptor table", "available ring", "used ring"],
        RingFormat::Packed => ["descriptor ring", "driver event suppression", "device event suppression"],
    };
    Ok(RingAddresses {
        desc: part(names[0], config.desc_user, desc)?,
        avail: part(names[1], config.avail_user, avail)?,
        used: part(names[2], config.used_user, used)?,
    })
}
