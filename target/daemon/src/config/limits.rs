//! The transport limits of a controller (R01, R02, R04, R06): keys, defaults and bounds. They are enforced by the crate
//! `virtio-scsi`.

use super::reader::{Field, Place, Problems, Section};
use super::words::{OnCmdPerLun, OnMaxSectors};

/// The transport limits of a controller and the answers beyond them. The defaults equal QEMU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Commands in flight per LUN over all queues, 1 to queues × queue_size_max (R02); default 128, or that bound if it
    /// is smaller.
    pub cmd_per_lun: u32,
    /// Data bytes of one command in 512-byte sectors, 1 to 4194304 and at least one block of every LUN (R01); default
    /// 65535.
    pub max_sectors: u32,
    /// Data segments per direction of one command, 1 to queue_size_max - 2 (R04); none, the default, means the size of
    /// the ring in use less 2.
    pub seg_max: Option<u16>,
    /// The answer beyond `cmd_per_lun`; default [`OnCmdPerLun::Transport`].
    pub on_cmd_per_lun: OnCmdPerLun,
    /// The answer beyond `max_sectors`; default [`OnMaxSectors::Transport`].
    pub on_max_sectors: OnMaxSectors,
}

impl Limits {
    /// QEMU's default of its property `cmd_per_lun`, and ours.
    pub const DEFAULT_CMD_PER_LUN: u32 = 128;
    /// QEMU's default of its property `max_sectors`, and ours.
    pub const DEFAULT_MAX_SECTORS: u32 = 65535;
}

/// Bytes of the unit of `max_sectors`.
pub(super) const SECTOR_BYTES: u32 = 512;

/// Largest `max_sectors` (R06): 2 GiB.
const MAX_SECTORS_BOUND: u32 = 4_194_304;

/// As many commands as the most and largest queues hold: the bound of `cmd_per_lun` while the real one is unknown.
const MOST_ROOM: u32 = 254 * 32768;

/// Takes the limits out of a controller's table. Bounds that depend on `queues` or `queue_size_max` are the loosest ones
/// where those are wrong themselves. The place of a given `max_sectors` comes too: every LUN is checked against it.
pub(super) fn read<'t>(
    section: &mut Section<'t>,
    queues: Option<u16>,
    queue_size_max: Option<u16>,
    problems: &mut Problems,
) -> (Option<Limits>, Option<(u32, Place<'t>)>) {
    let cmd_per_lun = read_cmd_per_lun(section.take("cmd_per_lun"), queues.zip(queue_size_max), problems);
    let given = section.take("max_sectors").map(|field| {
        let value = field.integer(1..=MAX_SECTORS_BOUND, problems);
        (value, field.place().clone())
    });
    let max_sectors = given.as_ref().map_or(Some(Limits::DEFAULT_MAX_SECTORS), |(value, _)| *value);
    let seg_max = match section.take("seg_max") {
        None => Some(None),
        Some(field) => {
            field.integer_because(1..=queue_size_max.unwrap_or(u16::MAX) - 2, "queue_size_max - 2", problems).map(Some)
        }
    };
    let on_cmd_per_lun =
        section.take("on_cmd_per_lun").map_or(Some(OnCmdPerLun::Transport), |field| field.word(problems));
    let on_max_sectors =
        section.take("on_max_sectors").map_or(Some(OnMaxSectors::Transport), |field| field.word(problems));

    let limits = || {
        Some(Limits {
            cmd_per_lun: cmd_per_lun?,
            max_sectors: max_sectors?,
            seg_max: seg_max?,
            on_cmd_per_lun: on_cmd_per_lun?,
            on_max_sectors: on_max_sectors?,
        })
    };
    (limits(), given.and_then(|(value, place)| value.map(|value| (value, place))))
}

fn read_cmd_per_lun(field: Option<Field<'_>>, rings: Option<(u16, u16)>, problems: &mut Problems) -> Option<u32> {
    let room = rings.map(|(queues, queue_size_max)| u32::from(queues) * u32::from(queue_size_max));
    match field {
        None => room.map(|room| room.min(Limits::DEFAULT_CMD_PER_LUN)),
        Some(field) => {
            let max = room.unwrap_or(MOST_ROOM);
            field.integer_because(1..=max, "queues × queue_size_max", problems)
        }
    }
}
