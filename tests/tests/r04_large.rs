//! R04: requests that no Linux guest sends, because QEMU tells it seg_max 126: 16 MiB at once, and 1,024 data segments and
//! more, which is also more than the kernel takes in one vector (IOV_MAX). On memory and on a file, past a real socket.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bdev_file::{File, FileConfig};
use tests::live::client::{BLOCK, Client, FIRST, Plan, good, read, write};
use tests::live::rig::{Rig, Setup, malloc};

const MIB: usize = 1 << 20;
/// A chain as long as the ring: header, response, and the default seg_max.
const RING: u16 = 2048;

/// Bytes that differ from block to block.
fn noise(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at / BLOCK).wrapping_mul(31).wrapping_add(seed)) as u8).collect()
}

#[test]
fn r04_four_and_sixteen_mib_in_up_to_2046_segments_are_written_and_read_back() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("disk");
    let file = File::open("file", &FileConfig { size: Some(32 << 20), ..FileConfig::new(&path) }).unwrap();
    let setup = Setup::new("dut").queue_size_max(RING).on(0, malloc("memory", 32 << 20)).on(1, Arc::new(file));
    let rig = Rig::start(setup);
    let plan = Plan { ring_size: RING, slots: 1, data_len: 16 * MIB, ..Plan::default() };
    let mut client = Client::connect(&rig.socket("dut"), &plan);
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    let mut run = |message, pieces| {
        let queue = client.queue(FIRST);
        let token = queue.put_cut(message, pieces);
        queue.publish();
        good(queue.wait_for(token))
    };
    let on_medium = std::fs::File::open(&path).unwrap();
    for number in [0, 1] {
        let cases = [(4 * MIB, 1024), (16 * MIB, 1024), (16 * MIB, 1), (2046 * BLOCK, 2046)];
        for (case, (len, pieces)) in cases.into_iter().enumerate() {
            let (data, lba) = (noise(len, case + 7), case as u32 * 2048);
            run(write(number, lba, &data), pieces);
            // The other way round, so that a mistake in the cutting is not made twice.
            let back = if pieces == 1 { 1024 } else { 1 };
            assert!(run(read(number, lba, (len / BLOCK) as u16), back) == data, "LUN {number}, {len} in {pieces}");
            assert!(run(read(number, lba, (len / BLOCK) as u16), pieces) == data, "LUN {number}, {len} in {pieces}");
            let mut medium = vec![0; len];
            on_medium.read_exact_at(&mut medium, u64::from(lba) * BLOCK as u64).unwrap();
            assert!(number == 0 || medium == data, "the file, {len} in {pieces}");
        }
    }
}
