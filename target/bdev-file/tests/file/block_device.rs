//! Block devices of the host: loop devices over files on tmpfs, which are what is looked at afterwards. Where none may be
//! made, these tests are skipped, and say so.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use bdev::{BlockRun, BlockRuns, Extent, Provisioning};
use bdev_file::Cache;

use super::*;

const SIZE: usize = 8 << 20;

/// A loop device, which goes when it is dropped.
struct Loop {
    place: TempDir,
    device: PathBuf,
}

impl Loop {
    /// Over a sparse file on tmpfs; `None`, said loudly, where that may not be done.
    fn new(arguments: &[&str]) -> Option<Loop> {
        let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Loop::over(place, "backing", arguments)
    }

    fn over(place: TempDir, name: &str, arguments: &[&str]) -> Option<Loop> {
        let backing = place.path().join(name);
        std::fs::File::create(&backing).unwrap().set_len(SIZE as u64).unwrap();
        let output = Command::new("losetup").args(arguments).args(["--find", "--show"]).arg(&backing).output();
        match output {
            Ok(output) if output.status.success() => {
                let device = String::from_utf8(output.stdout).unwrap().trim().into();
                Some(Loop { place, device })
            }
            Ok(output) => skipped(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => skipped(&error.to_string()),
        }
    }

    fn config(&self) -> FileConfig {
        FileConfig::new(&self.device)
    }

    fn backing(&self) -> PathBuf {
        self.place.path().join("backing")
    }

    /// Bytes that the file behind it takes up.
    fn allocated(&self) -> u64 {
        std::fs::metadata(self.backing()).unwrap().blocks() * 512
    }

    /// How many flushes have reached the device (the 16th number of its statistics).
    fn flushes(&self) -> u64 {
        let name = self.device.file_name().unwrap();
        let text = std::fs::read_to_string(Path::new("/sys/block").join(name).join("stat")).unwrap();
        text.split_whitespace().nth(15).expect("Linux 5.5 counts flushes").parse().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.device).status();
        assert!(thread::panicking() || detached.unwrap().success(), "{:?} stays", self.device);
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    eprintln!("SKIPPED: a block device of the host: no loop device to be had: {}", why.trim());
    None
}

/// A small file system, unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(place: &TempDir, size: &str) -> Option<Mount> {
        let at = place.path().join("small");
        std::fs::create_dir(&at).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&at).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Mount(at));
        }
        skipped("no right to mount a tmpfs")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // What is still open below it keeps it alive until it is closed.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(thread::panicking() || unmounted.unwrap().success());
    }
}

#[test]
fn block_device_has_its_own_size_and_is_written_and_read() {
    for direct in [true, false] {
        let Some(device) = Loop::new(&[]) else { return };
        let file = open(&FileConfig { direct, ..device.config() });
        let info = file.info().clone();
        assert_eq!((info.block_size, info.block_count, info.read_only), (512, (SIZE / 512) as u64, false));
        assert_eq!((file.is_direct(), file.notes()), (direct, &[][..]));
        let (mut channel, guest) = (file.open(), Guest::new(SIZE + 4096));
        let bytes = pattern(SIZE, 0x71);
        // aligned, and not
        for shift in [0, 1] {
            let buffers = [guest.at(shift, SIZE)];
            guest.put(&buffers, &bytes);
            assert_eq!(run(&mut channel, WRITE, 0, (SIZE / 512) as u32, &buffers), Status::Good);
            assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
            assert!(std::fs::read(device.backing()).unwrap() == bytes, "direct {direct}, shifted by {shift}");
            guest.put(&buffers, &vec![0; SIZE]);
            assert_eq!(run(&mut channel, Op::Read, 0, (SIZE / 512) as u32, &buffers), Status::Good);
            assert!(guest.take(&buffers) == bytes, "direct {direct}, shifted by {shift}");
        }
        assert_eq!(file.counts().bounced > 0, direct);
        assert_eq!(run(&mut channel, Op::Read, info.block_count, 1, &[guest.at(0, 512)]), Status::OutOfRange);
        // nobody knows what is behind its blocks
        let runs = BlockRuns::default();
        assert_eq!(run_io(&mut channel, &Io::block_status(8, 3, &runs, Token(1))), Status::Good);
        assert_eq!(runs.found(), [BlockRun { lba: 8, blocks: info.block_count - 8, allocated: true }]);
        let text = File::open("g", &FileConfig { size: Some(4096), ..device.config() }).unwrap_err().to_string();
        assert!(text.contains("locked") || text.contains("in use") || text.contains("has 8388608"), "{text}");
    }
}

