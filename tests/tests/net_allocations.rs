//! A poll of a net device allocates nothing in a steady load: frames sent, received, merged, cut in software and dropped.
//! Counted by a global allocator, around the polls alone.

use std::sync::Arc;

use bdev::Gate;
use port::{Loopback, LoopbackConfig, Port};
use tests::device::Device;
use tests::wire::{HEADER_LEN, MAC, rx, tx};
use vhost_user::Shard as _;
use virtio_net::wire::feature;
use virtio_net::{NetConfig, NetDevice};
use virtqueue::Features;

const WARM_UP: usize = 4;
const ROUNDS: usize = 20;

/// A device on a loopback: what it sends comes back.
fn echo(features: u64) -> Device<NetDevice> {
    let port: Arc<dyn Port> = Arc::new(Loopback::new("echo", LoopbackConfig { frames_max: 64 }));
    let config = NetConfig {
        name: "test".into(),
        queue_pairs: 1,
        queue_size_max: 256,
        mac: MAC,
        mtu: 9000,
        offloads: true,
        isolated: false,
    };
    let device = NetDevice::new(config, port, &[]).expect("a port that takes it");
    let mut device = Device::over(device, 256, Features::default(), Gate::closed(), Vec::new(), None);
    device.shards[0].set_features(features);
    device.run();
    device
}

/// Allocations of the polls in which `frames` frames of this length go round, with receive buffers of another.
fn allocations(device: &mut Device<NetDevice>, header: [u8; HEADER_LEN], frame: &[u8], buffer: usize) -> u64 {
    let mut count = 0;
    for round in 0..WARM_UP + ROUNDS {
        let missing = 100 - device.outstanding(rx(0)).min(100);
        device.refill(0, missing, buffer);
        for _ in 0..8 {
            device.send(0, &header, frame);
        }
        let counted = allocation_counter::measure(|| device.run());
        if round >= WARM_UP {
            count += counted.count_total;
        }
        assert_eq!(device.take(tx(0)).len(), 8);
        device.take(rx(0));
    }
    count
}

/// A TCP segment over IPv4 of which the checksum is left to be completed.
fn tcp4(payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; 54 + payload];
    bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    bytes[16..18].copy_from_slice(&(40 + payload as u16).to_be_bytes());
    bytes[22..24].copy_from_slice(&[64, 6]);
    bytes[46] = 0x50;
    bytes
}

#[test]
fn r27_polls_of_a_net_device_allocate_nothing() {
    const BASE: u64 = feature::VERSION_1 | feature::MRG_RXBUF;
    let plain = [0; HEADER_LEN];
    let long = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]; // NEEDS_CSUM, TCPV4, 1448 bytes each
    let cases = [
        ("plain", BASE, plain, vec![1; 60], 1530),
        ("merged", BASE, plain, vec![1; 5000], 700),
        ("no room", feature::VERSION_1, plain, vec![1; 5000], 700),
        ("no frame", BASE, plain, vec![1; 5], 700),
        ("too long", BASE, plain, vec![1; 9100], 700),
        ("passed on", BASE | 0x883, long, tcp4(9000), 2048),
        ("cut in software", BASE | feature::CSUM | feature::HOST_TSO4, long, tcp4(9000), 2048),
    ];
    for (what, features, header, frame, buffer) in cases {
        let mut device = echo(features);
        assert_eq!(allocations(&mut device, header, &frame, buffer), 0, "{what}");
        let came = device.sum(|stats| stats.pairs[0].device.rx.frames.value());
        assert_eq!(came > 0, !matches!(what, "no room" | "no frame" | "too long"), "{what}: {came} frames came");
    }
}
