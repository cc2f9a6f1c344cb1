//! Net devices of a serving process: frames through a loopback and what the metrics say of them, one front-end at a time, the
//! MTU that a front-end tells, and what of them SIGHUP does not change. What a device makes of what a driver sends is tested
//! by the tests `net_…` of the crate `tests`.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;
use tests::live::until;
use vhost_user::frontend::Frontend;
use vhost_user::message::protocol;

use crate::place::{Place, Process, one_controller};

/// A controller, and a net device with two queue pairs on a loopback.
fn with_net() -> String {
    format!(
        "{}[[port]]\nname = 'lo'\nkind = 'loopback'\n\
         [[net]]\nname = 'n0'\nsocket = '{{dir}}/n0.sock'\nqueue_pairs = 2\nport = 'lo'\nmac = '52:54:00:00:00:01'\n\
         mtu = 9000\n",
        one_controller(0)
    )
}

/// `ringside bench net --mode loop`, as far as the end.
fn bench(socket: &Path, arguments: &[&str]) -> Output {
    bench_mode("loop", socket, arguments)
}

fn bench_mode(mode: &str, socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.args(["bench", "net", "--mode", mode, "--json", "--socket"]).arg(socket).args(arguments);
    command.output().unwrap()
}

fn connect(place: &Place) -> Frontend {
    let mut frontend = Frontend::connect(place.path("n0.sock")).unwrap();
    frontend.set_owner().unwrap();
    let wanted = protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG | protocol::MTU;
    let agreed = frontend.negotiate(1 << 32, wanted).unwrap();
    assert_eq!(agreed.protocol_features, wanted);
    frontend
}

