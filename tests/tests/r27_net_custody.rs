//! R14 and R27: whose memory a frame lies in, and for how long, at the edges of a connection's life; and how much work a
//! driver can make of a frame. What drivers do at random is in `r27_net_hostile.rs`.

use std::sync::Arc;

use bdev::Gate;
use port::{Loopback, LoopbackConfig, Port};
use reactor::Source as _;
use tests::device::Device;
use tests::wire::{HEADER_LEN, MAC, NetSetup, rx};
use vhost_user::Shard as _;
use virtio_net::wire::feature;
use virtio_net::{NetConfig, NetDevice, NetDrop};
use virtqueue::Features;

const V1: u64 = feature::VERSION_1 | feature::MRG_RXBUF;

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + len) as u8).collect()
}

/// A device of one queue pair on this port, with its rings started.
fn plugged(port: Arc<dyn Port>) -> Device<NetDevice> {
    let config = NetConfig {
        name: "test".into(),
        queue_pairs: 1,
        queue_size_max: 1024,
        mac: MAC,
        mtu: 1500,
        offloads: true,
        isolated: false,
    };
    let device = NetDevice::new(config, port, &[]).expect("a port that takes it");
    let mut device = Device::over(device, 64, Features { event_idx: false }, Gate::closed(), Vec::new(), None);
    device.shards.iter_mut().for_each(|shard| shard.set_features(V1));
    device.run();
    device
}

#[test]
fn r27_announcement_to_itself_does_not_outlive_a_front_end_that_goes_at_once() {
    let mut device = plugged(Arc::new(Loopback::new("lo", LoopbackConfig::default())));
    device.shards[0].send_rarp([0x52, 0x54, 0, 0, 0, 9]);
    // No poll between: jobs of an inbox run one after the other.
    device.reconnect();
    device.shards[0].set_features(V1);
    device.run();
    assert_eq!(device.shards[0].poll(reactor::Tsc::now()), 0);
}

#[test]
fn r27_buffers_of_a_byte_cost_a_burst_no_more_than_its_bound() {
    let setup = NetSetup { ring_size: 1024, mtu: 9000, ..NetSetup::default() };
    let (mut device, wire) = setup.start();
    let byte = device.writable(HEADER_LEN);
    device.submit_chain(rx(0), &[byte]);
    for _ in 0..1000 {
        let byte = device.writable(1);
        device.submit_chain(rx(0), &[byte]);
    }
    // Too long for all buffers together: each would look at all of them and put them back.
    (0..32).for_each(|_| wire.deliver(0, &frame(1400)));
    let chains = device.ring_stats[usize::from(rx(0))].chains.value();
    device.poll();
    let looked_at = device.ring_stats[usize::from(rx(0))].chains.value() - chains;
    assert!(looked_at < 4000, "{looked_at} buffers looked at for 32 frames");
    assert_eq!((device.rx_dropped(NetDrop::NoGuestBuffer), device.all_dropped()), (32, 32));
    // None is used up, and none has been written to.
    assert_eq!((device.take(rx(0)).len(), device.outstanding(rx(0))), (0, 1001));
    wire.deliver(0, &frame(500));
    device.run();
    assert_eq!(device.received(0).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [frame(500)]);
}

#[test]
fn r27_full_burst_of_the_longest_frames_fits_the_bound() {
    let tso = feature::GUEST_CSUM | feature::GUEST_TSO4;
    let setup = NetSetup { ring_size: 1024, features: V1 | tso, ..NetSetup::default() };
    let (mut device, wire) = setup.start();
    // 300 KiB of buffers of 1526 bytes: what a Linux guest posts, as much as there is memory for.
    device.refill(0, 200, 1526);
    (0..6).for_each(|_| wire.deliver(0, &frame(45_000)));
    device.run();
    assert_eq!(device.received(0).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), vec![frame(45_000); 6]);
    assert_eq!(device.all_dropped(), 0);
}

#[test]
fn r26_driver_that_comes_without_a_reset_finds_nothing_of_the_one_before() {
    let features = V1 | feature::CTRL_VQ | feature::CTRL_RX;
    let (mut device, wire) = NetSetup { features, ..NetSetup::default() }.start();
    let passes = |device: &mut Device<NetDevice>| {
        device.refill(0, 1, 200);
        wire.deliver(0, &frame(64));
        device.run();
        device.received(0).len() == 1
    };
    let command = [device.readable(&[0, 0, 0]), device.writable(1)];
    assert_eq!(device.answer_chain(2, &command).byte(), 0); // no longer promiscuous
    assert!(!passes(&mut device));
    // Said again while the driver is there, which means nothing.
    device.shards[0].set_features(features);
    assert!(!passes(&mut device));
    // The next driver, of a front-end that knows neither RESET_DEVICE nor SET_STATUS.
    let stops: Vec<_> = (0..3).map(|ring| device.stop(ring)).collect();
    stops.into_iter().for_each(|stop| assert!(stop.try_recv().is_ok()));
    device.shards[0].set_features(features);
    (0..3).for_each(|ring| {
        device.renew(ring, 64);
        device.start(ring, 0);
    });
    device.run();
    assert!(passes(&mut device));
}
