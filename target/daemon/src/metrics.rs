//! `/metrics`: what pollers and control threads have counted, as Prometheus text. A scrape reads counters that pollers
//! write without ever waiting for a poller.
//!
//! This file says which families there are and where their numbers come from; the text is the `prometheus` crate's, the
//! plumbing to its types is `families.rs`.

mod bdevs;
mod families;
mod net;
mod ports;
mod served;

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};
use reactor::{PollerHandle, Tsc};
use stats::{Counter, Histogram, HistogramSnapshot};
use virtio_scsi::wire::event;
use virtio_scsi::{Limit, Place, SENSE_KEY_NAMES, ShardStats, TMF_NAMES, UnitStats};

use self::families::{Families, Family, Kind};
use self::served::Served;
use crate::bdevs::Bdevs;
use crate::ports::Ports;
use crate::service::{NetService, ScsiService};

/// Everything that is exported.
pub struct Exporter {
    registry: Registry,
}

impl Exporter {
    /// The type of the text (Prometheus exposition format 0.0.4).
    pub const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;

    /// An exporter over these.
    ///
    /// # Panics
    /// Never: the registry is new, so that nothing can be registered twice.
    #[must_use]
    pub fn new(sources: Sources) -> Exporter {
        let registry = Registry::new();
        registry.register(Box::new(sources)).expect("the first collector of a registry");
        Exporter { registry }
    }

    /// The text as of now.
    #[must_use]
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!("metrics: {error}");
            String::new()
        })
    }
}

/// Where the numbers come from.
#[derive(Default)]
pub struct Sources {
    /// The controllers.
    pub controllers: Vec<Arc<ScsiService>>,
    /// The net devices.
    pub nets: Vec<Arc<NetService>>,
    /// The pollers.
    pub pollers: Vec<PollerHandle>,
    /// The block devices.
    pub bdevs: Bdevs,
    /// The ports.
    pub ports: Ports,
}

impl Collector for Sources {
    /// None: families without samples are left out of the text, which descriptors could not express.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        build_info(&mut families);
        self.pollers(&mut families);
        bdevs::collect(&self.bdevs.devices(), &mut families);
        bdevs::spdk_memory(self.bdevs.spdk(), &mut families);
        let served: Vec<Served> = self.served();
        served::sessions(&served, &mut families);
        self.limits(&mut families);
        self.units(&mut families);
        self.responses(&mut families);
        self.events(&mut families);
        self.task_management(&mut families);
        served::virtqueues(&served, &mut families);
        net::collect(&self.nets, &mut families);
        ports::collect(&self.ports, &self.nets, &mut families);
        families.into_vec()
    }
}

fn build_info(families: &mut Families) {
    let mut family = Family::new("ringside_build_info", "1, with the version of this process.", Kind::Gauge);
    family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    families.add(family);
}

fn seconds(ticks: u64) -> f64 {
    Tsc::nanos(ticks) as f64 / 1e9
}

impl Sources {
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

    fn pollers(&self, families: &mut Families) {
        let mut time = Family::new(
            "ringside_poller_seconds_total",
            "Time of a poller by what it did: busy (loops that found work), idle (loops that did not), asleep.",
            Kind::Counter,
        );
        let mut sources = Family::new("ringside_poller_sources", "Shards that a poller has now.", Kind::Gauge);
        let mut cold = Family::new(
            "ringside_poller_cold_sources",
            "Those of them that have been idle: they wait for a kick and are left out of the loop.",
            Kind::Gauge,
        );
        let mut longest = Family::new(
            "ringside_poller_longest_loop_seconds",
            "The longest loop of a poller since the start.",
            Kind::Gauge,
        );
        let mut counters = [
            Family::new("ringside_poller_loops_total", "Loops of a poller.", Kind::Counter),
            Family::new("ringside_poller_sleeps_total", "Times that a poller went to sleep.", Kind::Counter),
            Family::new("ringside_poller_wakeups_total", "Sleeps that a notification ended.", Kind::Counter),
            Family::new("ringside_poller_jobs_total", "Control jobs that a poller ran.", Kind::Counter),
            Family::new(
                "ringside_poller_panics_total",
                "Shards that were removed because they panicked.",
                Kind::Counter,
            ),
        ];
        for poller in &self.pollers {
            let core = poller.core().to_string();
            let core = ("core", core.as_str());
            let stats = poller.stats();
            for (mode, ticks) in
                [("busy", &stats.busy_ticks), ("idle", &stats.idle_ticks), ("asleep", &stats.asleep_ticks)]
            {
                time.sample(&[core, ("mode", mode)], seconds(ticks.value()));
            }
            sources.sample(&[core], stats.sources.value() as f64);
            cold.sample(&[core], stats.cold_sources.value() as f64);
            longest.sample(&[core], seconds(stats.longest_loop_ticks.value()));
            let values = [&stats.loops, &stats.sleeps, &stats.wakeups, &stats.jobs, &stats.panics];
            for (family, counter) in counters.iter_mut().zip(values) {
                family.sample(&[core], counter.value() as f64);
            }
        }
        families.add(time);
        families.add(sources);
        families.add(cold);
        families.add(longest);
        families.extend(counters);
    }

