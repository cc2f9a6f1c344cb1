//! The block devices of a running target, by name: made from the configuration, and forgotten when nobody uses them any
//! more. What a device does is in the crates `bdev` and `bdev-file`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bdev::{Bdev, Counted, Delay, DelayConfig, Faulty, Malloc, Null, Ordered};
use bdev_file::{File, FileConfig};
use guest_memory::Backing;
use parking_lot::Mutex;

use crate::config::{self, BdevKind, Cache, Config, Missing};
use crate::spdk::{self, OpenError, Spdk};

/// A block device that could not be made. The text names it as the configuration does.
#[derive(Debug, thiserror::Error)]
#[error("bdev {name:?}: {text}")]
pub struct AssembleError {
    name: String,
    text: String,
}

/// The block devices there are. A handle: clones see the same devices.
#[derive(Clone, Default)]
pub struct Bdevs {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    /// Names of those that SPDK does not have yet.
    awaited: Arc<Mutex<BTreeSet<String>>>,
    spdk: Spdk,
}

struct Entry {
    device: Device,
    /// The configuration has it. Otherwise it stays until its last user is gone.
    wanted: bool,
}

/// A block device, counted.
#[derive(Clone)]
pub struct Device {
    /// What everybody uses.
    pub bdev: Arc<Counted>,
    /// The same, if it is a file.
    pub file: Option<Arc<File>>,
    /// The same, if it is a bdev of SPDK's.
    pub spdk: Option<Arc<spdk::Device>>,
    /// What the memory of a malloc device is made of.
    pub backing: Option<Backing>,
}

/// Why a block device was not made.
enum NotMade {
    /// SPDK has no such bdev, which may come.
    Absent,
    Failed(String),
}

/// Block devices that were made for another configuration, and those of the present one that it keeps.
pub struct Staged {
    devices: BTreeMap<String, Device>,
    /// Names of those that were made.
    made: Vec<String>,
}

impl Bdevs {
    /// Makes those of a configuration, each after the one it stands on; those of SPDK's come from `spdk`. Those that SPDK does
    /// not have, and that may come later, are left out, with those over them.
    ///
    /// # Errors
    /// The first one that cannot be made, mostly for want of memory.
    pub fn build(config: &Config, spdk: Spdk) -> Result<Bdevs, AssembleError> {
        let bdevs = Bdevs { entries: Arc::default(), awaited: Arc::default(), spdk };
        bdevs.ensure(bdevs.stage(config, |_| false)?);
        Ok(bdevs)
    }

    /// Makes what another configuration has, but for those devices that `keep` their place, and those that SPDK does not have.
    /// Nothing changes yet.
    ///
    /// # Errors
    /// The first one that cannot be made; those made before it are gone again.
    pub fn stage(&self, config: &Config, keep: impl Fn(&config::Bdev) -> bool) -> Result<Staged, AssembleError> {
        let mut staged = Staged { devices: BTreeMap::new(), made: Vec::new() };
        for bdev in config.build_order() {
            let name = bdev.name.as_str().to_owned();
            if bdev.kind.base().is_some_and(|base| !staged.has(base)) {
                continue; // it comes with what it stands on
            }
            if let Some(kept) = keep(bdev).then(|| self.find(&name)).flatten() {
                staged.devices.insert(name, kept);
                continue;
            }
            match staged.build_one(bdev, &self.spdk) {
                Ok(device) => {
                    staged.made.push(name.clone());
                    staged.devices.insert(name, device);
                }
                Err(NotMade::Absent) => {}
                Err(NotMade::Failed(text)) => return Err(AssembleError { name, text }),
            }
        }
        Ok(staged)
    }

    /// From now on these are the devices of the configuration. Others are forgotten when nobody uses them.
    pub fn ensure(&self, staged: Staged) {
        let mut entries = self.entries.lock();
        entries.values_mut().for_each(|entry| entry.wanted = false);
        let wanted = staged.devices.into_iter().map(|(name, device)| (name, Entry { device, wanted: true }));
        let replaced: Vec<_> = wanted.filter_map(|(name, entry)| entries.insert(name, entry)).collect();
        drop(entries);
        drop(replaced); // which may take time
    }