#[test]
fn block_device_is_served_once_and_not_while_it_is_mounted() {
    let Some(device) = Loop::new(&[]) else { return };
    let file = open(&device.config());
    let text = File::open("g", &device.config()).unwrap_err().to_string();
    assert!(text.ends_with("(it is mounted, or in use by another device or process)"), "{text}");
    drop(file);
    open(&device.config());
}

#[test]
fn block_device_unmaps_and_writes_zeroes() {
    for direct in [true, false] {
        let Some(device) = Loop::new(&[]) else { return };
        let file = open(&FileConfig { direct, ..device.config() });
        let info = file.info().clone();
        assert!(info.can.unmap && info.unmapped_reads_zeroes, "{info:?}");
        assert_eq!(info.provisioning, Provisioning::Thin);
        let (mut channel, guest) = (file.open(), Guest::new(SIZE));
        let mut model = pattern(SIZE, 0x19);
        guest.put(&[guest.at(0, SIZE)], &model);
        assert_eq!(run(&mut channel, WRITE, 0, (SIZE / 512) as u32, &[guest.at(0, SIZE)]), Status::Good);
        assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
        let before = device.allocated();
        assert!(before >= SIZE as u64);
        let extents = [(8, 8192), (9001, 3), (16383, 1)].map(|(lba, blocks)| Extent { lba, blocks });
        assert_eq!(run_io(&mut channel, &Io::unmap(&extents, Token(4))), Status::Good);
        for extent in extents {
            model[extent.lba as usize * 512..][..extent.blocks as usize * 512].fill(0);
        }
        assert!(content(&file) == model);
        assert!(device.allocated() + (4 << 20) <= before, "{before} bytes before, {} after", device.allocated());
        for (unmap, lba, blocks) in [(false, 3, 1), (true, 9, 700), (false, 10000, 3000)] {
            assert_eq!(run(&mut channel, Op::WriteZeroes { unmap }, lba, blocks, &[]), Status::Good);
            model[lba as usize * 512..][..blocks as usize * 512].fill(0);
        }
        guest.at(0, 512).fill(0x5a);
        assert_eq!(run(&mut channel, Op::WriteSame, 12000, 1000, &[guest.at(0, 512)]), Status::Good);
        model[12000 * 512..][..1000 * 512].fill(0x5a);
        assert!(content(&file) == model);
        assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
        assert!(std::fs::read(device.backing()).unwrap() == model);
    }
}

