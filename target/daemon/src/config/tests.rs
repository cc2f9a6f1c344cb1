//! Tests of the configuration as a whole: every refusal with its text, every default, and reading back what was printed.

use std::path::Path;

use proptest::prelude::*;
use vhost_user::Coalescing;

use super::*;

mod net;

/// Two disks and a controller, lines 1 to 11. Sections behind it begin at line 12.
const BASE: &str = "\
[[bdev]]
name = 'disk0'
kind = 'malloc'
size = '1MiB'
[[bdev]]
name = 'disk1'
kind = 'null'
size = '1MiB'
[[scsi]]
name = 'vm0'
socket = '/run/vm0'
";

/// The problems of a text, one per line, as the operator sees them.
fn problems(text: &str) -> String {
    match Config::parse(text, "f") {
        Ok(config) => panic!("accepted:\n{text}\nas {config:?}"),
        Err(errors) => errors.to_string(),
    }
}

fn accepted(text: &str) -> Config {
    Config::parse(text, "f").unwrap_or_else(|errors| panic!("refused:\n{text}\n{errors}"))
}

/// Checks a table of texts, each with the whole of its expected problems.
fn refused(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(problems(text), *expected, "for:\n{text}");
    }
}

/// The same for texts behind [`BASE`].
fn refused_after_base(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(problems(&format!("{BASE}{text}")), *expected, "for:\n{text}");
    }
}

#[test]
fn config_empty_text_gives_every_default() {
    let config = accepted("");
    assert_eq!(config.reactor, Reactor { cores: vec![0], idle: Idle::Adaptive });
    assert_eq!(config.metrics.listen.to_string(), "127.0.0.1:9464");
    assert_eq!((&config.metrics.token_file, &config.metrics.tls), (&None, &None));
    assert_eq!(config.bdevs, []);
    assert_eq!(config.controllers, []);
    assert_eq!(config.dpdk.eal_args, [""; 0]);
    assert_eq!((config.ports, config.nets), (vec![], vec![]));
}

#[test]
fn r05_controller_without_limits_gets_qemus_defaults() {
    let config = accepted(&format!("{BASE}[[scsi.lun]]\nbdev = 'disk0'\n"));
    let controller = config.controller("vm0").unwrap();
    assert_eq!(controller.socket, Path::new("/run/vm0"));
    assert_eq!(controller.mode, Mode::Server);
    assert_eq!(controller.queues, 4);
    assert_eq!(controller.queue_size_max, 1024);
    assert_eq!(controller.pollers, [0]);
    let limits = Limits {
        cmd_per_lun: 128,
        max_sectors: 65535,
        seg_max: None,
        on_cmd_per_lun: OnCmdPerLun::Transport,
        on_max_sectors: OnMaxSectors::Transport,
    };
    assert_eq!(controller.limits, limits);
    assert_eq!(controller.coalescing, Coalescing { delay_base_us: 0, iops_threshold: 60_000 });
    assert!(!controller.in_order);
    let lun = &controller.luns[0];
    assert_eq!((lun.target, lun.lun, lun.bdev.as_str(), lun.read_only), (0, 0, "disk0", false));
    assert_eq!(lun.identity, Identity::derived(&controller.name, &lun.bdev));
    let geometry =
        Geometry { size: ByteSize::new(1_048_576), block_size: BlockSize::B512, physical_block_size: BlockSize::B512 };
    assert_eq!(config.geometry("disk0"), Some(geometry));
}

#[test]
fn config_with_every_key_is_read_as_written() {
    let config = accepted(EVERY_KEY);
    assert_eq!(config.reactor, Reactor { cores: vec![1, 2], idle: Idle::Busy });
    assert_eq!(config.metrics.listen.to_string(), "[::]:80");
    assert_eq!(config.metrics.token_file.as_deref(), Some(Path::new("/etc/token")));
    let tls = Tls { cert: "/etc/cert.pem".into(), key: "/etc/key.pem".into() };
    assert_eq!(config.metrics.tls.as_ref(), Some(&tls));
    let slow = Delay { base: Name::new("fast").unwrap(), latency_us: 100, p99_us: 500 };
    assert_eq!(config.bdev("slow").unwrap().kind, BdevKind::Delay(slow));
    assert_eq!(["slow", "fast"].map(|name| config.bdev(name).unwrap().in_order), [true, false]);
    let geometry =
        Geometry { size: ByteSize::new(8192), block_size: BlockSize::B4096, physical_block_size: BlockSize::B4096 };
    assert_eq!(config.geometry("slow"), Some(geometry));
    let controller = config.controller("vm-1").unwrap();
    assert_eq!(controller.mode, Mode::Client);
    assert_eq!((controller.queues, controller.queue_size_max), (2, 64));
    assert_eq!(controller.pollers, [2, 1]);
    let limits = Limits {
        cmd_per_lun: 3,
        max_sectors: 8,
        seg_max: Some(62),
        on_cmd_per_lun: OnCmdPerLun::Failure,
        on_max_sectors: OnMaxSectors::Scsi,
    };
    assert_eq!(controller.coalescing, Coalescing { delay_base_us: 1_000_000, iops_threshold: 100 });
    assert!(controller.in_order);
    assert_eq!(controller.limits, limits);
    let lun = &controller.luns[0];
    assert_eq!((lun.target, lun.lun, lun.bdev.as_str(), lun.read_only), (255, 16383, "slow", true));
    assert_eq!(lun.identity.vendor, "ACME");
    assert_eq!(lun.identity.product, "Disk of 16 chars");
    assert_eq!(lun.identity.revision, "9.99");
    assert_eq!(lun.identity.serial, "S/N \"1\"");
    assert_eq!(lun.identity.wwn.to_string(), "naa.60014050123456789abcdef012345678");
}

