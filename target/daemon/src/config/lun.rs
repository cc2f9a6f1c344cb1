//! The `[[scsi.lun]]` sections: where a logical unit is, which block device is behind it, and what it says of itself.

use super::bdev::Bdevs;
use super::identity::{self, Identity, Wwn};
use super::limits::SECTOR_BYTES;
use super::name::Name;
use super::problem::Reason;
use super::reader::{Place, Problems, Section, Unique};

/// One logical unit of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lun {
    /// Target number; default 0.
    pub target: u8,
    /// LUN number, 0 to 16383; default 0.
    pub lun: u16,
    /// The block device behind it, which nothing else uses (R08).
    pub bdev: Name,
    /// Whether writes are refused; default false.
    pub read_only: bool,
    /// What it says of itself.
    pub identity: Identity,
}

/// As far as peripheral and flat addressing (SAM-5 §4.7) reach (R20).
const LUN_MAX: u16 = 16383;

/// Reads the LUNs of one controller.
pub(super) struct LunReader<'a, 't> {
    /// The controller's name, unless it is wrong.
    pub(super) controller: Option<&'a Name>,
    /// A given `max_sectors` and its place; taken away once it has been found too small.
    pub(super) max_sectors: Option<(u32, Place<'t>)>,
    /// The block devices and their users.
    pub(super) bdevs: &'a mut Bdevs<'t>,
    /// The world wide names of all controllers.
    pub(super) wwns: &'a mut Unique<'t, Wwn>,
}

impl<'t> LunReader<'_, 't> {
    /// Reads every LUN; nothing if one of them has problems.
    pub(super) fn read(mut self, sections: Vec<Section<'t>>, problems: &mut Problems) -> Option<Vec<Lun>> {
        let mut addresses = Unique::new();
        // All of them are read, and their problems noted, before the first wrong one ends it.
        let luns: Vec<Option<Lun>> =
            sections.into_iter().map(|section| self.read_one(section, &mut addresses, problems)).collect();
        luns.into_iter().collect()
    }

    fn read_one(
        &mut self,
        mut section: Section<'t>,
        addresses: &mut Unique<'t, (u8, u16)>,
        problems: &mut Problems,
    ) -> Option<Lun> {
        let target = section.take("target").map_or(Some(0), |field| field.integer(0..=u8::MAX, problems));
        let lun = section.take("lun").map_or(Some(0), |field| field.integer(0..=LUN_MAX, problems));
        if let Some((target, lun)) = target.zip(lun) {
            let taken = |first| Reason::AddressTaken { target, lun, first };
            addresses.claim_because((target, lun), section.place(), problems, taken);
        }
        let bdev = section.require("bdev", problems).and_then(|field| {
            let bdev = field.name(problems)?;
            self.bdevs.claim(&bdev, field.place(), problems);
            Some(bdev)
        });
        self.check_block(section.place(), bdev.as_ref(), problems);
        let read_only = section.take("read_only").map_or(Some(false), |field| field.boolean(problems));
        let identity = identity::read(&mut section, self.controller, bdev.as_ref(), self.wwns, problems);
        section.finish(problems);
        Some(Lun { target: target?, lun: lun?, bdev: bdev?, read_only: read_only?, identity: identity? })
    }

    /// Notes, once per controller, that `max_sectors` lets no block of this LUN through (R06).
    fn check_block(&mut self, lun: &Place<'t>, bdev: Option<&Name>, problems: &mut Problems) {
        let Some(block_size) = bdev.and_then(|bdev| self.bdevs.block_size(bdev)) else { return };
        let min = block_size.bytes() / SECTOR_BYTES;
        if let Some((_, place)) = self.max_sectors.take_if(|(max_sectors, _)| *max_sectors < min) {
            let lun = lun.key().to_owned();
            problems.at(&place, Reason::BelowOneBlock { min, lun, block_size: block_size.bytes() });
        }
    }
}
