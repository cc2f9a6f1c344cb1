//! libiscsi's SCSI conformance tests (`iscsi-test-cu`), all of them, in a guest: none fails, and none is skipped for want
//! of a command that there is. What the suite skips otherwise wants an iSCSI session of its own or a second one
//! (reservations across initiators, warm resets, multipath), a removable or write-protected disk, or a command that is
//! refused by 05h/20h/00h: PERSISTENT RESERVE, RESERVE (6), EXTENDED COPY, ORWRITE, WRITE ATOMIC, READ DEFECT DATA, SANITIZE.

use std::time::Duration;

use crate::cores;
use crate::guest::Lab;

#[test]
fn real_guest_finds_no_failure_by_the_conformance_suite() {
    let Some(lab) = Lab::enter("real_guest_finds_no_failure_by_the_conformance_suite") else { return };
    let cores = cores();
    let ringside = lab.serve(&format!(
        "[reactor]\ncores = {cores:?}
         [[bdev]]\nname = 'small'\nkind = 'malloc'\nsize = '64MiB'
         [[bdev]]\nname = 'large'\nkind = 'malloc'\nsize = '64MiB'\nblock_size = 4096
         [[bdev]]\nname = 'file'\nkind = 'file'\npath = 'disk.img'\nsize = '64MiB'
         [[scsi]]\nname = 'vm0'\nsocket = 'vm0.sock'\npollers = {cores:?}
         [[scsi.lun]]\nlun = 0\nbdev = 'small'
         [[scsi.lun]]\nlun = 1\nbdev = 'large'
         [[scsi.lun]]\nlun = 2\nbdev = 'file'"
    ));
    let guest = lab.guest("vm0", "conformance.sh").option("--memory", "1G").env("DISKS", "0:0 0:1 0:2");
    let console = guest.within(Duration::from_secs(280)).run();
    let failures: Vec<&String> = console.iter().filter(|line| line.starts_with("FAILURE")).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    for disk in ["0:0", "0:1", "0:2"] {
        let start = format!("SUMMARY {disk} ");
        let summary = console.iter().find_map(|line| line.strip_prefix(&start)).expect("a summary");
        let numbers: Vec<u32> = summary.split(' ').map(|number| number.parse().unwrap()).collect();
        let [tests, ran, passed, failed] = numbers[..] else { panic!("{summary}") };
        assert!(tests >= 200 && ran == tests && passed == tests && failed == 0, "{disk}: {summary}");
        // Everything that is there to be tested is tested.
        for command in
            ["COMPAREANDWRITE", "UNMAP", "VERIFY", "WRITEVERIFY", "WRITESAME", "PREFETCH", "fully provisioned"]
        {
            let skip = console.iter().find(|line| line.starts_with(&format!("SKIP {disk} {command}")));
            assert!(skip.is_none_or(|line| line.contains("0-blocks")), "{skip:?}");
        }
    }
    ringside.metrics().assert_no_trouble();
    ringside.stop();
}
