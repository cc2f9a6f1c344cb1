//! What a vhost-user-net device is asked beyond what `link` asks all devices: features and queue pairs.

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::ensure;
use vhost_user::frontend::Frontend;
use vhost_user::message::protocol;

use super::args::{Args, Mode, Offload, Switch};
use super::wire::{CSUM, EVENT_IDX, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, INDIRECT, MQ, MRG_RXBUF, VERSION_1};
use crate::link::{Link, Needed};
use crate::ring::{self, Ring};

/// Connects, or waits for a target that does, and agrees on features.
///
/// # Errors
/// Nobody is there, or the device does not have what is needed; the text names it.
pub(super) fn connect(args: &Args, path: &Path, interrupt: BorrowedFd<'_>) -> anyhow::Result<Link> {
    let mut link = if args.server {
        Link::accept(path, args.stall_timeout, interrupt, ring_name)?
    } else {
        Link::connect(path, args.stall_timeout, "net device", ring_name)?
    };
    let (needed, welcome) = features(args);
    let wanted = needed.iter().chain(&welcome).fold(0, |bits, feature| bits | 1 << feature.bit);
    link.negotiate(wanted, protocol::MQ | protocol::REPLY_ACK | protocol::STATUS, &needed)?;
    check_queues(&mut link, args)?;
    if !mergeable(&link) {
        args.check_single_buffer()?;
    }
    link.agree_on_status()?;
    Ok(link)
}

/// Whether frames may come in several buffers.
pub(super) fn mergeable(link: &Link) -> bool {
    link.features() >> MRG_RXBUF.bit & 1 != 0
}

/// What a run needs, and what it takes if it is there.
fn features(args: &Args) -> (Vec<Needed>, Vec<Needed>) {
    let mut needed = vec![VERSION_1];
    let mut welcome = Vec::new();
    let sends = args.mode != Mode::Rx;
    let packed = args.ring == Ring::Packed;
    let options = [
        (args.indirect && sends, INDIRECT),
        (args.in_order, ring::IN_ORDER),
        (args.queues > 1, MQ),
        (packed, ring::PACKED),
    ];
    needed.extend(options.iter().filter(|(asked, _)| *asked).map(|(_, feature)| *feature));
    match args.mrg {
        Some(Switch::On) => needed.push(MRG_RXBUF),
        Some(Switch::Off) => {}
        None => welcome.push(MRG_RXBUF),
    }
    let (out, into): (&[Needed], &[Needed]) = match args.offload {
        Offload::None => (&[], &[]),
        Offload::Csum => (&[CSUM], &[GUEST_CSUM]),
        Offload::Tso => (&[CSUM, HOST_TSO4], &[GUEST_CSUM, GUEST_TSO4]),
    };
    if sends {
        needed.extend(out);
    }
    // What was sent with its segmentation left to be done can come back whole only to who takes that.
    if args.mode == Mode::Loop && args.offload == Offload::Tso {
        needed.extend(into);
    } else {
        welcome.extend(into);
    }
    if args.interrupt {
        welcome.push(EVENT_IDX);
    }
    (needed, welcome)
}

/// vhost-user-net counts queue pairs.
fn check_queues(link: &mut Link, args: &Args) -> anyhow::Result<()> {
    let queues = args.queues;
    let there = if link.has(protocol::MQ) { link.tell(Frontend::queue_num)? } else { 1 };
    ensure!(there >= u64::from(queues), "--queues {queues}: the device has {there} queue pairs");
    Ok(())
}

/// What the ring of an index is for (virtio 1.3 §5.1.2).
pub(crate) fn ring_name(index: usize) -> &'static str {
    if index.is_multiple_of(2) { "receive" } else { "transmit" }
}
