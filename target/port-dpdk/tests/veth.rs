//! Ports over packet sockets on a pair of interfaces of the kernel, in a network namespace of the test's own. It wants root, and says so when it
//! is skipped. A program of its own, because DPDK's threads stay in the namespace that they were started in.
#![cfg(feature = "libdpdk")]

mod rig;

use port::{Checksum, FrameBatch, Offload, Segmentation};
use rig::network::{ip, namespace, open};
use rig::{Memory, checksum_is_right, ip4, plug, raw, udp};

#[test]
fn frames_cross_a_veth_pair_between_two_packet_socket_ports() {
    if !namespace("frames_cross_a_veth_pair_between_two_packet_socket_ports") {
        return;
    }
    ip("link add near0 type veth peer name far0");
    ip("link set near0 up");
    ip("link set far0 up");
    let (near, far) =
        (open("near", "net_af_packet0,iface=near0", 1500), open("far", "net_af_packet1,iface=far0", 1500));
    let (mut near, mut far) = (plug(&near), plug(&far));
    let mut memory = Memory::new();
    for (number, len) in [60, 64, 1000, 1514].into_iter().enumerate() {
        let frame = raw(number, len);
        assert_eq!(near.send(&memory.batch(std::slice::from_ref(&frame))), 1);
        assert_eq!(far.await_frame(|bytes| bytes == frame), frame);
    }
    let mut batch = FrameBatch::new(1, 1);
    let checksum = Checksum::Partial { start: 34, offset: 6 };
    memory.push(
        &mut batch,
        &ip4(17, udp(b"by packet socket"), 6),
        &[],
        Offload { checksum, segmentation: Segmentation::None },
    );
    assert_eq!(far.send(&batch), 1);
    let back = near.await_frame(|bytes| bytes.ends_with(b"by packet socket"));
    assert!(checksum_is_right(&back));
}
