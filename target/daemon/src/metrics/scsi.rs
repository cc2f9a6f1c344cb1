//! The metrics of logical units, and of controllers as SCSI devices.

use std::sync::Arc;

use stats::{Counter, Histogram, HistogramSnapshot};
use virtio_scsi::wire::{event, response};
use virtio_scsi::{Limit, Place, SENSE_KEY_NAMES, ShardStats, TMF_NAMES, UnitStats};

use super::catalogue::scsi as the;
use super::families::Families;
use crate::service::ScsiService;

pub(super) fn collect(controllers: &[Arc<ScsiService>], families: &mut Families) {
    let mut scratch = HistogramSnapshot::empty();
    for service in controllers {
        let blocks = service.controller().stats();
        limits(service, families);
        units(service, &blocks, &mut scratch, families);
        responses(service.controller().name(), &blocks, families);
        task_management(service.controller().name(), &blocks, &mut scratch, families);
    }
}

fn limits(service: &ScsiService, families: &mut Families) {
    let controller = service.controller();
    let (name, limits) = (&**controller.name(), controller.limits());
    let mut limit = |limit: Limit, value: u32| families.sample(&the::LIMIT, &[name, limit.name()], value.into());
    limit(Limit::CmdPerLun, limits.cmd_per_lun);
    limit(Limit::MaxSectors, limits.max_sectors);
    if let Some(seg_max) = limits.seg_max {
        limit(Limit::SegMax, seg_max);
    }
    let configured = u64::from(limits.cmd_per_lun);
    let capacity = Some(service.stats().request_ring_capacity()).filter(|capacity| *capacity > 0);
    let effective = capacity.map_or(configured, |capacity| capacity.min(configured));
    families.sample(&the::EFFECTIVE, &[name], effective as f64);
}

fn units(service: &ScsiService, blocks: &[Arc<ShardStats>], scratch: &mut HistogramSnapshot, families: &mut Families) {
    let controller = service.controller();
    let name = &**controller.name();
    let mut units: Vec<&UnitStats> = Vec::with_capacity(blocks.len());
    for place in controller.places() {
        units.clear();
        units.extend(blocks.iter().filter_map(|block| block.units.of(place.index.into())));
        unit(name, &place, &units, scratch, families);
    }
    for (_, unit) in controller.map().units() {
        let (target, lun) = (unit.target.to_string(), unit.lun.to_string());
        families.info(&the::LUN_INFO, &[name, &target, &lun, &unit.bdev.info().name]);
    }
    for limit in Limit::ALL {
        let count = sum(blocks, |block| &block.absent_refused[limit as usize]);
        families.sample(&the::REFUSED, &[name, "", "", limit.name()], count);
    }
}

fn unit(name: &str, place: &Place, units: &[&UnitStats], scratch: &mut HistogramSnapshot, families: &mut Families) {
    let (target, lun) = (place.target.to_string(), place.lun.to_string());
    let labels = [name, target.as_str(), lun.as_str()];
    let with = |label| [name, target.as_str(), lun.as_str(), label];
    let of = |counter: fn(&UnitStats) -> &Counter| units.iter().map(|unit| counter(unit).value()).sum::<u64>() as f64;
    families.sample(&the::COMMANDS, &with("read"), of(|unit| &unit.reads));
    families.sample(&the::COMMANDS, &with("write"), of(|unit| &unit.writes));
    families.sample(&the::COMMANDS, &with("other"), of(|unit| &unit.others));
    families.sample(&the::BYTES, &with("read"), of(|unit| &unit.read_bytes));
    families.sample(&the::BYTES, &with("write"), of(|unit| &unit.write_bytes));
    families.sample(&the::ERRORS, &labels, of(|unit| &unit.errors));
    for limit in Limit::ALL {
        let count: u64 = units.iter().map(|unit| unit.refused[limit as usize].value()).sum();
        families.sample(&the::REFUSED, &with(limit.name()), count as f64);
    }
    let held: u64 = units.iter().map(|unit| unit.in_flight.value()).sum();
    families.sample(&the::IN_FLIGHT, &labels, held as f64);
    let most = units.iter().map(|unit| unit.high_water.value()).max();
    families.sample(&the::HIGH_WATER, &labels, most.unwrap_or(0) as f64);
    merge(units.iter().map(|unit| &unit.read_latency), scratch);
    families.durations(&the::DURATION, &with("read"), scratch);
    merge(units.iter().map(|unit| &unit.write_latency), scratch);
    families.durations(&the::DURATION, &with("write"), scratch);
}

fn responses(name: &str, blocks: &[Arc<ShardStats>], families: &mut Families) {
    for code in 0..response::COUNT {
        let count = sum(blocks, |block| &block.responses[code]);
        families.sample(&the::RESPONSES, &[name, response::name(code)], count);
    }
    families.sample(&the::NO_ROOM, &[name], sum(blocks, |block| &block.no_response_room));
    for (key, label) in SENSE_KEY_NAMES.into_iter().enumerate() {
        families.sample(&the::CHECK_CONDITIONS, &[name, label], sum(blocks, |block| &block.sense_keys[key]));
    }
    for (event, label) in event::NAMES.into_iter().enumerate() {
        families.sample(&the::EVENTS, &[name, label], sum(blocks, |block| &block.events[event]));
    }
    families.sample(&the::EVENTS_MISSED, &[name], sum(blocks, |block| &block.events_missed));
}

fn task_management(name: &str, blocks: &[Arc<ShardStats>], scratch: &mut HistogramSnapshot, families: &mut Families) {
    for (function, label) in TMF_NAMES.into_iter().enumerate() {
        for code in 0..response::COUNT {
            let count = sum(blocks, |block| &block.tmfs[function][code]);
            // Functions that do what they should are there from the start: a series that begins with 1 has not grown.
            if count > 0.0 || code == 0 && function < TMF_NAMES.len() - 1 {
                let response = if code == 0 { "function_complete" } else { response::name(code) };
                families.sample(&the::TMF, &[name, label, response], count);
            }
        }
    }
    merge(blocks.iter().map(|block| &block.tmf_duration), scratch);
    families.durations(&the::TMF_DURATION, &[name], scratch);
}

fn sum(blocks: &[Arc<ShardStats>], counter: impl Fn(&ShardStats) -> &Counter) -> f64 {
    blocks.iter().map(|block| counter(block).value()).sum::<u64>() as f64
}

/// The values of all of them, in a snapshot that is there already: those of a thousand logical units need no memory each.
fn merge<'a>(histograms: impl Iterator<Item = &'a Histogram>, all: &mut HistogramSnapshot) {
    all.clear();
    histograms.for_each(|histogram| all.add(histogram));
}