const EVERY_KEY: &str = r#"
[reactor]
cores = [1, 2]
idle = "busy"
[metrics]
listen = "[::]:80"
token_file = "/etc/token"
tls_cert = "/etc/cert.pem"
tls_key = "/etc/key.pem"
[[bdev]]
name = "slow"
kind = "delay"
base = "fast"
latency_us = 100
p99_us = 500
in_order = true
[[bdev]]
name = "fast"
kind = "malloc"
size = 8192
block_size = 4096
physical_block_size = 4096
[[scsi]]
name = "vm-1"
socket = "relative/vm \"1\".sock"
mode = "client"
queues = 2
queue_size_max = 64
pollers = [2, 1]
cmd_per_lun = 3
max_sectors = 8
seg_max = 62
on_cmd_per_lun = "failure"
on_max_sectors = "scsi"
delay_base_us = 1000000
iops_threshold = 100
in_order = true
[[scsi.lun]]
target = 255
lun = 16383
bdev = "slow"
read_only = true
vendor = "ACME"
product = "Disk of 16 chars"
revision = "9.99"
serial = 'S/N "1"'
wwn = "naa.60014050123456789ABCDEF012345678"
"#;

#[test]
fn config_printed_reads_back_equal() {
    for text in ["", BASE, EVERY_KEY] {
        let config = accepted(text);
        assert_eq!(accepted(&config.to_toml()), config, "printed:\n{}", config.to_toml());
    }
}

#[test]
fn config_embedded_has_its_socket_in_the_run_dir() {
    let config = Config::embedded("/tmp/a \"b\" \\c").unwrap();
    let controller = config.controller("vm0").unwrap();
    assert_eq!(controller.socket, Path::new("/tmp/a \"b\" \\c/vm0.sock"));
    let luns: Vec<(u16, &str)> =
        controller.luns.iter().map(|lun| (lun.lun, config.bdev(&lun.bdev).unwrap().kind.as_str())).collect();
    assert_eq!(luns, [(0, "malloc"), (1, "null")]);
    assert_eq!(config.geometry("disk0").unwrap().size, ByteSize::new(536_870_912));
    let net = config.net("vm0net").unwrap();
    assert_eq!(net.socket, Path::new("/tmp/a \"b\" \\c/vm0net.sock"));
    assert_eq!(config.port(&net.port).unwrap().kind.as_str(), "loopback");
}

#[test]
fn config_embedded_with_a_long_run_dir_names_the_socket() {
    let errors = Config::embedded(&"x".repeat(100)).unwrap_err().to_string();
    assert!(errors.starts_with("embedded defaults:"), "{errors}");
    assert!(errors.contains("must be at most 107 bytes, is 109"), "{errors}");
}

#[test]
fn config_load_of_a_missing_file_names_it() {
    let error = Config::load(Path::new("/no/such/file")).unwrap_err().to_string();
    assert_eq!(error, "/no/such/file: No such file or directory (os error 2)");
}

#[test]
fn build_order_of_delays_puts_bases_first() {
    let config = accepted(
        "[[bdev]]\nname = 'c'\nkind = 'delay'\nbase = 'b'\nlatency_us = 1\n\
         [[bdev]]\nname = 'b'\nkind = 'delay'\nbase = 'a'\nlatency_us = 1\n\
         [[bdev]]\nname = 'a'\nkind = 'null'\nsize = 512\n",
    );
    let order: Vec<&str> = config.build_order().iter().map(|bdev| bdev.name.as_str()).collect();
    assert_eq!(order, ["a", "b", "c"]);
}

#[test]
fn syntax_errors_are_all_reported_with_their_lines() {
    // The words are the parser's, and may change with it.
    let text = problems("[reactor]\nidle = adaptive\n\n[metrics]\nlisten = 'x\n");
    let places: Vec<&str> = text.lines().map(|line| line.split_inclusive(": ").next().unwrap()).collect();
    assert_eq!(places, ["f:2: ", "f:5: "], "{text}");
    assert_eq!(problems("a = 1\na = 2\n"), "f:2: duplicate key");
}

#[test]
fn unknown_keys_are_refused_at_every_level() {
    refused(&[
        ("core = 1\n", "f:1: core: unknown key; known here: reactor, metrics, bdev, scsi, dpdk, spdk, port, net"),
        (
            "\n[rpc]\nsocket = '/x'\n",
            "f:2: rpc: unknown key; known here: reactor, metrics, bdev, scsi, dpdk, spdk, port, net",
        ),
        ("[reactor]\ncore = [0]\n", "f:2: reactor.core: unknown key; known here: cores, idle"),
        ("[metrics]\nport = 1\n", "f:2: metrics.port: unknown key; known here: listen, token_file, tls_cert, tls_key"),
        (
            "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 512\npath = '/x'\n",
            "f:5: bdev[0].path: unknown key; known here: name, kind, size, block_size, physical_block_size, in_order",
        ),
        (
            "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 512\n\
             [[bdev]]\nname = 'b'\nkind = 'delay'\nbase = 'a'\nlatency_us = 1\nsize = 512\n",
            "f:10: bdev[1].size: unknown key; known here: name, kind, base, latency_us, p99_us, in_order",
        ),
    ]);
    refused_after_base(&[
        (
            "cmds_per_lun = 5\n",
            "f:12: scsi[0].cmds_per_lun: unknown key; known here: name, socket, mode, queues, queue_size_max, pollers, \
             delay_base_us, iops_threshold, in_order, cmd_per_lun, max_sectors, seg_max, on_cmd_per_lun, on_max_sectors, lun",
        ),
        (
            "[[scsi.lun]]\nbdev = 'disk0'\nid = 5\n",
            "f:14: scsi[0].lun[0].id: unknown key; known here: target, lun, bdev, read_only, vendor, product, revision, \
             serial, wwn",
        ),
    ]);
}

