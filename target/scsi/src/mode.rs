//! MODE SENSE parameter data (SPC-5 and SBC-4, mode parameters): header, block descriptor, mode pages. Nothing can be
//! changed or saved, so current and default values are the same and no bit is changeable.

use alloc::vec::Vec;

use crate::{command::PageControl, sense::Sense, unit::LogicalUnit};

/// What MODE SENSE asks for.
pub(crate) struct Request {
    pub(crate) ten: bool,
    pub(crate) disable_block_descriptors: bool,
    pub(crate) long_lba: bool,
    pub(crate) control: PageControl,
    pub(crate) page: u8,
    pub(crate) subpage: u8,
}

/// A mode page: its codes and its current values, headed by PAGE CODE and PAGE LENGTH.
struct Page {
    code: u8,
    subpage: u8,
    append: fn(&LogicalUnit, &mut Vec<u8>),
}

/// In ascending order, as all pages (3Fh) must be returned.
const PAGES: [Page; 2] = [
    Page { code: 0x08, subpage: 0x00, append: append_caching },
    Page { code: 0x0a, subpage: 0x00, append: append_control },
];

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
        let start = out.len();
        (page.append)(unit, out);
        if request.control == PageControl::Changeable {
            out[start + 2..].fill(0); // after PAGE CODE and PAGE LENGTH
        }
    }
    fill_mode_data_length(request, out);
    Ok(())
}

impl Page {
    fn matches(&self, request: &Request) -> bool {
        let code = request.page == ALL_PAGES || request.page == self.code;
        let subpage = request.subpage == ALL_SUBPAGES || request.subpage == self.subpage;
        code && subpage
    }
}

/// INVALID FIELD IN CDB, pointing at PAGE CODE or SUBPAGE CODE, where nothing matches.
fn check_page(request: &Request) -> Result<(), Sense> {
    if PAGES.iter().any(|page| page.matches(request)) {
        return Ok(());
    }
    let known = request.page == ALL_PAGES || PAGES.iter().any(|page| page.code == request.page);
    Err(if known { Sense::invalid_field_in_cdb(3, None) } else { Sense::invalid_field_in_cdb(2, Some(5)) })
}

/// Mode parameter header and block descriptor. MODE DATA LENGTH comes last, when everything is there.
fn append_header(unit: &LogicalUnit, request: &Request, out: &mut Vec<u8>) {
    const DPOFUA: u8 = 0x10;
    let write_protected = if unit.read_only() { 0x80 } else { 0x00 };
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

/// Caching mode page (SBC-4): WCE says whether there is a volatile cache; reads may come from it (RCD 0).
fn append_caching(unit: &LogicalUnit, out: &mut Vec<u8>) {
    let mut page = [0; 20];
    page[..2].copy_from_slice(&[0x08, 18]);
    page[2] = if unit.write_cache() { 0x04 } else { 0x00 };
    out.extend_from_slice(&page);
}

/// Control mode page (SPC-5): fixed format sense data (D_SENSE 0), no log parameters saved (GLTSD 1), unrestricted
/// reordering of SIMPLE commands (QUEUE ALGORITHM MODIFIER 1h), one task set (TST 0), aborted commands of other nexuses
/// not reported with TASK ABORTED (TAS 0), no software write protection (SWP 0).
fn append_control(_: &LogicalUnit, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x0a, 10, 0x02, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]);
}
