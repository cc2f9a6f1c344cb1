//! SPDK in a program that was built with it.

use std::sync::Arc;

use bdev::Bdev;
use bdev_spdk::{Awaited, BdevEvent, Environment, Part, SpdkBdev, SpdkConfig};
use crossbeam::channel::Sender;
use reactor::PollerHandle;
use serde_json::json;

use super::{Counts, Event, Memory, OpenError, Opened};
use crate::config::{self, Config, SpdkCall};
use crate::ports::SharedEal;

/// SPDK, if the configuration needs it. A handle: clones are the same.
#[derive(Clone, Default)]
pub struct Spdk(Option<Arc<bdev_spdk::Spdk>>);

/// A bdev of it.
pub struct Device(SpdkBdev);

/// Which SPDK it is: "SPDK v26.05".
#[must_use]
pub fn version() -> Option<String> {
    Some(bdev_spdk::version())
}

impl Spdk {
    /// Starts SPDK, if the configuration needs it: over `eal`, if that runs. What happens to bdevs is sent to `events`.
    ///
    /// # Errors
    /// It does not start; the text says why.
    pub fn start(config: &Config, eal: Option<SharedEal>, events: Sender<Event>) -> Result<Spdk, String> {
        if !super::is_wanted(config) {
            return Ok(Spdk(None));
        }
        let spdk = SpdkConfig {
            config: config.spdk.config.clone(),
            inline: config.spdk.calls.iter().enumerate().map(part).collect(),
            rpc_socket: config.spdk.rpc_socket.clone(),
            memory_mib: config.spdk.memory.map(|size| u32::try_from(size.bytes() >> 20).unwrap_or(u32::MAX)),
            ordinary_memory: config.spdk.ordinary_memory,
            pci: config.spdk.pci.clone(),
            poller_cores: config.reactor.cores.clone(),
        };
        let tell = move |name: &str, event: BdevEvent| {
            let bdev = name.to_owned();
            let event = match event {
                BdevEvent::Appeared => Event::Appeared { bdev },
                BdevEvent::Removed => Event::Removed { bdev },
                BdevEvent::Resized { block_count } => Event::Resized { bdev, block_count },
            };
            let _ = events.send(event); // nobody listens any more at the end
        };
        let started = bdev_spdk::Spdk::start(&spdk, environment(eal), tell).map_err(|error| error.to_string())?;
        Ok(Spdk(Some(Arc::new(started))))
    }

    /// Gives each of these pollers an SPDK thread.
    ///
    /// # Errors
    /// SPDK has no memory for one more.
    pub fn join(&self, pollers: &[PollerHandle]) -> Result<(), String> {
        let Some(spdk) = &self.0 else { return Ok(()) };
        pollers.iter().try_for_each(|poller| spdk.join(poller)).map_err(|error| error.to_string())
    }

    /// Opens a bdev.
    ///
    /// # Errors
    /// SPDK has none like that, or is not there: then this is a reload, and the target was started without.
    pub fn open(&self, name: &str, config: &config::SpdkBdev) -> Result<Opened, OpenError> {
        let refused = || OpenError::Refused("SPDK is started with the target only".to_owned());
        let spdk = self.0.as_ref().ok_or_else(refused)?;
        let opened = SpdkBdev::open(spdk, name, &config.bdev, config.read_only).map_err(|error| match error {
            _ if error.is_missing() => OpenError::Missing(error.to_string()),
            _ => OpenError::Refused(error.to_string()),
        })?;
        let device = Arc::new(Device(opened));
        Ok(Opened { bdev: Arc::clone(&device) as Arc<dyn Bdev>, device })
    }

    /// Has SPDK looked after for these, by their names here, and no others: they are told as [`Event::Appeared`].
    pub fn wait_for<'b>(&self, bdevs: impl Iterator<Item = (&'b str, &'b config::SpdkBdev)>) {
        let awaited =
            |(name, config): (&str, &config::SpdkBdev)| Awaited { device: name.to_owned(), bdev: config.bdev.clone() };
        if let Some(spdk) = &self.0 {
            spdk.wait_for(bdevs.map(awaited).collect());
        }
    }

    /// Memory of front-ends, and what of it SPDK knows.
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        let counts = self.0.as_ref()?.memory_counts();
        Some(Memory { mapped: counts.mapped_bytes, registered: counts.registered_bytes })
    }

    /// Takes the SPDK threads back from pollers that still run. Nobody has a channel any more.
    pub fn leave_pollers(&self) {
        if let Some(spdk) = &self.0 {
            spdk.leave_pollers();
        }
    }

    /// Closes what is open, and ends SPDK.
    pub fn stop(&self) {
        if let Some(spdk) = &self.0 {
            spdk.stop();
        }
    }
}

impl Device {
    /// Whether SPDK takes it away: every request fails.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.0.is_removed()
    }

    /// What its channels have counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counts = self.0.counts();
        Counts {
            direct: counts.direct,
            lent: counts.lent,
            bounced: counts.bounced,
            starved: counts.starved,
            waited: counts.waited,
        }
    }
}

impl Bdev for Device {
    fn info(&self) -> &bdev::BdevInfo {
        self.0.info()
    }

    fn block_count(&self) -> u64 {
        self.0.block_count()
    }

    fn open(&self) -> bdev::Channel {
        self.0.open()
    }
}

/// A call as SPDK's configuration files have it. Which subsystem it is said to belong to is not looked at.
fn part((index, SpdkCall { method, params }): (usize, &SpdkCall)) -> Part {
    let json = json!({"subsystems": [{"subsystem": "bdev", "config": [{"method": method, "params": params}]}]});
    let name = format!("call[{index}], {method:?} with {}", json!(params));
    Part { name, json: json.to_string().into_bytes() }
}

#[cfg(feature = "dpdk")]
fn environment(eal: Option<SharedEal>) -> Environment {
    eal.map_or(Environment::Own, |started| Environment::Shared(started.eal, started.legacy_memory))
}

#[cfg(not(feature = "dpdk"))]
fn environment(_: Option<SharedEal>) -> Environment {
    Environment::Own
}
