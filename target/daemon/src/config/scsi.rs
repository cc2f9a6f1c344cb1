//! The `[[scsi]]` sections: controllers with their sockets, queues and pollers. Their limits are read in `limits`, their
//! LUNs in `lun`.

use std::path::PathBuf;

use vhost_user::Coalescing;

use super::bdev::Bdevs;
use super::identity::Wwn;
use super::limits::{self, Limits};
use super::lun::{Lun, LunReader};
use super::name::Name;
use super::reader::{Problems, Section, Unique};
use super::served::{self, Served};
use super::words::Mode;

/// One vhost-user-scsi controller: a socket and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its name, unique among the devices.
    pub name: Name,
    /// Path of the vhost-user socket, at most 107 bytes.
    pub socket: PathBuf,
    /// Which side listens; default [`Mode::Server`].
    pub mode: Mode,
    /// Request queues, 1 to 254; default 4.
    pub queues: u16,
    /// Largest ring, a power of two from 4 to 32768; default 1024.
    pub queue_size_max: u16,
    /// Cores of the pollers that serve it, each in [`Reactor::cores`](super::Reactor::cores), none twice; the first owns
    /// the control and the event queue. Default: the reactor's first core.
    pub pollers: Vec<usize>,
    /// How calls to its driver are coalesced; default [`Coalescing::OFF`].
    pub coalescing: Coalescing,
    /// Whether it offers VIRTIO_F_IN_ORDER; default false.
    pub in_order: bool,
    /// What its guests may ask for.
    pub limits: Limits,
    /// Its LUNs, in the order of the text; each address and each bdev once.
    pub luns: Vec<Lun>,
}

const QUEUES_MAX: u16 = 254;
const QUEUES_DEFAULT: u16 = 4;

/// Reads every `[[scsi]]` of the text; a controller with problems is left out. `cores` are the reactor's, unless those
/// are wrong themselves.
pub(super) fn read<'t>(
    root: &mut Section<'t>,
    cores: Option<&[usize]>,
    bdevs: &mut Bdevs<'t>,
    served: &mut Served<'t>,
    problems: &mut Problems,
) -> Vec<Controller> {
    let mut wwns = Unique::new();
    let sections = root.tables("scsi", problems);
    sections.into_iter().filter_map(|section| read_one(section, cores, bdevs, served, &mut wwns, problems)).collect()
}

fn read_one<'t>(
    mut section: Section<'t>,
    cores: Option<&[usize]>,
    bdevs: &mut Bdevs<'t>,
    served: &mut Served<'t>,
    wwns: &mut Unique<'t, Wwn>,
    problems: &mut Problems,
) -> Option<Controller> {
    let name = served.name(&mut section, problems);
    let socket = served.socket(&mut section, problems);
    let mode = served::mode(&mut section, problems);
    let queues = section.take("queues").map_or(Some(QUEUES_DEFAULT), |field| field.integer(1..=QUEUES_MAX, problems));
    let queue_size_max = served::queue_size_max(&mut section, problems);
    let pollers = served::pollers(&mut section, cores, problems);
    let coalescing = served::coalescing(&mut section, problems);
    let in_order = section.take("in_order").map_or(Some(false), |field| field.boolean(problems));
    let (limits, max_sectors) = limits::read(&mut section, queues, queue_size_max, problems);
    let luns = LunReader { controller: name.as_ref(), max_sectors, bdevs, wwns };
    let luns = luns.read(section.tables("lun", problems), problems);
    section.finish(problems);

    Some(Controller {
        name: name?,
        socket: socket?,
        mode: mode?,
        queues: queues?,
        queue_size_max: queue_size_max?,
        pollers: pollers?,
        coalescing: coalescing?,
        in_order: in_order?,
        limits: limits?,
        luns: luns?,
    })
}
