//! Ports over interfaces of the kernel, in a network namespace of the test's own. They want root, and say so when they are
//! skipped.
#![cfg(feature = "libdpdk")]
#![allow(unsafe_code, reason = "a network namespace for the test's thread")]

mod rig;

use std::process::Command;

use port::{Checksum, FrameBatch, Offload, Port, Segmentation};
use port_dpdk::{DpdkPort, DpdkPortConfig};
use rig::{Memory, checksum_is_right, config, eal, ip4, plug, raw, udp};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A namespace for this thread and those that it starts; `false`, and a loud word, without the privilege.
fn namespace(test: &str) -> bool {
    // SAFETY: the network namespace has nothing to do with memory; files stay shared.
    match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
        Ok(()) => true,
        Err(errno) => {
            eprintln!("SKIPPED: {test}: no network namespace of its own ({errno}); it wants root");
            false
        }
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip (package iproute2)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn open(name: &str, device: &str, mtu: u16) -> DpdkPort {
    DpdkPort::open(eal(), DpdkPortConfig { name: name.to_owned(), mtu, ..config(device) }).unwrap()
}

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