#[test]
fn missing_keys_are_named() {
    refused(&[
        ("[[bdev]]\n", "f:1: bdev[0].name: missing\nf:1: bdev[0].kind: missing"),
        ("[[bdev]]\nname = 'a'\nkind = 'malloc'\n", "f:1: bdev[0].size: missing"),
        ("[[bdev]]\nname = 'a'\nkind = 'delay'\n", "f:1: bdev[0].base: missing\nf:1: bdev[0].latency_us: missing"),
        ("\n[[scsi]]\n", "f:2: scsi[0].name: missing\nf:2: scsi[0].socket: missing"),
    ]);
    refused_after_base(&[("[[scsi.lun]]\n", "f:12: scsi[0].lun[0].bdev: missing")]);
}

#[test]
fn values_of_a_wrong_type_are_refused() {
    refused(&[
        ("reactor = 3\n", "f:1: reactor = 3: must be a table, not an integer"),
        ("[reactor]\ncores = 0\n", "f:2: reactor.cores = 0: must be an array, not an integer"),
        ("[reactor]\ncores = ['0']\n", "f:2: reactor.cores[0] = '0': must be an integer, not a string"),
        ("[reactor]\nidle = true\n", "f:2: reactor.idle = true: must be a string, not a boolean"),
        ("[metrics]\nlisten = 9464\n", "f:2: metrics.listen = 9464: must be a string, not an integer"),
        ("[bdev]\nname = 'a'\n", "f:1: bdev: must be an array of tables ([[…]]), not a table"),
        ("bdev = [1]\n", "f:1: bdev[0] = 1: must be a table, not an integer"),
        (
            "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 512\nin_order = 1\n",
            "f:5: bdev[0].in_order = 1: must be true or false, not an integer",
        ),
        ("[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 1.5\n", "f:4: bdev[0].size = 1.5: must be a string, not a float"),
    ]);
    refused_after_base(&[
        ("queues = 1979-05-27\n", "f:12: scsi[0].queues = 1979-05-27: must be an integer, not a date"),
        ("in_order = 'yes'\n", "f:12: scsi[0].in_order = 'yes': must be true or false, not a string"),
        (
            "[[scsi.lun]]\nbdev = 'disk0'\nread_only = 'yes'\n",
            "f:14: scsi[0].lun[0].read_only = 'yes': must be true or false, not a string",
        ),
        ("[[scsi.lun]]\nbdev = { name = 'disk0' }\n", "f:13: scsi[0].lun[0].bdev: must be a string, not a table"),
    ]);
}

#[test]
fn reactor_and_metrics_out_of_bounds_are_refused() {
    refused(&[
        ("[reactor]\ncores = []\n", "f:2: reactor.cores = []: must not be empty"),
        ("[reactor]\ncores = [0, 1024]\n", "f:2: reactor.cores[1] = 1024: must be 0 to 1023"),
        ("[reactor]\ncores = [-1]\n", "f:2: reactor.cores[0] = -1: must be 0 to 1023"),
        ("[reactor]\ncores = [1, 2, 1]\n", "f:2: reactor.cores[2] = 1: already used by reactor.cores[0] (line 2)"),
        ("[reactor]\nidle = 'lazy'\n", "f:2: reactor.idle = 'lazy': must be one of: adaptive, busy"),
        ("[metrics]\ntoken_file = ''\n", "f:2: metrics.token_file = '': must not be empty"),
        ("[metrics]\ntls_cert = 'c'\n", "f:2: metrics.tls_cert = 'c': goes with tls_key, which is missing"),
        ("[metrics]\ntls_key = 'k'\n", "f:2: metrics.tls_key = 'k': goes with tls_cert, which is missing"),
        (
            "[metrics]\nlisten = 'localhost:1'\n",
            "f:2: metrics.listen = 'localhost:1': must be an IP address and a port, such as 127.0.0.1:9464 or \
             [::1]:9464",
        ),
    ]);
}

#[test]
fn physical_blocks_are_not_smaller_than_logical_ones() {
    let bdev = |more: &str| format!("[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 8192\n{more}");
    let config = accepted(&bdev("physical_block_size = 4096\n"));
    let geometry = config.geometry("a").unwrap();
    assert_eq!((geometry.block_size, geometry.physical_block_size), (BlockSize::B512, BlockSize::B4096));
    let key = "f:6: bdev[0].physical_block_size";
    for (value, reason) in [(512, "must be at least block_size (4096 bytes)"), (1024, "must be 512 or 4096")] {
        let text = bdev(&format!("block_size = 4096\nphysical_block_size = {value}\n"));
        assert_eq!(problems(&text), format!("{key} = {value}: {reason}"));
    }
}

