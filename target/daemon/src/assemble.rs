//! From a checked configuration to block devices and controllers. Nothing is started here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bdev::{Bdev, Counted, Delay, DelayConfig, Faulty, Malloc, Null, Ordered};
use bdev_file::{File, FileConfig};
use guest_memory::Backing;
use scsi::LogicalUnit;
use virtio_scsi::{Controller, ControllerConfig, Limits, OnCommandLimit, OnTransferLimit, Unit, logical_unit_config};

use crate::config::{self, BdevKind, Cache, Config, OnCmdPerLun, OnMaxSectors};

/// A block device that could not be made. The text names it as the configuration does.
#[derive(Debug, thiserror::Error)]
#[error("bdev {name:?}: {text}")]
pub struct AssembleError {
    name: String,
    text: String,
}

/// The block devices of a configuration, by name.
pub struct Bdevs {
    by_name: BTreeMap<String, Device>,
    /// Names of malloc devices, and what their memory is made of.
    pub backings: Vec<(String, Backing)>,
}

/// A block device, counted.
#[derive(Clone)]
pub struct Device {
    /// What everybody uses.
    pub bdev: Arc<Counted>,
    /// The same, if it is a file.
    pub file: Option<Arc<File>>,
}

impl Bdevs {
    /// Makes them, each after those it stands on.
    ///
    /// # Errors
    /// The first one that cannot be made, mostly for want of memory.
    pub fn build(config: &Config) -> Result<Bdevs, AssembleError> {
        let mut bdevs = Bdevs { by_name: BTreeMap::new(), backings: Vec::new() };
        for bdev in config.build_order() {
            let name = bdev.name.as_str().to_owned();
            let device = bdevs.build_one(bdev).map_err(|text| AssembleError { name: name.clone(), text })?;
            bdevs.by_name.insert(name, device);
        }
        Ok(bdevs)
    }

    fn build_one(&mut self, bdev: &config::Bdev) -> Result<Device, String> {
        let (name, in_order) = (bdev.name.as_str(), bdev.in_order);
        let mut file = None;
        let mut bdev: Arc<dyn Bdev> = match &bdev.kind {
            BdevKind::Malloc(geometry) => {
                let (size, block_size) = (geometry.size.bytes(), geometry.block_size.bytes());
                let malloc = Malloc::new(name, size, block_size).map_err(|error| error.to_string())?;
                self.backings.push((name.to_owned(), malloc.backing()));
                Arc::new(malloc.with_physical_blocks(geometry.physical_block_size.bytes()))
            }
            BdevKind::Null(geometry) => {
                let block_size = geometry.block_size.bytes();
                let blocks = geometry.size.bytes() / u64::from(block_size);
                let null = Null::new(name, blocks, block_size).map_err(|error| error.to_string())?;
                Arc::new(null.with_physical_blocks(geometry.physical_block_size.bytes()))
            }
            BdevKind::Delay(delay) => {
                let config = DelayConfig::timed(u64::from(delay.latency_us), u64::from(delay.p99_us));
                Arc::new(Delay::new(name, self.named(&delay.base), config).map_err(|error| error.to_string())?)
            }
            BdevKind::Error(fault) => Arc::new(Faulty::new(name, self.named(&fault.base), fault.fail.clone())),
            BdevKind::File(config) => {
                let opened = File::open(name, &file_config(config)).map_err(|error| error.to_string())?;
                Arc::clone(file.insert(Arc::new(opened))) as Arc<dyn Bdev>
            }
        };
        if in_order {
            bdev = Arc::new(Ordered::new(bdev));
        }
        Ok(Device { bdev: Arc::new(Counted::new(bdev)), file })
    }

    /// The device of that name.
    ///
    /// # Panics
    /// If there is none: the configuration was checked.
    #[must_use]
    pub fn named(&self, name: &str) -> Arc<dyn Bdev> {
        Arc::clone(&self.by_name[name].bdev) as Arc<dyn Bdev>
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.by_name.values()
    }
}

fn file_config(config: &config::File) -> FileConfig {
    FileConfig {
        path: config.path.clone(),
        size: config.size.map(|size| size.bytes()),
        block_size: config.block_size.bytes(),
        direct: config.direct,
        read_only: config.read_only,
        cache: match config.cache {
            Cache::Writeback => bdev_file::Cache::Writeback,
            Cache::Writethrough => bdev_file::Cache::Writethrough,
            Cache::None => bdev_file::Cache::None,
        },
    }
}

/// A controller as the configuration describes it.
#[must_use]
pub fn controller(config: &config::Controller, bdevs: &Bdevs) -> Controller {
    let units = config.luns.iter().map(|lun| Arc::new(unit(lun, &config.limits, bdevs))).collect();
    Controller::new(ControllerConfig {
        name: config.name.as_str().into(),
        request_queues: config.queues,
        queue_size_max: config.queue_size_max,
        limits: limits(&config.limits),
        units,
    })
}

fn unit(lun: &config::Lun, limits: &config::Limits, bdevs: &Bdevs) -> Unit {
    let bdev = bdevs.named(&lun.bdev);
    let mut config = logical_unit_config(identity(&lun.identity), bdev.info(), limits.max_sectors);
    config.read_only |= lun.read_only;
    Unit { target: lun.target, lun: lun.lun, logical_unit: LogicalUnit::new(config), bdev }
}

fn identity(config: &config::Identity) -> scsi::Identity {
    const CHECKED: &str = "the configuration was checked against the same bounds";
    let naa = scsi::Naa::new(config.wwn.as_bytes()).expect(CHECKED);
    scsi::Identity::new(&config.vendor, &config.product, &config.revision, &config.serial, naa).expect(CHECKED)
}

fn limits(config: &config::Limits) -> Limits {
    Limits {
        cmd_per_lun: config.cmd_per_lun,
        max_sectors: config.max_sectors,
        seg_max: config.seg_max.map(u32::from),
        on_cmd_per_lun: match config.on_cmd_per_lun {
            OnCmdPerLun::Transport => OnCommandLimit::Transport,
            OnCmdPerLun::Failure => OnCommandLimit::Failure,
            OnCmdPerLun::Scsi => OnCommandLimit::Scsi,
        },
        on_max_sectors: match config.on_max_sectors {
            OnMaxSectors::Transport => OnTransferLimit::Transport,
            OnMaxSectors::Scsi => OnTransferLimit::Scsi,
        },
    }
}
