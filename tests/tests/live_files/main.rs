//! File devices under a running target: pollers that sleep while the kernel works, what they ask of the kernel, and data
//! that is on the medium when the guest was told so. What becomes of errors is in `faults`.

mod faults;
mod guest;

use std::fs;
use std::sync::Arc;

use bdev_file::{File, FileConfig};
use tests::device::{Request, lun};
use tests::live::client::{Client, FIRST, Plan, good, read, write};
use tests::live::rig::{Rig, Setup, cores};
use tests::live::running::Running;
use tests::live::until;

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

/// Every system call of a file's channel is one for a whole turn of the poller, whatever it does in that turn.
#[test]
fn file_under_load_enters_the_kernel_at_most_once_a_turn() {
    const BATCH: u32 = 16;
    let place = tempfile::tempdir().unwrap();
    let file = File::open("file", &FileConfig { size: Some(16 << 20), ..FileConfig::new(place.path().join("disk")) });
    let file = Arc::new(file.unwrap());
    let rig = Rig::start(Setup::new("dut").on(0, Arc::clone(&file) as Arc<dyn bdev::Bdev>));
    let mut client = Client::connect(&rig.socket("dut"), &Plan::default());
    client.ready(FIRST, 0);
    let loops = |rig: &Rig| rig.pollers()[0].stats().loops.value();
    let (before, entered) = (loops(&rig), file.counts().enters);
    for round in 0..100 {
        let queue = client.queue(FIRST);
        for n in 0..BATCH {
            let lba = (round * BATCH + n) * 8;
            _ = match n % 2 {
                0 => queue.put(write(0, lba, &[n as u8; 4096])),
                _ => queue.put(read(0, lba, 8)),
            };
        }
        queue.publish();
        (0..BATCH).for_each(|_| _ = good(queue.wait()));
    }
    let (enters, turns) = (file.counts().enters - entered, loops(&rig) - before);
    assert!((1..=turns).contains(&enters), "{enters} calls of io_uring_enter in {turns} turns");
    assert_eq!(file.counts().enter_failures, 0);
}

/// The kernel's workers would compete with a poller that is always awake for its own core.
#[test]
fn file_workers_of_the_kernel_stay_off_the_cores_of_pollers() {
    let Some(both) = cores(2) else { return };
    let (poller, other) = (both[0], both[1]);
    let running = Running::start(|dir| {
        let dir = dir.display();
        format!(
            "[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = [{poller}]\nidle = 'busy'\n\
             [[bdev]]\nname = 'disk'\nkind = 'file'\npath = '{dir}/disk'\nsize = '1MiB'\n\
             [[scsi]]\nname = 'vm0'\nsocket = '{dir}/vm0.sock'\npollers = [{poller}]\n[[scsi.lun]]\nbdev = 'disk'\n"
        )
    });
    let mut client = Client::connect(&running.path("vm0.sock"), &Plan::default());
    client.ready(FIRST, 0);
    until("a worker has come", || {
        good(client.run(FIRST, Request::new(lun(0, 0), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]))); // SYNCHRONIZE CACHE
        workers().next().is_some()
    });
    for (name, cores) in workers() {
        assert!(
            !cores.contains(&poller),
            "{name} may run on {cores:?}, the poller's core is {poller}, there is {other}"
        );
    }
}

/// The kernel's workers of this process, and the cores that they may use.
fn workers() -> impl Iterator<Item = (String, Vec<usize>)> {
    fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let name = field("Name:").filter(|name| name.starts_with("iou-wrk"))?;
        let cores = field("Cpus_allowed_list:")?.split(',').flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<usize>().unwrap()..=last.parse().unwrap()
        });
        Some((name.to_owned(), cores.collect()))
    })
}

#[test]
fn file_tells_a_guest_which_of_its_blocks_are_mapped() {
    let place = tempfile::tempdir().unwrap();
    let Some(mut guest) = guest::guest(&place.path().join("disk"), "size = '1MiB'") else { return };
    guest.good(write(0, 64, &[1; 8192]));
    // GET LBA STATUS (16) from LBA 0 on, 255 bytes (SBC-4 §5.5)
    let cdb = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0];
    let told = guest.good(Request::new(lun(0, 0), &cdb).data_in(255));
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 52,  0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 64,     1, 0, 0, 0, // deallocated
        0, 0, 0, 0, 0, 0, 0, 64,   0, 0, 0, 16,     0, 0, 0, 0, // mapped
        0, 0, 0, 0, 0, 0, 0, 80,   0, 0, 0x07, 0xb0, 1, 0, 0, 0,
    ];
    assert_eq!(told[..expected.len()], expected);
    // UNMAP gives them back
    let mut unmap = vec![0, 22, 0, 16, 0, 0, 0, 0];
    unmap.extend([0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 16, 0, 0, 0, 0]);
    guest.good(Request::new(lun(0, 0), &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]).data_out(unmap));
    let told = guest.good(Request::new(lun(0, 0), &cdb).data_in(255));
    assert_eq!(told[..24], [0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 0, 0]);
}