#[test]
fn block_device_of_4096_byte_blocks_is_direct_for_guests_with_such_blocks_only() {
    let Some(device) = Loop::new(&["--sector-size", "4096"]) else { return };
    let large = open(&FileConfig { block_size: 4096, ..device.config() });
    assert!(large.is_direct());
    let info = large.info();
    assert_eq!((info.block_count, info.physical_block_exponent, info.unmap_granularity_blocks), (2048, 0, 1));
    let (mut channel, guest) = (large.open(), Guest::new(SIZE + 4096));
    let mut model = pattern(SIZE, 0x23);
    for shift in [0, 512] {
        let buffers = [guest.at(shift, SIZE)];
        guest.put(&buffers, &model);
        assert_eq!(run(&mut channel, WRITE, 0, 2048, &buffers), Status::Good);
    }
    let extents = [Extent { lba: 1, blocks: 1000 }];
    assert_eq!(run_io(&mut channel, &Io::unmap(&extents, Token(4))), Status::Good);
    model[4096..][..1000 * 4096].fill(0);
    assert!(content(&large) == model);
    drop((channel, large));

    let small = open(&device.config());
    assert!(!small.is_direct());
    assert!(small.notes()[0].contains("O_DIRECT needs blocks of 4096 bytes, block_size is 512"), "{:?}", small.notes());
    assert_eq!((small.info().physical_block_exponent, small.info().unmap_granularity_blocks), (3, 8));
    let mut channel = small.open();
    let allocated = device.allocated();
    // less than a block of the device, and then as many as it likes
    let extents = [(4095 * 4, 1), (4000 * 4 + 1, 9), (1500 * 8, 400)].map(|(lba, blocks)| Extent { lba, blocks });
    assert_eq!(run_io(&mut channel, &Io::unmap(&extents, Token(4))), Status::Good);
    for extent in extents {
        model[extent.lba as usize * 512..][..extent.blocks as usize * 512].fill(0);
    }
    guest.at(0, 512).fill(0xee);
    assert_eq!(run(&mut channel, WRITE, 16383, 1, &[guest.at(0, 512)]), Status::Good);
    model[16383 * 512..].fill(0xee);
    assert!(content(&small) == model);
    assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
    assert!(device.allocated() + (400 * 512) <= allocated, "{allocated} before, {} after", device.allocated());
    assert!(std::fs::read(device.backing()).unwrap() == model);
    let none = FileConfig { cache: Cache::None, ..device.config() };
    drop((channel, small));
    assert!(File::open("f", &none).unwrap_err().to_string().contains("O_DIRECT needs blocks of 4096 bytes"));
}

#[test]
fn block_device_that_is_read_only_is_served_as_such() {
    let Some(device) = Loop::new(&["--read-only"]) else { return };
    let text = File::open("f", &device.config()).unwrap_err().to_string();
    assert!(text.ends_with("(read_only = true serves what may only be read)"), "{text}");
    let file = open(&FileConfig { read_only: true, ..device.config() });
    assert!(file.info().read_only && file.is_direct());
    let (mut channel, guest) = (file.open(), Guest::new(4096));
    assert_eq!(run(&mut channel, WRITE, 0, 8, &[guest.at(0, 4096)]), Status::WriteProtected);
    assert_eq!(run(&mut channel, Op::Read, 0, 8, &[guest.at(0, 4096)]), Status::Good);
}

/// What a guest is told to be on stable storage has been flushed by the device, one for one.
#[test]
fn block_device_is_flushed_by_every_flush_and_forced_write_and_by_no_other() {
    let ways = [Cache::Writeback, Cache::Writethrough, Cache::None].into_iter();
    for (cache, direct) in ways.flat_map(|cache| [(cache, true), (cache, false)]) {
        let Some(device) = Loop::new(&[]) else { return };
        let file = open(&FileConfig { cache, direct, ..device.config() });
        assert_eq!(file.is_direct(), direct || cache == Cache::None);
        let (mut channel, guest) = (file.open(), Guest::new(8192));
        let through = cache == Cache::Writethrough;
        let zeroes = Op::WriteZeroes { unmap: false };
        let forced = Op::Write { fua: true };
        let table = [
            (WRITE, through),
            (forced, true),
            (Op::Flush, true),
            (Op::Read, false),
            (Op::WriteSame, through),
            (zeroes, through),
            (Op::CompareAndWrite { fua: true }, true),
            (Op::CompareAndWrite { fua: false }, through),
        ];
        for (op, flushes) in table {
            let at = if let Op::CompareAndWrite { .. } = op { 512 } else { 0 };
            let blocks = if op == Op::Flush { 0 } else { 8 };
            guest.at(0, 8192).fill(at as u8);
            let before = device.flushes();
            let status = run(&mut channel, op, at, blocks, &[guest.at(0, op.data_bytes(blocks, 512) as usize)]);
            assert_eq!(status, Status::Good, "{cache:?} {op:?}");
            assert_eq!(device.flushes() > before, flushes, "{cache:?}, direct {direct}, {op:?}");
        }
        assert_eq!(file.info().write_cache, !through);
    }
}

