//! What a guest reads when the file below its disk fails: literal sense bytes, and counters beside them.

use std::fs::OpenOptions;

use tempfile::TempDir;
use tests::device::{Request, lun};
use tests::live::client::{FIRST, LOGICAL_UNIT_RESET, read, write};
use tests::live::host::Fixture;

use crate::guest::guest;

const SYNCHRONIZE_CACHE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// WRITE (10) of block 0 with FUA.
const FORCED_WRITE: [u8; 10] = [0x2a, 0x08, 0, 0, 0, 0, 0, 0, 1, 0];

fn flush() -> Request {
    Request::new(lun(0, 0), &SYNCHRONIZE_CACHE)
}

#[test]
fn file_without_room_is_space_allocation_failed_until_blocks_are_given_back() {
    let place = TempDir::new().unwrap();
    let Some(mount) = Fixture::small_tmpfs(&place) else { return };
    let Some(mut guest) = guest(&mount.path().join("f"), "size = '8MiB'") else { return };
    let block = [0x55; 64 << 10];
    let mut written = 0;
    let sense = loop {
        let reply = guest.client.run(FIRST, write(0, written * 128, &block));
        if reply.outcome() != (0, 0) {
            break reply.sense();
        }
        written += 1;
        assert!(written < 128, "8 MiB in 1 MiB");
    };
    assert_eq!(sense, Some((0x07, 0x27, 0x07)), "DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT");
    assert!(written > 8, "{written}");
    assert!(guest.metric("ringside_bdev_errors_total") >= 1.0);
    assert_eq!(guest.metric("ringside_bdev_file_sync_failed"), 0.0);
    // nothing was lost: what was written is there, and may be written again
    assert_eq!(guest.good(read(0, (written - 1) * 128, 128)), block);
    guest.good(write(0, 0, &block));
    guest.good(flush());
}

#[test]
fn block_device_that_cannot_be_read_is_an_unrecovered_read_error() {
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let backing = place.path().join("backing");
    for keys in ["", "direct = false"] {
        let Some(device) = Fixture::loop_device(&backing, 4 << 20, 512) else { return };
        let Some(mut guest) = guest(device.path(), keys) else { return };
        OpenOptions::new().write(true).open(&backing).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(guest.sense(read(0, 4096, 8)), Some((0x03, 0x11, 0x00)), "MEDIUM ERROR, UNRECOVERED READ ERROR");
        assert_eq!(guest.good(read(0, 0, 8)), [0; 4096]);
        let errors = guest.running.scrape().sum("ringside_bdev_errors_total", &[("bdev", "disk"), ("op", "read")]);
        assert_eq!(errors, 1.0);
        assert_eq!(guest.metric("ringside_bdev_file_sync_failed"), 0.0);
        drop((guest, device));
    }
}

#[test]
fn file_that_lost_data_in_a_flush_is_a_write_error_until_the_lun_is_reset() {
    let place = TempDir::new().unwrap();
    let Some(mount) = Fixture::small_tmpfs(&place) else { return };
    let Some(device) = Fixture::loop_device(&mount.path().join("backing"), 8 << 20, 512) else { return };
    let Some(mut guest) = guest(device.path(), "direct = false") else { return };
    // More than there is room for behind the page cache, which takes it all.
    (0..64).for_each(|n| _ = guest.good(write(0, n * 128, &[n as u8; 64 << 10])));
    let lost = Some((0x03, 0x0c, 0x00)); // MEDIUM ERROR, WRITE ERROR
    assert_eq!(guest.sense(flush()), lost);
    // The kernel would say now that all is well: it has forgotten.
    assert_eq!(guest.sense(flush()), lost);
    assert_eq!(guest.sense(Request::new(lun(0, 0), &FORCED_WRITE).data_out([1; 512])), lost);
    assert_eq!(guest.metric("ringside_bdev_file_sync_failed"), 1.0);
    assert_eq!(guest.metric("ringside_bdev_file_sync_failures_total"), 1.0);
    guest.good(write(0, 0, &[2; 512]));
    assert_eq!(guest.good(read(0, 0, 1)), [2; 512]);

    let token = guest.client.send_tmf(LOGICAL_UNIT_RESET, 0, 0);
    let answer = guest.client.queue(0).wait_for(token);
    assert_eq!(answer.byte(), 0, "FUNCTION COMPLETE");
    assert_eq!(guest.sense(flush()), Some((0x06, 0x29, 0x03)), "BUS DEVICE RESET FUNCTION OCCURRED");
    guest.good(flush());
    guest.good(Request::new(lun(0, 0), &FORCED_WRITE).data_out([3; 512]));
    assert_eq!(guest.metric("ringside_bdev_file_sync_failed"), 0.0);
    drop((guest, device));
}

#[test]
fn file_that_is_read_only_is_write_protected() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("f");
    std::fs::write(&path, [9; 8192]).unwrap();
    let Some(mut guest) = guest(&path, "read_only = true") else { return };
    assert_eq!(guest.sense(write(0, 0, &[1; 512])), Some((0x07, 0x27, 0x00)), "DATA PROTECT, WRITE PROTECTED");
    assert_eq!(guest.good(read(0, 0, 16)), [9; 8192]);
    // MODE SENSE (6), caching page: WP in the device-specific parameter
    let header = guest.good(Request::new(lun(0, 0), &[0x1a, 0x08, 0x08, 0, 255, 0]).data_in(255));
    assert_eq!(header[2] & 0x80, 0x80);
}

#[test]
fn file_cache_modes_are_told_by_the_caching_mode_page() {
    let place = TempDir::new().unwrap();
    for (cache, wce) in [("writeback", 0x04), ("writethrough", 0x00), ("none", 0x04)] {
        let path = place.path().join(cache);
        let Some(mut guest) = guest(&path, &format!("size = '1MiB'\ncache = '{cache}'")) else { return };
        // MODE SENSE (6) without block descriptors, caching page 08h: its third byte has WCE (SBC-4 §6.5.6)
        let page = guest.good(Request::new(lun(0, 0), &[0x1a, 0x08, 0x08, 0, 255, 0]).data_in(255));
        assert_eq!((page[4] & 0x3f, page[6] & 0x04), (0x08, wce), "{cache}");
        assert_eq!(page[2] & 0x10, 0x10, "DPOFUA: FUA is honoured");
        guest.good(Request::new(lun(0, 0), &FORCED_WRITE).data_out([1; 512]));
    }
}
