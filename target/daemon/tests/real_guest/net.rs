//! A guest's network card on a DPDK port, and what is behind that: a network namespace of the host. Cards that come and go are
//! in `net_lives`, guests that talk to each other in `net_switch`.

use crate::guest::skip;
use crate::guest::{
    Data, DirectGuest, Guest, HOST, HOST6, Lab, Metrics, Network, Process, Ringside, cores, qemu_version,
};

/// The guest's addresses.
pub const GUEST: &str = "198.18.0.2";
pub const GUEST6: &str = "fd00::2";
/// Causes of drops that need no fault: a guest or a link that is slower than its peer.
const TOO_SLOW: [&str; 2] = ["no_guest_buffer", "port_full"];
/// Causes of drops when a guest is not there, or not yet.
pub const ABSENT: [&str; 2] = ["queue_disabled", "no_destination"];

/// A lab and a network, for tests that need both and iperf3 in the guest.
pub fn enter(test: &str) -> Option<(Lab, Network)> {
    let lab = enter_lab(test)?;
    Some((lab, Network::enter(test)?))
}

/// A lab for tests that need iperf3 in the guest.
pub fn enter_lab(test: &str) -> Option<Lab> {
    let lab = Lab::enter(test)?;
    if !lab.image("net.cpio").exists() {
        skip(test, "no net.cpio in the guest's image (scripts/guest/build.sh --with-net)");
        return None;
    }
    Some(lab)
}

/// A net device `vm0net` on a DPDK port; `more` are further keys of the device.
pub fn on_device(device: &str, more: &str) -> String {
    let core = cores()[0];
    format!(
        "[reactor]
         cores = [{core}]
         [[port]]
         name = 'uplink'
         kind = 'dpdk'
         device = '{device}'
         [[net]]
         name = 'vm0net'
         socket = 'vm0net.sock'
         port = 'uplink'
         mac = '52:54:00:00:00:02'
         {more}"
    )
}

/// The same on a packet socket at that interface.
pub fn on_packet_socket(interface: &str, more: &str) -> String {
    on_device(&format!("net_af_packet0,iface={interface}"), more)
}

/// The machine with that net device, as `ringside qemu-args` has it.
pub fn machine(lab: &Lab, ringside: &Ringside, device: &str, memory: &str) -> DirectGuest {
    machine_with(lab, ringside, device, memory, "")
}

/// The same, with further properties of the network card, each followed by a comma.
fn machine_with(lab: &Lab, ringside: &Ringside, device: &str, memory: &str, properties: &str) -> DirectGuest {
    let arguments = ringside.qemu_args(device, &["--one-line", "--memory", memory, "--qemu", &qemu_version()]);
    let arguments = arguments.replace("-device virtio-net-pci,", &format!("-device virtio-net-pci,{properties}"));
    lab.direct(&arguments, "net.sh").with_net()
}

/// Boots it until its card has its addresses.
pub fn up(machine: DirectGuest) -> Guest {
    let mut guest = machine.start();
    guest.line("UP");
    guest
}

/// Ends the guest as its script does.
pub fn end(mut guest: Guest) {
    guest.type_line("end");
    guest.finish();
}

/// An iperf3 for guests to talk to.
pub fn iperf_server(network: &Network) -> Process {
    network.start("iperf3", "iperf3 -s --forceflush")
}

/// Moves data between the guest and the server; the Mbit/s that arrived.
pub fn iperf(guest: &mut Guest, server: &mut Process, arguments: &str) -> f64 {
    server.line("iperf3 listens", crate::SOON, |line| line.contains("Server listening"));
    iperf_client(guest, HOST, arguments)
}