#[test]
fn bdev_kinds_that_are_not_built_are_refused_by_name() {
    let table = [
        ("spdk", "this ringside was built without spdk (its cargo feature \"spdk\")"),
        ("ramdisk", "must be one of: malloc, null, file, spdk, delay, error"),
    ];
    for (kind, reason) in table.into_iter().filter(|&(kind, _)| kind != "spdk" || !SPDK_BUILT) {
        // Keys of other kinds are no further problem.
        let text = format!("[[bdev]]\nname = 'a'\nkind = '{kind}'\npath = '/x'\n");
        assert_eq!(problems(&text), format!("f:3: bdev[0].kind = '{kind}': {reason}"));
    }
}

#[test]
fn spdk_keys_are_read_as_written() {
    let config = accepted(
        "[spdk]\nconfig = '/etc/spdk.json'\nrpc_socket = '/run/spdk.sock'\nmemory = '1GiB'\nordinary_memory = true\npci = ['0000:3b:00.0']\n\
         [[spdk.call]]\nmethod = 'bdev_wait_for_examine'\n\
         [[spdk.call]]\nmethod = 'bdev_x'\n\
         params = { name = 'X', n = 0x10, below = -1, f = 1.5, on = true, list = [1, 'a'], deep = { a = [] } }\n",
    );
    let call = |method: &str, params| SpdkCall { method: method.to_owned(), params };
    let params = serde_json::json!({
        "name": "X", "n": 16, "below": -1, "f": 1.5, "on": true, "list": [1, "a"], "deep": { "a": [] },
    });
    let spdk = Spdk {
        config: Some("/etc/spdk.json".into()),
        rpc_socket: Some("/run/spdk.sock".into()),
        memory: Some(ByteSize::new(1 << 30)),
        ordinary_memory: true,
        pci: vec!["0000:3b:00.0".to_owned()],
        calls: vec![
            call("bdev_wait_for_examine", serde_json::Map::new()),
            call("bdev_x", params.as_object().unwrap().clone()),
        ],
    };
    assert_eq!(config.spdk, spdk);
    assert_eq!(accepted(&config.to_toml()), config);
    assert_eq!(accepted("").spdk, Spdk::default());
    assert_eq!(
        problems("[spdk]\nconfig = ''\nrpc_socket = ''\nmemory = '1MiB'\npci = ['']\n"),
        "f:2: spdk.config = '': must not be empty\n\
         f:3: spdk.rpc_socket = '': must not be empty\n\
         f:4: spdk.memory = '1MiB': must be 64MiB to 1PiB\n\
         f:5: spdk.pci[0] = '': must not be empty"
    );
    assert_eq!(
        problems(
            "[[spdk.call]]\nparams = 5\n[[spdk.call]]\nmethod = ''\nparam = {}\n\
             [[spdk.call]]\nmethod = 'x'\nparams = { a = [1, inf], b = 1979-05-27, c = 0xffffffffffffffff }\n"
        ),
        "f:1: spdk.call[0].method: missing\n\
         f:2: spdk.call[0].params = 5: must be a table, not an integer\n\
         f:4: spdk.call[1].method = '': must not be empty\n\
         f:5: spdk.call[1].param: unknown key; known here: method, params\n\
         f:8: spdk.call[2].params.a[1] = inf: must be a finite number, not a float\n\
         f:8: spdk.call[2].params.b = 1979-05-27: must be a value that JSON has, not a date\n\
         f:8: spdk.call[2].params.c = 0xffffffffffffffff: must be an integer of 64 bits"
    );
    if SPDK_BUILT {
        let config = accepted(
            "[[bdev]]\nname = 'a'\nkind = 'spdk'\nbdev = 'Nvme0n1'\n\
             [[bdev]]\nname = 'b'\nkind = 'spdk'\nbdev = 'lvs/x'\nread_only = true\nmissing = 'fail'\n",
        );
        let bdev =
            |bdev: &str, read_only, missing| BdevKind::Spdk(SpdkBdev { bdev: bdev.to_owned(), read_only, missing });
        assert_eq!(config.bdevs[0].kind, bdev("Nvme0n1", false, Missing::Wait));
        assert_eq!(config.bdevs[1].kind, bdev("lvs/x", true, Missing::Fail));
        assert_eq!(
            problems("[[bdev]]\nname = 'a'\nkind = 'spdk'\nbdev = 'x'\nmissing = 'ignore'\n"),
            "f:5: bdev[0].missing = 'ignore': must be one of: wait, fail"
        );
        assert_eq!(config.geometry("a"), None);
        assert_eq!(accepted(&config.to_toml()), config);
        assert_eq!(problems("[[bdev]]\nname = 'a'\nkind = 'spdk'\n"), "f:1: bdev[0].bdev: missing");
    }
}

#[test]
fn file_keys_have_defaults_and_are_read_as_written() {
    let config = accepted(
        "[[bdev]]\nname = 'a'\nkind = 'file'\npath = '/d/a'\n\
         [[bdev]]\nname = 'b'\nkind = 'file'\npath = 'b.img'\nsize = '1GiB'\nblock_size = 4096\ndirect = false\n\
         read_only = true\ncache = 'writethrough'\n",
    );
    let a = File {
        path: "/d/a".into(),
        size: None,
        block_size: BlockSize::B512,
        direct: true,
        read_only: false,
        cache: Cache::Writeback,
    };
    let b = File {
        path: "b.img".into(),
        size: Some(ByteSize::new(1 << 30)),
        block_size: BlockSize::B4096,
        direct: false,
        read_only: true,
        cache: Cache::Writethrough,
    };
    assert_eq!((&config.bdevs[0].kind, &config.bdevs[1].kind), (&BdevKind::File(a), &BdevKind::File(b)));
    assert_eq!((config.geometry("a"), config.geometry("b").map(|g| g.size.bytes())), (None, Some(1 << 30)));
    assert_eq!(accepted(&config.to_toml()), config);
}

