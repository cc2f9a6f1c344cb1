//! The ports of a running target, by name: made from the configuration when it starts, gone when it ends. What a port does is
//! in the crates `port` and `port-dpdk`.
//!
//! Ports are opened before there are pollers (DPDK's environment starts threads of its own, and narrows the affinity of its
//! caller), and closed after they have ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use port::{AttachError, Loopback, LoopbackConfig, Port, Switch, SwitchConfig, Uplink};
use reactor::{PollerHandle, SourceHandle};

use crate::config::{self, Config, PortKind};

#[cfg(feature = "dpdk")]
mod dpdk;

/// DPDK's environment, for whoever shares it.
#[cfg(feature = "dpdk")]
pub type SharedEal = port_dpdk::StartedEal;
/// DPDK's environment, of which there is none.
#[cfg(not(feature = "dpdk"))]
pub type SharedEal = std::convert::Infallible;

/// Which DPDK it is: "DPDK 22.11.11". None in a program that was built without it.
#[must_use]
pub fn dpdk_version() -> Option<String> {
    #[cfg(feature = "dpdk")]
    return Some(port_dpdk::version());
    #[cfg(not(feature = "dpdk"))]
    None
}

/// The ports there are. A handle: clones see the same ports.
#[derive(Clone, Default)]
pub struct Ports(Arc<[Entry]>);

/// One port.
pub struct Entry {
    /// The port.
    pub port: Arc<dyn Port>,
    /// The word of the configuration for its kind.
    pub kind: &'static str,
    /// The same port, if it is a switch.
    pub switch: Option<OpenSwitch>,
}

/// A switch, and what it is plugged into.
pub struct OpenSwitch {
    /// The switch.
    pub switch: Arc<Switch>,
    /// Name of the port that is its uplink.
    pub uplink: Option<String>,
    poller: usize,
}

/// The sources that move frames between switches and their uplinks. Taken back from their pollers when this is dropped, on a
/// control thread.
#[derive(Default)]
pub struct Uplinks(Vec<SourceHandle<Uplink>>);

/// A port that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {text}")]
pub struct OpenError {
    /// Its key in the configuration.
    pub key: String,
    /// What is wrong.
    pub text: String,
}

impl Ports {
    /// Makes those of a configuration. Starts DPDK if one of them needs it; then its environment comes with them.
    ///
    /// # Errors
    /// The first one that cannot be made.
    pub fn open(config: &Config) -> Result<(Ports, Option<SharedEal>), OpenError> {
        #[cfg(feature = "dpdk")]
        let dpdk = dpdk::Dpdk::start(config)?;
        let mut opened: Vec<(usize, Entry)> = Vec::with_capacity(config.ports.len());
        // Switches come last: what is their uplink is no switch.
        let (switches, others): (Vec<_>, Vec<_>) =
            config.ports.iter().enumerate().partition(|(_, port)| matches!(port.kind, PortKind::Switch(_)));
        for (index, port) in others.into_iter().chain(switches) {
            let kind = port.kind.as_str();
            let entry = match &port.kind {
                PortKind::Loopback(loopback) => {
                    let config = LoopbackConfig { frames_max: loopback.depth.into() };
                    Entry { port: Arc::new(Loopback::new(&port.name, config)), kind, switch: None }
                }
                PortKind::Switch(switch) => open_switch(config, index, switch, &opened)?,
                #[cfg(feature = "dpdk")]
                PortKind::Dpdk(_) => Entry { port: dpdk.open(index, port)?, kind, switch: None },
                #[cfg(not(feature = "dpdk"))]
                PortKind::Dpdk(_) => unreachable!("the configuration was checked"),
            };
            opened.push((index, entry));
        }
        opened.sort_by_key(|(index, _)| *index);
        #[cfg(feature = "dpdk")]
        let eal = dpdk.started();
        #[cfg(not(feature = "dpdk"))]
        let eal = None;
        Ok((Ports(opened.into_iter().map(|(_, entry)| entry).collect()), eal))
    }

    /// All of them, in the order of the configuration.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The port of that name.
    ///
    /// # Panics
    /// If there is none: the configuration was checked.
    #[must_use]
    pub fn named(&self, name: &str) -> Arc<dyn Port> {
        let entry = self.0.iter().find(|entry| entry.port.name() == name);
        Arc::clone(&entry.expect("the configuration was checked").port)
    }

    /// Plugs switches into their uplinks, whose frames some of these pollers move from now on.
    ///
    /// # Errors
    /// The first uplink that does not take its switch; those before it are unplugged again.
    pub fn plug_uplinks(&self, pollers: &[PollerHandle]) -> Result<Uplinks, OpenError> {
        let mut uplinks = Uplinks::default();
        for (index, entry) in self.0.iter().enumerate() {
            let Some(switch) = &entry.switch else { continue };
            let poller = pollers.iter().find(|poller| poller.core() == switch.poller);
            let poller = poller.expect("the configuration was checked");
            let failed = |error: AttachError| OpenError::new(index, error);
            uplinks.0.extend(switch.switch.uplink_source(poller).map_err(failed)?.map(|uplink| poller.add(uplink)));
        }
        Ok(uplinks)
    }
}

impl Drop for Uplinks {
    fn drop(&mut self) {
        for uplink in self.0.drain(..) {
            drop(uplink.remove()); // one that has panicked was dropped where it is
        }
    }
}

fn open_switch(
    config: &Config,
    index: usize,
    switch: &config::Switch,
    opened: &[(usize, Entry)],
) -> Result<Entry, OpenError> {
    let uplink = switch.uplink.as_deref();
    let port = uplink.and_then(|name| opened.iter().map(|(_, entry)| &entry.port).find(|port| port.name() == name));
    let name = &config.ports[index].name;
    let opened = Switch::new(name, switch_config(config, name, switch), port.cloned())
        .map_err(|error| OpenError::new(index, error))?;
    let opened = Arc::new(opened);
    Ok(Entry {
        port: Arc::clone(&opened) as Arc<dyn Port>,
        kind: config.ports[index].kind.as_str(),
        switch: Some(OpenSwitch { switch: opened, uplink: uplink.map(str::to_owned), poller: switch.poller }),
    })
}

fn switch_config(config: &Config, name: &config::Name, switch: &config::Switch) -> SwitchConfig {
    let usual = SwitchConfig::default();
    let devices = config.nets.iter().filter(|net| net.port == *name).count();
    let uplink_mtu = switch.uplink.as_deref().and_then(|uplink| config.port(uplink)?.kind.mtu());
    SwitchConfig {
        entries_max: switch.table_size,
        device_entries_max: switch.device_table_size,
        age: Duration::from_secs(switch.ageing_s.into()),
        devices_max: devices.max(1),
        uplink_mtu: uplink_mtu.unwrap_or(config::MTU_MAX),
        ..usual
    }
}

impl OpenError {
    fn new(index: usize, text: impl fmt::Display) -> OpenError {
        OpenError { key: format!("port[{index}]"), text: text.to_string() }
    }
}
