//! Network cards whose driver, machine, QEMU or target ends and begins anew: traffic goes on. What goes over a card that stays
//! is tested in `net`.

use super::net::{
    ABSENT, GUEST, assert_well, end, enter, iperf, iperf_server, machine, on_packet_socket, there_and_back, up,
};
use crate::SOON;
use crate::guest::{Data, Guest, HOST, Network, Ringside, until};

/// Data goes there and back, and ping is answered.
fn works(guest: &mut Guest, network: &Network) {
    until("the guest answers", SOON, || network.reaches(GUEST).then_some(()));
    there_and_back(guest, network, Data::mib(4), HOST);
}

#[test]
fn real_guest_net_survives_its_link_its_driver_a_reset_and_a_kill() {
    let Some((lab, network)) = enter("real_guest_net_survives_its_link_its_driver_a_reset_and_a_kill") else { return };
    let ringside = lab.serve(&on_packet_socket(&network.veth(), ""));
    let mut guest = machine(&lab, &ringside, "vm0net", "256M").boots(2).start();
    guest.line("GUEST-ASKS-BOOT:");
    guest.type_line("1");
    guest.line("UP");
    works(&mut guest, &network);
    guest.ask("ip link set eth0 down");
    assert!(!network.reaches(GUEST), "a card that is down answers");
    guest.ask("ip link set eth0 up");
    works(&mut guest, &network);
    guest.ask("rebind");
    works(&mut guest, &network);

    guest.qmp().ask("system_reset", serde_json::json!({}));
    guest.line("GUEST-ASKS-BOOT:");
    guest.type_line("2");
    guest.line("UP");
    works(&mut guest, &network);
    assert_eq!(ringside.metrics().sum("ringside_sessions_total", &[]), 1.0, "QEMU stays connected");

    // In the middle of a transfer.
    let mut server = iperf_server(&network);
    server.line("iperf3 listens", SOON, |line| line.contains("Server listening"));
    guest.type_line(&format!("/usr/bin/iperf3 -c {HOST} -t 60"));
    let sent = || ringside.metrics().sum("ringside_net_bytes_total", &[("direction", "tx")]);
    let before = sent();
    until("traffic", SOON, || (sent() > before + f64::from(4 << 20)).then_some(()));
    guest.kill();
    drop(server);
    let connected = || ringside.metrics().sum("ringside_session_connected", &[]);
    until("the session's end", SOON, || (connected() == 0.0).then_some(()));

    let mut guest = up(machine(&lab, &ringside, "vm0net", "256M"));
    works(&mut guest, &network);
    end(guest);
    let metrics = ringside.metrics();
    assert_well(None, &metrics, &ABSENT);
    assert_eq!(metrics.sum("ringside_sessions_total", &[]), 2.0);
    ringside.stop();
}

#[test]
fn real_guest_net_goes_on_after_the_target_was_killed_and_after_it_was_ended() {
    let Some((lab, network)) = enter("real_guest_net_goes_on_after_the_target_was_killed_and_after_it_was_ended")
    else {
        return;
    };
    let ringside = lab.serve(&on_packet_socket(&network.veth(), ""));
    let mut guest = up(machine(&lab, &ringside, "vm0net", "256M"));
    let mut server = iperf_server(&network);
    works(&mut guest, &network);
    // A connection that lives through it all.
    let listener = network.listen();
    let port = listener.local_addr().unwrap().port();
    let data = Data::mib(64);
    let sender = data.send(listener);
    guest.type_line(&format!("nc {HOST} {port} >/tmp/data && md5sum /tmp/data"));
    let got = || ringside.metrics().sum("ringside_net_bytes_total", &[("direction", "rx")]);
    until("traffic", SOON, || (got() > f64::from(8 << 20)).then_some(()));
    let ringside = ringside.kill_and_restart();
    guest.line(&data.md5());
    guest.line("DONE 0");
    sender.join().expect("sending");
    works(&mut guest, &network);
    let ringside = Ringside::serve(ringside.stop());
    works(&mut guest, &network);
    iperf(&mut guest, &mut server, "-n 8M");
    end(guest);
    assert_well(None, &ringside.metrics(), &ABSENT);
    ringside.stop();
}