#[test]
fn file_keys_out_of_bounds_are_refused() {
    let section = |keys: &str| format!("[[bdev]]\nname = 'a'\nkind = 'file'\n{keys}\n");
    let table = [
        ("", "f:1: bdev[0].path: missing"),
        ("path = ''", "f:4: bdev[0].path = '': must not be empty"),
        ("path = \"a\\u0000\"", "f:4: bdev[0].path = \"a\\u0000\": must not contain a NUL character"),
        ("path = 'a'\nsize = 513", "f:5: bdev[0].size = 513: must be a multiple of block_size (512 bytes)"),
        ("path = 'a'\ndirect = 1", "f:5: bdev[0].direct = 1: must be true or false, not an integer"),
        (
            "path = 'a'\ncache = 'unsafe'",
            "f:5: bdev[0].cache = 'unsafe': must be one of: writeback, writethrough, none",
        ),
        ("path = 'a'\ndirect = false\ncache = 'none'", "f:6: bdev[0].cache = 'none': needs direct = true"),
        (
            "path = 'a'\nbase = 'b'",
            "f:5: bdev[0].base: unknown key; known here: name, kind, path, block_size, size, direct, read_only, cache, in_order",
        ),
    ];
    for (keys, expected) in table {
        assert_eq!(problems(&section(keys)), expected, "for {keys}");
    }
}

#[test]
fn error_bdev_reads_its_plan_and_refuses_one_that_makes_no_sense() {
    let text = "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 4096\nblock_size = 4096\n\
                [[bdev]]\nname = 'b'\nkind = 'error'\nbase = 'a'\nfail = 'every 1000 writes; 1% of reads with hang'\n";
    let config = accepted(text);
    let BdevKind::Error(fault) = &config.bdevs[1].kind else { panic!("{config:?}") };
    assert_eq!(fault.fail, "every 1000 writes; 1% of reads with hang".parse().unwrap());
    assert_eq!(config.geometry("b"), config.geometry("a"));
    assert_eq!(accepted(&config.to_toml()), config);
    refused(&[
        ("[[bdev]]\nname = 'b'\nkind = 'error'\n", "f:1: bdev[0].base: missing\nf:1: bdev[0].fail: missing"),
        (
            &text.replace("every 1000", "each 1000"),
            "f:10: bdev[1].fail = 'each 1000 writes; 1% of reads with hang': \"each\" in \"each 1000 writes\": expected \
             \"every N\", \"P% of\" or \"all\"",
        ),
    ]);
}

#[test]
fn bdev_sizes_out_of_bounds_are_refused() {
    let units = "unit must be one of: B, KiB, MiB, GiB, TiB, PiB (or K, M, G, T, P) for 1024s, KB, MB, GB, TB, PB for \
                 1000s";
    let number = "must be a whole number with or without a unit, such as \"512MiB\", \"4GB\" or 4096";
    let table = [
        ("size = '0'", "size = '0': must be at least one block (512 bytes)".to_owned()),
        ("size = 0", "size = 0: must be at least one block (512 bytes)".to_owned()),
        ("size = -512", "size = -512: must be 0 to 9223372036854775807".to_owned()),
        ("size = 513", "size = 513: must be a multiple of block_size (512 bytes)".to_owned()),
        ("size = '1KB'", "size = '1KB': must be a multiple of block_size (512 bytes)".to_owned()),
        ("size = '5XB'", format!("size = '5XB': {units}")),
        ("size = 'big'", format!("size = 'big': {number}")),
        ("size = '9000PiB'", "size = '9000PiB': must be less than 8192PiB".to_owned()),
    ];
    for (size, expected) in table {
        let text = format!("[[bdev]]\nname = 'a'\nkind = 'null'\n{size}\n");
        assert_eq!(problems(&text), format!("f:4: bdev[0].{expected}"));
    }
    refused(&[
        (
            "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 512\nblock_size = 1024\n",
            "f:5: bdev[0].block_size = 1024: must be 512 or 4096",
        ),
        (
            "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 512\nblock_size = 4096\n",
            "f:4: bdev[0].size = 512: must be a multiple of block_size (4096 bytes)",
        ),
    ]);
}

#[test]
fn names_that_break_the_rule_are_refused() {
    let long = "x".repeat(65);
    for name in ["", "a b", "a/b", "ä", long.as_str()] {
        let text = format!("[[bdev]]\nname = '{name}'\nkind = 'null'\nsize = 512\n");
        let problems = problems(&text);
        assert!(problems.starts_with("f:2: bdev[0].name = '"), "{problems}");
        assert!(problems.ends_with(": must be 1 to 64 characters of A-Z a-z 0-9 . _ -"), "{problems}");
    }
}

