//! Ports and net devices: every refusal with its text, every default, and reading back what was printed.

use vhost_user::Coalescing;

use super::*;

/// A switch, a loopback and a net device on the switch, lines 1 to 10.
const BASE: &str = "\
[[port]]
name = 'sw'
kind = 'switch'
[[port]]
name = 'lo'
kind = 'loopback'
[[net]]
name = 'n0'
socket = '/run/n0'
port = 'sw'
";

/// The problems of these keys of the net device in [`BASE`], or of sections behind it, from line 11 on.
fn refused_after_net(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(problems(&format!("{BASE}{text}")), *expected, "for:\n{text}");
    }
}

/// The same for a port.
fn refused_port(table: &[(&str, &str)]) {
    for (keys, expected) in table {
        assert_eq!(problems(&format!("[[port]]\nname = 'p'\n{keys}\n")), *expected, "for:\n{keys}");
    }
}

#[test]
fn net_device_and_ports_without_keys_get_every_default() {
    let config = accepted(BASE);
    let net = Net {
        name: Name::new("n0").unwrap(),
        socket: "/run/n0".into(),
        mode: Mode::Server,
        queue_pairs: 1,
        queue_size_max: 1024,
        pollers: vec![0],
        coalescing: Coalescing::OFF,
        port: Name::new("sw").unwrap(),
        mac: derived_mac(&Name::new("n0").unwrap()),
        mtu: 1500,
        offloads: true,
        isolated: false,
    };
    assert_eq!(config.net("n0"), Some(&net));
    let switch = Switch { uplink: None, table_size: 4096, device_table_size: 1024, ageing_s: 300, poller: 0 };
    assert_eq!(config.port("sw").unwrap().kind, PortKind::Switch(switch));
    assert_eq!(config.port("lo").unwrap().kind, PortKind::Loopback(Loopback { depth: 1024 }));
}

const EVERY_NATIVE_KEY: &str = r#"
[reactor]
cores = [1, 2]
[dpdk]
eal_args = ["--no-huge", "-m", "512"]
[[port]]
name = "sw"
kind = "switch"
uplink = "up"
table_size = 1048576
device_table_size = 1048575
ageing_s = 1
poller = 2
[[port]]
name = "up"
kind = "loopback"
depth = 32768
[[net]]
name = "vm-1"
socket = "relative/vm \"1\".sock"
mode = "client"
queue_pairs = 64
queue_size_max = 256
pollers = [2, 1]
delay_base_us = 80
iops_threshold = 100000
port = "sw"
mac = "52:54:00:00:00:0A"
mtu = 9216
offloads = false
isolated = true
"#;

#[test]
fn net_device_and_ports_with_every_key_are_read_as_written() {
    let config = accepted(EVERY_NATIVE_KEY);
    assert_eq!(config.dpdk.eal_args, ["--no-huge", "-m", "512"]);
    let switch = Switch {
        uplink: Some(Name::new("up").unwrap()),
        table_size: 1_048_576,
        device_table_size: 1_048_575,
        ageing_s: 1,
        poller: 2,
    };
    assert_eq!(config.port("sw").unwrap().kind, PortKind::Switch(switch));
    assert_eq!(config.port("up").unwrap().kind, PortKind::Loopback(Loopback { depth: 32768 }));
    let net = Net {
        name: Name::new("vm-1").unwrap(),
        socket: "relative/vm \"1\".sock".into(),
        mode: Mode::Client,
        queue_pairs: 64,
        queue_size_max: 256,
        pollers: vec![2, 1],
        coalescing: Coalescing { delay_base_us: 80, iops_threshold: 100_000 },
        port: Name::new("sw").unwrap(),
        mac: ::port::Mac([0x52, 0x54, 0, 0, 0, 0x0a]),
        mtu: 9216,
        offloads: false,
        isolated: true,
    };
    assert_eq!(config.nets, [net]);
}

#[test]
fn net_config_printed_reads_back_equal() {
    for text in [BASE, EVERY_NATIVE_KEY] {
        let config = accepted(text);
        assert_eq!(accepted(&config.to_toml()), config, "printed:\n{}", config.to_toml());
    }
    assert!(accepted(BASE).to_toml().contains(&format!("mac = \"{}\"", accepted(BASE).nets[0].mac)));
}

