//! A DPDK port and SPDK's bdevs in one process: one EAL serves both.

use std::process::Command;
use std::thread;

use super::{configuration, ends_silently, keeps_every_byte};
use crate::place::Place;

#[test]
fn dpdk_port_and_spdk_bdevs_of_one_process_keep_every_byte_of_frames_and_blocks() {
    let place = Place::new();
    // What is sent to a ring port comes back. SPDK's memory is that of DPDK's environment.
    let text = configuration(&place, &["Malloc512", "Malloc4096"])
        .replace("memory = '640MiB'\nordinary_memory = true\n", "")
        + "[dpdk]\neal_args = ['--no-huge', '--no-shconf', '-m', '900']\n\
           [[port]]\nname = 'ring'\nkind = 'dpdk'\ndevice = 'net_ring0'\n\
           [[net]]\nname = 'n0'\nsocket = '{dir}/n0.sock'\nport = 'ring'\n";
    let process = place.serve(&text);
    thread::scope(|scope| {
        let blocks = scope.spawn(|| (0..2).for_each(|lun| keeps_every_byte(&place, lun)));
        let mut bench = Command::new(env!("CARGO_BIN_EXE_ringside"));
        bench.args(["bench", "net", "--mode", "loop", "--verify", "--size", "1518", "--frames", "5000", "--socket"]);
        let output = bench.arg(place.path("n0.sock")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        blocks.join().unwrap();
    });
    let metrics = process.scrape();
    let frames = metrics.sum("ringside_port_extended_total", &[("port", "ring"), ("name", "tx_good_packets")]);
    assert!(frames >= 5000.0, "{frames}");
    let moved = ["direct", "bounced", "lent"].map(|way| metrics.sum(&format!("ringside_bdev_spdk_{way}_total"), &[]));
    assert!(moved.iter().sum::<f64>() >= 1000.0, "{moved:?}");
    ends_silently(process);
}