fn end(process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn frames_through_a_loopback_are_counted_by_the_device_and_by_the_port() {
    let place = Place::new();
    let process = place.serve(&with_net());
    for (size, queues) in [("64", "1"), ("1518", "2"), ("9014", "1")] {
        let arguments = ["--size", size, "--queues", queues, "--frames", "1000", "--rx-buffer", "9100"];
        let output = bench(&place.path("n0.sock"), &arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let metrics = process.scrape();
    let of = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let mut all = 0.0;
    for direction in ["tx", "rx"] {
        let both = [("device", "n0"), ("direction", direction)];
        let frames = of("ringside_net_frames_total", &both);
        assert!(frames >= 3000.0, "{direction}: {frames}");
        assert_eq!(of("ringside_port_frames_total", &both), frames, "{direction}");
        let bytes = of("ringside_net_bytes_total", &both);
        assert!(bytes >= 1000.0 * (64.0 + 1518.0 + 9014.0), "{direction}: {bytes}");
        assert_eq!(of("ringside_port_bytes_total", &both), bytes, "{direction}");
        assert_eq!(of("ringside_net_frame_size_bytes_count", &both), frames, "{direction}");
        assert_eq!(of("ringside_net_frame_size_bytes_sum", &both), bytes, "{direction}");
        let up_to = |edge| of("ringside_net_frame_size_bytes_bucket", &[both[0], both[1], ("le", edge)]);
        assert!(up_to("64") >= 1000.0 && up_to("1518") - up_to("1023") >= 1000.0, "{direction}");
        assert!(up_to("+Inf") - up_to("1518") >= 1000.0, "{direction}");
        let second = [("device", "n0"), ("queue", "1"), ("direction", direction)];
        assert!(of("ringside_net_frames_total", &second) > 0.0, "the second pair has frames of its own");
        all += frames;
    }
    assert!(all > 0.0);
    assert_eq!(of("ringside_net_drops_total", &[("device", "n0")]), 0.0);
    assert_eq!(of("ringside_net_info", &[("mac", "52:54:00:00:00:01"), ("port", "lo")]), 1.0);
    assert_eq!(of("ringside_net_mtu_bytes", &[("device", "n0")]), 9000.0);
    assert_eq!(of("ringside_port_info", &[("port", "lo"), ("kind", "loopback")]), 1.0);
    assert_eq!(of("ringside_port_link_up", &[("port", "lo")]), 1.0);
    assert_eq!(of("ringside_sessions_total", &[("controller", "n0")]), 3.0);
    assert!(of("ringside_virtqueue_chains_total", &[("controller", "n0"), ("queue", "3")]) > 0.0);
    let rings = metrics.samples("ringside_virtqueue_size", &[("controller", "n0")]).count();
    assert_eq!(rings, 5, "two pairs and the control queue");
    end(process);
    assert!(!place.path("n0.sock").exists());
}

#[test]
fn net_device_tells_its_configuration_and_takes_an_mtu_within_it() {
    let place = Place::new();
    let process = place.serve(&with_net());
    let mut frontend = connect(&place);
    assert_eq!(frontend.queue_num().unwrap(), 5);
    // mac, status: link up, two pairs, mtu 9000 (virtio 1.3 §5.1.4).
    let expected = [0x52, 0x54, 0, 0, 0, 1, 1, 0, 2, 0, 0x28, 0x23];
    assert_eq!(frontend.config(0, 12).unwrap(), expected);
    let told = || process.scrape().sum("ringside_net_mtu_told_bytes", &[("device", "n0")]);
    assert_eq!(told(), 0.0);
    for (mtu, answer, expected) in [(1400u64, 0, 1400.0), (9001, 1, 1400.0), (67, 1, 1400.0), (9000, 0, 9000.0)] {
        // NET_SET_MTU (20), version 1 and NEED_REPLY, eight bytes.
        let mut message = vec![20, 0, 0, 0, 0x09, 0, 0, 0, 8, 0, 0, 0];
        message.extend(mtu.to_le_bytes());
        frontend.send_raw(&message, &[]).unwrap();
        let reply = frontend.recv_reply().unwrap();
        assert_eq!((reply.body[0], told()), (answer, expected), "MTU {mtu}");
    }
    end(process);
}

#[test]
fn second_front_end_of_a_net_device_is_turned_away_and_the_next_one_served() {
    let place = Place::new();
    let mut process = place.serve(&with_net());
    let mut first = connect(&place);
    let second = UnixStream::connect(place.path("n0.sock")).unwrap();
    process.wait_line("a second front-end was turned away");
    drop(second);
    assert_eq!(process.scrape().sum("ringside_sessions_turned_away_total", &[("controller", "n0")]), 1.0);
    first.features().unwrap();
    drop(first);
    until("the next one is served", || bench(&place.path("n0.sock"), &["--frames", "10"]).status.success());
    end(process);
}

/// Two net devices on a switch: what one sends to an address that nobody has comes to the other.
#[test]
fn frames_between_two_devices_of_a_switch_are_counted_on_both_sides() {
    let place = Place::new();
    let process = place.serve(&on_switch(""));
    let receiver = {
        let socket = place.path("n1.sock");
        std::thread::spawn(move || bench_mode("rx", &socket, &["--frames", "100", "--time", "30"]))
    };
    let started = [("controller", "n1"), ("queue", "0")];
    until("the receiver is ready", || process.scrape().sum("ringside_virtqueue_size", &started) > 0.0);
    let output = bench_mode("tx", &place.path("n0.sock"), &["--frames", "2000", "--rate", "2000"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = receiver.join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let metrics = process.scrape();
    let of = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(of("ringside_net_frames_total", &[("device", "n0"), ("direction", "tx")]), 2000.0);
    let received = of("ringside_net_frames_total", &[("device", "n1"), ("direction", "rx")]);
    assert!((100.0..=2000.0).contains(&received), "{received}");
    assert_eq!(of("ringside_port_frames_total", &[("port", "sw"), ("device", "n1"), ("direction", "rx")]), received);
    assert_eq!(of("ringside_switch_floods_total", &[("port", "sw")]), 2000.0);
    // The address that the sender sends from.
    assert_eq!(of("ringside_switch_learned_total", &[("port", "sw")]), 1.0);
    for name in ["addresses", "moved_total", "aged_total", "table_full_total"] {
        assert!(metrics.samples(&format!("ringside_switch_{name}"), &[("port", "sw")]).count() == 1, "{name}");
    }
    end(process);
}

/// Two net devices, `n0` and `n1`, on the switch `sw` with these keys.
fn on_switch(keys: &str) -> String {
    let net = |name: &str| format!("[[net]]\nname = '{name}'\nsocket = '{{dir}}/{name}.sock'\nport = 'sw'\n");
    let switch = format!("[[port]]\nname = 'sw'\nkind = 'switch'\n{keys}");
    format!("{}{switch}{}{}", one_controller(0), net("n0"), net("n1"))
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use super::*;

    fn with_dpdk(device: &str) -> String {
        with_net()
            .replace("mtu = 9000", "mtu = 1500")
            .replace("kind = 'loopback'", &format!("kind = 'dpdk'\ndevice = '{device}'"))
    }

    #[test]
    fn frames_through_a_dpdk_port_are_counted_by_its_driver_too() {
        let place = Place::new();
        // What is sent to a ring port comes back, as long as there is one queue.
        let process = place.serve(&with_dpdk("net_ring0").replace("queue_pairs = 2\nport", "queue_pairs = 1\nport"));
        let output = bench(&place.path("n0.sock"), &["--frames", "1000"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let metrics = process.scrape();
        let sent = [("port", "lo"), ("name", "tx_good_packets")];
        let frames = metrics.sum("ringside_net_frames_total", &[("device", "n0"), ("direction", "tx")]);
        assert!(frames >= 1000.0);
        assert_eq!(metrics.sum("ringside_port_extended_total", &sent), frames);
        assert_eq!(metrics.sum("ringside_port_info", &[("port", "lo"), ("kind", "dpdk")]), 1.0);
        let mbufs = |state| metrics.sum("ringside_port_mbufs", &[("port", "lo"), ("state", state)]);
        assert!(mbufs("used") < mbufs("free"), "what came back is free again");
        assert!(metrics.sum("ringside_port_speed_bytes_per_second", &[("port", "lo")]) > 0.0);
        end(process);
    }

    #[test]
    fn frames_to_the_uplink_of_a_switch_are_counted_on_both_sides() {
        let place = Place::new();
        let uplink = "[[port]]\nname = 'up'\nkind = 'dpdk'\ndevice = 'net_null0,no-rx=1'\n";
        let process = place.serve(&(on_switch("uplink = 'up'\n") + uplink));
        let output = bench_mode("tx", &place.path("n0.sock"), &["--frames", "1000"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let of = |port, device, direction| {
            let labels = [("port", port), ("device", device), ("direction", direction)];
            process.scrape().sum("ringside_port_frames_total", &labels)
        };
        assert_eq!(of("sw", "n0", "tx"), 1000.0);
        let lost = || process.scrape().sum("ringside_port_drops_total", &[("port", "sw")]);
        until("all have gone up or were lost on the way", || of("sw", "up", "rx") + lost() >= 1000.0);
        assert_eq!(of("up", "sw", "tx"), of("sw", "up", "rx"));
        end(process);
    }

    #[test]
    fn dpdk_port_without_its_device_ends_the_start_by_its_key() {
        let place = Place::new();
        let output = place.fails(&with_dpdk("net_af_packet0,iface=ringside-none"));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("port[0]: ") && stderr.contains("net_af_packet0,iface=ringside-none"), "{stderr}");
        assert!(!place.path("n0.sock").exists() && !place.path("vm0.sock").exists(), "nothing is left behind");
        let output = place.fails(&with_dpdk("net_pcap0,iface=lo"));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("net[0]: port lo: 2 queue pairs, must be at most 1"), "{stderr}");
    }
}

#[test]
fn hup_with_another_net_device_applies_nothing_and_names_the_key() {
    let place = Place::new();
    let text = with_net();
    let mut process = place.serve(&text);
    let mut frontend = connect(&place);
    for (old, new, expected) in [
        ("mtu = 9000", "mtu = 1500", "net[0].mtu = 1500: is 9000 in the running target; that takes a restart"),
        ("kind = 'loopback'", "kind = 'loopback'\ndepth = 7", "port[0].depth = 7: is 1024 in the running target"),
        ("[[port]]", "[dpdk]\neal_args = ['-v']\n[[port]]", "dpdk.eal_args = [\"-v\"]: is [] in the running"),
    ] {
        place.write(&text.replace(old, new));
        process.signal(Signal::HUP);
        let said = process.wait_line("SIGHUP: ");
        assert!(said.contains("nothing is changed") && said.contains(expected), "{said}");
    }
    frontend.features().unwrap();
    end(process);
}

#[test]
fn net_device_in_client_mode_connects_to_the_front_end() {
    let place = Place::new();
    let process = place.serve(&with_net().replace("queue_pairs = 2", "queue_pairs = 2\nmode = 'client'"));
    for _ in 0..2 {
        let output = bench(&place.path("n0.sock"), &["--server", "--frames", "100"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    end(process);
}
