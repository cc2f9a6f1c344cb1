//! The largest commands that a Linux guest sends. QEMU's vhost-user-scsi tells a guest seg_max 126 whatever its rings
//! hold, and Linux makes segments of 64 KiB: 7.875 MiB are the most. 16 MiB and 1,024 segments in one command are tested
//! by our own driver side (`tests/tests/r04_large.rs`).

use crate::guest::{Lab, Metrics, cores};

const MIB: f64 = 1_048_576.0;

/// Commands and bytes of the disk so far, of one direction.
fn moved(metrics: &Metrics, op: &str) -> (f64, f64) {
    let labels = [("op", op)];
    (metrics.sum("ringside_bdev_requests_total", &labels), metrics.sum("ringside_bdev_bytes_total", &labels))
}

#[test]
fn real_guest_moves_4_mib_and_126_segments_in_a_command() {
    let Some(lab) = Lab::enter("real_guest_moves_4_mib_and_126_segments_in_a_command") else { return };
    let cores = cores();
    let ringside = lab.serve(&format!(
        "[reactor]\ncores = {cores:?}
         [[bdev]]\nname = 'disk'\nkind = 'file'\npath = 'disk.img'\nsize = '64MiB'
         [[scsi]]\nname = 'vm0'\nsocket = 'vm0.sock'\npollers = {cores:?}
         [[scsi.lun]]\nbdev = 'disk'"
    ));
    let mut guest = lab.guest("vm0", "large.sh").option("--virtqueue-size", 1024).start();
    let mut step = |say: &str, op: &str| {
        guest.line(say);
        let now = moved(&ringside.metrics(), op);
        guest.type_line("go on");
        now
    };
    let (commands, bytes) = step("READY", "write");
    let written = step("WROTE", "write");
    assert_eq!((written.0 - commands, written.1 - bytes), (4.0, 16.0 * MIB), "commands and bytes of 4 MiB each");
    let (commands, bytes) = moved(&ringside.metrics(), "read");
    let read = step("READ", "read");
    assert_eq!((read.0 - commands, read.1 - bytes), (3.0, 16.0 * MIB), "two commands of 126 segments, and the rest");
    let (commands, bytes) = moved(&ringside.metrics(), "read");
    let read = step("READ AGAIN", "read");
    assert_eq!(read.1 - bytes, 16.0 * MIB);
    assert!(read.0 - commands >= 3.0, "a guest that sends 16 MiB at once can be tested more");
    guest.finish();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert_eq!(metrics.sum("ringside_scsi_refused_total", &[]), 0.0);
    ringside.stop();
}
