//! The driver's memory grows under traffic: its table comes again, and the rings are looked for in the new one.

use super::counts::{Counts, SOON, all_back};
use super::driver::{Memory, PLAIN, Setup, Testpmd};
use super::lab::{LOOPBACK, Lab, one_net};
use crate::process::until;

/// Huge pages that it has.
fn pages(testpmd: &mut Testpmd) -> usize {
    testpmd.run("dump_physmem").iter().filter(|line| line.starts_with("Segment ")).count()
}

#[test]
fn memory_of_testpmd_grows_under_traffic() {
    const TEST: &str = "memory_of_testpmd_grows_under_traffic";
    let Some(lab) = Lab::enter(TEST) else { return };
    if !lab.has_huge_pages(TEST) {
        return;
    }
    let second = "[[net]]\nname = 'n1'\nsocket = 'n1.sock'\nport = 'q'\nqueue_size_max = 32768\n\
                  [[port]]\nname = 'q'\nkind = 'loopback'\n";
    let ringside = lab.serve(&(one_net(LOOPBACK, "") + second));
    let mut testpmd = lab.testpmd("n0", &Setup { memory: Memory::Growing, ..PLAIN });
    // Frames that come while the rings are disabled for the change are lost, so that it takes new ones.
    testpmd.run("set fwd flowgen\nstart");
    Counts::until(&ringside, "n0", "frames come and go", |counts| counts.rx >= 1000);
    let before = pages(&mut testpmd);
    // Rings that the memory it has cannot hold.
    let socket = lab.path("n1.sock");
    testpmd.run(&format!("port attach net_virtio_user1,path={},queue_size=16384\nport start 1", socket.display()));
    let after = pages(&mut testpmd);
    assert!(after > before, "it has {after} huge pages and had {before}");
    let counts = Counts::of(&ringside, "n0");
    Counts::until(&ringside, "n0", "frames come and go in the new memory", |now| now.rx >= counts.rx + 10_000);
    testpmd.run("stop");
    all_back(&ringside, &mut testpmd, "n0");
    testpmd.quit();
    let gone = || ringside.metrics().sum("ringside_session_connected", &[]) == 0.0;
    until("both front-ends have gone", SOON, || gone().then_some(()));
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
}
