//! A configuration as TOML, every default written out. Reading it back gives an equal configuration.

use std::path::Path;

use serde::Serialize;

use super::bdev::{Bdev, BdevKind, Delay, Fault, Geometry};
use super::dpdk::Dpdk;
use super::file::File;
use super::lun::Lun;
use super::net::Net;
use super::port::{DpdkPort, Loopback, Port, PortKind, Switch};
use super::scsi::Controller;
use super::spdk::{Spdk, SpdkBdev, SpdkCall};
use super::words::{Cache, Idle, Missing, Mode, OnCmdPerLun, OnMaxSectors};
use super::{Config, Metrics, Reactor};

/// The text of `config`.
pub(super) fn to_toml(config: &Config) -> String {
    let document = Document {
        reactor: ReactorText::from(&config.reactor),
        metrics: MetricsText::from(&config.metrics),
        bdev: config.bdevs.iter().map(BdevText::from).collect(),
        scsi: config.controllers.iter().map(ControllerText::from).collect(),
        dpdk: DpdkText::from(&config.dpdk),
        spdk: (config.spdk != Spdk::default()).then(|| SpdkText::from(&config.spdk)),
        port: config.ports.iter().map(PortText::from).collect(),
        net: config.nets.iter().map(NetText::from).collect(),
    };
    toml::to_string(&document).expect("strings, numbers and tables are all TOML")
}

#[derive(Serialize)]
struct Document<'c> {
    reactor: ReactorText<'c>,
    metrics: MetricsText<'c>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bdev: Vec<BdevText<'c>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scsi: Vec<ControllerText<'c>>,
    dpdk: DpdkText<'c>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spdk: Option<SpdkText<'c>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    port: Vec<PortText<'c>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    net: Vec<NetText<'c>>,
}

#[derive(Serialize)]
struct ReactorText<'c> {
    cores: &'c [usize],
    idle: Idle,
}

impl<'c> From<&'c Reactor> for ReactorText<'c> {
    fn from(reactor: &'c Reactor) -> Self {
        Self { cores: &reactor.cores, idle: reactor.idle }
    }
}

#[derive(Serialize)]
struct MetricsText<'c> {
    listen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<&'c Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert: Option<&'c Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: Option<&'c Path>,
}

impl<'c> From<&'c Metrics> for MetricsText<'c> {
    fn from(metrics: &'c Metrics) -> Self {
        let tls = metrics.tls.as_ref();
        Self {
            listen: metrics.listen.to_string(),
            token_file: metrics.token_file.as_deref(),
            tls_cert: tls.map(|tls| &*tls.cert),
            tls_key: tls.map(|tls| &*tls.key),
        }
    }
}

/// The keys of every kind; those that a kind has not are left out.
#[derive(Serialize)]
struct BdevText<'c> {
    name: &'c str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    physical_block_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bdev: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direct: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Missing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Cache>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fail: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<u32>,
    in_order: bool,
}

impl<'c> From<&'c Bdev> for BdevText<'c> {
    fn from(bdev: &'c Bdev) -> Self {
        let text = Self {
            name: &bdev.name,
            kind: bdev.kind.as_str(),
            size: None,
            block_size: None,
            physical_block_size: None,
            path: None,
            bdev: None,
            direct: None,
            read_only: None,
            missing: None,
            cache: None,
            base: None,
            fail: None,
            latency_us: None,
            p99_us: None,
            in_order: bdev.in_order,
        };
        match &bdev.kind {
            BdevKind::Malloc(Geometry { size, block_size, physical_block_size })
            | BdevKind::Null(Geometry { size, block_size, physical_block_size }) => Self {
                size: Some(size.to_string()),
                block_size: Some(block_size.bytes()),
                physical_block_size: Some(physical_block_size.bytes()),
                ..text
            },
            BdevKind::File(File { path, size, block_size, direct, read_only, cache }) => Self {
                // A path that was read from TOML is UTF-8.
                path: Some(path.to_string_lossy().into_owned()),
                size: size.map(|size| size.to_string()),
                block_size: Some(block_size.bytes()),
                direct: Some(*direct),
                read_only: Some(*read_only),
                cache: Some(*cache),
                ..text
            },
            BdevKind::Spdk(SpdkBdev { bdev, read_only, missing }) => {
                Self { bdev: Some(bdev), read_only: Some(*read_only), missing: Some(*missing), ..text }
            }
            BdevKind::Error(Fault { base, text: fail, .. }) => Self { base: Some(base), fail: Some(fail), ..text },
            BdevKind::Delay(Delay { base, latency_us, p99_us }) => {
                Self { base: Some(base), latency_us: Some(*latency_us), p99_us: Some(*p99_us), ..text }
            }
        }
    }
}

#[derive(Serialize)]
struct ControllerText<'c> {
    name: &'c str,
    socket: String,
    mode: Mode,
    queues: u16,
    queue_size_max: u16,
    pollers: &'c [usize],
    delay_base_us: u32,
    iops_threshold: u32,
    in_order: bool,
    cmd_per_lun: u32,
    max_sectors: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seg_max: Option<u16>,
    on_cmd_per_lun: OnCmdPerLun,
    on_max_sectors: OnMaxSectors,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lun: Vec<LunText<'c>>,
}

