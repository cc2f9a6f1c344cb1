//! A port that makes an interface of the kernel, in a network namespace of the test's own. It wants root, and says so when it
//! is skipped. A program of its own, because DPDK's threads stay in the namespace that they were started in.
#![cfg(feature = "libdpdk")]

mod rig;

use port::Port;
use rig::network::{ip, namespace, open};
use rig::{Memory, plug, raw};

#[test]
fn frames_cross_a_tap_port_to_the_kernel_and_back() {
    if !namespace("frames_cross_a_tap_port_to_the_kernel_and_back") {
        return;
    }
    let tap = open("tap", "net_tap0,iface=rstap0", 1400);
    let mut tap_queue = plug(&tap);
    ip("link set rstap0 up");
    assert!(ip("-o link show rstap0").contains("mtu 1400"), "{}", ip("-o link show rstap0"));
    let kernel = open("kernel", "net_af_packet0,iface=rstap0", 1400);
    let mut kernel = plug(&kernel);
    let mut memory = Memory::new();
    let (out, back) = (raw(1, 1414), raw(2, 300));
    assert_eq!(tap_queue.send(&memory.batch(std::slice::from_ref(&out))), 1);
    assert_eq!(kernel.await_frame(|bytes| bytes == out), out);
    assert_eq!(kernel.send(&memory.batch(std::slice::from_ref(&back))), 1);
    assert_eq!(tap_queue.await_frame(|bytes| bytes == back), back);
    assert!(tap.link().up);
}
