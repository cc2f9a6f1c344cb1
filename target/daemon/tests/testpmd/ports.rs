//! Every kind of port with every way of traffic: what testpmd counts is what the target counts.

use super::counts::all_back;
use super::driver::{PLAIN, Testpmd};
use super::lab::{LOOPBACK, Lab, one_net};
use crate::ringside::Ringside;

/// Frames that a phase moves at least.
const ENOUGH: u64 = 20_000;

/// Whether `frames` more than `before` were moved.
fn received_more(testpmd: &mut Testpmd, before: u64) -> bool {
    testpmd.xstats(0).received() >= before + ENOUGH
}

/// A port that gives every frame back: frames that go round, frames that nobody fetches, and both at once.
fn echo(ringside: &Ringside, testpmd: &mut Testpmd) {
    testpmd.forward("io", "start tx_first 4", "frames go round", |testpmd| received_more(testpmd, 0));
    let around = all_back(ringside, testpmd, "n0");

    let sent = testpmd.xstats(0).sent();
    testpmd.forward("txonly", "start", "frames go out", |testpmd| testpmd.xstats(0).sent() >= sent + ENOUGH);
    let unfetched = all_back(ringside, testpmd, "n0");
    assert!(
        unfetched.rx_drops + unfetched.tx_drops + unfetched.port_drops > around.rx_drops,
        "nobody fetched them, and the rings hold few"
    );

    testpmd.forward("flowgen", "start", "frames go out and come in", |testpmd| received_more(testpmd, unfetched.rx));
    all_back(ringside, testpmd, "n0");
}

#[test]
fn loopback_and_testpmd_count_the_same_frames() {
    let Some(lab) = Lab::enter("loopback_and_testpmd_count_the_same_frames") else { return };
    let ringside = lab.serve(&one_net(LOOPBACK, ""));
    let mut testpmd = lab.testpmd("n0", &PLAIN);
    echo(&ringside, &mut testpmd);
    testpmd.quit();
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use super::*;
    use crate::testpmd::counts::{Counts, all_received, all_sent, disconnected};
    use crate::testpmd::lab::dpdk;

    #[test]
    fn ring_port_and_testpmd_count_the_same_frames() {
        let Some(lab) = Lab::enter("ring_port_and_testpmd_count_the_same_frames") else { return };
        let ringside = lab.serve(&one_net(&dpdk("net_ring0"), ""));
        let mut testpmd = lab.testpmd("n0", &PLAIN);
        echo(&ringside, &mut testpmd);
        let driver = |name| ringside.metrics().sum("ringside_port_extended_total", &[("name", name)]) as u64;
        let counts = Counts::of(&ringside, "n0");
        assert_eq!((driver("tx_good_packets"), driver("rx_good_packets")), (counts.port_tx, counts.port_rx));
        testpmd.quit();
        ringside.metrics().assert_no_trouble_of_net();
        ringside.stop();
    }

    #[test]
    fn null_port_takes_what_testpmd_sends_and_both_count_the_same() {
        let Some(lab) = Lab::enter("null_port_takes_what_testpmd_sends_and_both_count_the_same") else { return };
        let ringside = lab.serve(&one_net(&dpdk("net_null0,no-rx=1"), ""));
        let mut testpmd = lab.testpmd("n0", &PLAIN);
        let before = testpmd.xstats(0).sent();
        testpmd.forward("txonly", "start", "frames go out", |testpmd| testpmd.xstats(0).sent() >= before + ENOUGH);
        let sent = testpmd.xstats(0);
        let counts = all_sent(&ringside, "n0", sent.sent());
        assert_eq!((counts.tx_drops, counts.port_rx, counts.rx), (0, 0, 0), "it takes everything and gives nothing");
        let bytes = ringside.metrics().sum("ringside_net_bytes_total", &[("direction", "tx")]);
        assert_eq!(bytes, sent.of("tx_good_bytes") as f64);
        all_received(&mut testpmd, 0);
        testpmd.quit();
        ringside.metrics().assert_no_trouble_of_net();
        ringside.stop();
    }

    #[test]
    fn null_port_that_never_ends_and_testpmd_count_the_same_frames() {
        let Some(lab) = Lab::enter("null_port_that_never_ends_and_testpmd_count_the_same_frames") else { return };
        let ringside = lab.serve(&one_net(&dpdk("net_null0"), ""));
        let mut testpmd = lab.testpmd("n0", &PLAIN);
        testpmd.forward("rxonly", "start", "frames come in", |testpmd| received_more(testpmd, 0));
        let received = testpmd.xstats(0).received();
        testpmd.forward("io", "start", "they go out again", |testpmd| received_more(testpmd, received));
        let counted = testpmd.xstats(0);
        assert!(counted.sent() > 0);
        all_sent(&ringside, "n0", counted.sent());
        testpmd.quit();
        disconnected(&ringside, "n0");
        let counts = Counts::until(&ringside, "n0", "every frame was delivered or is counted as lost", |counts| {
            counts.rx + counts.rx_drops == counts.port_rx
        });
        assert!(counts.rx_drops > 0, "it gives more than testpmd takes");
        // What is in the ring when testpmd stops goes with it.
        let left = counts.rx - counted.received();
        assert!(left <= 256, "{left} frames are in a ring of 256");
        ringside.metrics().assert_no_trouble_of_net();
        ringside.stop();
    }
}