    fn limits(&self, families: &mut Families) {
        let mut limits = Family::new("ringside_scsi_limit", "A transport limit as it is configured.", Kind::Gauge);
        let mut effective = Family::new(
            "ringside_scsi_cmd_per_lun_effective",
            "cmd_per_lun, or what the started request rings hold if that is less.",
            Kind::Gauge,
        );
        for service in &self.controllers {
            let controller = service.controller();
            let name = ("controller", &**controller.name());
            let configured = controller.limits();
            limits.sample(&[name, ("limit", Limit::CmdPerLun.name())], f64::from(configured.cmd_per_lun));
            limits.sample(&[name, ("limit", Limit::MaxSectors.name())], f64::from(configured.max_sectors));
            if let Some(seg_max) = configured.seg_max {
                limits.sample(&[name, ("limit", Limit::SegMax.name())], f64::from(seg_max));
            }
            let limit = u64::from(configured.cmd_per_lun);
            let capacity = Some(service.stats().request_ring_capacity()).filter(|capacity| *capacity > 0);
            effective.sample(&[name], capacity.map_or(limit, |capacity| capacity.min(limit)) as f64);
        }
        families.add(limits);
        families.add(effective);
    }

    fn units(&self, families: &mut Families) {
        let mut commands = Family::new("ringside_scsi_commands_total", "Commands that ended.", Kind::Counter);
        let mut bytes = Family::new("ringside_scsi_bytes_total", "Bytes read and written.", Kind::Counter);
        let mut errors =
            Family::new("ringside_scsi_errors_total", "Commands that ended with CHECK CONDITION.", Kind::Counter);
        let mut refused = Family::new(
            "ringside_scsi_refused_total",
            "Commands refused by a transport limit. Without target and lun: the LUN does not exist.",
            Kind::Counter,
        );
        let mut in_flight = Family::new("ringside_scsi_in_flight", "Commands in flight.", Kind::Gauge);
        let mut high_water =
            Family::new("ringside_scsi_in_flight_high_water", "The most commands in flight so far.", Kind::Gauge);
        let mut duration = Family::new(
            "ringside_scsi_command_duration_seconds",
            "From the fetch of a READ or WRITE from its ring to its completion.",
            Kind::Histogram,
        );
        for service in &self.controllers {
            let controller = service.controller();
            let blocks = controller.stats();
            for place in controller.places() {
                let units: Vec<_> = blocks.iter().filter_map(|block| block.units.of(place.index.into())).collect();
                let place = PlaceLabels::new(controller.name(), place);
                let of = |counter: fn(&UnitStats) -> &Counter| {
                    units.iter().map(|unit| counter(unit).value()).sum::<u64>() as f64
                };
                commands.sample(&place.with("op", "read"), of(|unit| &unit.reads));
                commands.sample(&place.with("op", "write"), of(|unit| &unit.writes));
                commands.sample(&place.with("op", "other"), of(|unit| &unit.others));
                bytes.sample(&place.with("op", "read"), of(|unit| &unit.read_bytes));
                bytes.sample(&place.with("op", "write"), of(|unit| &unit.write_bytes));
                errors.sample(&place.labels(), of(|unit| &unit.errors));
                for limit in Limit::ALL {
                    let count: u64 = units.iter().map(|unit| unit.refused[limit as usize].value()).sum();
                    refused.sample(&place.with("limit", limit.name()), count as f64);
                }
                let held: u64 = units.iter().map(|unit| unit.in_flight.value()).sum();
                in_flight.sample(&place.labels(), held as f64);
                let most = units.iter().map(|unit| unit.high_water.value()).max();
                high_water.sample(&place.labels(), most.unwrap_or(0) as f64);
                let merged = |histogram: fn(&UnitStats) -> &Histogram| merge(units.iter().map(|unit| histogram(unit)));
                duration.histogram(&place.with("op", "read"), &merged(|unit| &unit.read_latency));
                duration.histogram(&place.with("op", "write"), &merged(|unit| &unit.write_latency));
            }
            for limit in Limit::ALL {
                let count = sum(&blocks, |block| &block.absent_refused[limit as usize]);
                let labels =
                    [("controller", &**controller.name()), ("target", ""), ("lun", ""), ("limit", limit.name())];
                refused.sample(&labels, count);
            }
        }
        families.extend([commands, bytes, errors, refused, in_flight, high_water, duration]);
    }

