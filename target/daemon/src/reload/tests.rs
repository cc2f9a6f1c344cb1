use super::*;

const TEXT: &str = "[reactor]\ncores = [0]\n[metrics]\nlisten = '127.0.0.1:9464'\n\
    [[bdev]]\nname = 'a'\nkind = 'null'\nsize = '1MiB'\n\
    [[bdev]]\nname = 'b'\nkind = 'delay'\nbase = 'a'\nlatency_us = 1\n\
    [[scsi]]\nname = 'vm0'\nsocket = '/run/vm0.sock'\nqueues = 4\n[[scsi.lun]]\nbdev = 'b'\n";

fn config(text: &str) -> Config {
    Config::parse(text, "test").unwrap()
}

fn refusals(old: &str, new: &str) -> Vec<String> {
    fixed::differences(&config(TEXT), &config(&TEXT.replace(old, new)))
}

#[test]
fn limits_coalescing_luns_and_bdevs_are_no_fixed_difference() {
    for (old, new) in [
        ("queues = 4", "queues = 4\ncmd_per_lun = 3\nmax_sectors = 8\non_cmd_per_lun = 'scsi'"),
        ("queues = 4", "queues = 4\ndelay_base_us = 80\niops_threshold = 100"),
        ("bdev = 'b'", "bdev = 'b'\nlun = 7"),
        ("latency_us = 1", "latency_us = 2"),
        ("'null'", "'malloc'"),
    ] {
        assert_ne!(config(TEXT), config(&TEXT.replace(old, new)));
        assert_eq!(refusals(old, new), Vec::<String>::new(), "{old} → {new}");
    }
}

#[test]
fn fixed_differences_name_the_key_the_value_and_the_present_value() {
    for (old, new, expected) in [
        ("cores = [0]", "cores = [1]", "reactor.cores = [1]: is [0] in the running target; that takes a restart"),
        ("cores = [0]", "cores = [0]\nidle = 'busy'", "reactor.idle = \"busy\": is \"adaptive\" in the running target"),
        ("9464", "9465", "metrics.listen = 127.0.0.1:9465: is 127.0.0.1:9464"),
        ("/run/vm0", "/run/other", "scsi[0].socket = \"/run/other.sock\": is \"/run/vm0.sock\""),
        ("queues = 4", "mode = 'client'", "scsi[0].mode = \"client\": is \"server\""),
        ("queues = 4", "queues = 8", "scsi[0].queues = 8: is 4 in the running target; that takes a restart"),
        ("queues = 4", "queue_size_max = 64", "scsi[0].queue_size_max = 64: is 1024"),
        (
            "queues = 4",
            "in_order = true",
            "scsi[0].in_order = true: is false in the running target; that takes a restart",
        ),
    ] {
        let refusals = refusals(old, new);
        assert!(refusals[0].starts_with(expected), "{refusals:?}");
    }
    let renamed = refusals("'vm0'", "'vm1'");
    assert_eq!(renamed.len(), 2, "{renamed:?}");
    assert!(renamed[0].starts_with("scsi[0].name = \"vm1\": the running target has no such controller"));
    assert!(renamed[1].starts_with("scsi: the controller \"vm0\" is missing"));
}

const NET: &str = "[dpdk]\neal_args = ['--no-huge']\n[[port]]\nname = 'sw'\nkind = 'switch'\nuplink = 'lo'\n\
    [[port]]\nname = 'lo'\nkind = 'loopback'\n\
    [[net]]\nname = 'n0'\nsocket = '/run/n0.sock'\nport = 'sw'\nmac = '52:54:00:00:00:01'\n";

#[test]
fn coalescing_of_a_net_device_is_no_fixed_difference() {
    let changed = NET.replace("port = 'sw'", "port = 'sw'\ndelay_base_us = 80\niops_threshold = 100");
    assert_ne!(config(NET), config(&changed));
    assert_eq!(fixed::differences(&config(NET), &config(&changed)), Vec::<String>::new());
}

#[test]
fn changes_of_dpdk_ports_and_net_devices_are_refused_by_their_keys() {
    let restart = "in the running target; that takes a restart";
    for (old, new, expected) in [
        ("--no-huge", "--no-pci", format!("dpdk.eal_args = [\"--no-pci\"]: is [\"--no-huge\"] {restart}")),
        ("uplink = 'lo'", "table_size = 8", format!("port[0].uplink = \"\": is \"lo\" {restart}")),
        ("uplink = 'lo'", "uplink = 'lo'\nageing_s = 8", format!("port[0].ageing_s = 8: is 300 {restart}")),
        ("'loopback'", "'loopback'\ndepth = 8", format!("port[1].depth = 8: is 1024 {restart}")),
        ("n0.sock", "n1.sock", format!("net[0].socket = \"/run/n1.sock\": is \"/run/n0.sock\" {restart}")),
        ("port = 'sw'", "port = 'lo'", format!("net[0].port = \"lo\": is \"sw\" {restart}")),
        ("port = 'sw'", "port = 'sw'\nqueue_pairs = 2", format!("net[0].queue_pairs = 2: is 1 {restart}")),
        ("port = 'sw'", "port = 'sw'\nmtu = 1400", format!("net[0].mtu = 1400: is 1500 {restart}")),
        ("port = 'sw'", "port = 'sw'\noffloads = false", format!("net[0].offloads = false: is true {restart}")),
        ("port = 'sw'", "port = 'sw'\nisolated = true", format!("net[0].isolated = true: is false {restart}")),
        (":01'", ":02'", format!("net[0].mac = \"52:54:00:00:00:02\": is \"52:54:00:00:00:01\" {restart}")),
        ("'n0'", "'n1'", "net[0].name = \"n1\": the running target has none of that name; that takes".to_owned()),
    ] {
        let changed = NET.replace(old, new);
        assert_ne!(changed, NET, "{old}");
        let refusals = fixed::differences(&config(NET), &config(&changed));
        assert!(refusals[0].starts_with(&expected), "{refusals:?}");
    }
    let other_kind = NET.replace("uplink = 'lo'\n", "");
    let refusals = fixed::differences(&config(&other_kind), &config(&other_kind.replace("'loopback'", "'switch'")));
    assert_eq!(refusals, [format!("port[1].kind = \"switch\": is \"loopback\" {restart}")]);
    let gone = fixed::differences(&config(NET), &config("[dpdk]\neal_args = ['--no-huge']\n"));
    assert_eq!(
        gone,
        [
            "port: the port \"sw\" is missing; that takes a restart",
            "port: the port \"lo\" is missing; that takes a restart",
            "net: the net device \"n0\" is missing; that takes a restart",
        ]
    );
}

#[test]
fn bdev_is_unchanged_only_with_everything_below_it() {
    let old = config(TEXT);
    let unchanged_in = |text: &str, name| {
        let new = config(text);
        unchanged(new.bdev(name).unwrap(), &old, &new)
    };
    assert!(unchanged_in(TEXT, "a") && unchanged_in(TEXT, "b"));
    let base = TEXT.replace("1MiB", "2MiB");
    assert!(!unchanged_in(&base, "a") && !unchanged_in(&base, "b"));
    let top = TEXT.replace("latency_us = 1", "latency_us = 2");
    assert!(unchanged_in(&top, "a") && !unchanged_in(&top, "b"));
    assert_eq!(old.chain("b"), ["a", "b"].map(str::to_owned).into());
    let without = old.without(|name| old.chain(name).contains("a"));
    assert_eq!((without.bdevs.len(), without.controllers[0].luns.len()), (0, 0));
    assert_eq!(old.without(|_| false), old);
}