#[test]
fn delays_without_a_sound_base_are_refused() {
    refused(&[
        (
            "[[bdev]]\nname = 'd'\nkind = 'delay'\nbase = 'x'\nlatency_us = 1\n",
            "f:4: bdev[0].base = 'x': there is no [[bdev]] of this name; known: d",
        ),
        (
            "[[bdev]]\nname = 'd'\nkind = 'delay'\nbase = 'd'\nlatency_us = 1\n",
            "f:4: bdev[0].base = 'd': a bdev cannot stand on itself: d -> d",
        ),
        (
            "[[bdev]]\nname = 'b'\nkind = 'delay'\nbase = 'a'\nlatency_us = 1\n\
             [[bdev]]\nname = 'c'\nkind = 'delay'\nbase = 'b'\nlatency_us = 1\n\
             [[bdev]]\nname = 'a'\nkind = 'delay'\nbase = 'c'\nlatency_us = 1\n",
            "f:14: bdev[2].base = 'c': a bdev cannot stand on itself: a -> c -> b -> a",
        ),
        (
            "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 512\n\
             [[bdev]]\nname = 'd'\nkind = 'delay'\nbase = 'a'\nlatency_us = 100\np99_us = 99\n",
            "f:10: bdev[1].p99_us = 99: must be at least latency_us (100)",
        ),
        (
            "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 512\n\
             [[bdev]]\nname = 'd'\nkind = 'delay'\nbase = 'a'\nlatency_us = 60000001\n",
            "f:9: bdev[1].latency_us = 60000001: must be 0 to 60000000",
        ),
    ]);
}

#[test]
fn duplicates_are_refused_and_name_the_first() {
    refused_after_base(&[
        (
            "[[bdev]]\nname = 'disk0'\nkind = 'null'\nsize = 512\n",
            "f:13: bdev[2].name = 'disk0': already used by bdev[0].name (line 2)",
        ),
        (
            "[[scsi]]\nname = 'vm0'\nsocket = '/run/vm1'\n",
            "f:13: scsi[1].name = 'vm0': already used by scsi[0].name (line 10)",
        ),
        (
            "[[scsi]]\nname = 'vm1'\nsocket = '/run//vm0'\n",
            "f:14: scsi[1].socket = '/run//vm0': already used by scsi[0].socket (line 11)",
        ),
        (
            "[[scsi.lun]]\nbdev = 'disk0'\n[[scsi.lun]]\ntarget = 0\nlun = 0\nbdev = 'disk1'\n",
            "f:14: scsi[0].lun[1]: target 0 lun 0 is already used by scsi[0].lun[0] (line 12)",
        ),
        (
            "[[scsi.lun]]\nbdev = 'disk0'\nwwn = 'naa.5000000000000001'\n\
             [[scsi.lun]]\nlun = 1\nbdev = 'disk1'\nwwn = 'naa.5000000000000001'\n",
            "f:18: scsi[0].lun[1].wwn = 'naa.5000000000000001': already used by scsi[0].lun[0].wwn (line 14)",
        ),
    ]);
}

#[test]
fn same_address_on_two_controllers_is_accepted() {
    accepted(&format!(
        "{BASE}[[scsi.lun]]\nbdev = 'disk0'\n[[scsi]]\nname = 'vm1'\nsocket = '/run/vm1'\n[[scsi.lun]]\nbdev = 'disk1'\n"
    ));
}

#[test]
fn r08_bdev_with_two_users_is_refused() {
    let one_user = "a bdev has one user, a LUN or another bdev";
    let shared_by_luns =
        "[[scsi.lun]]\nbdev = 'disk0'\n[[scsi]]\nname = 'vm1'\nsocket = 's'\n[[scsi.lun]]\nbdev = 'disk0'\n";
    let delay = "[[bdev]]\nname = 'd'\nkind = 'delay'\nbase = 'disk0'\nlatency_us = 1\n";
    let other = "[[bdev]]\nname = 'e'\nkind = 'delay'\nbase = 'disk0'\nlatency_us = 1\n";
    refused_after_base(&[
        (
            shared_by_luns,
            &format!(
                "f:18: scsi[1].lun[0].bdev = 'disk0': this bdev is already used by scsi[0].lun[0].bdev (line 13); {one_user}"
            ),
        ),
        (
            &format!("[[scsi.lun]]\nbdev = 'disk0'\n{delay}"),
            &format!(
                "f:13: scsi[0].lun[0].bdev = 'disk0': this bdev is already used by bdev[2].base (line 17); {one_user}"
            ),
        ),
        (
            &format!("{delay}{other}"),
            &format!("f:20: bdev[3].base = 'disk0': this bdev is already used by bdev[2].base (line 15); {one_user}"),
        ),
    ]);
}

#[test]
fn lun_with_a_bdev_that_is_missing_is_refused() {
    refused(&[(
        "[[scsi]]\nname = 'vm0'\nsocket = 's'\n[[scsi.lun]]\nbdev = 'x'\n",
        "f:5: scsi[0].lun[0].bdev = 'x': there is no [[bdev]] of this name; known: none",
    )]);
    // A bdev with a problem of its own is there: one mistake gives one line.
    refused(&[(
        "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 'x'\n\
         [[scsi]]\nname = 'vm0'\nsocket = 's'\n[[scsi.lun]]\nbdev = 'a'\n",
        "f:4: bdev[0].size = 'x': must be a whole number with or without a unit, such as \"512MiB\", \"4GB\" or 4096",
    )]);
}

