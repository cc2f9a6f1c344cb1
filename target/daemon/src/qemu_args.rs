//! The QEMU arguments that fit a device: shared guest memory, chardev, and a QEMU device that tells the guest the device's
//! limits. QEMU's vhost-user-scsi device never asks the target for them, its virtio-net device for few of them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::config::{ByteSize, Controller, Mode, Name, Net};

/// QEMU's default of its property `virtqueue_size`.
pub const DEFAULT_VIRTQUEUE_SIZE: u16 = 128;
/// Largest `virtqueue_size`: beyond it QEMU aborts.
pub const MAX_VIRTQUEUE_SIZE: u16 = 1024;
/// The `seg_max` that QEMU's vhost-user-scsi device tells every guest, whatever its `virtqueue_size`; there is no
/// property for it (read from the configuration space of QEMU 7.2 and 10.0).
pub const TOLD_SEG_MAX: u16 = 126;

/// Bounds of `rx_queue_size` and `tx_queue_size` of virtio-net over vhost-user.
pub const NET_QUEUE_SIZES: std::ops::RangeInclusive<u16> = 256..=1024;

/// A device of the configuration.
#[derive(Clone, Copy, Debug)]
pub enum Device<'c> {
    /// A virtio-scsi controller.
    Scsi(&'c Controller),
    /// A virtio-net device.
    Net(&'c Net),
}

/// The virtual machine around the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Guest memory, a whole number of MiB, at least one.
    pub memory: ByteSize,
    /// The QEMU that the arguments are for. Without it they suit every QEMU since 6.0.
    pub qemu: Option<QemuVersion>,
}

/// A version of QEMU; patch levels make no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    major: u16,
    minor: u16,
}

/// A text that is no version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a version such as 10.0 or 7.2.22")]
pub struct VersionError;

impl FromStr for QemuVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut numbers = text.split('.').map(|number| number.parse::<u16>().map_err(|_| VersionError));
        let version = Self { major: numbers.next().ok_or(VersionError)??, minor: numbers.next().ok_or(VersionError)?? };
        numbers.take(3).try_for_each(|number| number.map(drop))?;
        Ok(version)
    }
}

/// One QEMU option and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// The option, with its dash.
    pub option: &'static str,
    /// Its value, not quoted for a shell.
    pub value: String,
}

impl Argument {
    fn new(option: &'static str, value: String) -> Self {
        Self { option, value }
    }
}

impl fmt::Display for Argument {
    /// The argument as a POSIX shell reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.option, shell_word(&self.value))
    }
}

/// The arguments for one virtual machine with these devices.
pub fn arguments<'c>(devices: impl IntoIterator<Item = Device<'c>>, machine: &Machine) -> Vec<Argument> {
    let memory = qemu_size(machine.memory);
    let mut arguments = vec![
        Argument::new("-m", memory.clone()),
        Argument::new("-object", format!("memory-backend-memfd,id=mem,size={memory},share=on")),
        Argument::new("-machine", "memory-backend=mem".to_owned()),
    ];
    for device in devices {
        match device {
            Device::Scsi(controller) => {
                let reconnect = scsi_reconnect(machine.qemu);
                let chardev = chardev(&controller.name, &controller.socket, controller.mode, reconnect);
                arguments.push(Argument::new("-chardev", chardev));
                arguments.push(Argument::new("-device", scsi_device(controller)));
            }
            Device::Net(net) => {
                let chardev = chardev(&net.name, &net.socket, net.mode, net_reconnect(machine.qemu));
                arguments.push(Argument::new("-chardev", chardev));
                arguments.push(Argument::new("-netdev", netdev(net)));
                arguments.push(Argument::new("-device", net_device(net)));
            }
        }
    }
    arguments
}

/// How the arguments are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One option per line, lines joined by backslashes: to be pasted into a shell.
    Lines,
    /// All in one line: for `$(…)`.
    OneLine,
}

/// The arguments as text, without a line end.
pub fn render(arguments: &[Argument], layout: Layout) -> String {
    let separator = match layout {
        Layout::Lines => " \\\n",
        Layout::OneLine => " ",
    };
    let words: Vec<String> = arguments.iter().map(Argument::to_string).collect();
    words.join(separator)
}

/// The size in QEMU's units of 1024s; a number without one would be MiB to `-m` and bytes to `-object`.
fn qemu_size(size: ByteSize) -> String {
    const GIB: u64 = 1 << 30;
    let bytes = size.bytes();
    if bytes.is_multiple_of(GIB) { format!("{}G", bytes / GIB) } else { format!("{}M", bytes >> 20) }
}

fn chardev(name: &Name, socket: &Path, mode: Mode, reconnect: &str) -> String {
    // QEMU's option parser reads two commas as one.
    let path = socket.to_string_lossy().replace(',', ",,");
    let how = match mode {
        Mode::Server => reconnect,
        Mode::Client => ",server=on",
    };
    format!("socket,id=vhost-{name},path={path}{how}")
}

const DEVICE_RECONNECTS: QemuVersion = QemuVersion { major: 8, minor: 2 };
const MILLISECONDS: QemuVersion = QemuVersion { major: 9, minor: 2 };

/// What makes QEMU come back after a restart of the target, where it can: before 8.2 the device fails at start when the
/// chardev has the option, since 9.2 the option counts in milliseconds.
fn scsi_reconnect(qemu: Option<QemuVersion>) -> &'static str {
    match qemu {
        Some(version) if version < DEVICE_RECONNECTS => "",
        qemu => net_reconnect(qemu),
    }
}

/// The same for a network card, which could always do it.
fn net_reconnect(qemu: Option<QemuVersion>) -> &'static str {
    match qemu {
        Some(version) if version >= MILLISECONDS => ",reconnect-ms=500",
        Some(_) => ",reconnect=1",
        None => "",
    }
}

fn scsi_device(controller: &Controller) -> String {
    format!(
        "vhost-user-scsi-pci,id=scsi-{name},chardev=vhost-{name},num_queues={queues},virtqueue_size={ring},\
         cmd_per_lun={cmd_per_lun},max_sectors={max_sectors}",
        name = controller.name,
        queues = controller.queues,
        ring = controller.queue_size_max.min(MAX_VIRTQUEUE_SIZE),
        cmd_per_lun = controller.limits.cmd_per_lun,
        max_sectors = controller.limits.max_sectors,
    )
}

fn netdev(net: &Net) -> String {
    format!("vhost-user,id=net-{name},chardev=vhost-{name},queues={pairs}", name = net.name, pairs = net.queue_pairs)
}

fn net_device(net: &Net) -> String {
    let ring = net.queue_size_max.clamp(*NET_QUEUE_SIZES.start(), *NET_QUEUE_SIZES.end());
    // One interrupt for each virtqueue, the control queue's and the one for changes of the configuration included.
    let vectors = 2 * net.queue_pairs + 2;
    let mq = if net.queue_pairs > 1 { ",mq=on" } else { "" };
    format!(
        "virtio-net-pci,id=nic-{name},netdev=net-{name},mac={mac},host_mtu={mtu}{mq},vectors={vectors},\
         rx_queue_size={ring},tx_queue_size={ring}",
        name = net.name,
        mac = net.mac,
        mtu = net.mtu,
    )
}

/// Quotes what a shell would take apart.
fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/=,:+@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
