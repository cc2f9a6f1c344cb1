//! A second controller that comes and goes while the machine runs. What a controller does with its LUNs is not in here.

use std::path::Path;

use serde_json::json;

use crate::guest::{Lab, until};
use crate::{SOON, one_disk};

#[test]
fn real_guest_uses_a_controller_that_is_added_removed_and_added_again() {
    let Some(lab) = Lab::enter("real_guest_uses_a_controller_that_is_added_removed_and_added_again") else { return };
    let second = "\n[[bdev]]\nname = 'disk1'\nkind = 'file'\npath = 'disk1.img'\nsize = '32MiB'
        [[scsi]]\nname = 'vm1'\nsocket = 'vm1.sock'\npollers = [0]\n[[scsi.lun]]\nbdev = 'disk1'\n";
    let core = crate::cores()[0].to_string();
    let ringside = lab.serve(&(one_disk("") + &second.replace("[0]", &format!("[{core}]"))));
    let script = lab.guest("vm0", "second-controller.sh");
    let mut guest = script.qemu("-device", "pcie-root-port,id=port1,chassis=1,slot=1").start();
    let mut qmp = guest.qmp();
    guest.line("READY");
    let connected = || ringside.metrics().sum("ringside_session_connected", &[("controller", "vm1")]);
    for round in 1..=2 {
        assert_eq!(connected(), 0.0, "round {round}");
        qmp.ask("chardev-add", chardev(&lab.socket("vm1")));
        let device = json!({
            "driver": "vhost-user-scsi-pci", "id": "scsi1", "chardev": "vhost1", "bus": "port1", "num_queues": 2
        });
        qmp.ask("device_add", device);
        assert_eq!(connected(), 1.0, "round {round}");
        guest.type_line("added");
        assert!(guest.line("FOUND").ends_with(&format!(" {}", 32 << 20)), "round {round}");
        guest.line(&format!("USED {round}"));
        qmp.ask("device_del", json!({ "id": "scsi1" }));
        qmp.event("DEVICE_DELETED", "scsi1");
        guest.line("GONE");
        qmp.ask("chardev-remove", json!({ "id": "vhost1" }));
        until("the second session's end", SOON, || (connected() == 0.0).then_some(()));
    }
    guest.finish();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    let sessions = |controller| metrics.sum("ringside_sessions_total", &[("controller", controller)]);
    assert_eq!((sessions("vm0"), sessions("vm1")), (1.0, 2.0));
    let bytes = |op| metrics.sum("ringside_bdev_bytes_total", &[("bdev", "disk1"), ("op", op)]);
    assert!(bytes("read") >= f64::from(8 << 20), "{} bytes were read", bytes("read"));
    assert_eq!(bytes("write"), f64::from(4 << 20));
    ringside.stop();
}

/// A connection of QEMU's to a controller's socket.
fn chardev(socket: &Path) -> serde_json::Value {
    let address = json!({ "type": "unix", "data": { "path": socket } });
    json!({ "id": "vhost1", "backend": { "type": "socket", "data": { "addr": address, "server": false } } })
}
