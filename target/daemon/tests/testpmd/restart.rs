//! Either side ends without a word, under traffic, and comes back.

use super::counts::{Counts, SOON, all_back, all_received, all_sent, disconnected};
use super::driver::{PLAIN, Setup, Testpmd};
use super::lab::{LOOPBACK, Lab, one_net};
use crate::process::until;
use crate::ringside::Ringside;

const ENOUGH: u64 = 10_000;
/// Frames that go round: as many as a ring has descriptors are on their way at most, in each direction.
const IN_FLIGHT_MAX: i64 = 256;

fn flow(testpmd: &mut Testpmd, what: &str) {
    let before = testpmd.xstats(0);
    testpmd.forward("flowgen", "start", what, |testpmd| {
        let now = testpmd.xstats(0);
        now.sent() >= before.sent() + ENOUGH && now.received() >= before.received() + ENOUGH
    });
}

#[test]
fn testpmd_is_killed_under_traffic_and_the_next_one_has_its_place() {
    let Some(lab) = Lab::enter("testpmd_is_killed_under_traffic_and_the_next_one_has_its_place") else { return };
    let ringside = lab.serve(&one_net(LOOPBACK, ""));
    for _ in 0..2 {
        let mut testpmd = lab.testpmd("n0", &PLAIN);
        testpmd.run("set fwd flowgen\nstart");
        let at_start = Counts::of(&ringside, "n0");
        let seen = Counts::until(&ringside, "n0", "frames come and go", |counts| counts.rx >= at_start.rx + ENOUGH);
        testpmd.kill();
        disconnected(&ringside, "n0");
        let at_end = Counts::of(&ringside, "n0");
        assert!(at_end.tx >= seen.tx && at_end.rx >= seen.rx, "counters go on: {seen:?}, {at_end:?}");
    }
    let killed = all_counted(&ringside);
    let mut testpmd = lab.testpmd("n0", &PLAIN);
    flow(&mut testpmd, "frames of the next one come and go");
    let sent = testpmd.xstats(0).sent();
    let all = all_sent(&ringside, "n0", killed.tx + killed.tx_drops + sent);
    assert_eq!(all.tx + all.tx_drops - killed.tx - killed.tx_drops, sent);
    testpmd.quit();
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
}

/// A testpmd that listens, and a target that connects to it.
fn listening(lab: &Lab) -> (Testpmd, Ringside) {
    let setup = Setup { options: "queue_size=256,server=1", ..PLAIN };
    let mut testpmd = lab.spawn("n0", &setup);
    let ringside = lab.serve(&one_net(LOOPBACK, "mode = 'client'"));
    testpmd.ready();
    (testpmd, ringside)
}

/// Frames go round while the target ends by `end`, and its successor takes over. Returns how many more frames testpmd sent
/// than it received: what was lost, or, below 0, what came twice.
fn frames_go_round_over_a_restart(lab: &Lab, end: impl FnOnce(Ringside) -> Ringside) -> i64 {
    let (mut testpmd, ringside) = listening(lab);
    testpmd.run("set fwd io\nstart tx_first 4");
    Counts::until(&ringside, "n0", "frames go round", |counts| counts.rx >= ENOUGH);
    let ringside = end(ringside);
    Counts::until(&ringside, "n0", "frames go round again", |counts| counts.rx >= ENOUGH);
    testpmd.run("stop");

    // Behind those that are still on their way, frames of another length, so that it is known when all have come.
    testpmd.run("set fwd rxonly\nset txpkts 200\nstart tx_first 1");
    until("the last frames come", SOON, || (testpmd.xstats(0).of("rx_q0_size_128_255_packets") == 32).then_some(()));
    testpmd.run("stop\nset txpkts 64");
    let counted = testpmd.xstats(0);
    let known = all_counted(&ringside);

    flow(&mut testpmd, "frames come and go");
    let sent = testpmd.xstats(0).sent() - counted.sent();
    all_sent(&ringside, "n0", known.tx + known.tx_drops + sent);
    let back = all_counted(&ringside);
    all_received(&mut testpmd, counted.received() + back.rx - known.rx);
    testpmd.quit();
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
    counted.sent().cast_signed() - counted.received().cast_signed()
}

/// Waits until what went into the loopback came back or is given up, and reached the driver or is counted as lost.
fn all_counted(ringside: &Ringside) -> Counts {
    Counts::until(ringside, "n0", "what is left in the port is counted", |counts| {
        counts.port_rx + counts.port_drops == counts.port_tx && counts.rx + counts.rx_drops == counts.port_rx
    })
}

#[test]
fn target_in_client_mode_is_stopped_under_traffic_and_its_successor_goes_on() {
    const TEST: &str = "target_in_client_mode_is_stopped_under_traffic_and_its_successor_goes_on";
    let Some(lab) = Lab::enter(TEST) else { return };
    let lost = frames_go_round_over_a_restart(&lab, |ringside| Ringside::serve(ringside.stop()));
    assert!((0..=IN_FLIGHT_MAX).contains(&lost), "{lost} frames were lost; below 0: came twice");
}

#[test]
fn target_in_client_mode_is_killed_under_traffic_and_its_successor_goes_on() {
    const TEST: &str = "target_in_client_mode_is_killed_under_traffic_and_its_successor_goes_on";
    let Some(lab) = Lab::enter(TEST) else { return };
    let lost = frames_go_round_over_a_restart(&lab, Ringside::kill_and_restart);
    // Those that it had delivered and not yet given back are fetched again.
    assert!((-IN_FLIGHT_MAX..=0).contains(&lost), "{lost} frames were lost; below 0: came twice");
}

/// Nothing is on its way when the target is killed: nothing is lost, and nothing comes twice.
#[test]
fn target_in_client_mode_is_killed_at_rest_and_every_frame_comes_once() {
    const TEST: &str = "target_in_client_mode_is_killed_at_rest_and_every_frame_comes_once";
    let Some(lab) = Lab::enter(TEST) else { return };
    let (mut testpmd, ringside) = listening(&lab);
    flow(&mut testpmd, "frames come and go");
    let before = all_back(&ringside, &mut testpmd, "n0");
    let ringside = ringside.kill_and_restart();
    flow(&mut testpmd, "frames come and go again");
    let sent = testpmd.xstats(0).sent() - before.tx - before.tx_drops;
    all_sent(&ringside, "n0", sent);
    let back = all_counted(&ringside);
    all_received(&mut testpmd, before.rx + back.rx);
    testpmd.quit();
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
}
