//! The configuration: a TOML text in, checked and resolved values out, or every problem at once. It looks at nothing but
//! the text: what the host allows (cores, sockets) is looked at by [`check`](crate::check) and by those who use it.
//!
//! Reading goes in two stages: `reader` takes typed values out of the parsed text and notes what is wrong where; the
//! sections (`bdev`, `scsi`, …) give them meaning. A value of type [`Config`] has passed every check that its fields
//! document, so whoever holds one need not check again.

mod bdev;
mod dpdk;
mod emit;
mod file;
mod identity;
mod limits;
mod lun;
mod metrics;
mod name;
mod net;
mod port;
mod problem;
mod reactor;
mod reader;
mod scsi;
mod served;
mod size;
mod spdk;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use self::bdev::{Bdev, BdevKind, BlockSize, Delay, Fault, Geometry};
pub use self::dpdk::{DPDK_BUILT, Dpdk};
pub use self::file::File;
pub use self::identity::{Identity, Wwn, stable_hash};
pub use self::limits::Limits;
pub use self::lun::Lun;
pub use self::metrics::{Metrics, Tls};
pub use self::name::Name;
pub use self::net::{Net, derived_mac};
pub use self::port::{DpdkPort, Loopback, MTU_MAX, Port, PortKind, Switch};
pub use self::problem::{ConfigErrors, Problem, Reason};
pub use self::reactor::Reactor;
pub use self::scsi::Controller;
pub use self::size::{ByteSize, SizeError};
pub use self::spdk::{SPDK_BUILT, Spdk, SpdkBdev, SpdkCall};
pub use self::words::{Cache, Idle, Missing, Mode, OnCmdPerLun, OnMaxSectors};

use self::bdev::Bdevs;
use self::port::Ports;
use self::reader::{Problems, Section};
use self::served::Served;

/// A checked configuration with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[reactor]`: the pollers.
    pub reactor: Reactor,
    /// `[metrics]`: the HTTP port.
    pub metrics: Metrics,
    /// `[[bdev]]`, in the order of the text; see [`Config::build_order`].
    pub bdevs: Vec<Bdev>,
    /// `[[scsi]]`, in the order of the text.
    pub controllers: Vec<Controller>,
    /// `[dpdk]`: the environment of DPDK ports.
    pub dpdk: Dpdk,
    /// `[spdk]`: what block devices of kind `spdk` come from.
    pub spdk: Spdk,
    /// `[[port]]`, in the order of the text.
    pub ports: Vec<Port>,
    /// `[[net]]`, in the order of the text.
    pub nets: Vec<Net>,
}

/// A configuration file that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was read, and is wrong.
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
}

