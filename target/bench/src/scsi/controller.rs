//! What a vhost-user-scsi device is asked beyond what `link` asks all devices: features, queues and limits.

use anyhow::ensure;
use std::path::Path;
use vhost_user::frontend::{Frontend, FrontendError};
use vhost_user::message::protocol;
use virtio_scsi::wire::{CONFIG_LEN, SENSE_SIZE, feature};

use super::Args;
use super::layout::FIRST_REQUEST_RING;
use crate::link::{Link, Needed};
use crate::ring::{self, Ring};

/// What the config space says that the device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub max_sectors: u32,
    pub cmd_per_lun: u32,
}

/// Connects and agrees on features; with what the device's config space says that it takes, if it has one.
///
/// # Errors
/// Nobody listens, or the device does not have what is needed; the text names it.
pub(super) fn connect(args: &Args, path: &Path) -> anyhow::Result<(Link, Option<Limits>)> {
    let mut link = Link::connect(path, args.stall_timeout, "controller", ring_name)?;
    let wanted_protocol = protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG | protocol::STATUS;
    let mut needed = vec![Needed { option: None, name: "VIRTIO_F_VERSION_1", bit: 32 }];
    if args.indirect {
        needed.push(Needed { option: Some("--indirect"), name: "VIRTIO_F_INDIRECT_DESC", bit: 28 });
    }
    if args.in_order {
        needed.push(ring::IN_ORDER);
    }
    if args.ring == Ring::Packed {
        needed.push(ring::PACKED);
    }
    let wanted = needed.iter().fold(feature::EVENT_IDX, |bits, needed| bits | 1 << needed.bit);
    link.negotiate(wanted, wanted_protocol, &needed)?;
    check_queues(&mut link, args)?;
    let limits = read_config(&mut link, args)?;
    link.agree_on_status()?;
    Ok((link, limits))
}

fn check_queues(link: &mut Link, args: &Args) -> anyhow::Result<()> {
    if link.has(protocol::MQ) {
        let there = link.tell(Frontend::queue_num)?;
        let requests = there.saturating_sub(u64::from(FIRST_REQUEST_RING));
        let queues = args.queues;
        ensure!(requests >= u64::from(queues), "--queues {queues}: the device has {requests} request queues");
    }
    Ok(())
}

/// virtio 1.3 §5.6.4. A device without a config space is taken as it is.
fn read_config(link: &mut Link, args: &Args) -> anyhow::Result<Option<Limits>> {
    if !link.has(protocol::CONFIG) {
        return Ok(None);
    }
    let config = link.tell(|frontend| match frontend.config(0, CONFIG_LEN as u32) {
        // An empty range is how a back-end says no.
        Err(FrontendError::ReplySize { .. }) => Ok(None),
        other => other.map(Some),
    });
    let Some(bytes) = config? else { return Ok(None) };
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (num_queues, sense_size, cdb_size) = (word(0), word(20), word(24));
    let queues = args.queues;
    ensure!(num_queues >= u32::from(queues), "--queues {queues}: the device has {num_queues} request queues");
    ensure!(
        sense_size as usize == SENSE_SIZE && cdb_size == 32,
        "config space: sense_size {sense_size} and cdb_size {cdb_size}, only 96 and 32 are understood"
    );
    Ok(Some(Limits { max_sectors: word(8), cmd_per_lun: word(12) }))
}

fn ring_name(index: usize) -> &'static str {
    match index {
        0 => "control",
        1 => "event",
        _ => "request",
    }
}
