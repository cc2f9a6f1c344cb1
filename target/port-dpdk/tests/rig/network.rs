//! Interfaces of the kernel, in a network namespace of the test's own.

use std::process::Command;

use port_dpdk::{DpdkPort, DpdkPortConfig};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{config, eal};

/// A namespace for this thread and those that it starts; `false`, and a loud word, without the privilege.
pub fn namespace(test: &str) -> bool {
    // SAFETY: the network namespace has nothing to do with memory; files stay shared.
    match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
        Ok(()) => true,
        Err(errno) => {
            eprintln!("SKIPPED: {test}: no network namespace of its own ({errno}); it wants root");
            false
        }
    }
}

pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip (package iproute2)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn open(name: &str, device: &str, mtu: u16) -> DpdkPort {
    DpdkPort::open(eal(), DpdkPortConfig { name: name.to_owned(), mtu, ..config(device) }).unwrap()
}