/// Moves data between the guest and a server that listens at `address`; the Mbit/s that arrived.
pub fn iperf_client(guest: &mut Guest, address: &str, arguments: &str) -> f64 {
    let address = if arguments.contains("-6") { HOST6 } else { address };
    let said = guest.ask(&format!("/usr/bin/iperf3 -f m -c {address} {arguments}"));
    let line = said.iter().rfind(|line| line.ends_with("receiver")).unwrap_or_else(|| panic!("{said:?}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "Mbits/sec").unwrap();
    let rate: f64 = words[unit - 1].parse().unwrap();
    eprintln!("iperf3 {arguments}: {rate} Mbit/s arrived");
    assert!(rate > 0.0, "{line}");
    rate
}

/// The guest fetches it over a connection, checks its sum, and sends it back over another one.
pub fn there_and_back(guest: &mut Guest, network: &Network, data: Data, address: &str) {
    let listener = network.listen();
    let port = listener.local_addr().unwrap().port();
    let sender = data.send(listener);
    let said = guest.ask(&format!("nc {address} {port} >/tmp/data && md5sum /tmp/data"));
    sender.join().expect("sending");
    let sum = data.md5();
    assert!(said.iter().any(|line| line.starts_with(&sum)), "{sum} expected: {said:?}");
    let listener = network.listen();
    let port = listener.local_addr().unwrap().port();
    let receiver = data.receive(listener);
    guest.ask(&format!("nc {address} {port} </tmp/data"));
    receiver.join().expect("receiving");
}

/// Nothing has broken, and no frame was lost since `before` but for want of room, or by these causes.
pub fn assert_well(before: Option<&Metrics>, after: &Metrics, expected: &[&str]) {
    for name in [
        "ringside_virtqueue_broken",
        "ringside_vhost_messages_refused_total",
        "ringside_poller_panics_total",
        "ringside_quiesce_wait_seconds",
    ] {
        assert_eq!(after.sum(name, &[]), 0.0, "{name}");
    }
    for name in ["ringside_net_drops_total", "ringside_port_drops_total"] {
        for cause in after.nonzero(name, "cause").keys() {
            let of = |metrics: &Metrics| metrics.sum(name, &[("cause", cause)]);
            let drops = of(after) - before.map_or(0.0, of);
            eprintln!("{name}: {drops} by {cause}");
            let is_known = TOO_SLOW.iter().chain(expected).any(|known| known == cause);
            assert!(drops == 0.0 || is_known, "{name}: {drops} by {cause}");
        }
    }
}

/// How many frames longer than one of a link of 1500 bytes went in that direction of a device's queues.
pub fn large_frames(metrics: &Metrics, device: &str, direction: &str) -> f64 {
    let of = |edge| {
        let labels = [("device", device), ("direction", direction), ("le", edge)];
        metrics.sum("ringside_net_frame_size_bytes_bucket", &labels)
    };
    of("+Inf") - of("1518")
}

/// Both ways, of these sizes, one by one and as fast as answers come.
fn pings(guest: &mut Guest, network: &Network, sizes: &[u16]) {
    for size in sizes {
        network.ping(GUEST, 3, &format!("-i 0.05 -s {size}"));
        guest.ask(&format!("ping -q -A -c 3 -w 30 -s {size} {HOST} | grep '3 packets received'"));
    }
    network.ping(GUEST, 300, "-f -s 1400");
    guest.ask(&format!("ping -q -A -c 300 -w 60 {HOST} | grep '300 packets received'"));
}

/// What the driver took of what it was offered (virtio 1.3 §5.1.3, §6): without these, tests would pass on easier paths.
fn has_features(guest: &mut Guest, more: &[usize]) {
    let said = guest.ask("cat /sys/class/net/eth0/device/features");
    let features = said.iter().find(|line| line.starts_with(['0', '1']) && line.len() == 64).unwrap();
    // CSUM, GUEST_CSUM, MTU, HOST_TSO4, HOST_TSO6, MRG_RXBUF, INDIRECT_DESC, EVENT_IDX, VERSION_1
    for bit in [0, 1, 3, 11, 12, 15, 28, 29, 32].iter().chain(more) {
        assert_eq!(features.as_bytes()[*bit], b'1', "feature {bit} of {features}");
    }
}

/// The driver sleeps until it is interrupted, and not for every frame: it says by EVENT_IDX when.
fn assert_interrupts_were_spared(metrics: &Metrics) {
    let of = |name| metrics.sum(name, &[("controller", "vm0net")]);
    let (calls, suppressed) = (of("ringside_virtqueue_calls_total"), of("ringside_virtqueue_calls_suppressed_total"));
    let (kicks, chains) = (of("ringside_virtqueue_kicks_total"), of("ringside_virtqueue_chains_total"));
    eprintln!("{calls} calls, {suppressed} suppressed, {kicks} kicks, {chains} chains");
    assert!(calls > 0.0 && suppressed > 0.0 && calls < chains / 2.0, "{calls}, {suppressed}, {chains}");
}

#[test]
fn real_guest_net_reaches_a_network_through_a_packet_socket() {
    let test = "real_guest_net_reaches_a_network_through_a_packet_socket";
    let Some((lab, network)) = enter(test) else { return };
    let ringside = lab.serve(&on_packet_socket(&network.veth(), ""));
    let mut guest = up(machine(&lab, &ringside, "vm0net", "256M"));
    has_features(&mut guest, &[]);
    let before = ringside.metrics();
    // Nothing that takes fragments: the driver has the kernel put them together, and takes none of the larger whole.
    pings(&mut guest, &network, &[56, 1400]);
    network.ping(GUEST6, 3, "-6 -i 0.05 -s 1400");
    guest.ask(&format!("ping -q -6 -A -c 3 -w 30 {HOST6} | grep '3 packets received'"));

    let mut server = iperf_server(&network);
    for offloads in ["on", "off"] {
        guest.ask(&format!("offloads {offloads}"));
        let large = large_frames(&ringside.metrics(), "vm0net", "tx");
        iperf(&mut guest, &mut server, "-n 32M");
        iperf(&mut guest, &mut server, "-n 32M -R");
        there_and_back(&mut guest, &network, Data::mib(16), HOST);
        let large = large_frames(&ringside.metrics(), "vm0net", "tx") - large;
        assert_eq!(large > 0.0, offloads == "on", "offloads {offloads}: {large} frames were left to be cut");
    }
    guest.ask("offloads on");
    let large = large_frames(&ringside.metrics(), "vm0net", "tx");
    iperf(&mut guest, &mut server, "-6 -n 16M");
    iperf(&mut guest, &mut server, "-6 -n 16M -R");
    there_and_back(&mut guest, &network, Data::mib(8), HOST6);
    assert!(large_frames(&ringside.metrics(), "vm0net", "tx") > large, "no frame of IPv6 was left to be cut");
    iperf(&mut guest, &mut server, "-u -b 10M -l 1400 -n 1M");
    iperf(&mut guest, &mut server, "-u -b 10M -l 1400 -n 1M -R");
    let metrics = ringside.metrics();
    assert_well(Some(&before), &metrics, &[]);
    assert_interrupts_were_spared(&metrics);
    end(guest);
    ringside.stop();
}

#[test]
fn real_guest_net_copies_256_mib_each_way() {
    let Some((lab, network)) = enter("real_guest_net_copies_256_mib_each_way") else { return };
    let ringside = lab.serve(&on_packet_socket(&network.veth(), ""));
    let mut guest = up(machine(&lab, &ringside, "vm0net", "512M"));
    let before = ringside.metrics();
    there_and_back(&mut guest, &network, Data::mib(256), HOST);
    let metrics = ringside.metrics();
    assert_well(Some(&before), &metrics, &[]);
    end(guest);
    for direction in ["rx", "tx"] {
        let bytes = metrics.sum("ringside_net_bytes_total", &[("direction", direction)]);
        assert!(bytes > f64::from(256 << 20), "{direction}: {bytes} bytes");
    }
    ringside.stop();
}

/// As above, with packed rings (VIRTIO_F_RING_PACKED): the driver sleeps by the packed ring's own event suppression.
#[test]
fn real_guest_net_with_packed_rings_reaches_a_network() {
    let Some((lab, network)) = enter("real_guest_net_with_packed_rings_reaches_a_network") else { return };
    let tap = network.interface("p");
    let ringside = lab.serve(&on_device(&format!("net_tap0,iface={tap}"), ""));
    network.take(&tap);
    let mut guest = up(machine_with(&lab, &ringside, "vm0net", "256M", "packed=on,"));
    has_features(&mut guest, &[34]);
    let before = ringside.metrics();
    pings(&mut guest, &network, &[56, 4000]);
    let mut server = iperf_server(&network);
    iperf(&mut guest, &mut server, "-n 16M");
    iperf(&mut guest, &mut server, "-n 16M -R");
    there_and_back(&mut guest, &network, Data::mib(8), HOST);
    assert_well(Some(&before), &ringside.metrics(), &[]);
    end(guest);
    ringside.stop_despite(&["qdisc", "Disabling rte flow support", "to secondary"]);
}

#[test]
fn real_guest_net_reaches_a_network_through_a_tap() {
    let Some((lab, network)) = enter("real_guest_net_reaches_a_network_through_a_tap") else { return };
    let tap = network.interface("t");
    let ringside = lab.serve(&on_device(&format!("net_tap0,iface={tap}"), ""));
    network.take(&tap);
    let mut guest = up(machine(&lab, &ringside, "vm0net", "256M"));
    let before = ringside.metrics();
    pings(&mut guest, &network, &[56, 1400, 4000]);
    let mut server = iperf_server(&network);
    for offloads in ["on", "off"] {
        guest.ask(&format!("offloads {offloads}"));
        iperf(&mut guest, &mut server, "-n 16M");
        iperf(&mut guest, &mut server, "-n 16M -R");
        there_and_back(&mut guest, &network, Data::mib(8), HOST);
    }
    assert_well(Some(&before), &ringside.metrics(), &[]);
    end(guest);
    // DPDK's driver complains of what it can do without: a queueing discipline of the kernel, secondary processes.
    ringside.stop_despite(&["qdisc", "Disabling rte flow support", "to secondary"]);
}

#[test]
fn real_guest_net_uses_both_queue_pairs_or_one() {
    let Some((lab, network)) = enter("real_guest_net_uses_both_queue_pairs_or_one") else { return };
    let device = format!("net_af_packet0,iface={},qpairs=2", network.veth());
    let ringside = lab.serve(&on_device(&device, "queue_pairs = 2"));
    let mut guest = up(machine(&lab, &ringside, "vm0net", "256M"));
    let mut server = iperf_server(&network);
    let frames = |queue: &str| {
        let of = |direction| {
            let labels = [("queue", queue), ("direction", direction)];
            ringside.metrics().sum("ringside_net_frames_total", &labels)
        };
        [of("tx"), of("rx")]
    };
    for pairs in [2, 1, 2] {
        guest.ask(&format!(
            "/usr/sbin/ethtool -L eth0 combined {pairs} || /usr/sbin/ethtool -l eth0 | tail -n 2 | grep {pairs}"
        ));
        let before = frames("1");
        iperf(&mut guest, &mut server, "-P 4 -n 8M");
        iperf(&mut guest, &mut server, "-P 4 -n 8M -R");
        there_and_back(&mut guest, &network, Data::mib(4), HOST);
        let after = frames("1");
        eprintln!("{pairs} pairs: the second had {before:?} and has {after:?} frames");
        if pairs == 1 {
            assert_eq!(after, before, "the second pair is not in use");
        } else {
            assert!(after[0] > before[0] && after[1] > before[1], "{after:?}");
        }
    }
    assert_well(None, &ringside.metrics(), &ABSENT);
    end(guest);
    ringside.stop();
}
