//! A running net device and drivers of it over real sockets: frames both ways, the control queue, a ring that breaks alone,
//! and the load generator as a second, independent driver.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use bench::net::{Args, Outcome, measure};
use clap::Parser;
use port::{Loopback, LoopbackConfig};
use rustix::event::{EventfdFlags, eventfd};
use tests::net::driver::{CTRL_VQ, MQ, MRG_RXBUF, NetDriver, NetPlan};
use tests::net::rig::{NetRig, NetSetup};
use tests::wire::{Wire, rx, tx};
use virtqueue::Segment;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// VIRTIO_NET_F_CTRL_MAC_ADDR.
const CTRL_MAC_ADDR: u64 = 1 << 23;

fn rig(queue_pairs: u16) -> (NetRig, Wire) {
    let wire = Wire::default();
    let rig = NetSetup::new(Arc::new(wire.clone()), queue_pairs).start().expect("there is a core");
    (rig, wire)
}

/// A frame that the device's own filters let through.
fn frame(len: usize, fill: u8) -> Vec<u8> {
    let mut frame = vec![fill; len];
    frame[..6].fill(0xff);
    frame
}

#[test]
fn frames_go_both_ways() {
    let (rig, wire) = rig(2);
    let plan = NetPlan { pairs: 2, features: MRG_RXBUF | MQ, ..NetPlan::default() };
    let mut driver = NetDriver::connect(&rig.socket(), &plan);
    for pair in 0..2 {
        let sent = frame(64 + usize::from(pair), 7);
        driver.sent(pair, &sent);
        assert_eq!(wire.take(pair.into()), [sent]);
        driver.post(pair, 1, 2048);
        let came = frame(1500 + usize::from(pair), 9);
        wire.deliver(pair.into(), &came);
        let received = driver.receive(pair);
        assert_eq!((received.bytes, received.buffers.len()), (came, 1));
        assert_eq!(received.header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
}

#[test]
fn frames_of_any_framing_are_the_same_frame() {
    let (rig, wire) = rig(1);
    let mut driver = NetDriver::connect(&rig.socket(), &NetPlan::default());
    for lengths in [&[12][..], &[1, 11, 14], &[13], &[5, 5, 5, 5]] {
        let sent = frame(200, 3);
        let token = driver.send_cut(0, [0; 12], &sent, lengths);
        driver.tx(0).wait_for(token);
        assert_eq!(wire.take(0), [sent], "{lengths:?}");
    }
    driver.post_cut(0, 2, 512, &[12]);
    driver.post_cut(0, 2, 512, &[20, 100]);
    let came = frame(1500, 4);
    wire.deliver(0, &came);
    let received = driver.receive(0);
    assert_eq!((received.bytes, received.buffers.len()), (came, 3));
}

#[test]
fn r26_commands_are_answered_wherever_the_control_queue_is() {
    for (device_pairs, plan) in [
        (2, NetPlan::default().controlled(2, CTRL_MAC_ADDR)),
        (1, NetPlan::default().controlled(1, CTRL_MAC_ADDR)),
        (2, NetPlan { control: Some(2), features: MRG_RXBUF | CTRL_VQ | CTRL_MAC_ADDR, ..NetPlan::default() }),
    ] {
        let (rig, _wire) = rig(device_pairs);
        let mut driver = NetDriver::connect(&rig.socket(), &plan);
        assert_eq!(driver.command(1, 1, &[0x52, 0x54, 0, 0, 0, 9]), 0, "VIRTIO_NET_CTRL_MAC_ADDR_SET: {plan:?}");
        assert_eq!(driver.command(99, 0, &[1, 2, 3]), 1, "a class that there is not: {plan:?}");
        // All in one descriptor, and the answer in another.
        let place = driver.control().buffer();
        place.slice.write(&[1, 1, 0x52, 0x54, 0, 0, 0, 9, 0xff]);
        let segments = [Segment::readable(place.guest_addr, 8), Segment::writable(place.guest_addr + 8, 1)];
        let token = driver.send_chain(plan.control.expect("a control queue"), &segments);
        assert_eq!(driver.control().wait_for(token).written, 1);
        assert_eq!(place.slice.read_array::<9>().map(|bytes| bytes[8]), Some(0));
    }
}

#[test]
fn r27_ring_with_a_bad_descriptor_halts_alone_and_recovers() {
    let (rig, wire) = rig(2);
    let plan = NetPlan { pairs: 2, features: MRG_RXBUF | MQ, ..NetPlan::default() };
    let mut driver = NetDriver::connect(&rig.socket(), &plan);
    driver.send_chain(tx(0), &[Segment::readable(0xdead_0000_0000, 64)]);
    driver.tx(0).wait_err();
    assert_eq!(rig.wait_report().ring, tx(0));
    // Its siblings go on.
    driver.sent(1, &frame(64, 1));
    driver.post(0, 1, 2048);
    wire.deliver(0, &frame(64, 2));
    assert_eq!(driver.receive(0).bytes, frame(64, 2));
    // GET_VRING_BASE and a fresh start recover it.
    driver.client.stop(tx(0));
    driver.client.start(tx(0));
    driver.sent(0, &frame(64, 3));
    assert_eq!(wire.take(0), [frame(64, 3)]);
}

#[test]
fn r27_stopped_ring_keeps_its_receive_buffers_and_starts_again() {
    let (rig, wire) = rig(1);
    let mut driver = NetDriver::connect(&rig.socket(), &NetPlan::default());
    driver.post(0, 4, 2048);
    driver.client.stop(rx(0));
    wire.deliver(0, &frame(64, 1));
    driver.sent(0, &frame(64, 2));
    assert_eq!(driver.rx(0).raw().used_index(), 0);
    driver.client.start(rx(0));
    driver.post(0, 2, 2048);
    wire.deliver(0, &frame(64, 5));
    // What came while the ring was stopped may have waited or be lost.
    let first = driver.receive(0).bytes;
    let last = if first == frame(64, 1) { driver.receive(0).bytes } else { first };
    assert_eq!(last, frame(64, 5));
}

fn bench(socket: &Path, line: &str) -> Outcome {
    let socket = socket.display();
    let line = format!("bench --socket {socket} --time 600 --frames 500 {line}");
    let args = Line::parse_from(line.split_whitespace()).args;
    let never: OwnedFd = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
    measure(&args, never.as_fd()).expect("a run that begins")
}

#[test]
fn load_generator_sends_frames_that_all_arrive_as_they_were_sent() {
    let (rig, wire) = rig(2);
    for line in
        ["", "--verify", "--indirect", "--in-order", "--interrupt", "--queues 2", "--offload csum", "--size 1518"]
    {
        let outcome = bench(&rig.socket(), &format!("--mode tx --seed 5 {line}"));
        assert!(outcome.passed(), "{line}: {outcome:?}");
        let sent: Vec<Vec<u8>> = (0..2).flat_map(|pair| wire.take(pair)).collect();
        assert_eq!((outcome.sent, sent.len()), (500, 500), "{line}");
        let size = outcome.asked.size as usize;
        assert!(sent.iter().all(|frame| frame.len() == size && frame[42..50] == 5u64.to_be_bytes()), "{line}");
    }
}

#[test]
fn load_generator_gets_every_frame_back_through_a_loopback() {
    for line in [
        "",
        "--size 30",
        "--size 9014",
        "--size 9014 --rx-buffer 500 --queues 2 --flows 16",
        "--size 1518 --rx-buffer 2060 --mrg off",
        "--indirect --size 100",
        "--in-order",
        "--in-order --size 3000 --rx-buffer 1000",
        "--interrupt --queues 2",
        "--offload csum --size 777",
        "--offload tso --size 65535",
        "--offload tso --size 40000 --mrg off --rx-buffer 65562 --queue-size 64",
        "--queue-size 16 --window 1",
    ] {
        let port = Arc::new(Loopback::new("lo", LoopbackConfig::default()));
        let rig = NetSetup::new(port, 2).start().expect("there is a core");
        let outcome = bench(&rig.socket(), &format!("--mode loop --verify {line}"));
        assert!(outcome.passed(), "{line}: {outcome:?}");
        assert_eq!((outcome.sent, outcome.received, outcome.reordered), (500, 500, 0), "{line}");
    }
}