#[test]
fn r06_limits_out_of_bounds_are_refused_with_field_value_and_bound() {
    refused_after_base(&[
        ("cmd_per_lun = 0\n", "f:12: scsi[0].cmd_per_lun = 0: must be 1 to 4096 (queues × queue_size_max)"),
        ("cmd_per_lun = 4097\n", "f:12: scsi[0].cmd_per_lun = 4097: must be 1 to 4096 (queues × queue_size_max)"),
        (
            "queues = 1\nqueue_size_max = 64\ncmd_per_lun = 65\n",
            "f:14: scsi[0].cmd_per_lun = 65: must be 1 to 64 (queues × queue_size_max)",
        ),
        ("max_sectors = 0\n", "f:12: scsi[0].max_sectors = 0: must be 1 to 4194304"),
        ("max_sectors = 4194305\n", "f:12: scsi[0].max_sectors = 4194305: must be 1 to 4194304"),
        (
            "max_sectors = 99999999999999999999\n",
            "f:12: scsi[0].max_sectors = 99999999999999999999: must be 1 to 4194304",
        ),
        ("seg_max = 0\n", "f:12: scsi[0].seg_max = 0: must be 1 to 1022 (queue_size_max - 2)"),
        ("seg_max = 1023\n", "f:12: scsi[0].seg_max = 1023: must be 1 to 1022 (queue_size_max - 2)"),
        (
            "on_cmd_per_lun = 'busy'\n",
            "f:12: scsi[0].on_cmd_per_lun = 'busy': must be one of: transport, failure, scsi",
        ),
        ("on_max_sectors = 'failure'\n", "f:12: scsi[0].on_max_sectors = 'failure': must be one of: transport, scsi"),
    ]);
}

#[test]
fn coalescing_out_of_bounds_is_refused_with_field_value_and_bound() {
    refused_after_base(&[
        ("delay_base_us = 1000001\n", "f:12: scsi[0].delay_base_us = 1000001: must be 0 to 1000000"),
        ("delay_base_us = -1\n", "f:12: scsi[0].delay_base_us = -1: must be 0 to 1000000"),
        ("delay_base_us = 1.5\n", "f:12: scsi[0].delay_base_us = 1.5: must be an integer, not a float"),
        ("iops_threshold = 99\n", "f:12: scsi[0].iops_threshold = 99: must be 100 to 4294967295"),
        ("iops_threshold = 4294967296\n", "f:12: scsi[0].iops_threshold = 4294967296: must be 100 to 4294967295"),
    ]);
    let text = format!("{BASE}delay_base_us = 80\niops_threshold = 4294967295\n");
    let coalescing = Coalescing { delay_base_us: 80, iops_threshold: u32::MAX };
    assert_eq!(accepted(&text).controllers[0].coalescing, coalescing);
}

#[test]
fn r06_limits_at_their_bounds_are_accepted() {
    let limits = |text: &str| accepted(&format!("{BASE}{text}")).controllers[0].limits;
    assert_eq!(limits("cmd_per_lun = 4096\n").cmd_per_lun, 4096);
    assert_eq!(limits("cmd_per_lun = 1\n").cmd_per_lun, 1);
    assert_eq!(limits("max_sectors = 4194304\n").max_sectors, 4_194_304);
    assert_eq!(limits("max_sectors = 1\n[[scsi.lun]]\nbdev = 'disk0'\n").max_sectors, 1);
    assert_eq!(limits("seg_max = 1022\n").seg_max, Some(1022));
    assert_eq!(limits("queues = 254\nqueue_size_max = 32768\ncmd_per_lun = 8323072\n").cmd_per_lun, 8_323_072);
    // The default is within the bound, too.
    assert_eq!(limits("queues = 1\nqueue_size_max = 64\n").cmd_per_lun, 64);
}

#[test]
fn r06_max_sectors_below_one_block_of_a_lun_is_refused_once() {
    refused(&[(
        "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = 8192\nblock_size = 4096\n\
         [[bdev]]\nname = 'b'\nkind = 'delay'\nbase = 'a'\nlatency_us = 1\n\
         [[bdev]]\nname = 'c'\nkind = 'null'\nsize = 8192\nblock_size = 4096\n\
         [[scsi]]\nname = 'vm0'\nsocket = 's'\nmax_sectors = 7\n\
         [[scsi.lun]]\nbdev = 'b'\n[[scsi.lun]]\nlun = 1\nbdev = 'c'\n",
        "f:19: scsi[0].max_sectors = 7: must be at least 8: one block of scsi[0].lun[0] has 4096 bytes",
    )]);
}

#[test]
fn controllers_out_of_bounds_are_refused() {
    let long = format!("[[scsi]]\nname = 'a'\nsocket = '/{}'\n", "x".repeat(107));
    assert!(problems(&long).ends_with(" …: must be at most 107 bytes, is 108"), "{}", problems(&long));
    accepted(&format!("[[scsi]]\nname = 'a'\nsocket = '/{}'\n", "x".repeat(106)));
    refused(&[
        ("[[scsi]]\nname = 'a'\nsocket = ''\n", "f:3: scsi[0].socket = '': must not be empty"),
        (
            "[[scsi]]\nname = 'a'\nsocket = \"a\\u0000\"\n",
            "f:3: scsi[0].socket = \"a\\u0000\": must not contain a NUL character",
        ),
    ]);
    refused_after_base(&[
        ("mode = 'listen'\n", "f:12: scsi[0].mode = 'listen': must be one of: server, client"),
        ("queues = 0\n", "f:12: scsi[0].queues = 0: must be 1 to 254"),
        ("queues = 255\n", "f:12: scsi[0].queues = 255: must be 1 to 254"),
        ("queue_size_max = 2\n", "f:12: scsi[0].queue_size_max = 2: must be 4 to 32768"),
        ("queue_size_max = 65536\n", "f:12: scsi[0].queue_size_max = 65536: must be 4 to 32768"),
        ("queue_size_max = 1000\n", "f:12: scsi[0].queue_size_max = 1000: must be a power of two"),
        ("pollers = []\n", "f:12: scsi[0].pollers = []: must not be empty"),
        ("pollers = [0, 0]\n", "f:12: scsi[0].pollers[1] = 0: already used by scsi[0].pollers[0] (line 12)"),
        ("pollers = [0, 1]\n", "f:12: scsi[0].pollers[1] = 1: must be one of reactor.cores: 0"),
    ]);
}

