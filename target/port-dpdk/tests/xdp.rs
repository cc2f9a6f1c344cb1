//! Ports over AF_XDP sockets on a pair of interfaces of the kernel, in a network namespace of the test's own. It wants root, and
//! says so when it is skipped. A program of its own, because DPDK's threads stay in the namespace that they were started in.
#![cfg(feature = "libdpdk")]

mod rig;

use port::Port;
use port_dpdk::{DpdkPort, DpdkPortConfig};
use rig::network::{ip, namespace};
use rig::{Memory, eal, plug, raw};

/// With as many mbufs as are chosen by default: the driver takes 2048 of them before the first frame comes.
fn open(name: &str, interface: &str) -> DpdkPort {
    let device = format!("net_af_xdp_{name},iface={interface}");
    DpdkPort::open(eal(), DpdkPortConfig::new(name, &device)).unwrap()
}

#[test]
fn frames_cross_a_veth_pair_between_two_xdp_ports() {
    if !namespace("frames_cross_a_veth_pair_between_two_xdp_ports") {
        return;
    }
    ip("link add near0 type veth peer name far0");
    ip("link set near0 up");
    ip("link set far0 up");
    let (near, far) = (open("near", "near0"), open("far", "far0"));
    let (mut near_queue, mut far_queue) = (plug(&near), plug(&far));
    let mut memory = Memory::new();
    for (number, len) in [60, 64, 1000, 1514].into_iter().enumerate() {
        let (out, back) = (raw(number, len), raw(number + 100, len));
        assert_eq!(near_queue.send(&memory.batch(std::slice::from_ref(&out))), 1);
        assert_eq!(far_queue.await_frame(|bytes| bytes == out), out);
        assert_eq!(far_queue.send(&memory.batch(std::slice::from_ref(&back))), 1);
        assert_eq!(near_queue.await_frame(|bytes| bytes == back), back);
    }
    assert!(near.link().up && far.link().up);
}
