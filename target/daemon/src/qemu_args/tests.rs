//! Tests of the QEMU arguments: what is written for each mode, version and limit. That QEMU takes them is tested by the
//! tests with real guests.

use super::*;
use crate::config::Config;

const GIB: u64 = 1 << 30;

fn config(text: &str) -> Config {
    Config::parse(text, "f").unwrap()
}

fn devices(config: &Config) -> impl Iterator<Item = Device<'_>> {
    config.controllers.iter().map(Device::Scsi).chain(config.nets.iter().map(Device::Net))
}

fn one_line(text: &str, machine: &Machine) -> String {
    render(&arguments(devices(&config(text)), machine), Layout::OneLine)
}

fn machine(qemu: Option<&str>) -> Machine {
    Machine { memory: ByteSize::new(GIB), qemu: qemu.map(|version| version.parse().unwrap()) }
}

#[test]
fn r05_arguments_of_a_controller_carry_its_limits() {
    let text = "[[scsi]]\nname = 'vm0'\nsocket = '/run/vm0.sock'\nqueues = 2\nqueue_size_max = 256\ncmd_per_lun = 32\n\
                max_sectors = 1024\n";
    assert_eq!(
        one_line(text, &machine(None)),
        "-m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem \
         -chardev socket,id=vhost-vm0,path=/run/vm0.sock \
         -device vhost-user-scsi-pci,id=scsi-vm0,chardev=vhost-vm0,num_queues=2,virtqueue_size=256,cmd_per_lun=32,\
         max_sectors=1024"
    );
}

#[test]
fn arguments_in_lines_are_joined_by_backslashes() {
    let config = config("[[scsi]]\nname = 'a'\nsocket = 's'\n");
    let arguments = arguments(devices(&config), &machine(None));
    let lines = render(&arguments, Layout::Lines);
    let expected = "\
-m 1G \\
-object memory-backend-memfd,id=mem,size=1G,share=on \\
-machine memory-backend=mem \\
-chardev socket,id=vhost-a,path=s \\
-device vhost-user-scsi-pci,id=scsi-a,chardev=vhost-a,num_queues=4,virtqueue_size=1024,cmd_per_lun=128,max_sectors=65535";
    assert_eq!(lines, expected);
}

#[test]
fn arguments_of_two_controllers_share_the_memory() {
    let line = one_line("[[scsi]]\nname = 'a'\nsocket = 's'\n[[scsi]]\nname = 'b'\nsocket = 't'\n", &machine(None));
    assert_eq!(line.matches("-object").count(), 1, "{line}");
    assert_eq!(line.matches("-device").count(), 2, "{line}");
}

#[test]
fn virtqueue_size_is_never_larger_than_qemu_takes() {
    let line = one_line("[[scsi]]\nname = 'a'\nsocket = 's'\nqueue_size_max = 32768\n", &machine(None));
    assert!(line.contains(",virtqueue_size=1024,"), "{line}");
}

#[test]
fn chardev_reconnects_as_the_version_of_qemu_can() {
    let table = [
        (None, "path=s -device"),
        (Some("7.2"), "path=s -device"),
        (Some("8.1.9"), "path=s -device"),
        (Some("8.2"), "path=s,reconnect=1 -device"),
        (Some("9.1"), "path=s,reconnect=1 -device"),
        (Some("9.2.0"), "path=s,reconnect-ms=500 -device"),
        (Some("10.0.2"), "path=s,reconnect-ms=500 -device"),
    ];
    for (version, expected) in table {
        let line = one_line("[[scsi]]\nname = 'a'\nsocket = 's'\n", &machine(version));
        assert!(line.contains(expected), "{version:?}: {line}");
    }
}

#[test]
fn chardev_of_a_client_controller_listens() {
    let line = one_line("[[scsi]]\nname = 'a'\nsocket = 's'\nmode = 'client'\n", &machine(Some("10.0")));
    assert!(line.contains("-chardev socket,id=vhost-a,path=s,server=on -device"), "{line}");
}

