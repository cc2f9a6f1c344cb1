//! Machines whose firmware loads the kernel from a disk of the target: SeaBIOS and OVMF have drivers of their own, which
//! know less than Linux does. What the kernel does afterwards is tested elsewhere.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::guest::{Firmware, Lab, skip};

/// What `scripts/guest/boot-disk.sh` and the firmware need of the machine (`scripts/setup.sh --only guest`).
const NEEDED: [&str; 5] = [
    "/usr/share/ovmf/OVMF.fd",
    "/usr/lib/grub/i386-pc/boot.img",
    "/usr/lib/grub/x86_64-efi/linux.mod",
    "/usr/bin/grub-mkimage",
    "/usr/bin/mformat",
];

/// Firmware reads the boot loader, the kernel and its initramfs from a file of the host, and Linux runs.
fn boots(test: &str, firmware: Firmware) {
    let Some(lab) = Lab::enter(test) else { return };
    if let Some(missing) = NEEDED.iter().find(|file| !Path::new(file).exists()) {
        return skip(test, &format!("no {missing} (scripts/setup.sh --only guest)"));
    }
    let disk = lab.boot_disk("boot.img", "booted.sh", &[("FIRMWARE", firmware.name())]);
    let config = "[[bdev]]\nname = 'disk0'\nkind = 'file'\npath = 'boot.img'
         [[scsi]]\nname = 'vm0'\nsocket = 'vm0.sock'\n[[scsi.lun]]\nbdev = 'disk0'\n";
    let ringside = lab.serve(config);
    let console = lab.firmware_guest(firmware, "vm0").run();

    let seen = console.iter().find_map(|line| line.strip_prefix("DISK ")).unwrap();
    let sum = Command::new("sh").args(["-c", "head -c 4194304 \"$0\" | sha256sum"]).arg(&disk).output().unwrap();
    assert_eq!(seen, String::from_utf8(sum.stdout).unwrap().trim(), "the disk as the guest sees it");
    let loaded = ["kernel/vmlinuz", "kernel/modules.cpio", "base.cpio"];
    let loaded: u64 = loaded.iter().map(|name| fs::metadata(lab.image(name)).unwrap().len()).sum();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    let read = metrics.sum("ringside_scsi_bytes_total", &[("op", "read")]);
    assert!(read >= loaded as f64, "{read} bytes were read, kernel and initramfs are {loaded}");
    assert_eq!(metrics.sum("ringside_scsi_bytes_total", &[("op", "write")]), 0.0);
    assert_eq!(metrics.sum("ringside_sessions_total", &[]), 1.0, "firmware and kernel share a session");
    assert!(metrics.sum("ringside_device_resets_total", &[]) >= 1.0, "the kernel takes over by a reset");
    ringside.stop();
}

#[test]
fn real_guest_is_booted_from_a_file_by_seabios() {
    boots("real_guest_is_booted_from_a_file_by_seabios", Firmware::Bios);
}

#[test]
fn real_guest_is_booted_from_a_file_by_ovmf() {
    boots("real_guest_is_booted_from_a_file_by_ovmf", Firmware::Uefi);
}
