//! What goes wrong below, and what becomes of it.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use bdev::Extent;
use bdev_file::Cache;

use super::*;

#[test]
fn file_read_only_refuses_every_change_and_reads() {
    for place in places() {
        let bytes = pattern(8192, 5);
        std::fs::write(path(&place, "f"), &bytes).unwrap();
        let file = open(&FileConfig { read_only: true, ..FileConfig::new(path(&place, "f")) });
        assert!(file.info().read_only && !file.info().can.unmap);
        let (mut channel, guest) = (file.open(), Guest::new(4096));
        for op in [WRITE, Op::WriteZeroes { unmap: true }, Op::WriteSame, Op::CompareAndWrite { fua: false }] {
            let length = op.data_bytes(1, 512) as usize;
            assert_eq!(run(&mut channel, op, 0, 1, &[guest.at(0, length)]), Status::WriteProtected, "{op:?}");
        }
        let unmap = Io::unmap(&[Extent { lba: 0, blocks: 1 }], Token(0));
        assert_eq!(run_io(&mut channel, &unmap), Status::WriteProtected);
        assert_eq!(content(&file), bytes);
    }
}

#[test]
fn file_cut_off_under_us_fails_reads_beyond_its_end_and_lives_on() {
    for (place, direct) in places().iter().flat_map(|place| [(place, true), (place, false)]) {
        let name = format!("f{direct}");
        let file = open(&FileConfig { direct, ..new_file(place, &name, 1 << 20) });
        let (mut channel, guest) = (file.open(), Guest::new(8192));
        let buffers = [guest.at(0, 8192)];
        OpenOptions::new().write(true).open(path(place, &name)).unwrap().set_len(4096 + 512).unwrap();
        assert_eq!(run(&mut channel, Op::Read, 0, 8, &[guest.at(0, 4096)]), Status::Good);
        assert_eq!(run(&mut channel, Op::Read, 0, 16, &buffers), Status::ReadError);
        assert_eq!(run(&mut channel, Op::Read, 1024, 16, &buffers), Status::ReadError);
        assert_eq!(run(&mut channel, Op::Verify, 1024, 16, &[]), Status::ReadError);
        // a write makes it long enough again
        guest.at(0, 8192).fill(0x11);
        assert_eq!(run(&mut channel, WRITE, 1024, 16, &buffers), Status::Good);
        guest.at(0, 8192).fill(0);
        assert_eq!(run(&mut channel, Op::Read, 1024, 16, &buffers), Status::Good);
        assert_eq!(guest.take(&buffers), [0x11; 8192]);
    }
}

#[test]
fn file_guest_memory_that_has_gone_fails_the_request_only() {
    for (place, direct) in places().iter().flat_map(|place| [(place, true), (place, false)]) {
        let name = format!("f{direct}");
        let file = open(&FileConfig { direct, ..new_file(place, &name, 1 << 20) });
        let (mut channel, guest) = (file.open(), Guest::new(8192));
        assert_eq!(run(&mut channel, WRITE, 0, 16, &[guest.at(0, 8192)]), Status::Good);
        guest.0.protect(false).unwrap();
        assert_eq!(run(&mut channel, Op::Read, 0, 8, &[guest.at(0, 4096)]), Status::Failed);
        assert_eq!(run(&mut channel, WRITE, 0, 8, &[guest.at(0, 4096)]), Status::Failed);
        guest.0.protect(true).unwrap();
        assert_eq!(run(&mut channel, Op::Read, 0, 8, &[guest.at(0, 4096)]), Status::Good);
    }
}

#[test]
fn file_on_a_full_file_system_is_out_of_space_until_blocks_are_given_back() {
    let place = tempfile::tempdir().unwrap();
    let mount = place.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&mount)
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        eprintln!("SKIPPED: a full file system: no right to mount a tmpfs");
        return;
    }
    let config = FileConfig { size: Some(8 << 20), ..FileConfig::new(mount.join("f")) };
    let file = open(&config);
    let (mut channel, guest) = (file.open(), Guest::new(2 << 20));
    let status = run(&mut channel, WRITE, 0, 4096, &[guest.at(0, 2 << 20)]);
    let unmapped = run_io(&mut channel, &Io::unmap(&[Extent { lba: 0, blocks: 4096 }], Token(1)));
    let again = run(&mut channel, WRITE, 8192, 8, &[guest.at(0, 4096)]);
    drop((channel, file));
    // The kernel lets go of the file a moment after the ring was closed.
    let end = Instant::now() + PATIENCE;
    while !Command::new("umount").arg(&mount).stderr(Stdio::null()).status().unwrap().success() {
        assert!(Instant::now() < end, "{mount:?} stays busy");
        thread::yield_now();
    }
    assert_eq!((status, unmapped, again), (Status::NoSpace, Status::Good, Status::Good));
}

#[test]
fn file_channel_dropped_with_requests_under_way_lets_go_of_every_buffer() {
    for place in places() {
        let file = open(&new_file(&place, "f", 64 << 20));
        {
            let (mut channel, guest) = (file.open(), Guest::new(1 << 20));
            guest.at(0, 1 << 20).fill(1);
            for n in 0..64 {
                let buffers = [guest.at(0, 1 << 20)];
                let io = Io::new(WRITE, n * 2048, 2048, &buffers, Token(n));
                assert_eq!(channel.submit(&io, NOW), Submitted::Pending);
            }
            channel.flush_submissions();
            drop(channel);
            // From here on nothing may read it: what is on the medium is all of one kind, or nothing.
            guest.at(0, 1 << 20).fill(2);
            thread::yield_now();
        }
        assert!(content(&file).iter().all(|byte| *byte != 2));
        // and no change of the device is under way any more
        let guest = Guest::new(1024);
        let mut channel = file.open();
        assert_eq!(run(&mut channel, Op::WriteZeroes { unmap: false }, 0, 1, &[]), Status::Good);
        let exchange = Op::CompareAndWrite { fua: false };
        assert_eq!(run(&mut channel, exchange, 0, 1, &[guest.at(0, 1024)]), Status::Good);
    }
}

#[test]
fn file_caches_say_truthfully_whether_writes_are_volatile() {
    let place = &places()[0];
    for (cache, volatile) in [(Cache::Writeback, true), (Cache::Writethrough, false)] {
        let file = open(&FileConfig { cache, ..new_file(place, &format!("{cache:?}"), 1 << 20) });
        assert_eq!(file.info().write_cache, volatile, "{cache:?}");
        let (mut channel, guest) = (file.open(), Guest::new(4096));
        for op in [WRITE, Op::Write { fua: true }] {
            assert_eq!(run(&mut channel, op, 0, 8, &[guest.at(0, 4096)]), Status::Good);
        }
        assert_eq!(run(&mut channel, Op::WriteZeroes { unmap: true }, 0, 8, &[]), Status::Good);
        assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
    }
}