/// The file behind it is cut: the device itself fails, as a disk with bad blocks does.
#[test]
fn block_device_that_cannot_be_read_fails_those_reads_only() {
    for direct in [true, false] {
        let Some(device) = Loop::new(&[]) else { return };
        let file = open(&FileConfig { direct, ..device.config() });
        let (mut channel, guest) = (file.open(), Guest::new(8192));
        OpenOptions::new().write(true).open(device.backing()).unwrap().set_len(1 << 20).unwrap();
        let mut read = |lba| run(&mut channel, Op::Read, lba, 16, &[guest.at(0, 8192)]);
        assert_eq!(
            (read(0), read(4096), read(2032), read(8192)),
            (Status::Good, Status::ReadError, Status::Good, Status::ReadError)
        );
        assert_eq!(run(&mut channel, Op::Verify, 4096, 8, &[]), Status::ReadError);
        let halves = [guest.at(0, 8192)];
        assert_eq!(run(&mut channel, Op::CompareAndWrite { fua: false }, 4096, 8, &halves), Status::ReadError);
        assert_eq!(run(&mut channel, Op::WriteZeroes { unmap: false }, 0, 8, &[]), Status::Good, "the device is free");
        assert!(!file.sync_failed());
    }
}

/// The file system behind it is full, which is found out long after writes to the page cache have ended well.
#[test]
fn block_device_that_lost_cached_data_fails_every_flush_until_reset() {
    let place = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::tmpfs(&place, "size=1m") else { return };
    let behind = tempfile::tempdir_in(&mount.0).unwrap();
    let Some(device) = Loop::over(behind, "backing", &[]) else { return };
    let file = open(&FileConfig { direct: false, ..device.config() });
    let (mut channel, guest) = (file.open(), Guest::new(4 << 20));
    guest.at(0, 4 << 20).fill(7);
    assert_eq!(run(&mut channel, WRITE, 0, 8192, &[guest.at(0, 4 << 20)]), Status::Good);
    assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::WriteError);
    assert!(file.sync_failed());
    let forced = Op::Write { fua: true };
    for op in [Op::Flush, forced] {
        let blocks = if op == forced { 8 } else { 0 };
        let buffers = [guest.at(0, blocks as usize * 512)];
        assert_eq!(run(&mut channel, op, 0, blocks, &buffers), Status::WriteError, "{op:?}");
    }
    assert_eq!(run(&mut channel, Op::Read, 0, 8, &[guest.at(0, 4096)]), Status::Good);
    assert_eq!(run(&mut channel, WRITE, 0, 8, &[guest.at(0, 4096)]), Status::Good);
    // whoever resets it knows, and new data that has room is safe again
    file.reset();
    assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
    assert_eq!(run(&mut channel, forced, 0, 8, &[guest.at(0, 4096)]), Status::Good);
    // a forced write that finds no room may have found older data without room
    assert_eq!(run(&mut channel, forced, 12000, 8, &[guest.at(0, 4096)]), Status::WriteError);
    assert!(file.sync_failed());
    drop((channel, file, device));
}

/// A device past the page cache says at once that there is no room, and nothing was lost.
#[test]
fn block_device_without_room_says_so_at_once_when_direct() {
    let place = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::tmpfs(&place, "size=1m") else { return };
    let behind = tempfile::tempdir_in(&mount.0).unwrap();
    let Some(device) = Loop::over(behind, "backing", &[]) else { return };
    let file = open(&device.config());
    let (mut channel, guest) = (file.open(), Guest::new(4 << 20));
    let status = run(&mut channel, WRITE, 0, 8192, &[guest.at(0, 4 << 20)]);
    assert_eq!(status, Status::NoSpace);
    assert!(!file.sync_failed());
    assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
    let unmapped = Io::unmap(&[Extent { lba: 0, blocks: 8192 }], Token(1));
    assert_eq!(run_io(&mut channel, &unmapped), Status::Good);
    assert_eq!(run(&mut channel, Op::Write { fua: true }, 0, 8, &[guest.at(0, 4096)]), Status::Good);
}
