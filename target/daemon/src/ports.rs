//! The ports of a running target, by name: made from the configuration when it starts, gone when it ends. What a port does is
//! in the crates `port` and `port-dpdk`.
//!
//! Ports are opened before there are pollers (DPDK's environment starts threads of its own, and narrows the affinity of its
//! caller), and closed after they have ended.

use std::fmt;
use std::sync::Arc;

use port::{Loopback, LoopbackConfig, Port, PortStats};

use crate::config::{self, Config, PortKind};

#[cfg(feature = "dpdk")]
mod dpdk;

/// The ports there are. A handle: clones see the same ports.
#[derive(Clone, Default)]
pub struct Ports {
    entries: Arc<[Entry]>,
    uplinks: Arc<[Uplink]>,
}

/// One port.
pub struct Entry {
    /// The port.
    pub port: Arc<dyn Port>,
    /// The word of the configuration for its kind.
    pub kind: &'static str,
}

/// A port that a switch has as its uplink.
pub struct Uplink {
    /// The switch's name.
    pub switch: String,
    /// The port's name.
    pub port: String,
    /// What the port counts for the switch.
    pub stats: Arc<PortStats>,
}

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
    /// Makes those of a configuration. Starts DPDK if one of them needs it.
    ///
    /// # Errors
    /// The first one that cannot be made.
    pub fn open(config: &Config) -> Result<Ports, OpenError> {
        #[cfg(feature = "dpdk")]
        let dpdk = dpdk::Dpdk::start(config)?;
        let entry = |(index, port): (usize, &config::Port)| {
            let opened: Arc<dyn Port> = match &port.kind {
                PortKind::Loopback(loopback) => Arc::new(Loopback::new(&port.name, loopback_config(loopback))),
                PortKind::Switch(_) => {
                    return Err(OpenError::new(index, "this kind is not built into this version"));
                }
                #[cfg(feature = "dpdk")]
                PortKind::Dpdk(_) => dpdk.open(index, port)?,
                #[cfg(not(feature = "dpdk"))]
                PortKind::Dpdk(_) => unreachable!("the configuration was checked"),
            };
            Ok(Entry { port: opened, kind: port.kind.as_str() })
        };
        let uplink = |port: &config::Port| {
            let uplink = port.kind.uplink()?;
            let (switch, port) = (port.name.as_str().to_owned(), uplink.as_str().to_owned());
            Some(Uplink { switch, port, stats: Arc::default() })
        };
        Ok(Ports {
            entries: config.ports.iter().enumerate().map(entry).collect::<Result<_, _>>()?,
            uplinks: config.ports.iter().filter_map(uplink).collect(),
        })
    }

    /// All of them, in the order of the configuration.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Which of them are uplinks of switches.
    #[must_use]
    pub fn uplinks(&self) -> &[Uplink] {
        &self.uplinks
    }

    /// The port of that name.
    ///
    /// # Panics
    /// If there is none: the configuration was checked.
    #[must_use]
    pub fn named(&self, name: &str) -> Arc<dyn Port> {
        let entry = self.entries.iter().find(|entry| entry.port.name() == name);
        Arc::clone(&entry.expect("the configuration was checked").port)
    }
}

impl OpenError {
    fn new(index: usize, text: impl fmt::Display) -> OpenError {
        OpenError { key: format!("port[{index}]"), text: text.to_string() }
    }
}

fn loopback_config(loopback: &config::Loopback) -> LoopbackConfig {
    LoopbackConfig { frames_max: loopback.depth.into() }
}