    fn responses(&self, families: &mut Families) {
        let mut responses =
            Family::new("ringside_scsi_responses_total", "Responses by virtio-scsi response code.", Kind::Counter);
        let mut bare = Family::new(
            "ringside_scsi_no_response_room_total",
            "Requests whose buffers had no room for a response: they got a bare used entry.",
            Kind::Counter,
        );
        let mut sense = Family::new(
            "ringside_scsi_check_conditions_total",
            "Commands that ended with CHECK CONDITION, by sense key.",
            Kind::Counter,
        );
        for service in &self.controllers {
            let controller = service.controller();
            let blocks = controller.stats();
            let name = ("controller", &**controller.name());
            for code in 0..virtio_scsi::wire::response::COUNT {
                let label = ("response", virtio_scsi::wire::response::name(code));
                responses.sample(&[name, label], sum(&blocks, |block| &block.responses[code]));
            }
            bare.sample(&[name], sum(&blocks, |block| &block.no_response_room));
            for (key, label) in SENSE_KEY_NAMES.into_iter().enumerate() {
                let count = sum(&blocks, |block| &block.sense_keys[key]);
                if count > 0.0 {
                    sense.sample(&[name, ("sense_key", label)], count);
                }
            }
        }
        families.extend([responses, bare, sense]);
    }

    fn events(&self, families: &mut Families) {
        let mut sent = Family::new(
            "ringside_scsi_events_total",
            "Events that were given to the driver: LUNs that came or went, or changed their size.",
            Kind::Counter,
        );
        let mut missed = Family::new(
            "ringside_scsi_events_missed_total",
            "Events that the driver had no buffer for; it was or will be told that some were lost.",
            Kind::Counter,
        );
        for service in &self.controllers {
            let blocks = service.controller().stats();
            let name = ("controller", &**service.controller().name());
            for (event, label) in event::NAMES.into_iter().enumerate() {
                sent.sample(&[name, ("event", label)], sum(&blocks, |block| &block.events[event]));
            }
            missed.sample(&[name], sum(&blocks, |block| &block.events_missed));
        }
        families.extend([sent, missed]);
    }

    fn task_management(&self, families: &mut Families) {
        let mut functions = Family::new(
            "ringside_scsi_tmf_total",
            "Task management functions that were answered, by function and response.",
            Kind::Counter,
        );
        let mut duration = Family::new(
            "ringside_scsi_tmf_duration_seconds",
            "From the fetch of a task management function to its completion.",
            Kind::Histogram,
        );
        for service in &self.controllers {
            let controller = service.controller();
            let blocks = controller.stats();
            let name = ("controller", &**controller.name());
            for (function, label) in TMF_NAMES.into_iter().enumerate() {
                for code in 0..virtio_scsi::wire::response::COUNT {
                    let count = sum(&blocks, |block| &block.tmfs[function][code]);
                    if count > 0.0 {
                        let response = match code {
                            0 => "function_complete",
                            code => virtio_scsi::wire::response::name(code),
                        };
                        functions.sample(&[name, ("function", label), ("response", response)], count);
                    }
                }
            }
            duration.histogram(&[name], &merge(blocks.iter().map(|block| &block.tmf_duration)));
        }
        families.extend([functions, duration]);
    }
}

/// Labels of a logical unit.
struct PlaceLabels<'a> {
    controller: &'a str,
    target: String,
    lun: String,
}

impl<'a> PlaceLabels<'a> {
    fn new(controller: &'a str, place: Place) -> PlaceLabels<'a> {
        PlaceLabels { controller, target: place.target.to_string(), lun: place.lun.to_string() }
    }

    fn labels(&self) -> [(&'static str, &str); 3] {
        [("controller", self.controller), ("target", &self.target), ("lun", &self.lun)]
    }

    fn with<'b>(&'b self, name: &'static str, value: &'b str) -> [(&'static str, &'b str); 4] {
        let [controller, target, lun] = self.labels();
        [controller, target, lun, (name, value)]
    }
}

fn sum(blocks: &[Arc<ShardStats>], counter: impl Fn(&ShardStats) -> &Counter) -> f64 {
    blocks.iter().map(|block| counter(block).value()).sum::<u64>() as f64
}

fn merge<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> HistogramSnapshot {
    let mut all = HistogramSnapshot::empty();
    histograms.for_each(|histogram| all.merge(&histogram.snapshot()));
    all
}
