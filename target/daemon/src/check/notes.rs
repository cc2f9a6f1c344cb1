//! What an operator should know about a valid configuration: limits that guests are not told, what a Linux guest makes
//! of the answers beyond them (as measured on Linux 6.12), and parts that nothing uses. Those on ports and net devices are in
//! `notes/net.rs`, those on the HTTP port in `notes/metrics.rs`.

mod metrics;
mod net;

pub use self::metrics::exposure;

use std::collections::BTreeSet;
use std::fmt;

use vhost_user::Coalescing;

use crate::config::{BdevKind, Cache, Config, Controller, File, Limits, OnCmdPerLun, OnMaxSectors};
use crate::qemu_args::{DEFAULT_VIRTQUEUE_SIZE, MAX_VIRTQUEUE_SIZE, TOLD_SEG_MAX};

/// A remark on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Key path, with the value where there is one.
    pub key: String,
    /// The remark: one line.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// Every remark on `config`, in the order of its sections.
pub fn notes(config: &Config) -> Vec<Note> {
    let mut notes: Vec<Note> = metrics::note(&config.metrics).into_iter().collect();
    notes.extend(unused_bdevs(config));
    notes.extend(config.bdevs.iter().enumerate().filter_map(|(index, bdev)| {
        let (key, text) = bdev_note(&bdev.kind)?;
        Some(Note { key: format!("bdev[{index}].{key}"), text })
    }));
    if config.controllers.is_empty() && config.nets.is_empty() {
        let text = "there is no controller and no net device: nothing is served".to_owned();
        notes.push(Note { key: "scsi, net".to_owned(), text });
    }
    for (index, controller) in config.controllers.iter().enumerate() {
        notes.extend(
            controller_notes(controller)
                .into_iter()
                .map(|(key, text)| Note { key: format!("scsi[{index}].{key}"), text }),
        );
    }
    notes.extend(net::notes(config));
    notes
}

fn unused_bdevs(config: &Config) -> Vec<Note> {
    let behind_luns = config.controllers.iter().flat_map(|controller| &controller.luns).map(|lun| &lun.bdev);
    let behind_bdevs = config.bdevs.iter().filter_map(|bdev| bdev.kind.base());
    let used: BTreeSet<_> = behind_luns.chain(behind_bdevs).collect();
    let unused = config.bdevs.iter().enumerate().filter(|(_, bdev)| !used.contains(&bdev.name));
    unused
        .map(|(index, bdev)| Note {
            key: format!("bdev[{index}].name = \"{}\"", bdev.name),
            text: "no LUN and no other bdev uses this one".to_owned(),
        })
        .collect()
}

fn bdev_note(kind: &BdevKind) -> Option<(String, String)> {
    let (key, text) = match kind {
        BdevKind::Error(fault) => (format!("fail = {:?}", fault.text), "this bdev fails on purpose"),
        BdevKind::File(File { read_only: true, .. } | File { cache: Cache::Writethrough, .. }) => return None,
        BdevKind::File(File { direct: false, .. }) => (
            "direct = false".to_owned(),
            "through the page cache of this host: what a guest wrote and did not flush survives the end of ringside, \
             not that of the host, and the memory is counted as the host's cache",
        ),
        _ => return None,
    };
    Some((key, text.to_owned()))
}

fn controller_notes(controller: &Controller) -> Vec<(String, String)> {
    let candidates = [
        no_lun(controller),
        idle_pollers(controller),
        cmd_per_lun(controller),
        max_sectors(controller),
        ring_size(controller),
        seg_max(controller),
        coalescing(controller.coalescing),
        in_order(controller),
    ];
    candidates.into_iter().flatten().collect()
}

fn no_lun(controller: &Controller) -> Option<(String, String)> {
    controller.luns.is_empty().then(|| ("lun".to_owned(), "this controller has no LUN: guests find no disk".to_owned()))
}

fn idle_pollers(controller: &Controller) -> Option<(String, String)> {
    let (pollers, queues) = (controller.pollers.len(), usize::from(controller.queues));
    (pollers > queues).then(|| {
        let text = format!("{pollers} pollers for {queues} request queues: some of them will have none");
        ("pollers".to_owned(), text)
    })
}

fn in_order(controller: &Controller) -> Option<(String, String)> {
    controller.in_order.then(|| {
        let text = "a guest that takes VIRTIO_F_IN_ORDER gets commands of a queue back in the order that it sent them in, quick \
                    ones of any LUN behind slow ones"
            .to_owned();
        ("in_order = true".to_owned(), text)
    })
}

