//! The `[spdk]` section, and the keys of a `[[bdev]]` of kind `spdk`. Whether SPDK has such a bdev is found out when it is opened.

use std::path::PathBuf;

use super::dpdk::{argument, arguments};
use super::problem::Reason;
use super::reader::{Problems, Section};
use super::served::read_socket;
use super::size::ByteSize;

/// SPDK, as it is started. It is, if anything of this is there, or a block device of kind `spdk`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spdk {
    /// The configuration of its subsystems and bdevs, in SPDK's JSON; none: no bdevs, unless its RPC makes them.
    pub config: Option<PathBuf>,
    /// Where SPDK's own JSON-RPC server listens; none: there is none.
    pub rpc_socket: Option<PathBuf>,
    /// Memory for SPDK; none: what it takes.
    pub memory: Option<ByteSize>,
    /// Ordinary memory even where there are huge pages; default false.
    pub ordinary_memory: bool,
    /// PCI addresses of devices that SPDK may take, none of them empty. None: it leaves PCI alone.
    pub pci: Vec<String>,
}

/// A bdev of SPDK's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpdkBdev {
    /// What SPDK calls it: a name or an alias.
    pub bdev: String,
    /// Whether writes are refused; default false.
    pub read_only: bool,
}

/// Whether this program can have block devices of kind `spdk`.
pub const SPDK_BUILT: bool = cfg!(feature = "spdk");

/// Reads `[spdk]`.
pub(super) fn read(root: &mut Section<'_>, problems: &mut Problems) -> Option<Spdk> {
    let mut section = root.table("spdk", problems);
    let config = match section.take("config") {
        None => Some(None),
        Some(field) => argument(&field, problems).map(|path| Some(PathBuf::from(path))),
    };
    let rpc_socket = match section.take("rpc_socket") {
        None => Some(None),
        Some(field) => read_socket(&field, problems).map(Some),
    };
    let memory = match section.take("memory") {
        None => Some(None),
        Some(field) => super::bdev::read_size(&field, problems).and_then(|size| {
            let inside = (MEMORY_MIN..=MEMORY_MAX).contains(&size.bytes());
            if !inside {
                problems.at(
                    field.place(),
                    Reason::NotBetween { min: ByteSize::new(MEMORY_MIN), max: ByteSize::new(MEMORY_MAX) },
                );
            }
            inside.then_some(Some(size))
        }),
    };
    let ordinary_memory = match section.take("ordinary_memory") {
        None => Some(false),
        Some(field) => field.boolean(problems),
    };
    let pci = match section.take("pci") {
        None => Some(Vec::new()),
        Some(field) => arguments(field, problems),
    };
    section.finish(problems);
    Some(Spdk {
        config: config?,
        rpc_socket: rpc_socket?,
        memory: memory?,
        ordinary_memory: ordinary_memory?,
        pci: pci?,
    })
}

/// Reads the keys of a bdev.
pub(super) fn read_bdev(section: &mut Section<'_>, problems: &mut Problems) -> Option<SpdkBdev> {
    let bdev = section.require("bdev", problems).and_then(|field| argument(&field, problems));
    let read_only = match section.take("read_only") {
        None => Some(false),
        Some(field) => field.boolean(problems),
    };
    Some(SpdkBdev { bdev: bdev?, read_only: read_only? })
}

/// SPDK does not start with less, and counts in MiB of 31 bits.
const MEMORY_MIN: u64 = 64 << 20;
const MEMORY_MAX: u64 = 1 << 50;