    /// The configuration does not have these devices any more: they are forgotten when nobody uses them.
    pub fn lose<'n>(&self, names: impl Iterator<Item = &'n str>) {
        let mut entries = self.entries.lock();
        for name in names {
            if let Some(entry) = entries.get_mut(name) {
                entry.wanted = false;
            }
        }
    }

    /// Closes devices that the configuration does not have and that nobody uses any more.
    pub fn forget_unused(&self) {
        loop {
            let unused = |_: &String, entry: &mut Entry| !entry.wanted && Arc::strong_count(&entry.device.bdev) == 1;
            let gone: Vec<_> = self.entries.lock().extract_if(.., unused).collect();
            if gone.is_empty() {
                return; // and none that stood on one of them
            }
        }
    }

    /// Waits for those of the configuration that may come later and are not there, and for no others. When SPDK has one it is
    /// told as [`spdk::Event::Appeared`].
    pub fn wait_for_the_rest(&self, config: &Config) {
        let rest: Vec<(&str, &config::SpdkBdev)> = config
            .bdevs
            .iter()
            .filter_map(|bdev| match &bdev.kind {
                BdevKind::Spdk(kind) if kind.missing == Missing::Wait && !self.has(&bdev.name) => {
                    Some((bdev.name.as_str(), kind))
                }
                _ => None,
            })
            .collect();
        let names = rest.iter().map(|&(name, _)| name.to_owned()).collect();
        let before = std::mem::replace(&mut *self.awaited.lock(), names);
        for (name, bdev) in rest.iter().filter(|&&(name, _)| !before.contains(name)) {
            tracing::warn!(
                bdev = %name,
                "SPDK has no bdev {:?}: the LUN over it is not there until SPDK has one (missing = \"wait\")", bdev.bdev
            );
        }
        self.spdk.wait_for(rest.into_iter());
    }

    /// Names of those that are waited for.
    #[must_use]
    pub fn awaited(&self) -> BTreeSet<String> {
        self.awaited.lock().clone()
    }

    /// Whether there is one of that name, which the configuration has.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.entries.lock().get(name).is_some_and(|entry| entry.wanted)
    }

    /// Whether there is one of that name that SPDK takes away.
    #[must_use]
    pub fn is_removed(&self, name: &str) -> bool {
        self.find(name).and_then(|device| device.spdk).is_some_and(|device| device.is_removed())
    }

    /// The device of that name.
    ///
    /// # Panics
    /// If there is none: the configuration was checked.
    #[must_use]
    pub fn named(&self, name: &str) -> Arc<dyn Bdev> {
        self.find(name).expect("the configuration was checked").bdev
    }

    /// All of them, by name.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        self.entries.lock().values().map(|entry| entry.device.clone()).collect()
    }

    /// Where those of kind `spdk` come from.
    #[must_use]
    pub fn spdk(&self) -> &Spdk {
        &self.spdk
    }

    fn find(&self, name: &str) -> Option<Device> {
        self.entries.lock().get(name).map(|entry| entry.device.clone())
    }
}

impl Staged {
    /// Those that were made for it.
    pub fn made(&self) -> impl Iterator<Item = &Device> {
        self.made.iter().map(|name| &self.devices[name])
    }

    /// Whether one of that name is there, or will be.
    pub fn has(&self, name: &str) -> bool {
        self.devices.contains_key(name)
    }

    fn base(&self, name: &str) -> Arc<dyn Bdev> {
        Arc::clone(&self.devices[name].bdev) as Arc<dyn Bdev>
    }

    fn build_one(&self, bdev: &config::Bdev, spdk: &Spdk) -> Result<Device, NotMade> {
        let (name, in_order) = (bdev.name.as_str(), bdev.in_order);
        let (mut file, mut backing, mut spdk_device) = (None, None, None);
        let mut bdev: Arc<dyn Bdev> = match &bdev.kind {
            BdevKind::Malloc(geometry) => {
                let (size, block_size) = (geometry.size.bytes(), geometry.block_size.bytes());
                let malloc = Malloc::new(name, size, block_size).map_err(failed)?;
                backing = Some(malloc.backing());
                Arc::new(malloc.with_physical_blocks(geometry.physical_block_size.bytes()))
            }
            BdevKind::Null(geometry) => {
                let block_size = geometry.block_size.bytes();
                let blocks = geometry.size.bytes() / u64::from(block_size);
                let null = Null::new(name, blocks, block_size).map_err(failed)?;
                Arc::new(null.with_physical_blocks(geometry.physical_block_size.bytes()))
            }
            BdevKind::Delay(delay) => {
                let config = DelayConfig::timed(u64::from(delay.latency_us), u64::from(delay.p99_us));
                Arc::new(Delay::new(name, self.base(&delay.base), config).map_err(failed)?)
            }
            BdevKind::Error(fault) => Arc::new(Faulty::new(name, self.base(&fault.base), fault.fail.clone())),
            BdevKind::File(config) => {
                let opened = File::open(name, &file_config(config)).map_err(failed)?;
                Arc::clone(file.insert(Arc::new(opened))) as Arc<dyn Bdev>
            }
            BdevKind::Spdk(config) => {
                let opened = spdk.open(name, config).map_err(|error| match error {
                    OpenError::Missing(_) if config.missing == Missing::Wait => NotMade::Absent,
                    error => failed(error),
                })?;
                spdk_device = Some(opened.device);
                opened.bdev
            }
        };
        if in_order {
            bdev = Arc::new(Ordered::new(bdev));
        }
        Ok(Device { bdev: Arc::new(Counted::new(bdev)), file, spdk: spdk_device, backing })
    }
}

fn failed(error: impl ToString) -> NotMade {
    NotMade::Failed(error.to_string())
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
