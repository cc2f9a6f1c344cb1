//! Keys that every section with a vhost-user socket has: what a device is called, where its socket is, how large its rings may
//! be, which pollers serve it and how its calls are coalesced. Names and sockets exist once, whatever kind of device they are of.

use std::path::PathBuf;

use vhost_user::Coalescing;

use super::name::Name;
use super::problem::Reason;
use super::reactor::core_list;
use super::reader::{Field, Place, Problems, Section, Unique};
use super::words::Mode;

/// Header, response and two data segments; a ring of 2 could move no data.
const QUEUE_SIZE_MIN: u16 = 4;
/// virtio 1.3 §2.7: the largest split ring.
const QUEUE_SIZE_MAX: u16 = 32768;
const QUEUE_SIZE_DEFAULT: u16 = 1024;
/// `sun_path` has 108 bytes, the last of which is the NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// What may exist once over all devices.
pub(super) struct Served<'t> {
    names: Unique<'t, Name>,
    sockets: Unique<'t, PathBuf>,
}

impl<'t> Served<'t> {
    pub(super) fn new() -> Self {
        Self { names: Unique::new(), sockets: Unique::new() }
    }

    /// The device's name: a metric label, so the same one is not even given to devices of different kinds.
    pub(super) fn name(&mut self, section: &mut Section<'t>, problems: &mut Problems) -> Option<Name> {
        let field = section.require("name", problems)?;
        let name = field.name(problems)?;
        self.names.claim(name.clone(), field.place(), problems);
        Some(name)
    }

    /// The path of its socket.
    pub(super) fn socket(&mut self, section: &mut Section<'t>, problems: &mut Problems) -> Option<PathBuf> {
        let field = section.require("socket", problems)?;
        let socket = read_socket(&field, problems)?;
        self.sockets.claim(socket.clone(), field.place(), problems);
        Some(socket)
    }
}

/// Which side listens.
pub(super) fn mode(section: &mut Section<'_>, problems: &mut Problems) -> Option<Mode> {
    section.take("mode").map_or(Some(Mode::Server), |field| field.word(problems))
}

/// The largest ring that a front-end may set up.
pub(super) fn queue_size_max(section: &mut Section<'_>, problems: &mut Problems) -> Option<u16> {
    let Some(field) = section.take("queue_size_max") else { return Some(QUEUE_SIZE_DEFAULT) };
    let size = field.integer(QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX, problems)?;
    if size.is_power_of_two() {
        return Some(size);
    }
    problems.at(field.place(), Reason::NotAPowerOfTwo);
    None
}

/// Its pollers: some of the reactor's `cores`, unless those are wrong themselves; the first of them by default.
pub(super) fn pollers(
    section: &mut Section<'_>,
    cores: Option<&[usize]>,
    problems: &mut Problems,
) -> Option<Vec<usize>> {
    let Some(field) = section.take("pollers") else { return cores.map(|cores| cores[..1].to_vec()) };
    let pollers = core_list(field, problems)?;
    for (core, place) in &pollers {
        check_core(*core, place, cores, problems);
    }
    Some(pollers.into_iter().map(|(core, _)| core).collect())
}

/// How calls to its driver are coalesced; by default they are not. Names and meaning are SPDK's.
pub(super) fn coalescing(section: &mut Section<'_>, problems: &mut Problems) -> Option<Coalescing> {
    let Coalescing { delay_base_us, iops_threshold } = Coalescing::OFF;
    let delay_base_us = section
        .take("delay_base_us")
        .map_or(Some(delay_base_us), |field| field.integer(0..=Coalescing::DELAY_BASE_US_MAX, problems));
    let iops_threshold = section
        .take("iops_threshold")
        .map_or(Some(iops_threshold), |field| field.integer(Coalescing::IOPS_THRESHOLD_MIN..=u32::MAX, problems));
    Some(Coalescing { delay_base_us: delay_base_us?, iops_threshold: iops_threshold? })
}

/// Notes a core that no poller runs on.
pub(super) fn check_core(core: usize, place: &Place<'_>, cores: Option<&[usize]>, problems: &mut Problems) {
    if let Some(cores) = cores.filter(|cores| !cores.contains(&core)) {
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        problems.at(place, Reason::NotAPollerCore { cores: cores.join(", ") });
    }
}

/// A path that a socket can have.
pub(super) fn read_socket(field: &Field<'_>, problems: &mut Problems) -> Option<PathBuf> {
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
