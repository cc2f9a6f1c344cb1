//! Two testpmds on a switch, each with an address of its own: frames to an address that is not known go to everybody, to one
//! that is go there only, and those that are isolated do not meet.

use super::counts::{Counts, all_received, all_sent};
use super::driver::{PLAIN, Setup, Testpmd};
use super::lab::Lab;
use crate::ringside::Ringside;

const ENOUGH: u64 = 5_000;
const ADDRESSES: [&str; 3] = ["52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"];

/// A switch with as many net devices as there are keys, and a testpmd on each.
fn switched(lab: &Lab, keys: &[&str]) -> (Ringside, Vec<Testpmd>) {
    let nets: String = (0..).zip(keys).map(|(at, keys): (usize, _)| net(at, keys)).collect();
    let ringside = lab.serve(&format!("[[port]]\nname = 'sw'\nkind = 'switch'\n{nets}"));
    let start = |at: usize| {
        let options = format!("queue_size=256,mac={}", ADDRESSES[at]);
        lab.testpmd(&format!("n{at}"), &Setup { options: &options, ..PLAIN })
    };
    let testpmds = (0..keys.len()).map(start).collect();
    (ringside, testpmds)
}

fn net(at: usize, keys: &str) -> String {
    format!("[[net]]\nname = 'n{at}'\nsocket = 'n{at}.sock'\nport = 'sw'\nmac = '{}'\n{keys}\n", ADDRESSES[at])
}

/// Sends `ENOUGH` frames or more from one to the address of another, which receives at the same time, and returns what both
/// net devices have counted then; all that came to the other was received.
fn send(ringside: &Ringside, testpmds: &mut [Testpmd], from: usize, to: usize) -> [Counts; 2] {
    let [sender, receiver] = testpmds.get_disjoint_mut([from, to]).expect("two of them");
    receiver.run("set fwd rxonly\nstart");
    sender.run(&format!("set eth-peer 0 {}", ADDRESSES[to]));
    let sent = sender.xstats(0).sent();
    sender.forward("txonly", "start", "frames go out", |sender| sender.xstats(0).sent() >= sent + ENOUGH);
    let [sender_device, receiver_device] = [from, to].map(|at| format!("n{at}"));
    let before = all_sent(ringside, &sender_device, sender.xstats(0).sent());
    let counts = Counts::until(ringside, &receiver_device, "frames have arrived or are counted as lost", |counts| {
        counts.rx + counts.rx_drops == counts.port_rx
    });
    receiver.run("stop");
    [before, counts]
}

fn switch(ringside: &Ringside, name: &str) -> u64 {
    ringside.metrics().sum(&format!("ringside_switch_{name}"), &[("port", "sw")]) as u64
}

#[test]
fn two_testpmds_meet_on_a_switch_by_flood_and_then_by_address() {
    let Some(lab) = Lab::enter("two_testpmds_meet_on_a_switch_by_flood_and_then_by_address") else { return };
    let (ringside, mut testpmds) = switched(&lab, &["", "", ""]);
    let [to_b, at_b] = send(&ringside, &mut testpmds, 0, 1);
    assert_eq!(switch(&ringside, "floods_total"), to_b.port_tx, "nobody knows the second one");
    all_received(&mut testpmds[1], at_b.rx);
    let bystander = Counts::of(&ringside, "n2");
    assert!(at_b.rx > 0 && bystander.port_rx > 0, "everybody has them");
    all_received(&mut testpmds[2], bystander.rx);

    let [_, at_a] = send(&ringside, &mut testpmds, 1, 0);
    all_received(&mut testpmds[0], at_a.rx);
    let [again, at_b] = send(&ringside, &mut testpmds, 0, 1);
    assert!(again.port_tx >= to_b.port_tx + ENOUGH);
    all_received(&mut testpmds[1], at_b.rx);
    assert_eq!(switch(&ringside, "floods_total"), to_b.port_tx, "now everybody is known");
    assert_eq!(Counts::of(&ringside, "n2"), bystander, "the third one sees nothing of it");
    assert_eq!((switch(&ringside, "addresses"), switch(&ringside, "moved_total")), (2, 0));
    testpmds.into_iter().for_each(Testpmd::quit);
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
}

#[test]
fn isolated_testpmds_do_not_meet_on_a_switch() {
    let Some(lab) = Lab::enter("isolated_testpmds_do_not_meet_on_a_switch") else { return };
    let (ringside, mut testpmds) = switched(&lab, &["isolated = true", "isolated = true"]);
    let [sender, receiver] = send(&ringside, &mut testpmds, 0, 1);
    assert_eq!((receiver.port_rx, receiver.rx), (0, 0));
    assert_eq!((sender.port_drops, sender.port_tx), (sender.tx, 0), "they had nowhere to go");
    all_received(&mut testpmds[1], 0);
    testpmds.into_iter().for_each(Testpmd::quit);
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
}
