//! Guests that talk to each other through a switch, and through its uplink to a network namespace of the host.

use super::net::{assert_well, end, enter, enter_lab, iperf_client, large_frames, machine, there_and_back};
use crate::SOON;
use crate::guest::{Data, Guest, HOST, Lab, Ringside, cores, skip, until};

/// Two net devices on a switch; `more` are further keys of each, `uplink` the interface behind it.
fn config(uplink: Option<&str>, more: [&str; 2]) -> String {
    let core = cores()[0];
    let mut config = format!("[reactor]\ncores = [{core}]\n");
    if let Some(interface) = uplink {
        config += &format!("[[port]]\nname = 'up'\nkind = 'dpdk'\ndevice = 'net_af_packet0,iface={interface}'\n");
    }
    config += "[[port]]\nname = 'sw'\nkind = 'switch'\n";
    if uplink.is_some() {
        config += "uplink = 'up'\n";
    }
    for (index, more) in more.iter().enumerate() {
        config += &format!(
            "[[net]]\nname = 'vm{index}net'\nsocket = 'vm{index}net.sock'\nport = 'sw'\n\
             mac = '52:54:00:00:00:0{}'\n{more}\n",
            index + 2
        );
    }
    config
}

/// Both guests, up. The second has the kernel of that folder of the image.
fn both(lab: &Lab, ringside: &Ringside, kernel: &'static str) -> [Guest; 2] {
    let first = machine(lab, ringside, "vm0net", "256M").env("ADDRESS", 2).start();
    let second = machine(lab, ringside, "vm1net", "256M").env("ADDRESS", 3).kernel(kernel).start();
    let mut guests = [first, second];
    guests.iter_mut().for_each(|guest| drop(guest.line("UP")));
    guests
}

fn address(guest: usize) -> String {
    format!("198.18.0.{}", guest + 2)
}

/// ping, iperf3 and a file with a checksum, from each to the other.
fn talk(guests: &mut [Guest; 2], mib: u32) {
    for (from, to) in [(0, 1), (1, 0)] {
        let peer = address(to);
        guests[from].ask(&format!("ping -q -A -c 100 -w 60 -s 1400 {peer} | grep '100 packets received'"));
        guests[to].ask("iperf3 -s -1 >/tmp/iperf3 2>&1 & wait_for server listening 5201");
        iperf_client(&mut guests[from], &peer, "-n 32M");
        guests[to].ask("wait");
        let sum = guests[from].ask(&format!("head -c {} /dev/urandom >/tmp/data; md5sum </tmp/data", mib << 20));
        guests[to].ask("receive 7000");
        guests[from].ask(&format!("nc {peer} 7000 </tmp/data"));
        let got = guests[to].ask("received");
        let of = |lines: &[String]| lines.iter().find(|line| line.ends_with("  -")).cloned();
        assert!(of(&sum).is_some() && of(&sum) == of(&got), "sent {sum:?}, received {got:?}");
    }
}

#[test]
fn real_guest_net_talks_to_another_kernel_through_a_switch() {
    let test = "real_guest_net_talks_to_another_kernel_through_a_switch";
    let Some(lab) = enter_lab(test) else { return };
    let kernel = "kernels/6.12";
    if !lab.image(kernel).exists() {
        return skip(test, "apt knows no Linux 6.12 for the guest's image");
    }
    let ringside = lab.serve(&config(None, ["", ""]));
    let mut guests = both(&lab, &ringside, kernel);
    let before = ringside.metrics();
    talk(&mut guests, 16);
    let metrics = ringside.metrics();
    for device in ["vm0net", "vm1net"] {
        let large = ["tx", "rx"].map(|direction| large_frames(&metrics, device, direction));
        assert!(large[0] > 0.0 && large[1] > 0.0, "{device}: {large:?} frames were passed on uncut");
    }
    // Neither has anything to do, and nothing comes from outside.
    until("a poller that blocks", SOON, || ringside.blocks(&format!("ringside-p{}", cores()[0])).then_some(()));
    assert_well(Some(&before), &metrics, &[]);
    guests.into_iter().for_each(end);
    ringside.stop();
}

#[test]
fn real_guest_net_without_offloads_talks_to_one_with_them() {
    let Some(lab) = enter_lab("real_guest_net_without_offloads_talks_to_one_with_them") else { return };
    let ringside = lab.serve(&config(None, ["", "offloads = false"]));
    let mut guests = both(&lab, &ringside, "kernel");
    let before = ringside.metrics();
    talk(&mut guests, 8);
    let metrics = ringside.metrics();
    assert_well(Some(&before), &metrics, &[]);
    let large = |device, direction| large_frames(&metrics, device, direction);
    assert!(large("vm0net", "tx") > 0.0, "the first leaves segmentation to the target");
    assert_eq!((large("vm1net", "rx"), large("vm1net", "tx")), (0.0, 0.0), "the second was given frames that fit");
    guests.into_iter().for_each(end);
    ringside.stop();
}

#[test]
fn real_guest_net_reaches_the_uplink_of_its_switch_and_others_unless_isolated() {
    let test = "real_guest_net_reaches_the_uplink_of_its_switch_and_others_unless_isolated";
    let Some((lab, network)) = enter(test) else { return };
    let near = network.veth();
    let ringside = lab.serve(&config(Some(&near), ["", ""]));
    let mut guests = both(&lab, &ringside, "kernel");
    let before = ringside.metrics();
    for guest in &mut guests {
        there_and_back(guest, &network, Data::mib(8), HOST);
    }
    let ping = |to: &str| format!("ping -q -A -c 3 -w 30 {to} | grep '3 packets received'");
    guests[0].ask(&ping(&address(1)));
    network.ping(&address(0), 3, "-i 0.05");
    assert_well(Some(&before), &ringside.metrics(), &[]);

    let ringside = ringside.restart_with(&config(Some(&near), ["isolated = true", "isolated = true"]));
    for (index, guest) in guests.iter_mut().enumerate() {
        until("the guest answers", SOON, || network.reaches(&address(index)).then_some(()));
        there_and_back(guest, &network, Data::mib(4), HOST);
    }
    let drops = || ringside.metrics().sum("ringside_port_drops_total", &[("cause", "no_destination")]);
    let before = drops();
    // Its question for an address would go to the uplink, and so somewhere.
    let mac = "52:54:00:00:00:03";
    guests[0].ask(&format!("arp -s {0} {mac} && ! ping -q -c 2 -W 1 {0}", address(1)));
    assert!(drops() > before, "what the isolated guest sent to the other is not counted");
    guests.into_iter().for_each(end);
    ringside.stop();
}
