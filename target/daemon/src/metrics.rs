//! `/metrics`: what pollers and control threads have counted, as text. A scrape reads counters that pollers write without
//! ever waiting for a poller.
//!
//! Which metrics there are is in `catalogue.rs`; where their numbers come from is here and in the modules named as the groups
//! of the catalogue. Collectors hand samples to `families.rs`, which puts them into the `prometheus` crate's types; the text is
//! that crate's, or `openmetrics.rs`'s.

mod bdevs;
pub mod catalogue;
mod families;
mod format;
mod net;
mod openmetrics;
mod pollers;
mod ports;
mod process;
mod scsi;
mod served;
mod watched;

pub use self::format::Format;
pub use self::watched::Watched;

use std::sync::Arc;

use prometheus::TextEncoder;
use reactor::Tsc;

use self::families::Families;
use self::served::Served;
use crate::bdevs::Bdevs;
use crate::health::Health;
use crate::ports::Ports;
use crate::service::{NetService, ScsiService};

/// Everything that is exported.
pub struct Exporter {
    sources: Sources,
}

impl Exporter {
    /// An exporter over these.
    #[must_use]
    pub fn new(sources: Sources) -> Exporter {
        Exporter { sources }
    }

    /// The text as of now.
    #[must_use]
    pub fn text(&self, format: Format) -> String {
        let began = Tsc::now();
        let mut text = String::with_capacity(self.watched().text_len(format));
        for family in self.sources.families().into_iter() {
            match format {
                Format::OpenMetrics => openmetrics::encode(&family, &mut text),
                Format::Prometheus => {
                    let encoded = TextEncoder::new().encode_utf8(&[family.samples], &mut text);
                    encoded.expect("a string takes everything, and a family has samples");
                }
            }
        }
        if format == Format::OpenMetrics {
            openmetrics::end(&mut text);
        }
        self.watched().scraped(format, Tsc::now() - began, text.len());
        text
    }

    /// What is counted of its being asked.
    #[must_use]
    pub fn watched(&self) -> &Arc<Watched> {
        &self.sources.watched
    }
}

/// Where the numbers come from.
#[derive(Default)]
pub struct Sources {
    /// The controllers.
    pub controllers: Vec<Arc<ScsiService>>,
    /// The net devices.
    pub nets: Vec<Arc<NetService>>,
    /// The pollers, and whether they turn.
    pub health: Arc<Health>,
    /// The block devices.
    pub bdevs: Bdevs,
    /// The ports.
    pub ports: Ports,
    /// What is done to the target from outside.
    pub watched: Arc<Watched>,
}

impl Sources {
    fn families(&self) -> Families {
        let mut families = Families::default();
        process::collect(&mut families);
        self.watched.collect(&mut families);
        pollers::collect(&self.health, &mut families);
        bdevs::collect(&self.bdevs, &mut families);
        bdevs::spdk_memory(self.bdevs.spdk(), &mut families);
        served::collect(&self.served(), &mut families);
        scsi::collect(&self.controllers, &mut families);
        net::collect(&self.nets, &mut families);
        ports::collect(&self.ports, &self.nets, &mut families);
        families
    }

    /// What is behind sockets, whatever it is.
    fn served(&self) -> Vec<Served> {
        let scsi = self.controllers.iter().map(|service| {
            let blocks = service.device().stats();
            Served::new(service, blocks.iter().flat_map(|block| &block.rings))
        });
        let net = self.nets.iter().map(|service| {
            let blocks = service.device().stats();
            Served::new(service, blocks.iter().flat_map(|block| &block.rings))
        });
        scsi.chain(net).collect()
    }
}

fn seconds(ticks: u64) -> f64 {
    Tsc::nanos(ticks) as f64 / 1e9
}