fn cmd_per_lun(controller: &Controller) -> Option<(String, String)> {
    let (limit, default) = (controller.limits.cmd_per_lun, Limits::DEFAULT_CMD_PER_LUN);
    let key = format!("cmd_per_lun = {limit}");
    let tell = tell(controller, &format!("cmd_per_lun={limit}"));
    let beyond = match controller.limits.on_cmd_per_lun {
        OnCmdPerLun::Transport => format!(
            "VIRTIO_SCSI_S_BUSY: a Linux guest {GIVES_UP}, so S_BUSY carries it over short bursts only \
             (on_cmd_per_lun = \"scsi\" is retried without a count)"
        ),
        OnCmdPerLun::Failure => format!("VIRTIO_SCSI_S_FAILURE: a Linux guest {GIVES_UP}"),
        OnCmdPerLun::Scsi => "TASK SET FULL (28h): a Linux guest requeues the command without a count of attempts and \
                              lowers its queue depth"
            .to_owned(),
    };
    not_default(limit, default).map(|than| {
        let text = match than {
            Than::Below => format!(
                "below QEMU's default of {default}. {tell} Otherwise guests keep up to {default} commands per LUN in \
                 flight, and each one beyond {limit} is answered {beyond}."
            ),
            Than::Above => format!("above QEMU's default of {default}. {tell} Otherwise guests stay at {default}."),
        };
        (key, text)
    })
}

fn max_sectors(controller: &Controller) -> Option<(String, String)> {
    let (limit, default) = (controller.limits.max_sectors, Limits::DEFAULT_MAX_SECTORS);
    let key = format!("max_sectors = {limit}");
    let tell = tell(controller, &format!("max_sectors={limit}"));
    let beyond = match controller.limits.on_max_sectors {
        OnMaxSectors::Transport => format!("VIRTIO_SCSI_S_FAILURE: a Linux guest {GIVES_UP}"),
        OnMaxSectors::Scsi => {
            "CHECK CONDITION, INVALID FIELD IN CDB (05h/24h/00h): a Linux guest fails it with EIO at once".to_owned()
        }
    };
    not_default(limit, default).map(|than| {
        let text = match than {
            Than::Below => format!(
                "below QEMU's default of {default}. {tell} Otherwise guests that do not read Block Limits VPD (B0h) \
                 may send up to {default} sectors, and each command beyond {limit} is answered {beyond}."
            ),
            Than::Above => format!("above QEMU's default of {default}. {tell} Otherwise guests stay at {default}."),
        };
        (key, text)
    })
}

fn ring_size(controller: &Controller) -> Option<(String, String)> {
    let size = controller.queue_size_max;
    let text = if size < DEFAULT_VIRTQUEUE_SIZE {
        format!(
            "below QEMU's default virtqueue_size of {DEFAULT_VIRTQUEUE_SIZE}, which would be refused. {tell} But QEMU \
             tells every guest a seg_max of {TOLD_SEG_MAX}, so large requests have up to {DEFAULT_VIRTQUEUE_SIZE} \
             descriptors, and a chain longer than the ring halts the queue: use {DEFAULT_VIRTQUEUE_SIZE} or more with \
             QEMU.",
            tell = tell(controller, &format!("virtqueue_size={size}")),
        )
    } else if size > MAX_VIRTQUEUE_SIZE {
        format!("QEMU's largest virtqueue_size is {MAX_VIRTQUEUE_SIZE}")
    } else {
        return None;
    };
    Some((format!("queue_size_max = {size}"), text))
}

fn seg_max(controller: &Controller) -> Option<(String, String)> {
    let limit = controller.limits.seg_max.filter(|limit| *limit < TOLD_SEG_MAX)?;
    let text = format!(
        "below the {TOLD_SEG_MAX} that QEMU's vhost-user-scsi tells every guest, for which it has no property. Each \
         request with more segments is answered VIRTIO_SCSI_S_FAILURE: a Linux guest {GIVES_UP}."
    );
    Some((format!("seg_max = {limit}"), text))
}

fn coalescing(Coalescing { delay_base_us, iops_threshold }: Coalescing) -> Option<(String, String)> {
    (delay_base_us == 0 && iops_threshold != Coalescing::OFF.iops_threshold).then(|| {
        let text = "without delay_base_us no call is delayed, however many requests there are".to_owned();
        (format!("iops_threshold = {iops_threshold}"), text)
    })
}

/// What a Linux guest does with an answer that counts as a failed attempt.
const GIVES_UP: &str = "makes 6 attempts within 0.1 s and then fails the request with EIO";

/// How guests come to know a limit.
fn tell(controller: &Controller, property: &str) -> String {
    format!("QEMU never asks for it: give its device {property} (`ringside qemu-args {}`).", controller.name)
}

enum Than {
    Below,
    Above,
}

fn not_default(limit: u32, default: u32) -> Option<Than> {
    match limit.cmp(&default) {
        std::cmp::Ordering::Less => Some(Than::Below),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(Than::Above),
    }
}