#[test]
fn net_keys_out_of_bounds_are_refused() {
    let group = "must not be the address of a group: its first byte is odd";
    let mac = "must be six bytes in hexadecimal with colons, as 52:54:00:00:00:01";
    refused_after_net(&[
        ("mode = 'listen'\n", "f:11: net[0].mode = 'listen': must be one of: server, client"),
        ("queue_pairs = 0\n", "f:11: net[0].queue_pairs = 0: must be 1 to 64 (the port's)"),
        ("queue_pairs = 65\n", "f:11: net[0].queue_pairs = 65: must be 1 to 64 (the port's)"),
        ("queue_size_max = 2\n", "f:11: net[0].queue_size_max = 2: must be 4 to 32768"),
        ("queue_size_max = 1000\n", "f:11: net[0].queue_size_max = 1000: must be a power of two"),
        ("pollers = [1]\n", "f:11: net[0].pollers[0] = 1: must be one of reactor.cores: 0"),
        ("mac = '52:54:00:00:00'\n", &format!("f:11: net[0].mac = '52:54:00:00:00': {mac}")),
        ("mac = '01:00:5e:00:00:01'\n", &format!("f:11: net[0].mac = '01:00:5e:00:00:01': {group}")),
        ("mac = 'ff:ff:ff:ff:ff:ff'\n", &format!("f:11: net[0].mac = 'ff:ff:ff:ff:ff:ff': {group}")),
        ("mac = '00:00:00:00:00:00'\n", "f:11: net[0].mac = '00:00:00:00:00:00': must not be all zeros"),
        ("delay_base_us = 1000001\n", "f:11: net[0].delay_base_us = 1000001: must be 0 to 1000000"),
        ("iops_threshold = 99\n", "f:11: net[0].iops_threshold = 99: must be 100 to 4294967295"),
        ("mtu = 67\n", "f:11: net[0].mtu = 67: must be 68 to 9216"),
        ("mtu = 9217\n", "f:11: net[0].mtu = 9217: must be 68 to 9216"),
        ("offloads = 1\n", "f:11: net[0].offloads = 1: must be true or false, not an integer"),
        ("isolated = 'no'\n", "f:11: net[0].isolated = 'no': must be true or false, not a string"),
        (
            "queues = 1\n",
            "f:11: net[0].queues: unknown key; known here: name, socket, mode, queue_pairs, queue_size_max, pollers, \
             delay_base_us, iops_threshold, port, mac, mtu, offloads, isolated",
        ),
    ]);
    refused(&[("[[net]]\n", "f:1: net[0].name: missing\nf:1: net[0].socket: missing\nf:1: net[0].port: missing")]);
}

#[test]
fn ports_out_of_bounds_are_refused() {
    refused_port(&[
        ("", "f:1: port[0].kind: missing"),
        ("kind = 'vhost'", "f:3: port[0].kind = 'vhost': must be one of: dpdk, loopback, switch"),
        ("kind = 'loopback'\ndepth = 0", "f:4: port[0].depth = 0: must be 1 to 32768"),
        ("kind = 'loopback'\nuplink = 'p'", "f:4: port[0].uplink: unknown key; known here: name, kind, depth"),
        ("kind = 'switch'\ntable_size = 0", "f:4: port[0].table_size = 0: must be 1 to 1048576"),
        (
            "kind = 'switch'\ntable_size = 8\ndevice_table_size = 9",
            "f:5: port[0].device_table_size = 9: must be 1 to 8 (table_size)",
        ),
        ("kind = 'switch'\nageing_s = 0", "f:4: port[0].ageing_s = 0: must be 1 to 1000000"),
        ("kind = 'switch'\npoller = 3", "f:4: port[0].poller = 3: must be one of reactor.cores: 0"),
    ]);
    refused(&[
        (
            "[[port]]\nname = 'p'\nkind = 'loopback'\n[[port]]\nname = 'p'\nkind = 'switch'\n",
            "f:5: port[1].name = 'p': already used by port[0].name (line 2)",
        ),
        ("[dpdk]\neal_args = '-v'\n", "f:2: dpdk.eal_args = '-v': must be an array, not a string"),
        ("[dpdk]\neal_args = ['-l', '']\n", "f:2: dpdk.eal_args[1] = '': must not be empty"),
        ("[dpdk]\nargs = []\n", "f:2: dpdk.args: unknown key; known here: eal_args"),
    ]);
}

