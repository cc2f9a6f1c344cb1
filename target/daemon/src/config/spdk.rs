//! The `[spdk]` section, and the keys of a `[[bdev]]` of kind `spdk`. Whether SPDK has such a bdev is found out when it is opened.

use std::path::PathBuf;

use super::dpdk::{argument, arguments};
use super::problem::Reason;
use super::reader::{JsonObject, Problems, Section};
use super::served::read_socket;
use super::size::ByteSize;
use super::words::Missing;

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
    /// Calls of SPDK's methods that are part of its configuration, after what is in the file.
    pub calls: Vec<SpdkCall>,
    /// PCI addresses of devices that SPDK may take, none of them empty. None: it leaves PCI alone.
    pub pci: Vec<String>,
}

/// A call of one of SPDK's JSON-RPC methods. What it means is SPDK's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpdkCall {
    /// The method's name.
    pub method: String,
    /// What it is called with; by default nothing.
    pub params: JsonObject,
}

/// A bdev of SPDK's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpdkBdev {
    /// What SPDK calls it: a name or an alias.
    pub bdev: String,
    /// Whether writes are refused; default false.
    pub read_only: bool,
    /// What becomes of it while SPDK has no such bdev; default [`Missing::Wait`].
    pub missing: Missing,
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
    let calls: Vec<_> = section.tables("call", problems).into_iter().map(|call| read_call(call, problems)).collect();
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
        calls: calls.into_iter().collect::<Option<_>>()?,
        pci: pci?,
    })
}

fn read_call(mut section: Section<'_>, problems: &mut Problems) -> Option<SpdkCall> {
    let method = section.require("method", problems).and_then(|field| argument(&field, problems));
    let params = match section.take("params") {
        None => Some(JsonObject::new()),
        Some(field) => field.into_json_object(problems),
    };
    section.finish(problems);
    Some(SpdkCall { method: method?, params: params? })
}

/// Reads the keys of a bdev.
pub(super) fn read_bdev(section: &mut Section<'_>, problems: &mut Problems) -> Option<SpdkBdev> {
    let bdev = section.require("bdev", problems).and_then(|field| argument(&field, problems));
    let read_only = match section.take("read_only") {
        None => Some(false),
        Some(field) => field.boolean(problems),
    };
    let missing = match section.take("missing") {
        None => Some(Missing::Wait),
        Some(field) => field.word(problems),
    };
    Some(SpdkBdev { bdev: bdev?, read_only: read_only?, missing: missing? })
}

/// SPDK does not start with less, and counts in MiB of 31 bits.
const MEMORY_MIN: u64 = 64 << 20;
const MEMORY_MAX: u64 = 1 << 50;
