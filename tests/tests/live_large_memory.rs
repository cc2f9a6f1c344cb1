//! SET_MEM_TABLE for a large memory holds nobody up: the poller neither maps nor unmaps, and touches none of it. That the
//! first of these is so is checked by every live test of a build with debug assertions, in which mapping or unmapping on a
//! poller is a panic (`guest_memory::never_map_on_this_thread`); here it is made to matter.

use std::fs;

use guest_memory::Pages;
use tests::live::client::{Client, FIRST, NEEDS_RESET, Plan, good, read, write};
use tests::live::memory::Region;
use tests::live::rig::{Rig, Setup};

const GIB: usize = 1 << 30;
const SWAPS: u64 = 100;
/// What of the memory is there; all else are holes.
const RESIDENT: usize = 64 << 20;

/// Page faults so far of the poller's thread that no disk was needed for: mapping a page that nobody has mapped yet
/// is one.
fn faults_of_the_poller() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    let poller = stats.into_iter().find(|stat| stat.contains("(ringside-p")).expect("a poller");
    // proc(5): the fields behind the name begin with the third one; minflt is the tenth.
    poller.rsplit_once(") ").unwrap().1.split(' ').nth(10 - 3).unwrap().parse().unwrap()
}

#[test]
fn r14_hundred_tables_of_16_gib_hold_no_neighbour_on_the_poller_up() {
    if !cfg!(debug_assertions) {
        eprintln!("built without debug assertions: a poller that maps would go unnoticed, its page faults would not");
    }
    let rig = Rig::start(Setup::new("dut").disk(0));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan { rings: vec![FIRST], ..Plan::default() });
    client.ready(FIRST, 0);
    let large = Region::create(1, 16 * GIB, Pages::Small).unwrap();
    large.memory().slice().subslice(0, RESIDENT).unwrap().fill(1);
    client.regions.push(large);
    let before = faults_of_the_poller();
    let mut most = 0;
    for round in 0..SWAPS {
        let done = load.operations();
        client.send_table();
        // The device's own requests go on, too.
        good(client.run(FIRST, write(0, 1, &[round as u8; 512])));
        assert_eq!(good(client.run(FIRST, read(0, 1, 1))), [round as u8; 512]);
        most = most.max(load.operations() - done);
    }
    let faults = faults_of_the_poller() - before;
    assert_eq!(client.regions[1].mappings(), 2, "ours, and that of the table in force");
    // A table has 16384 resident pages of the large region, all of them mapped before the poller sees it. What it may meet
    // are pages of its rings and buffers, and of its own stack.
    assert!(faults < SWAPS * 64, "{faults} page faults of the poller in {SWAPS} swaps");
    assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, 0);
    assert!(most > 0, "the neighbour makes progress during swaps");
    rig.undisturbed(load);
}