impl Config {
    /// Reads a configuration text. `source_name` stands in front of every problem: the file's name, as a rule.
    ///
    /// # Errors
    /// Every problem of the text, or every syntax error if it is no TOML.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, ConfigErrors> {
        read_document(text).map_err(|problems| ConfigErrors { source_name: source_name.to_owned(), problems })
    }

    /// Reads the configuration file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, or has problems.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Ok(Self::parse(&text, &path.display().to_string())?)
    }

    /// The configuration in the program for a first try without a file: one controller, `vm0`, with a malloc disk and a
    /// null disk, and one net device, `vm0net`, on a loopback. Their sockets are in `run_dir`.
    ///
    /// # Errors
    /// The path of `run_dir` is too long for a socket in it, or cannot be written in TOML.
    pub fn embedded(run_dir: &str) -> Result<Self, ConfigErrors> {
        // The text of a JSON string is the text of a TOML string, too.
        let quoted = serde_json::Value::from(run_dir).to_string();
        let text = QUICKSTART.replace("{run_dir}", &quoted[1..quoted.len() - 1]);
        Self::parse(&text, "embedded defaults")
    }

    /// The configuration as TOML with every default written out; reading it gives an equal configuration.
    pub fn to_toml(&self) -> String {
        emit::to_toml(self)
    }

    /// The block device of that name.
    pub fn bdev(&self, name: &str) -> Option<&Bdev> {
        self.bdevs.iter().find(|bdev| bdev.name.as_str() == name)
    }

    /// The controller of that name.
    pub fn controller(&self, name: &str) -> Option<&Controller> {
        self.controllers.iter().find(|controller| controller.name.as_str() == name)
    }

    /// The port of that name.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name.as_str() == name)
    }

    /// The net device of that name.
    pub fn net(&self, name: &str) -> Option<&Net> {
        self.nets.iter().find(|net| net.name.as_str() == name)
    }

    /// Size and block size of the block device of that name, its own or those of its base; none for a file, or a bdev of
    /// SPDK's, whose size is its own business.
    pub fn geometry(&self, name: &str) -> Option<Geometry> {
        match &self.bdev(name)?.kind {
            BdevKind::Malloc(geometry) | BdevKind::Null(geometry) => Some(*geometry),
            BdevKind::File(file) => {
                let block_size = file.block_size;
                file.size.map(|size| Geometry { size, block_size, physical_block_size: block_size })
            }
            BdevKind::Spdk(_) => None,
            BdevKind::Delay(Delay { base, .. }) | BdevKind::Error(Fault { base, .. }) => self.geometry(base),
        }
    }

    /// Names of a block device and of those below it.
    pub fn chain(&self, name: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut next = self.bdev(name);
        while let Some(bdev) = next {
            names.insert(bdev.name.as_str().to_owned());
            next = bdev.kind.base().and_then(|base| self.bdev(base));
        }
        names
    }

    /// The same as if it did not have those block devices that are `absent`, nor LUNs over them. One over an absent one is
    /// absent.
    #[must_use]
    pub fn without(&self, absent: impl Fn(&str) -> bool) -> Config {
        let mut config = self.clone();
        config.bdevs.retain(|bdev| !absent(&bdev.name));
        for controller in &mut config.controllers {
            controller.luns.retain(|lun| !absent(&lun.bdev));
        }
        config
    }

    /// The block devices in an order in which every one comes after its base.
    pub fn build_order(&self) -> Vec<&Bdev> {
        let mut order: Vec<&Bdev> = self.bdevs.iter().collect();
        order.sort_by_key(|bdev| self.bases_below(bdev));
        order
    }

    /// How many block devices stand below this one.
    fn bases_below(&self, bdev: &Bdev) -> usize {
        let base = bdev.kind.base().and_then(|base| self.bdev(base));
        base.map_or(0, |base| 1 + self.bases_below(base))
    }
}

/// The configuration of a first try; `{run_dir}` stands for the directory of its sockets.
const QUICKSTART: &str = include_str!("quickstart.toml");

fn read_document(text: &str) -> Result<Config, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| syntax_problem(text, error)).collect());
    }
    let mut problems = Problems::default();
    let mut root = Section::root(text, table.into_inner());

    let (reactor, cores) = reactor::read(&mut root, &mut problems);
    let cores = cores.as_deref();
    let metrics = metrics::read(&mut root, &mut problems);
    let mut served = Served::new();
    let mut bdevs = Bdevs::read(&mut root, &mut problems);
    let controllers = scsi::read(&mut root, cores, &mut bdevs, &mut served, &mut problems);
    let dpdk = dpdk::read(&mut root, &mut problems);
    let spdk = spdk::read(&mut root, &mut problems);
    let mut ports = Ports::read(&mut root, cores, &mut problems);
    let nets = net::read(&mut root, cores, &mut ports, &mut served, &mut problems);
    root.finish(&mut problems);

    let problems = problems.into_sorted();
    match (reactor, metrics, dpdk.zip(spdk)) {
        (Some(reactor), Some(metrics), Some((dpdk, spdk))) if problems.is_empty() => {
            let (bdevs, ports) = (bdevs.into_list(), ports.into_list());
            Ok(Config { reactor, metrics, bdevs, controllers, dpdk, spdk, ports, nets })
        }
        _ => Err(problems),
    }
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    Problem {
        line: error.span().map(|span| reader::line_of(text, span.start)),
        key: String::new(),
        value: None,
        reason: Reason::Syntax(error.message().to_owned()),
    }
}
