//! Opening a file: creation, lock, size, and what the file system under it can do. Runs on control threads.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bdev::{Abilities, BdevInfo, Geometry, Provisioning};
use guest_memory::{Pages, SharedMemory};
use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::config::{Cache, FileConfig, FileError};
use crate::file::Alignment;
use crate::lock;

/// A file that can be served.
#[derive(Debug)]
pub(crate) struct Opened {
    pub fd: OwnedFd,
    pub geometry: Geometry,
    /// `None`: through the page cache.
    pub direct: Option<Alignment>,
    /// Whether blocks can be given back.
    pub holes: bool,
    /// No block device.
    pub regular: bool,
    pub rotational: bool,
    pub physical_block: u32,
    pub notes: Vec<String>,
}

pub(crate) fn open(config: &FileConfig) -> Result<Opened, FileError> {
    let path = &config.path;
    let call = |action| move |source: io::Error| FileError::Call { path: path.clone(), action, source };
    let (file, metadata) = exclusively(config)?;
    let block_device = metadata.file_type().is_block_device();
    if block_device && !config.read_only && Queue::of(&metadata, true).read_only {
        let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        return Err(FileError::Open { path: path.clone(), source, hint: READ_ONLY_HINT });
    }
    let size = sized(config, &file, block_device)?;
    let geometry = Geometry::of_bytes(size, config.block_size)
        .map_err(|source| FileError::Geometry { path: path.clone(), source })?;
    let mut notes = Vec::new();
    let direct = match direct(config, &file, geometry, block_device) {
        Ok(alignment) => alignment,
        Err(why) if config.cache == Cache::None => return Err(FileError::NotDirect { path: path.clone(), why }),
        Err(why) => {
            notes.push(format!("{path:?} is served through the page cache of the host: {why}"));
            clear_direct(&file).map_err(call("clearing O_DIRECT"))?;
            None
        }
    };
    let queue = Queue::of(&metadata, block_device);
    let holes = if block_device { queue.discards } else { !config.read_only && has_holes(&file, geometry) };
    Ok(Opened {
        fd: file.into(),
        geometry,
        direct,
        holes,
        regular: !block_device,
        rotational: queue.rotational,
        physical_block: queue.physical_block,
        notes,
    })
}

/// What the device says about itself.
pub(crate) fn info(name: String, config: &FileConfig, opened: &Opened) -> BdevInfo {
    let block_size = config.block_size;
    let physical_block_exponent = match opened.physical_block / block_size {
        ratio @ 2.. if ratio.is_power_of_two() => ratio.ilog2() as u8,
        _ => 0,
    };
    BdevInfo {
        physical_block_exponent,
        write_cache: config.cache != Cache::Writethrough,
        rotational: opened.rotational,
        can: Abilities { unmap: opened.holes, ..Abilities::ALL },
        provisioning: if opened.holes { Provisioning::Thin } else { Provisioning::Full },
        unmapped_reads_zeroes: true,
        unmap_granularity_blocks: (PAGE_BYTES / block_size).max(1),
        bulk_blocks_max: BULK_BYTES_MAX / block_size,
        ..BdevInfo::new(name, "file", opened.geometry)
    }
}

/// The open and locked file. The kernel lets go of what a ring had open a moment after the ring was closed, or its
/// process killed: who is started in its place waits that long.
fn exclusively(config: &FileConfig) -> Result<(File, Metadata), FileError> {
    let end = Instant::now() + AFTERLIFE;
    loop {
        let error = match open_and_lock(config) {
            Err(error) if error.is_busy() => error,
            result => return result,
        };
        if Instant::now() >= end {
            return Err(error);
        }
        thread::sleep(AFTERLIFE / 50); // nothing tells when it is free
    }
}

fn open_and_lock(config: &FileConfig) -> Result<(File, Metadata), FileError> {
    let path = &config.path;
    let call = |action| move |source: io::Error| FileError::Call { path: path.clone(), action, source };
    let file = open_path(config)?;
    let metadata = file.metadata().map_err(call("fstat"))?;
    if !metadata.file_type().is_block_device() && !metadata.is_file() {
        return Err(FileError::Kind { path: path.clone(), found: kind(&metadata) });
    }
    match lock::lock(file.as_fd(), !config.read_only).map_err(call("locking it"))? {
        true => Ok((file, metadata)),
        false => Err(FileError::Locked { path: path.clone() }),
    }
}

fn open_path(config: &FileConfig) -> Result<File, FileError> {
    let path = &config.path;
    let metadata = path.metadata().ok();
    let block_device = metadata.as_ref().is_some_and(|metadata| metadata.file_type().is_block_device());
    // A pipe would be waited for.
    if let Some(metadata) = metadata.filter(|metadata| !block_device && !metadata.is_file()) {
        return Err(FileError::Kind { path: path.clone(), found: kind(&metadata) });
    }
    let mut flags = OFlags::empty();
    if block_device && !config.read_only {
        flags |= OFlags::EXCL; // not while it is mounted, or part of something
    }
    let attempt = |flags: OFlags| {
        OpenOptions::new()
            .read(true)
            .write(!config.read_only)
            .create(config.size.is_some() && !config.read_only && !block_device)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags.bits() as i32)
            .open(path)
    };
    let wants_direct = config.direct || config.cache == Cache::None;
    let result = if wants_direct { attempt(flags | OFlags::DIRECT) } else { attempt(flags) };
    let result = match result {
        // A file system without it; `direct` below finds out and says so.
        Err(error) if wants_direct && error.raw_os_error() == Some(libc::EINVAL) => attempt(flags),
        result => result,
    };
    result.map_err(|source| {
        let hint = match source.raw_os_error() {
            Some(libc::EROFS | libc::EACCES | libc::EPERM) if !config.read_only => READ_ONLY_HINT,
            Some(libc::ENOENT) if config.size.is_none() => " (give a size to create it)",
            Some(libc::EBUSY) => " (it is mounted, or in use by another device or process)",
            _ => "",
        };
        FileError::Open { path: path.clone(), source, hint }
    })
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_char_device() => "a character device",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "something else",
    }
}

