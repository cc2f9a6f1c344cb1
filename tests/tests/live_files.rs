//! File devices under a running target: pollers that sleep while the kernel works, and data that is on the medium when
//! the guest was told so.

use std::sync::Arc;

use bdev_file::{File, FileConfig};
use tests::live::client::{Client, FIRST, Plan, good, read, write};
use tests::live::rig::{Rig, Setup};

#[test]
fn adaptive_idle_wakes_for_what_a_file_completes() {
    const ROUNDS: u32 = 300;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("disk");
    let file = File::open("file", &FileConfig { size: Some(16 << 20), ..FileConfig::new(&path) }).unwrap();
    let rig = Rig::start(Setup::new("dut").on(0, Arc::new(file)));
    let mut client = Client::connect(&rig.socket("dut"), &Plan::default());
    client.ready(FIRST, 0);
    let stats = rig.pollers()[0].stats();
    let sleeps = stats.sleeps.value();
    for lba in 0..ROUNDS {
        let data: Vec<u8> = (0..512).map(|at| (at as u32 ^ lba) as u8).collect();
        good(client.run(FIRST, write(0, lba, &data)));
        assert_eq!(good(client.run(FIRST, read(0, lba, 1))), data, "block {lba}");
    }
    assert!(stats.sleeps.value() > sleeps, "the poller slept");
    client.stop(FIRST);
    drop((client, rig));
    let found = std::fs::read(path).unwrap();
    for (lba, block) in found.chunks(512).take(ROUNDS as usize).enumerate() {
        assert!(block.iter().enumerate().all(|(at, byte)| *byte == (at ^ lba) as u8), "block {lba} on the medium");
    }
}
