//! LOG SENSE parameter data (SPC-5, log parameters). The numbers are the caller's; nothing is saved and nothing can be
//! set.

use alloc::vec::Vec;

use crate::sense::Sense;

/// What the log pages tell about a logical unit. All zero, with an unknown temperature, unless the caller knows better.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LogData {
    /// READ commands that ended.
    pub reads: u64,
    /// WRITE commands that ended.
    pub writes: u64,
    /// Logical blocks that initiators read.
    pub blocks_read: u64,
    /// Logical blocks that initiators wrote.
    pub blocks_written: u64,
    /// Time that READ commands took, all added up, in microseconds.
    pub read_micros: u64,
    /// Time that WRITE commands took, all added up, in microseconds.
    pub write_micros: u64,
    /// Degrees Celsius, 0 to 254.
    pub temperature: Option<u8>,
}

/// A log page: its codes, and its log parameters in ascending order of their codes.
struct Page {
    code: u8,
    subpage: u8,
    append: fn(&LogData, u16, &mut Vec<u8>),
}

const SUPPORTED: u8 = 0x00;
const ALL_SUBPAGES: u8 = 0xff;

/// In ascending order, as page 00h must list them.
const PAGES: [Page; 5] = [
    Page { code: SUPPORTED, subpage: 0x00, append: append_supported_pages },
    Page { code: SUPPORTED, subpage: ALL_SUBPAGES, append: append_supported_subpages },
    Page { code: 0x0d, subpage: 0x00, append: append_temperature },
    Page { code: 0x19, subpage: 0x00, append: append_statistics },
    Page { code: 0x2f, subpage: 0x00, append: append_informational_exceptions },
];

/// Appends a page with its parameters from `first` on; `out` must be empty.
///
/// INVALID FIELD IN CDB, pointing at PAGE CODE or SUBPAGE CODE, for a page that there is not, and at PARAMETER POINTER
/// if no parameter is left.
pub(crate) fn append(code: u8, subpage: u8, first: u16, data: &LogData, out: &mut Vec<u8>) -> Result<(), Sense> {
    const DS: u8 = 0x80; // the page is never saved
    const SPF: u8 = 0x40;
    let page = find(code, subpage)?;
    let list = code == SUPPORTED; // those two have no parameters
    let flags = if list { 0 } else { DS } | if subpage == 0 { 0 } else { SPF };
    out.extend_from_slice(&[flags | code, subpage, 0, 0]);
    (page.append)(data, first, out);
    if first > 0 && (list || out.len() == 4) {
        return Err(Sense::invalid_field_in_cdb(5, None));
    }
    let len = u16::try_from(out.len() - 4).unwrap_or(u16::MAX); // below 100
    out[2..4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

fn find(code: u8, subpage: u8) -> Result<&'static Page, Sense> {
    let mut pages = PAGES.iter().filter(|page| page.code == code).peekable();
    if pages.peek().is_none() {
        return Err(Sense::invalid_field_in_cdb(2, Some(5)));
    }
    pages.find(|page| page.subpage == subpage).ok_or(Sense::invalid_field_in_cdb(3, None))
}

/// Supported Log Pages.
fn append_supported_pages(_: &LogData, _: u16, out: &mut Vec<u8>) {
    out.extend(PAGES.iter().filter(|page| page.subpage == 0).map(|page| page.code));
}

/// Supported Log Pages and Subpages.
fn append_supported_subpages(_: &LogData, _: u16, out: &mut Vec<u8>) {
    out.extend(PAGES.iter().flat_map(|page| [page.code, page.subpage]));
}

/// Temperature: TEMPERATURE, and REFERENCE TEMPERATURE, which there is not.
fn append_temperature(data: &LogData, first: u16, out: &mut Vec<u8>) {
    append_parameter(0x0000, first, &[0x00, temperature(data)], out);
    append_parameter(0x0001, first, &[0x00, UNKNOWN_TEMPERATURE], out);
}

/// General Statistics and Performance: General Access Statistics and Performance, Idle Time, and Time Interval, all three
/// mandatory in this page. How long the unit was idle is not counted: 0 intervals.
///
/// Every command weighs one, which is what the standard's weight comes to when nothing is known of the task set.
fn append_statistics(data: &LogData, first: u16, out: &mut Vec<u8>) {
    const NEGATIVE_EXPONENT: u32 = 6;
    const INTEGER: u32 = 1;
    let fields = [
        data.reads,
        data.writes,
        data.blocks_written, // received
        data.blocks_read,    // transmitted
        data.read_micros,
        data.write_micros,
        data.reads.wrapping_add(data.writes),
        data.read_micros.wrapping_add(data.write_micros),
    ];
    let mut general = [0; 64];
    for (bytes, field) in general.chunks_exact_mut(8).zip(fields) {
        bytes.copy_from_slice(&field.to_be_bytes());
    }
    append_parameter(0x0001, first, &general, out);
    append_parameter(0x0002, first, &[0; 8], out);
    let mut interval = [0; 8]; // a microsecond
    interval[..4].copy_from_slice(&NEGATIVE_EXPONENT.to_be_bytes());
    interval[4..].copy_from_slice(&INTEGER.to_be_bytes());
    append_parameter(0x0003, first, &interval, out);
}

/// Informational Exceptions: none is pending (INFORMATIONAL EXCEPTION ASC 0).
fn append_informational_exceptions(data: &LogData, first: u16, out: &mut Vec<u8>) {
    append_parameter(0x0000, first, &[0x00, 0x00, temperature(data), UNKNOWN_TEMPERATURE], out);
}

const UNKNOWN_TEMPERATURE: u8 = 0xff;

fn temperature(data: &LogData) -> u8 {
    data.temperature.unwrap_or(UNKNOWN_TEMPERATURE)
}

/// PARAMETER CODE, control byte, PARAMETER LENGTH, value. All are binary lists (FORMAT AND LINKING 11b).
fn append_parameter(code: u16, first: u16, value: &[u8], out: &mut Vec<u8>) {
    const BINARY_LIST: u8 = 0x03;
    if code >= first {
        let [high, low] = code.to_be_bytes();
        out.extend_from_slice(&[high, low, BINARY_LIST, value.len() as u8]);
        out.extend_from_slice(value);
    }
}
