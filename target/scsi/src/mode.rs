//! Mode pages and MODE SENSE parameter data (SPC-5 and SBC-4, mode parameters): header, block descriptor, pages. Few
//! bits can be changed and none saved; how they are changed stands in `mode_select`.

use alloc::vec::Vec;

use crate::{
    command::PageControl,
    sense::Sense,
    unit::{LogicalUnit, Modes},
};

/// What MODE SENSE asks for.
pub(crate) struct Request {
    pub(crate) ten: bool,
    pub(crate) disable_block_descriptors: bool,
    pub(crate) long_lba: bool,
    pub(crate) control: PageControl,
    pub(crate) page: u8,
    pub(crate) subpage: u8,
}

/// A mode page: its values, headed by PAGE CODE and PAGE LENGTH, and the bits of it that depend on the unit's modes. No
/// page has a subpage.
pub(crate) struct Page {
    fixed: &'static [u8],
    pub(crate) flags: &'static [Flag],
}

/// A bit of a mode page that is a mode of the unit.
pub(crate) struct Flag {
    pub(crate) byte: usize,
    pub(crate) bit: u8,
    pub(crate) mode: Modes,
}

/// In ascending order, as all pages (3Fh) must be returned.
pub(crate) const PAGES: [Page; 2] = [CACHING, CONTROL];

/// Caching mode page (SBC-4): WCE says whether a volatile cache is in use; reads may come from it (RCD 0).
const CACHING: Page = Page {
    fixed: &[0x08, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    flags: &[Flag { byte: 2, bit: 2, mode: Modes::WRITE_CACHE }],
};

/// Control mode page (SPC-5): no log parameters saved (GLTSD 1), unrestricted reordering of SIMPLE commands (QUEUE
/// ALGORITHM MODIFIER 1h), one task set (TST 0), aborted commands of other nexuses not reported with TASK ABORTED (TAS
/// 0); D_SENSE and SWP as they are.
const CONTROL: Page = Page {
    fixed: &[0x0a, 10, 0x02, 0x10, 0, 0, 0, 0, 0, 0, 0, 0],
    flags: &[
        Flag { byte: 2, bit: 2, mode: Modes::DESCRIPTOR_SENSE },
        Flag { byte: 4, bit: 3, mode: Modes::SOFTWARE_WRITE_PROTECT },
    ],
};

const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// Appends the whole answer; `out` must be empty.
pub(crate) fn append(unit: &LogicalUnit, request: &Request, out: &mut Vec<u8>) -> Result<(), Sense> {
    if request.control == PageControl::Saved {
        return Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED);
    }
    check_page(request)?;
    append_header(unit, request, out);
    for page in PAGES.iter().filter(|page| page.matches(request)) {
        match request.control {
            PageControl::Changeable => page.append_mask(unit.changeable_modes(), out),
            PageControl::Default => page.append(unit.default_modes(), out),
            PageControl::Current | PageControl::Saved => page.append(unit.modes(), out),
        }
    }
    fill_mode_data_length(request, out);
    Ok(())
}

impl Page {
    /// PAGE CODE.
    pub(crate) fn code(&self) -> u8 {
        self.fixed[0]
    }

    /// PAGE LENGTH and the two bytes up to it: the whole page.
    pub(crate) fn len(&self) -> usize {
        self.fixed.len()
    }

    fn matches(&self, request: &Request) -> bool {
        let code = request.page == ALL_PAGES || request.page == self.code();
        let subpage = request.subpage == ALL_SUBPAGES || request.subpage == 0;
        code && subpage
    }

    /// The page as it is in these modes.
    fn append(&self, modes: Modes, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.fixed);
        self.set_flags(modes, &mut out[start..]);
    }

    /// Ones in the bits that belong to these modes.
    fn append_mask(&self, modes: Modes, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.fixed);
        out[start + 2..].fill(0); // after PAGE CODE and PAGE LENGTH
        self.set_flags(modes, &mut out[start..]);
    }

    fn set_flags(&self, modes: Modes, page: &mut [u8]) {
        for flag in self.flags.iter().filter(|flag| modes.any_of(flag.mode)) {
            page[flag.byte] |= 1 << flag.bit;
        }
    }

    /// A byte of the page as it is in these modes, and which of its bits belong to the modes of `mask`.
    pub(crate) fn byte(&self, at: usize, modes: Modes, mask: Modes) -> (u8, u8) {
        let flags = self.flags.iter().filter(|flag| flag.byte == at);
        flags.fold((self.fixed[at], 0), |(value, changeable), flag| {
            let bit = 1 << flag.bit;
            let set = if modes.any_of(flag.mode) { bit } else { 0 };
            (value | set, changeable | if mask.any_of(flag.mode) { bit } else { 0 })
        })
    }
}

/// INVALID FIELD IN CDB, pointing at PAGE CODE or SUBPAGE CODE, where nothing matches.
fn check_page(request: &Request) -> Result<(), Sense> {
    if PAGES.iter().any(|page| page.matches(request)) {
        return Ok(());
    }
    let known = request.page == ALL_PAGES || PAGES.iter().any(|page| page.code() == request.page);
    Err(if known { Sense::invalid_field_in_cdb(3, None) } else { Sense::invalid_field_in_cdb(2, Some(5)) })
}

/// Mode parameter header and block descriptor. MODE DATA LENGTH comes last, when everything is there.
fn append_header(unit: &LogicalUnit, request: &Request, out: &mut Vec<u8>) {
    const DPOFUA: u8 = 0x10;
    let write_protected = if unit.write_protected() { 0x80 } else { 0x00 };
    let specific = write_protected | DPOFUA; // DEVICE-SPECIFIC PARAMETER
    let descriptor = BlockDescriptor::chosen(request);
    let long_lba = u8::from(descriptor == BlockDescriptor::Long); // LONGLBA
    if request.ten {
        out.extend_from_slice(&[0, 0, 0, specific, long_lba, 0, 0, descriptor.len()]);
    } else {
        out.extend_from_slice(&[0, 0, specific, descriptor.len()]);
    }
    let count = unit.block_count();
    match descriptor {
        BlockDescriptor::None => {}
        BlockDescriptor::Short => {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            out.extend_from_slice(&count.to_be_bytes());
            out.extend_from_slice(&unit.block_size().to_be_bytes()); // 24 bits; the byte above is reserved
        }
        BlockDescriptor::Long => {
            out.extend_from_slice(&count.to_be_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&unit.block_size().to_be_bytes());
        }
    }
}

/// The mode parameter block descriptor of a direct access block device, short or long LBA.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockDescriptor {
    None,
    Short,
    Long,
}

impl BlockDescriptor {
    fn chosen(request: &Request) -> BlockDescriptor {
        if request.disable_block_descriptors {
            BlockDescriptor::None
        } else if request.long_lba {
            BlockDescriptor::Long
        } else {
            BlockDescriptor::Short
        }
    }

    fn len(self) -> u8 {
        match self {
            BlockDescriptor::None => 0,
            BlockDescriptor::Short => 8,
            BlockDescriptor::Long => 16,
        }
    }
}

/// MODE DATA LENGTH: the bytes that follow it.
fn fill_mode_data_length(request: &Request, out: &mut [u8]) {
    if request.ten {
        let len = u16::try_from(out.len() - 2).unwrap_or(u16::MAX);
        out[..2].copy_from_slice(&len.to_be_bytes());
    } else {
        out[0] = u8::try_from(out.len() - 1).unwrap_or(u8::MAX); // 43 with both pages
    }
}
