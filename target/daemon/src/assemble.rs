//! From a checked configuration to controllers and logical units over block devices, and to net devices on ports. Nothing is
//! started here.

use std::sync::Arc;

use port::AttachError;
use reactor::PollerHandle;
use scsi::LogicalUnit;
use virtio_net::{NetConfig, NetDevice};
use virtio_scsi::{Controller, ControllerConfig, Limits, OnCommandLimit, OnTransferLimit, Unit, logical_unit_config};

pub use crate::bdevs::Bdevs;
use crate::config::{self, OnCmdPerLun, OnMaxSectors};
use crate::ports::Ports;

/// A controller as the configuration describes it.
#[must_use]
pub fn controller(config: &config::Controller, bdevs: &Bdevs) -> Controller {
    let units = config.luns.iter().map(|lun| Arc::new(unit(lun, bdevs))).collect();
    Controller::new(ControllerConfig {
        name: config.name.as_str().into(),
        request_queues: config.queues,
        queue_size_max: config.queue_size_max,
        in_order: config.in_order,
        limits: limits(&config.limits),
        units,
    })
}

/// A net device as the configuration describes it, plugged into its port. `pollers` are those of its connections.
///
/// # Errors
/// The port does not take it.
pub fn net(config: &config::Net, ports: &Ports, pollers: &[PollerHandle]) -> Result<NetDevice, AttachError> {
    let net = NetConfig {
        name: config.name.as_str().into(),
        queue_pairs: config.queue_pairs,
        queue_size_max: config.queue_size_max,
        mac: config.mac,
        mtu: config.mtu,
        offloads: config.offloads,
        isolated: config.isolated,
    };
    NetDevice::new(net, ports.named(&config.port), pollers)
}

/// A logical unit as the configuration describes it.
#[must_use]
pub fn unit(lun: &config::Lun, bdevs: &Bdevs) -> Unit {
    let bdev = bdevs.named(&lun.bdev);
    let mut config = logical_unit_config(identity(&lun.identity), bdev.info());
    config.read_only |= lun.read_only;
    Unit { target: lun.target, lun: lun.lun, logical_unit: LogicalUnit::new(config), bdev }
}

fn identity(config: &config::Identity) -> scsi::Identity {
    const CHECKED: &str = "the configuration was checked against the same bounds";
    let naa = scsi::Naa::new(config.wwn.as_bytes()).expect(CHECKED);
    scsi::Identity::new(&config.vendor, &config.product, &config.revision, &config.serial, naa).expect(CHECKED)
}

/// Limits in the terms of the controller.
#[must_use]
pub fn limits(config: &config::Limits) -> Limits {
    Limits {
        cmd_per_lun: config.cmd_per_lun,
        max_sectors: config.max_sectors,
        seg_max: config.seg_max.map(u32::from),
        on_cmd_per_lun: match config.on_cmd_per_lun {
            OnCmdPerLun::Transport => OnCommandLimit::Transport,
            OnCmdPerLun::Failure => OnCommandLimit::Failure,
            OnCmdPerLun::Scsi => OnCommandLimit::Scsi,
        },
        on_max_sectors: match config.on_max_sectors {
            OnMaxSectors::Transport => OnTransferLimit::Transport,
            OnMaxSectors::Scsi => OnTransferLimit::Scsi,
        },
    }
}
