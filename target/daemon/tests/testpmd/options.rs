//! What a virtio-user device can be told to negotiate, sizes of rings and frames, and queue pairs: nothing of it changes what
//! is counted.

use super::counts::{all_back, disconnected};
use super::driver::{Memory, PLAIN, Setup};
use super::lab::{LOOPBACK, Lab, one_net};

/// Frames of each size that go round at least.
const ENOUGH: u64 = 10_000;

/// Frames of several lengths, in one segment and in several, through a loopback; each queue pair has its own back.
fn frames_go_round(test: &str, net: &str, setup: &Setup<'_>) {
    let Some(lab) = Lab::enter(test) else { return };
    frames_go_round_in(&lab, net, setup);
}

fn frames_go_round_in(lab: &Lab, net: &str, setup: &Setup<'_>) {
    let ringside = lab.serve(&one_net(LOOPBACK, net));
    let mut testpmd = lab.testpmd("n0", setup);
    let (mut frames, mut bytes) = (0, 0);
    for (segments, len) in [("64", 64), ("1518", 1518), ("64,128,256,400", 848)] {
        testpmd.run(&format!("set txpkts {segments}"));
        testpmd.forward("io", "start tx_first 2", "frames go round", |testpmd| {
            testpmd.xstats(0).received() >= frames + ENOUGH
        });
        let counts = all_back(&ringside, &mut testpmd, "n0");
        let counted = testpmd.xstats(0);
        bytes += (counts.tx - frames) * len;
        frames = counts.tx;
        let metrics = ringside.metrics();
        let target = |labels: &[(&str, &str)]| metrics.sum("ringside_net_bytes_total", labels) as u64;
        assert_eq!((counted.of("tx_good_bytes"), target(&[("direction", "tx")])), (bytes, bytes), "{segments}");
        assert_eq!(counted.of("rx_good_bytes"), target(&[("direction", "rx")]), "{segments}");
    }
    let (metrics, counted) = (ringside.metrics(), testpmd.xstats(0));
    for pair in 0..setup.pairs {
        for direction in ["tx", "rx"] {
            let labels = [("queue", &*pair.to_string()), ("direction", direction)];
            let target = metrics.sum("ringside_net_frames_total", &labels) as u64;
            assert!(target >= ENOUGH / 100, "pair {pair} has a share of what is {direction}: {target}");
            assert_eq!(counted.of(&format!("{direction}_q{pair}_good_packets")), target, "pair {pair}, {direction}");
        }
    }
    metrics.assert_no_trouble_of_net();
    testpmd.quit();
    disconnected(&ringside, "n0");
    ringside.stop();
}

#[test]
fn frames_go_round_in_order_and_merged() {
    frames_go_round("frames_go_round_in_order_and_merged", "", &PLAIN);
}

#[test]
fn frames_go_round_without_merged_buffers() {
    let setup = Setup { options: "queue_size=256,mrg_rxbuf=0", ..PLAIN };
    frames_go_round("frames_go_round_without_merged_buffers", "", &setup);
}

#[test]
fn frames_go_round_out_of_order() {
    let setup = Setup { options: "queue_size=256,in_order=0", ..PLAIN };
    frames_go_round("frames_go_round_out_of_order", "", &setup);
}

#[test]
fn frames_go_round_through_the_vectorized_driver() {
    let setup = Setup { options: "queue_size=256,mrg_rxbuf=0,in_order=0,vectorized=1", ..PLAIN };
    frames_go_round("frames_go_round_through_the_vectorized_driver", "", &setup);
}

#[test]
fn frames_go_round_in_packed_rings() {
    let setup = Setup { options: "queue_size=256,packed_vq=1", ..PLAIN };
    frames_go_round("frames_go_round_in_packed_rings", "", &setup);
}

#[test]
fn frames_go_round_in_packed_rings_out_of_order_and_unmerged() {
    let setup = Setup { options: "queue_size=256,packed_vq=1,in_order=0,mrg_rxbuf=0", ..PLAIN };
    frames_go_round("frames_go_round_in_packed_rings_out_of_order_and_unmerged", "", &setup);
}

#[test]
fn frames_go_round_in_two_pairs_of_packed_rings() {
    let setup = Setup { pairs: 2, options: "queue_size=1024,packed_vq=1", ..PLAIN };
    frames_go_round("frames_go_round_in_two_pairs_of_packed_rings", "queue_pairs = 2", &setup);
}

#[test]
fn frames_go_round_in_rings_of_1024() {
    let setup = Setup { options: "queue_size=1024", ..PLAIN };
    frames_go_round("frames_go_round_in_rings_of_1024", "", &setup);
}

#[test]
fn frames_go_round_in_huge_pages() {
    const TEST: &str = "frames_go_round_in_huge_pages";
    let Some(lab) = Lab::enter(TEST) else { return };
    if lab.has_huge_pages(TEST) {
        frames_go_round_in(&lab, "", &Setup { memory: Memory::Growing, ..PLAIN });
    }
}

#[test]
fn frames_go_round_in_two_queue_pairs_of_one_poller() {
    let setup = Setup { pairs: 2, ..PLAIN };
    frames_go_round("frames_go_round_in_two_queue_pairs_of_one_poller", "queue_pairs = 2", &setup);
}

#[test]
fn frames_go_round_in_two_queue_pairs_of_two_pollers() {
    const TEST: &str = "frames_go_round_in_two_queue_pairs_of_two_pollers";
    let Some(lab) = Lab::enter(TEST) else { return };
    if lab.has_two_cores(TEST) {
        let net = format!("queue_pairs = 2\npollers = {:?}", lab.cores());
        let setup = Setup { pairs: 2, options: "queue_size=1024", ..PLAIN };
        frames_go_round_in(&lab, &net, &setup);
    }
}

/// The driver uses fewer pairs than the device has: frames of the others come on those that it uses.
#[test]
fn frames_go_round_in_one_of_two_queue_pairs() {
    frames_go_round("frames_go_round_in_one_of_two_queue_pairs", "queue_pairs = 2", &PLAIN);
}