#[test]
fn socket_paths_are_quoted_for_qemu_and_the_shell() {
    let line = one_line("[[scsi]]\nname = 'a'\nsocket = \"/my, dir/it's\"\n", &machine(None));
    assert!(line.contains(r"-chardev 'socket,id=vhost-a,path=/my,, dir/it'\''s' -device"), "{line}");
}

#[test]
fn memory_is_written_in_units_of_qemu() {
    let machine = Machine { memory: ByteSize::new(GIB + GIB / 2), qemu: None };
    let line = one_line("[[scsi]]\nname = 'a'\nsocket = 's'\n", &machine);
    assert!(line.starts_with("-m 1536M -object memory-backend-memfd,id=mem,size=1536M,share=on "), "{line}");
}

#[test]
fn versions_that_are_none_are_refused() {
    for text in ["", "10", "ten.0", "10.", "10.0.x", "-1.0"] {
        assert_eq!(text.parse::<QemuVersion>(), Err(VersionError), "{text}");
    }
    assert!("7.2".parse::<QemuVersion>().unwrap() < "10.0.2".parse().unwrap());
}

/// A loopback and a net device on it, with these keys.
fn net(keys: &str) -> String {
    format!("[[port]]\nname = 'lo'\nkind = 'loopback'\n[[net]]\nname = 'n'\nsocket = 's'\nport = 'lo'\n{keys}")
}

#[test]
fn arguments_of_a_net_device_carry_what_qemu_does_not_ask_for() {
    let text = net("queue_pairs = 4\nqueue_size_max = 512\nmac = '52:54:00:00:00:01'\nmtu = 9000\n");
    assert_eq!(
        one_line(&text, &machine(None)),
        "-m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem \
         -chardev socket,id=vhost-n,path=s -netdev vhost-user,id=net-n,chardev=vhost-n,queues=4 \
         -device virtio-net-pci,id=nic-n,netdev=net-n,mac=52:54:00:00:00:01,host_mtu=9000,mq=on,vectors=10,\
         rx_queue_size=512,tx_queue_size=512"
    );
}

#[test]
fn net_device_with_one_pair_is_not_multiqueue() {
    let line = one_line(&net(""), &machine(None));
    assert!(line.contains(",host_mtu=1500,vectors=4,"), "{line}");
    assert!(line.ends_with(",rx_queue_size=1024,tx_queue_size=1024"), "{line}");
}

#[test]
fn net_queue_sizes_are_what_qemu_takes() {
    for (max, expected) in [(64, 256), (256, 256), (1024, 1024), (32768, 1024)] {
        let line = one_line(&net(&format!("queue_size_max = {max}\n")), &machine(None));
        assert!(line.ends_with(&format!(",rx_queue_size={expected},tx_queue_size={expected}")), "{line}");
    }
}

#[test]
fn chardev_of_a_net_device_reconnects_or_listens() {
    let table = [
        (None, "", "path=s -netdev"),
        (Some("7.2"), "", "path=s,reconnect=1 -netdev"),
        (Some("9.1"), "", "path=s,reconnect=1 -netdev"),
        (Some("10.0.2"), "", "path=s,reconnect-ms=500 -netdev"),
        (Some("10.0.2"), "mode = 'client'\n", "path=s,server=on -netdev"),
    ];
    for (version, keys, expected) in table {
        let line = one_line(&net(keys), &machine(version));
        assert!(line.contains(expected), "{version:?}: {line}");
    }
}

#[test]
fn controller_and_net_device_are_in_one_machine() {
    let line = one_line(&(net("") + "[[scsi]]\nname = 'a'\nsocket = 't'\n"), &machine(None));
    assert_eq!(line.matches("-object").count(), 1, "{line}");
    assert_eq!((line.matches("-chardev").count(), line.matches("-device").count()), (2, 2), "{line}");
}