#[test]
fn luns_out_of_bounds_are_refused() {
    let wwn = "must be \"naa.\" and 16 hex digits starting with 2, 3 or 5, or 32 starting with 6";
    let table = [
        ("target = 256", "target = 256: must be 0 to 255".to_owned()),
        ("lun = 16384", "lun = 16384: must be 0 to 16383".to_owned()),
        ("vendor = 'ACME Corp'", "vendor = 'ACME Corp': must be at most 8 bytes, is 9".to_owned()),
        ("vendor = ''", "vendor = '': must not be empty".to_owned()),
        ("product = '17 characters now'", "product = '17 characters now': must be at most 16 bytes, is 17".to_owned()),
        ("revision = '1.2.3'", "revision = '1.2.3': must be at most 4 bytes, is 5".to_owned()),
        ("serial = 'é'", "serial = 'é': must be printable ASCII (20h to 7Eh)".to_owned()),
        ("serial = \"a\\tb\"", "serial = \"a\\tb\": must be printable ASCII (20h to 7Eh)".to_owned()),
        ("wwn = '5000000000000001'", format!("wwn = '5000000000000001': {wwn}")),
        ("wwn = 'naa.'", format!("wwn = 'naa.': {wwn}")),
        ("wwn = 'naa.1000000000000001'", format!("wwn = 'naa.1000000000000001': {wwn}")),
        ("wwn = 'naa.500000000000001'", format!("wwn = 'naa.500000000000001': {wwn}")),
        ("wwn = 'naa.6000000000000001'", format!("wwn = 'naa.6000000000000001': {wwn}")),
        ("wwn = 'naa.500000000000000g'", format!("wwn = 'naa.500000000000000g': {wwn}")),
        ("wwn = 'naa.5ä0000000000000'", format!("wwn = 'naa.5ä0000000000000': {wwn}")),
    ];
    for (key, expected) in table {
        let text = format!("{BASE}[[scsi.lun]]\nbdev = 'disk0'\n{key}\n");
        assert_eq!(problems(&text), format!("f:14: scsi[0].lun[0].{expected}"));
    }
}

#[test]
fn problems_of_many_sections_are_reported_at_once_in_the_order_of_lines() {
    let text = "\
[[scsi]]
name = 'vm0'
socket = 's'
queues = 300
cmd_per_lun = 0
[[scsi.lun]]
bdev = 'disk9'
serial = ''
[reactor]
cores = [0, 0]
[[bdev]]
name = 'disk0'
kind = 'malloc'
size = 1
[ctl]
";
    let expected = "\
f:4: scsi[0].queues = 300: must be 1 to 254
f:5: scsi[0].cmd_per_lun = 0: must be 1 to 8323072 (queues × queue_size_max)
f:7: scsi[0].lun[0].bdev = 'disk9': there is no [[bdev]] of this name; known: disk0
f:8: scsi[0].lun[0].serial = '': must not be empty
f:10: reactor.cores[1] = 0: already used by reactor.cores[0] (line 10)
f:14: bdev[0].size = 1: must be a multiple of block_size (512 bytes)
f:15: ctl: unknown key; known here: reactor, metrics, bdev, scsi, dpdk, spdk, port, net";
    assert_eq!(problems(text), expected);
}

proptest! {
    #[test]
    fn config_any_text_is_answered_without_a_panic(text in "(\\[\\[?(scsi|bdev|scsi.lun|reactor|metrics)\\]?\\]\n|(name|kind|size|bdev|base|queues|cores|socket) = ('[a-d]'|[0-9]{1,3}|\\[[01], 1\\]|'malloc'|'delay')\n|.){0,40}") {
        if let Ok(config) = Config::parse(&text, "f") {
            prop_assert_eq!(accepted(&config.to_toml()), config);
        }
    }

    #[test]
    fn config_any_valid_controller_reads_back_equal(
        socket in "[ -~]{1,100}",
        serial in "[ -~]{1,32}",
        queues in 1..=254u16,
        shift in 2..=15u32,
        max_sectors in 1..=4_194_304u32,
        size in 1..=u64::from(u32::MAX),
        target: u8,
        lun in 0..=16383u16,
    ) {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let (socket, serial, bytes, ring) = (quote(&socket), quote(&serial), size * 512, 1 << shift);
        let text = format!(
            "[[bdev]]\nname = 'a'\nkind = 'null'\nsize = {bytes}\n\
             [[scsi]]\nname = 'c'\nsocket = {socket}\nqueues = {queues}\nqueue_size_max = {ring}\n\
             max_sectors = {max_sectors}\n[[scsi.lun]]\ntarget = {target}\nlun = {lun}\nbdev = 'a'\nserial = {serial}\n"
        );
        let config = accepted(&text);
        prop_assert_eq!(accepted(&config.to_toml()), config);
    }
}
