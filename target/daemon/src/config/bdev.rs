//! The `[[bdev]]` sections: kinds, sizes, block devices over other block devices, and who uses which one. The block
//! devices themselves are in the crates `bdev`, `bdev-file` and `bdev-spdk`.

use std::collections::{BTreeMap, BTreeSet};

use bdev::FaultPlan;
use toml::de::DeValue;

use super::file::{self, File};
use super::name::Name;
use super::problem::Reason;
use super::reader::{Field, Place, Problems, Section};
use super::size::ByteSize;
use super::spdk::{self, SPDK_BUILT, SpdkBdev};

/// A block device, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bdev {
    /// Its name, unique among the block devices.
    pub name: Name,
    /// What it is.
    pub kind: BdevKind,
    /// Whether its requests complete in the order in which they were submitted; default false.
    pub in_order: bool,
}

/// The kinds of block devices of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BdevKind {
    /// Memory of this process.
    Malloc(Geometry),
    /// Discards writes; what reads see is no data of anybody.
    Null(Geometry),
    /// A regular file or a block device of this host.
    File(File),
    /// A bdev of SPDK's.
    Spdk(SpdkBdev),
    /// Another block device, slower.
    Delay(Delay),
    /// Another block device that fails on demand.
    Error(Fault),
}

impl BdevKind {
    /// The word of the configuration for this kind.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Malloc(_) => "malloc",
            Self::Null(_) => "null",
            Self::File(_) => "file",
            Self::Spdk(_) => "spdk",
            Self::Delay(_) => "delay",
            Self::Error(_) => "error",
        }
    }

    /// The block device that this one stands on, whose geometry it has.
    pub fn base(&self) -> Option<&Name> {
        match self {
            Self::Malloc(_) | Self::Null(_) | Self::File(_) | Self::Spdk(_) => None,
            Self::Delay(delay) => Some(&delay.base),
            Self::Error(fault) => Some(&fault.base),
        }
    }

    /// Its own block size, if it has one of its own.
    fn block_size(&self) -> Option<BlockSize> {
        match self {
            Self::Malloc(geometry) | Self::Null(geometry) => Some(geometry.block_size),
            Self::File(file) => Some(file.block_size),
            Self::Spdk(_) | Self::Delay(_) | Self::Error(_) => None,
        }
    }
}

/// Size and block size of a block device. The size is a whole number of blocks, and not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes in all.
    pub size: ByteSize,
    /// Bytes of a block.
    pub block_size: BlockSize,
    /// Bytes of a physical block as guests are told, at least `block_size`, which is the default.
    pub physical_block_size: BlockSize,
}

/// Bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSize {
    /// 512 bytes, the default.
    B512,
    /// 4096 bytes.
    B4096,
}

impl BlockSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// A delay in front of another block device, whose geometry it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The block device behind it.
    pub base: Name,
    /// Median latency added to every request, in microseconds.
    pub latency_us: u32,
    /// 99th percentile of that latency, in microseconds; equal to `latency_us` for a fixed delay, the default.
    pub p99_us: u32,
}

/// Failures in front of another block device, whose geometry it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The block device behind it.
    pub base: Name,
    /// What fails when; see [`bdev::FaultPlan`].
    pub fail: FaultPlan,
    /// The same as it was written.
    pub text: String,
}

/// The block devices as they are read: which names exist, and who uses them.
#[derive(Debug, Default)]
pub(super) struct Bdevs<'t> {
    list: Vec<Bdev>,
    names: BTreeMap<Name, Entry<'t>>,
    users: BTreeMap<Name, Place<'t>>,
}

/// What is known of a name, even if its section has problems.
#[derive(Debug)]
struct Entry<'t> {
    place: Place<'t>,
    block_size: Option<BlockSize>,
    base: Option<(Name, Place<'t>)>,
}

impl<'t> Bdevs<'t> {
    /// Reads every `[[bdev]]` of the text.
    pub(super) fn read(root: &mut Section<'t>, problems: &mut Problems) -> Self {
        let mut bdevs = Self::default();
        let mut bases = Vec::new();
        for section in root.tables("bdev", problems) {
            bdevs.read_one(section, &mut bases, problems);
        }
        for (base, place) in &bases {
            bdevs.claim(base, place, problems);
        }
        bdevs.refuse_cycles(problems);
        bdevs
    }