#[test]
fn uplinks_that_cannot_be_are_refused() {
    let port = |name: &str, rest: &str| format!("[[port]]\nname = '{name}'\n{rest}\n");
    let switch = "a switch cannot be the uplink of a switch";
    let table = [
        (port("a", "kind = 'switch'\nuplink = 'a'"), format!("f:4: port[0].uplink = 'a': {switch}")),
        (
            port("a", "kind = 'switch'\nuplink = 'b'") + &port("b", "kind = 'switch'\nuplink = 'a'"),
            format!("f:4: port[0].uplink = 'b': {switch}\nf:8: port[1].uplink = 'a': {switch}"),
        ),
        (
            port("a", "kind = 'switch'\nuplink = 'x'"),
            "f:4: port[0].uplink = 'x': there is no [[port]] of this name; known: a".to_owned(),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(problems(&text), expected, "for:\n{text}");
    }
}

#[test]
fn net_devices_on_ports_that_do_not_take_them_are_refused() {
    let net = |name: &str, keys: &str| format!("[[net]]\nname = '{name}'\nsocket = '/run/{name}'\n{keys}\n");
    refused_after_net(&[
        (&net("n1", "port = 'x'"), "f:14: net[1].port = 'x': there is no [[port]] of this name; known: lo, sw"),
        (&net("n1", "port = 'lo'\nisolated = true"), "f:15: net[1].isolated = true: needs a port of kind \"switch\""),
    ]);
    // A port with a problem of its own is there: one mistake gives one line.
    refused(&[(
        &format!("[[port]]\nname = 'p'\nkind = 'loop'\n{}", net("n", "port = 'p'\nisolated = true")),
        "f:3: port[0].kind = 'loop': must be one of: dpdk, loopback, switch",
    )]);
    accepted(&format!("{BASE}{}", net("n1", "port = 'sw'\nisolated = true")));
    let many = |pairs| format!("{BASE}{}", net("n1", &format!("queue_pairs = {pairs}\nport = 'lo'")));
    assert_eq!(accepted(&many(127)).nets[1].queue_pairs, 127);
    assert_eq!(problems(&many(128)), "f:14: net[1].queue_pairs = 128: must be 1 to 127");
    // A loopback takes any number: each hears itself.
    accepted(&format!("{BASE}{}{}", net("n1", "port = 'lo'\nisolated = false"), net("n2", "port = 'lo'")));
}

#[test]
fn macs_are_unique_on_a_port() {
    let mac = "mac = '52:54:00:00:00:01'\n";
    let other = "[[net]]\nname = 'n1'\nsocket = '/run/n1'\n";
    refused_after_net(&[(
        &format!("{mac}{other}port = 'sw'\n{mac}"),
        "f:16: net[1].mac = '52:54:00:00:00:01': already used by net[0].mac (line 11)",
    )]);
    accepted(&format!("{BASE}{mac}{other}port = 'lo'\n{mac}"));
    // One that is derived counts, too.
    let derived = derived_mac(&Name::new("n0").unwrap());
    refused_after_net(&[(
        &format!("{other}port = 'sw'\nmac = '{derived}'\n"),
        &format!("f:15: net[1].mac = '{derived}': already used by net[0] (line 7)"),
    )]);
}

#[test]
fn names_and_sockets_are_unique_over_devices_of_all_kinds() {
    let scsi = "[[scsi]]\nname = 'n0'\nsocket = '/run/x'\n[[scsi]]\nname = 'y'\nsocket = '/run/n0'\n";
    refused_after_net(&[(
        scsi,
        "f:8: net[0].name = 'n0': already used by scsi[0].name (line 12)\n\
         f:9: net[0].socket = '/run/n0': already used by scsi[1].socket (line 16)",
    )]);
    // Ports are not served: they have names of their own.
    accepted(&BASE.replace("'n0'", "'sw'"));
}

#[cfg(feature = "dpdk")]
mod with_dpdk {
    use super::*;

    #[test]
    fn dpdk_port_has_defaults_and_is_read_as_written() {
        let config = accepted(
            "[[port]]\nname = 'a'\nkind = 'dpdk'\ndevice = '0000:01:00.0'\n\
             [[port]]\nname = 'b'\nkind = 'dpdk'\ndevice = 'net_null0,size=64'\nmtu = 9000\nrx_descriptors = 32\n\
             tx_descriptors = 16384\nmbufs = 17440\npromiscuous = false\noffloads = false\n",
        );
        let a = DpdkPort {
            device: "0000:01:00.0".into(),
            mtu: 1500,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mbufs: None,
            promiscuous: true,
            offloads: true,
        };
        let b = DpdkPort {
            device: "net_null0,size=64".into(),
            mtu: 9000,
            rx_descriptors: 32,
            tx_descriptors: 16384,
            mbufs: Some(17440),
            promiscuous: false,
            offloads: false,
        };
        assert_eq!((&config.ports[0].kind, &config.ports[1].kind), (&PortKind::Dpdk(a), &PortKind::Dpdk(b)));
        assert_eq!(accepted(&config.to_toml()), config);
    }

    #[test]
    fn dpdk_port_out_of_bounds_is_refused() {
        refused_port(&[
            ("kind = 'dpdk'", "f:1: port[0].device: missing"),
            ("kind = 'dpdk'\ndevice = ''", "f:4: port[0].device = '': must not be empty"),
            ("kind = 'dpdk'\ndevice = 'd'\nmtu = 67", "f:5: port[0].mtu = 67: must be 68 to 9216"),
            (
                "kind = 'dpdk'\ndevice = 'd'\nrx_descriptors = 31",
                "f:5: port[0].rx_descriptors = 31: must be 32 to 16384",
            ),
            (
                "kind = 'dpdk'\ndevice = 'd'\ntx_descriptors = 16385",
                "f:5: port[0].tx_descriptors = 16385: must be 32 to 16384",
            ),
            (
                "kind = 'dpdk'\ndevice = 'd'\nmbufs = 3071",
                "f:5: port[0].mbufs = 3071: must be 3072 to 16777216 (at least rx_descriptors + tx_descriptors + 1024)",
            ),
            (
                "kind = 'dpdk'\ndevice = 'd,x=1'\n[[port]]\nname = 'q'\nkind = 'dpdk'\ndevice = 'd,x=2'",
                "f:8: port[1].device = 'd,x=2': already used by port[0].device (line 4)",
            ),
        ]);
    }

    #[test]
    fn second_user_of_a_dpdk_port_is_refused() {
        let net = |name: &str| format!("[[net]]\nname = '{name}'\nsocket = '/run/{name}'\nport = 'p'\n");
        let switch = |name: &str| format!("[[port]]\nname = '{name}'\nkind = 'switch'\nuplink = 'p'\n");
        let port = "[[port]]\nname = 'p'\nkind = 'dpdk'\ndevice = 'net_null0'\n";
        let why = "a port of kind \"dpdk\" takes one net device, or one switch";
        let taken = |place: &str, first: &str| format!("f:{place} = 'p': this port is already used by {first}; {why}");
        refused(&[
            (&format!("{port}{}{}", net("a"), net("b")), &taken("12: net[1].port", "net[0].port (line 8)")),
            (&format!("{port}{}{}", net("a"), switch("b")), &taken("8: net[0].port", "port[1].uplink (line 12)")),
            (&format!("{port}{}{}", switch("a"), switch("b")), &taken("12: port[2].uplink", "port[1].uplink (line 8)")),
        ]);
    }

    #[test]
    fn mtu_of_a_net_device_is_within_its_ports() {
        let text = |port: &str, net: &str| {
            format!(
                "[[port]]\nname = 'p'\nkind = 'dpdk'\ndevice = 'net_null0'\n{port}\n\
                 [[net]]\nname = 'n'\nsocket = 's'\nport = 'p'\n{net}\n"
            )
        };
        assert_eq!(accepted(&text("mtu = 9000", "mtu = 9000")).nets[0].mtu, 9000);
        assert_eq!(accepted(&text("mtu = 1280", "")).nets[0].mtu, 1280);
        assert_eq!(accepted(&text("mtu = 9000", "")).nets[0].mtu, 1500);
        assert_eq!(
            problems(&text("", "mtu = 1501")),
            "f:10: net[0].mtu = 1501: must be 68 to 1500 (the mtu of the port)"
        );
        let on_switch = text("[[port]]\nname = 'sw'\nkind = 'switch'\nuplink = 'p'", "mtu = 1501");
        assert_eq!(
            problems(&on_switch.replace("port = 'p'", "port = 'sw'")),
            "f:13: net[0].mtu = 1501: must be 68 to 1500 (the mtu of the port)"
        );
    }
}

#[cfg(not(feature = "dpdk"))]
#[test]
fn dpdk_port_without_dpdk_is_refused_by_its_kind() {
    refused_port(&[(
        "kind = 'dpdk'\ndevice = 'net_null0'",
        "f:3: port[0].kind = 'dpdk': this ringside was built without dpdk (its cargo feature \"dpdk\")",
    )]);
}

proptest! {
    #[test]
    fn net_config_any_text_is_answered_without_a_panic(text in "(\\[\\[?(net|port|dpdk|reactor)\\]?\\]\n|(name|kind|port|uplink|socket|mac|mtu|depth|poller|device) = ('[a-d]'|[0-9]{1,4}|'switch'|'loopback'|'dpdk'|'02:00:00:00:00:0[0-9]')\n){0,40}") {
        if let Ok(config) = Config::parse(&text, "f") {
            prop_assert_eq!(accepted(&config.to_toml()), config);
        }
    }
}
