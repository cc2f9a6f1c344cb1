//! Every SCSI command that a tool of sg3-utils sends, on disks of memory with both block sizes and on a file: what the
//! tools make of the answers is checked in the guest (`tests/guest/sg3.sh`), what became of the medium here.

use std::os::unix::fs::FileExt;

use crate::cores;
use crate::guest::Lab;

const BLOCK: usize = 512;

/// A block as the guest writes it to the disk at this address.
fn block(number: usize, disk: &str) -> Vec<u8> {
    format!("block {number} of {disk}\n").bytes().cycle().take(BLOCK).collect()
}

#[test]
fn real_guest_is_told_the_truth_by_every_tool_of_sg3_utils() {
    let Some(lab) = Lab::enter("real_guest_is_told_the_truth_by_every_tool_of_sg3_utils") else { return };
    let cores = cores();
    let ringside = lab.serve(&format!(
        "[reactor]\ncores = {cores:?}
         [[bdev]]\nname = 'small'\nkind = 'malloc'\nsize = '16MiB'
         [[bdev]]\nname = 'large'\nkind = 'malloc'\nsize = '16MiB'\nblock_size = 4096
         [[bdev]]\nname = 'file'\nkind = 'file'\npath = 'disk.img'\nsize = '16MiB'
         [[scsi]]\nname = 'vm0'\nsocket = 'vm0.sock'\npollers = {cores:?}
         [[scsi.lun]]\nlun = 0\nbdev = 'small'
         [[scsi.lun]]\nlun = 1\nbdev = 'large'
         [[scsi.lun]]\nlun = 2\nbdev = 'file'"
    ));
    let console = lab.guest("vm0", "sg3.sh").env("DISKS", "0:0=512 0:1=4096 0:2=512").run();
    for line in ["CACHE 0:0 0", "CACHE 0:1 0", "CACHE 0:2 4", "ALLOCATION 0:0 known", "DONE 0:1", "DONE 0:2"] {
        assert!(console.iter().any(|said| said == line), "{line}");
    }

    let file = std::fs::File::open(lab.path("disk.img")).unwrap();
    let on_medium = |number: usize, expected: &[u8]| {
        let mut found = vec![0; BLOCK];
        file.read_exact_at(&mut found, (number * BLOCK) as u64).unwrap();
        assert!(found == expected, "block {number} of the file");
    };
    on_medium(0, &block(1, "0:2")); // by COMPARE AND WRITE
    (1..16).for_each(|number| on_medium(number, &block(number, "0:2")));
    (64..96).chain(160..176).for_each(|number| on_medium(number, &[0; BLOCK])); // UNMAP, WRITE SAME with UNMAP
    (128..144).for_each(|number| on_medium(number, &block(2, "0:2"))); // WRITE SAME

    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    let reset = [("function", "logical_unit_reset"), ("response", "function_complete")];
    assert_eq!(metrics.sum("ringside_scsi_tmf_total", &reset), 3.0);
    assert_eq!(metrics.sum("ringside_scsi_tmf_total", &[]), 3.0, "no other function");
    assert_eq!(metrics.sum("ringside_scsi_refused_total", &[]), 0.0);
    for bdev in ["small", "large", "file"] {
        let done = |op| metrics.sum("ringside_bdev_requests_total", &[("bdev", bdev), ("op", op)]);
        assert_eq!(done("compare_and_write"), 2.0, "{bdev}");
        assert_eq!(done("verify"), 4.0, "{bdev}");
        assert_eq!((done("fill"), done("unmap")), (3.0, 1.0), "{bdev}: WRITE SAME, UNMAP");
        assert!(done("flush") >= 1.0, "{bdev}");
    }
    ringside.stop();
}
