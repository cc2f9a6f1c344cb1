//! The `[[scsi]]` sections: controllers with their sockets, queues and pollers. Their limits are read in `limits`, their
//! LUNs in `lun`.

use std::path::PathBuf;

use super::bdev::Bdevs;
use super::identity::Wwn;
use super::limits::{self, Limits};
use super::lun::{Lun, LunReader};
use super::name::Name;
use super::problem::Reason;
use super::reactor::core_list;
use super::reader::{Field, Problems, Section, Unique};
use super::words::Mode;

/// One vhost-user-scsi controller: a socket and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its name, unique among the controllers.
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
    /// What its guests may ask for.
    pub limits: Limits,
    /// Its LUNs, in the order of the text; each address and each bdev once.
    pub luns: Vec<Lun>,
}

const QUEUES_MAX: u16 = 254;
const QUEUES_DEFAULT: u16 = 4;
/// Header, response and two data segments; a ring of 2 could move no data.
const QUEUE_SIZE_MIN: u16 = 4;
/// virtio 1.3 §2.7: the largest split ring.
const QUEUE_SIZE_MAX: u16 = 32768;
const QUEUE_SIZE_DEFAULT: u16 = 1024;
/// `sun_path` has 108 bytes, the last of which is the NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// What may exist once over all controllers.
struct Once<'t> {
    names: Unique<'t, Name>,
    sockets: Unique<'t, PathBuf>,
    wwns: Unique<'t, Wwn>,
}

/// Reads every `[[scsi]]` of the text; a controller with problems is left out. `cores` are the reactor's, unless those
/// are wrong themselves.
pub(super) fn read<'t>(
    root: &mut Section<'t>,
    cores: Option<&[usize]>,
    bdevs: &mut Bdevs<'t>,
    problems: &mut Problems,
) -> Vec<Controller> {
    let mut once = Once { names: Unique::new(), sockets: Unique::new(), wwns: Unique::new() };
    let sections = root.tables("scsi", problems);
    sections.into_iter().filter_map(|section| read_one(section, cores, bdevs, &mut once, problems)).collect()
}

fn read_one<'t>(
    mut section: Section<'t>,
    cores: Option<&[usize]>,
    bdevs: &mut Bdevs<'t>,
    once: &mut Once<'t>,
    problems: &mut Problems,
) -> Option<Controller> {
    let name = section.require("name", problems).and_then(|field| {
        let name = field.name(problems)?;
        once.names.claim(name.clone(), field.place(), problems);
        Some(name)
    });
    let socket = section.require("socket", problems).and_then(|field| {
        let socket = read_socket(&field, problems)?;
        once.sockets.claim(socket.clone(), field.place(), problems);
        Some(socket)
    });
    let mode = section.take("mode").map_or(Some(Mode::Server), |field| field.word(problems));
    let queues = section.take("queues").map_or(Some(QUEUES_DEFAULT), |field| field.integer(1..=QUEUES_MAX, problems));
    let queue_size_max = read_queue_size_max(section.take("queue_size_max"), problems);
    let pollers = read_pollers(section.take("pollers"), cores, problems);
    let (limits, max_sectors) = limits::read(&mut section, queues, queue_size_max, problems);
    let luns = LunReader { controller: name.as_ref(), max_sectors, bdevs, wwns: &mut once.wwns };
    let luns = luns.read(section.tables("lun", problems), problems);
    section.finish(problems);

    Some(Controller {
        name: name?,
        socket: socket?,
        mode: mode?,
        queues: queues?,
        queue_size_max: queue_size_max?,
        pollers: pollers?,
        limits: limits?,
        luns: luns?,
    })
}

fn read_socket(field: &Field<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let path = field.string(problems)?;
    let reason = match path.len() {
        0 => Reason::Empty,
        len if len > SOCKET_PATH_MAX => Reason::TooLong { max: SOCKET_PATH_MAX, len },
        _ if path.contains('\0') => Reason::NulInPath,
        _ => return Some(PathBuf::from(path)),
    };
    problems.at(field.place(), reason);
    None
}

fn read_queue_size_max(field: Option<Field<'_>>, problems: &mut Problems) -> Option<u16> {
    let Some(field) = field else { return Some(QUEUE_SIZE_DEFAULT) };
    let size = field.integer(QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX, problems)?;
    if size.is_power_of_two() {
        return Some(size);
    }
    problems.at(field.place(), Reason::NotAPowerOfTwo);
    None
}

fn read_pollers(field: Option<Field<'_>>, cores: Option<&[usize]>, problems: &mut Problems) -> Option<Vec<usize>> {
    let Some(field) = field else { return cores.map(|cores| cores[..1].to_vec()) };
    let pollers = core_list(field, problems)?;
    for (core, place) in &pollers {
        if let Some(cores) = cores.filter(|cores| !cores.contains(core)) {
            let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
            problems.at(place, Reason::NotAPollerCore { cores: cores.join(", ") });
        }
    }
    Some(pollers.into_iter().map(|(core, _)| core).collect())
}