    /// The block devices without problems, in the order of the text.
    pub(super) fn into_list(self) -> Vec<Bdev> {
        self.list
    }

    /// Makes the user at `place` the one user of `name`; notes a missing bdev and a second user (R08).
    pub(super) fn claim(&mut self, name: &Name, place: &Place<'t>, problems: &mut Problems) {
        if !self.names.contains_key(name) {
            problems.at(place, Reason::NoSuchBdev { known: self.known() });
        } else if let Some(first) = self.users.get(name) {
            problems.at(place, Reason::BdevShared { first: first.named() });
        } else {
            self.users.insert(name.clone(), place.clone());
        }
    }

    /// The block size of `name`, through everything that stands on it; none if it is missing or has problems.
    pub(super) fn block_size(&self, name: &Name) -> Option<BlockSize> {
        let mut entry = self.names.get(name)?;
        // Bounded by the number of names: a cycle has no block size.
        for _ in 0..self.names.len() {
            match &entry.base {
                Some((base, _)) => entry = self.names.get(base)?,
                None => return entry.block_size,
            }
        }
        None
    }

    fn read_one(&mut self, mut section: Section<'t>, bases: &mut Vec<(Name, Place<'t>)>, problems: &mut Problems) {
        let name = section.require("name", problems).and_then(|field| {
            let name = field.name(problems)?;
            Some((name, field.place().clone()))
        });
        let mut base = None;
        let kind = read_kind(&mut section, &mut base, problems);
        let in_order = match section.take("in_order") {
            None => Some(false),
            Some(field) => field.boolean(problems),
        };
        section.finish(problems);

        let Some((name, place)) = name else { return };
        bases.extend(base.clone());
        if let Some(first) = self.names.get(&name) {
            problems.at(&place, Reason::Duplicate { first: first.place.named() });
            return;
        }
        let block_size = kind.as_ref().and_then(BdevKind::block_size);
        self.names.insert(name.clone(), Entry { place, block_size, base });
        self.list.extend(kind.zip(in_order).map(|(kind, in_order)| Bdev { name, kind, in_order }));
    }

    /// Notes every cycle once, at its first member in the order of the names.
    fn refuse_cycles(&self, problems: &mut Problems) {
        let mut seen = BTreeSet::new();
        for (name, entry) in &self.names {
            let Some((_, place)) = &entry.base else { continue };
            let Some(cycle) = self.cycle_through(name) else { continue };
            if cycle.iter().any(|member| seen.contains(member)) {
                continue;
            }
            let chain: Vec<&str> = cycle.iter().copied().chain([name]).map(Name::as_str).collect();
            problems.at(place, Reason::BaseCycle { chain: chain.join(" -> ") });
            seen.extend(cycle);
        }
    }

    /// The names from `start` along the bases back to `start`.
    fn cycle_through<'n>(&'n self, start: &'n Name) -> Option<Vec<&'n Name>> {
        let mut members = vec![start];
        while members.len() <= self.names.len() {
            let (base, _) = self.names.get(*members.last()?)?.base.as_ref()?;
            if base == start {
                return Some(members);
            }
            members.push(base);
        }
        None
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.names.keys().map(Name::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

const KNOWN_KINDS: &str = "malloc, null, file, spdk, delay, error";
/// A minute: longer delays look like a hang to every guest.
const LATENCY_US_MAX: u32 = 60_000_000;

/// Reads the kind and its keys. The base of a delay or an error goes to `base` even if another of its keys is wrong.
fn read_kind<'t>(
    section: &mut Section<'t>,
    base: &mut Option<(Name, Place<'t>)>,
    problems: &mut Problems,
) -> Option<BdevKind> {
    let field = section.require("kind", problems);
    let reason = match field.as_ref().and_then(|field| field.string(problems)) {
        Some("malloc") => return read_geometry(section, problems).map(BdevKind::Malloc),
        Some("null") => return read_geometry(section, problems).map(BdevKind::Null),
        Some("file") => return file::read(section, problems).map(BdevKind::File),
        Some("error") => return read_fault(section, base, problems).map(BdevKind::Error),
        Some("delay") => return read_delay(section, base, problems).map(BdevKind::Delay),
        Some("spdk") if SPDK_BUILT => return spdk::read_bdev(section, problems).map(BdevKind::Spdk),
        Some("spdk") => Some(Reason::WithoutSpdk),
        Some(_) => Some(Reason::NotOneOf { known: KNOWN_KINDS.to_owned() }),
        None => None,
    };
    if let Some((field, reason)) = field.zip(reason) {
        problems.at(field.place(), reason);
    }
    // Which other keys there may be depends on the kind.
    section.skip_rest();
    None
}

fn read_geometry(section: &mut Section<'_>, problems: &mut Problems) -> Option<Geometry> {
    let field = section.require("size", problems);
    let block_size = read_block_size("block_size", BlockSize::B512, section, problems);
    let physical = read_block_size("physical_block_size", block_size.unwrap_or(BlockSize::B512), section, problems);
    let size = read_whole_blocks(field.as_ref()?, block_size, problems);
    Some(Geometry { size: size?, block_size: block_size?, physical_block_size: physical? })
}

/// A size of at least one block, and of whole ones.
pub(super) fn read_whole_blocks(
    field: &Field<'_>,
    block_size: Option<BlockSize>,
    problems: &mut Problems,
) -> Option<ByteSize> {
    let size = read_size(field, problems)?;
    let block_size = block_size?;
    let bytes = block_size.bytes();
    let reason = match size.bytes() {
        0 => Reason::NoBlock { block_size: bytes },
        size if !size.is_multiple_of(u64::from(bytes)) => Reason::PartialBlock { block_size: bytes },
        _ => return Some(size),
    };
    problems.at(field.place(), reason);
    None
}

/// A size: a text with a unit, or an integer of bytes.
pub(super) fn read_size(field: &Field<'_>, problems: &mut Problems) -> Option<ByteSize> {
    match field.raw() {
        DeValue::Integer(_) => field.integer(0..=i64::MAX.cast_unsigned(), problems).map(ByteSize::new),
        _ => match field.string(problems)?.parse() {
            Ok(size) => Some(size),
            Err(error) => {
                problems.at(field.place(), Reason::Size(error));
                None
            }
        },
    }
}

/// A block size of at least `least`, which it is if none is given.
pub(super) fn read_block_size(
    key: &'static str,
    least: BlockSize,
    section: &mut Section<'_>,
    problems: &mut Problems,
) -> Option<BlockSize> {
    let Some(field) = section.take(key) else { return Some(least) };
    let block_size = match field.integer(0..=u32::MAX, problems)? {
        512 => Some(BlockSize::B512),
        4096 => Some(BlockSize::B4096),
        _ => None,
    };
    let reason = match block_size {
        None => Reason::NotABlockSize,
        Some(size) if size.bytes() < least.bytes() => Reason::BelowBlockSize { block_size: least.bytes() },
        Some(size) => return Some(size),
    };
    problems.at(field.place(), reason);
    None
}

fn read_base<'t>(
    section: &mut Section<'t>,
    base: &mut Option<(Name, Place<'t>)>,
    problems: &mut Problems,
) -> Option<Name> {
    let field = section.require("base", problems);
    *base = field.and_then(|field| field.name(problems).map(|name| (name, field.place().clone())));
    base.clone().map(|(name, _)| name)
}

fn read_fault<'t>(
    section: &mut Section<'t>,
    base: &mut Option<(Name, Place<'t>)>,
    problems: &mut Problems,
) -> Option<Fault> {
    let base = read_base(section, base, problems);
    let field = section.require("fail", problems)?;
    let text = field.string(problems)?;
    match text.parse::<FaultPlan>() {
        Ok(fail) => Some(Fault { base: base?, fail, text: text.to_owned() }),
        Err(error) => {
            problems.at(field.place(), Reason::NotAFaultPlan(error));
            None
        }
    }
}

fn read_delay<'t>(
    section: &mut Section<'t>,
    base: &mut Option<(Name, Place<'t>)>,
    problems: &mut Problems,
) -> Option<Delay> {
    let base = read_base(section, base, problems);
    let latency_us =
        section.require("latency_us", problems).and_then(|field| field.integer(0..=LATENCY_US_MAX, problems));
    let p99_us = match section.take("p99_us") {
        None => latency_us,
        Some(field) => field.integer(0..=LATENCY_US_MAX, problems).filter(|p99_us| {
            let below = latency_us.filter(|latency_us| p99_us < latency_us);
            if let Some(latency_us) = below {
                problems.at(field.place(), Reason::BelowLatency { latency_us });
            }
            below.is_none()
        }),
    };
    Some(Delay { base: base?, latency_us: latency_us?, p99_us: p99_us? })
}