/// The size that the file has, or gets now.
fn sized(config: &FileConfig, file: &File, block_device: bool) -> Result<u64, FileError> {
    let path = &config.path;
    let call = |action| move |source: io::Error| FileError::Call { path: path.clone(), action, source };
    // The end of a block device is not in its metadata.
    let found =
        rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(|errno| call("seeking its end")(errno.into()))?;
    match config.size {
        None if found == 0 => Err(FileError::Empty { path: path.clone() }),
        None => Ok(found),
        Some(wanted) if wanted == found => Ok(found),
        Some(wanted) if found == 0 && !block_device && !config.read_only => {
            // Not before it is a size: a file of the wrong size would stay behind.
            Geometry::of_bytes(wanted, config.block_size)
                .map_err(|source| FileError::Geometry { path: path.clone(), source })?;
            file.set_len(wanted).map_err(call("making it as long as size"))?;
            Ok(wanted)
        }
        Some(wanted) => Err(FileError::OtherSize { path: path.clone(), wanted, found }),
    }
}

/// The alignment for transfers past the page cache, `None` if they are not wanted; or why there are none.
fn direct(
    config: &FileConfig,
    file: &File,
    geometry: Geometry,
    block_device: bool,
) -> Result<Option<Alignment>, String> {
    if !config.direct && config.cache != Cache::None {
        return Ok(None);
    }
    let flags = rustix::fs::fcntl_getfl(file).map_err(|errno| errno.to_string())?;
    if !flags.contains(OFlags::DIRECT) {
        return Err("its file system has no O_DIRECT".to_owned());
    }
    let alignment = told_alignment(file, block_device)?;
    if !(geometry.block_size() as usize).is_multiple_of(alignment.length) {
        let Alignment { length, .. } = alignment;
        return Err(format!("O_DIRECT needs blocks of {length} bytes, block_size is {}", geometry.block_size()));
    }
    probe(file, geometry).map_err(|error| format!("reading a block of it with O_DIRECT: {error}"))?;
    Ok(Some(alignment))
}

/// What the kernel says (6.1 and newer, not every file system), else the usual.
fn told_alignment(file: &File, block_device: bool) -> Result<Alignment, String> {
    if let Ok(statx) = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::DIOALIGN)
    {
        let (memory, length) = (statx.stx_dio_mem_align as usize, statx.stx_dio_offset_align as usize);
        if memory == 0 || length == 0 {
            return Err("its file system has no O_DIRECT for it".to_owned());
        }
        return Ok(Alignment { memory, length });
    }
    let sector = if block_device { rustix::fs::ioctl_blksszget(file).unwrap_or(512) as usize } else { 512 };
    Ok(Alignment { memory: sector, length: sector })
}

/// Reads the second block, or the only one: does the file system mean it?
fn probe(file: &File, geometry: Geometry) -> io::Result<()> {
    let memory = SharedMemory::create("ringside-probe", PAGE_BYTES as usize, Pages::Small)?;
    let block_size = geometry.block_size() as usize;
    let offset = if geometry.block_count() > 1 { block_size as u64 } else { 0 };
    crate::ring::read_once(file.as_fd(), memory.slice().split_at(block_size).0, offset)
}

fn clear_direct(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?)
}

/// Whether the file system knows holes, found out behind the end of the file.
fn has_holes(file: &File, geometry: Geometry) -> bool {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, geometry.bytes(), u64::from(PAGE_BYTES)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => false,
        // Behind the end of the largest file there is nothing to ask for.
        Ok(()) | Err(_) => true,
    }
}

/// What a block device of the host says about itself; of a file, the device under it is not asked.
struct Queue {
    read_only: bool,
    rotational: bool,
    discards: bool,
    physical_block: u32,
}

impl Queue {
    fn of(metadata: &Metadata, block_device: bool) -> Queue {
        if !block_device {
            return Queue { read_only: false, rotational: false, discards: false, physical_block: 0 };
        }
        let device = metadata.rdev();
        let device = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        // A partition has no queue of its own.
        let own = Path::new(&device).join("queue");
        let queue = if own.is_dir() { own } else { Path::new(&device).join("../queue") };
        let number = |path: &Path| -> u64 {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let value = |name: &str| number(&queue.join(name));
        Queue {
            read_only: number(&Path::new(&device).join("ro")) != 0,
            rotational: value("rotational") != 0,
            discards: value("discard_max_bytes") > 0 && value("write_zeroes_max_bytes") > 0,
            physical_block: u32::try_from(value("physical_block_size")).unwrap_or(0),
        }
    }
}

/// How long what a closed ring had open may go on being so.
const AFTERLIFE: Duration = Duration::from_millis(500);
const READ_ONLY_HINT: &str = " (read_only = true serves what may only be read)";
/// What file systems allocate in, nearly all of them.
const PAGE_BYTES: u32 = 4096;
/// Bytes of one bulk operation: done by the kernel's workers, but a guest waits 30 s at most.
const BULK_BYTES_MAX: u32 = 1 << 30;