impl<'c> From<&'c Controller> for ControllerText<'c> {
    fn from(controller: &'c Controller) -> Self {
        Self {
            name: &controller.name,
            // A path that was read from TOML is UTF-8.
            socket: controller.socket.to_string_lossy().into_owned(),
            mode: controller.mode,
            queues: controller.queues,
            queue_size_max: controller.queue_size_max,
            pollers: &controller.pollers,
            delay_base_us: controller.coalescing.delay_base_us,
            iops_threshold: controller.coalescing.iops_threshold,
            in_order: controller.in_order,
            cmd_per_lun: controller.limits.cmd_per_lun,
            max_sectors: controller.limits.max_sectors,
            seg_max: controller.limits.seg_max,
            on_cmd_per_lun: controller.limits.on_cmd_per_lun,
            on_max_sectors: controller.limits.on_max_sectors,
            lun: controller.luns.iter().map(LunText::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct LunText<'c> {
    target: u8,
    lun: u16,
    bdev: &'c str,
    read_only: bool,
    vendor: &'c str,
    product: &'c str,
    revision: &'c str,
    serial: &'c str,
    wwn: String,
}

impl<'c> From<&'c Lun> for LunText<'c> {
    fn from(lun: &'c Lun) -> Self {
        Self {
            target: lun.target,
            lun: lun.lun,
            bdev: &lun.bdev,
            read_only: lun.read_only,
            vendor: &lun.identity.vendor,
            product: &lun.identity.product,
            revision: &lun.identity.revision,
            serial: &lun.identity.serial,
            wwn: lun.identity.wwn.to_string(),
        }
    }
}

#[derive(Serialize)]
struct DpdkText<'c> {
    eal_args: &'c [String],
}

impl<'c> From<&'c Dpdk> for DpdkText<'c> {
    fn from(dpdk: &'c Dpdk) -> Self {
        Self { eal_args: &dpdk.eal_args }
    }
}

/// Those keys that have a value.
#[derive(Serialize)]
struct SpdkText<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc_socket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    ordinary_memory: bool,
    pci: &'c [String],
    #[serde(rename = "call", skip_serializing_if = "Vec::is_empty")]
    calls: Vec<CallText<'c>>,
}

#[derive(Serialize)]
struct CallText<'c> {
    method: &'c str,
    params: &'c serde_json::Map<String, serde_json::Value>,
}

impl<'c> From<&'c Spdk> for SpdkText<'c> {
    fn from(spdk: &'c Spdk) -> Self {
        // Paths that were read from TOML are UTF-8.
        let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
        Self {
            config: spdk.config.as_ref().map(text),
            rpc_socket: spdk.rpc_socket.as_ref().map(text),
            memory: spdk.memory.map(|size| size.to_string()),
            ordinary_memory: spdk.ordinary_memory,
            pci: &spdk.pci,
            calls: spdk.calls.iter().map(|SpdkCall { method, params }| CallText { method, params }).collect(),
        }
    }
}

/// The keys of every kind; those that a kind has not are left out.
#[derive(Serialize)]
struct PortText<'c> {
    name: &'c str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_descriptors: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_descriptors: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbufs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promiscuous: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offloads: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uplink: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_table_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ageing_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poller: Option<usize>,
}

impl<'c> From<&'c Port> for PortText<'c> {
    fn from(port: &'c Port) -> Self {
        let text = Self {
            name: &port.name,
            kind: port.kind.as_str(),
            device: None,
            mtu: None,
            rx_descriptors: None,
            tx_descriptors: None,
            mbufs: None,
            promiscuous: None,
            offloads: None,
            depth: None,
            uplink: None,
            table_size: None,
            device_table_size: None,
            ageing_s: None,
            poller: None,
        };
        match &port.kind {
            PortKind::Dpdk(DpdkPort { device, mtu, rx_descriptors, tx_descriptors, mbufs, promiscuous, offloads }) => {
                Self {
                    device: Some(device),
                    mtu: Some(*mtu),
                    rx_descriptors: Some(*rx_descriptors),
                    tx_descriptors: Some(*tx_descriptors),
                    mbufs: *mbufs,
                    promiscuous: Some(*promiscuous),
                    offloads: Some(*offloads),
                    ..text
                }
            }
            PortKind::Loopback(Loopback { depth }) => Self { depth: Some(*depth), ..text },
            PortKind::Switch(Switch { uplink, table_size, device_table_size, ageing_s, poller }) => Self {
                uplink: uplink.as_deref(),
                table_size: Some(*table_size),
                device_table_size: Some(*device_table_size),
                ageing_s: Some(*ageing_s),
                poller: Some(*poller),
                ..text
            },
        }
    }
}

#[derive(Serialize)]
struct NetText<'c> {
    name: &'c str,
    socket: String,
    mode: Mode,
    queue_pairs: u16,
    queue_size_max: u16,
    pollers: &'c [usize],
    delay_base_us: u32,
    iops_threshold: u32,
    port: &'c str,
    mac: String,
    mtu: u16,
    offloads: bool,
    isolated: bool,
}

impl<'c> From<&'c Net> for NetText<'c> {
    fn from(net: &'c Net) -> Self {
        Self {
            name: &net.name,
            // A path that was read from TOML is UTF-8.
            socket: net.socket.to_string_lossy().into_owned(),
            mode: net.mode,
            queue_pairs: net.queue_pairs,
            queue_size_max: net.queue_size_max,
            pollers: &net.pollers,
            delay_base_us: net.coalescing.delay_base_us,
            iops_threshold: net.coalescing.iops_threshold,
            port: &net.port,
            mac: net.mac.to_string(),
            mtu: net.mtu,
            offloads: net.offloads,
            isolated: net.isolated,
        }
    }
}
