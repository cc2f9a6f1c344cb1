//! MODE SELECT parameter lists (SPC-5 and SBC-4, mode parameters): all of one is checked before any of it is done.
//! Which bits there are stands in `mode`.

use crate::{
    mode::{PAGES, Page},
    sense::Sense,
    unit::{LogicalUnit, Modes},
};

/// What a parameter list changes.
struct Change {
    end: Modes,
    begin: Modes,
}

/// Carries out a parameter list. `true`: the volatile cache was in use until now and must be written back.
///
/// Fields that MODE SENSE only reports (MODE DATA LENGTH, WP, DPOFUA, PS) are ignored, so that what it returned can be
/// sent back. Anything else that would change what cannot be changed is refused and pointed at.
pub(crate) fn apply(unit: &LogicalUnit, ten: bool, list: &[u8]) -> Result<bool, Sense> {
    if list.is_empty() {
        return Ok(false); // SPC-5, MODE SELECT(6): not an error
    }
    let mut at = check_header(unit, ten, list)?;
    let mut change = Change { end: Modes::NONE, begin: Modes::NONE };
    while at < list.len() {
        at = check_page(unit, list, at, &mut change)?;
    }
    let before = unit.change_modes(change.end, change.begin);
    Ok(before.any_of(Modes::WRITE_CACHE) && change.end.any_of(Modes::WRITE_CACHE))
}

/// Mode parameter header and block descriptor. Returns where the pages begin.
fn check_header(unit: &LogicalUnit, ten: bool, list: &[u8]) -> Result<usize, Sense> {
    let header_len = if ten { 8 } else { 4 };
    let header = list.get(..header_len).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let medium_type = if ten { 2 } else { 1 };
    if header[medium_type] != 0 {
        return Err(invalid(medium_type));
    }
    let long_lba = ten && header[4] & 0x01 != 0;
    let (len_at, len) =
        if ten { (6, usize::from(header[6]) << 8 | usize::from(header[7])) } else { (3, header[3].into()) };
    if len == 0 {
        return Ok(header_len);
    }
    if len != if long_lba { 16 } else { 8 } {
        return Err(invalid(len_at)); // BLOCK DESCRIPTOR LENGTH: one descriptor at most
    }
    let descriptor = list.get(header_len..header_len + len).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    check_block_descriptor(unit, descriptor).map_err(|byte| invalid(header_len + byte))?;
    Ok(header_len + len)
}

/// The capacity and the block size must stay as they are; 0 and all ones are "as it is" for the capacity (SBC-4). `Err`
/// is the offset of the field in error.
fn check_block_descriptor(unit: &LogicalUnit, descriptor: &[u8]) -> Result<(), usize> {
    let short = descriptor.len() == 8;
    let (count, size, size_at, all_ones) = if short {
        (be(&descriptor[..4]), be(&descriptor[5..]), 5, u64::from(u32::MAX))
    } else {
        (be(&descriptor[..8]), be(&descriptor[12..]), 12, u64::MAX)
    };
    if count != 0 && count != all_ones && count != unit.block_count() {
        return Err(0);
    }
    if size != u64::from(unit.block_size()) {
        return Err(size_at);
    }
    Ok(())
}

/// The page at this place. Returns where the next one begins.
fn check_page(unit: &LogicalUnit, list: &[u8], at: usize, change: &mut Change) -> Result<usize, Sense> {
    const SPF: u8 = 0x40;
    let [code, len] =
        *list.get(at..at + 2).and_then(|head| head.first_chunk()).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let page = PAGES.iter().find(|page| page.code() == code & 0x3f).ok_or(invalid(at))?;
    if code & SPF != 0 {
        return Err(invalid(at)); // no page has a subpage
    }
    if usize::from(len) + 2 != page.len() {
        return Err(invalid(at + 1));
    }
    let sent = list.get(at..at + page.len()).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let (current, changeable) = (unit.modes(), unit.changeable_modes());
    for (offset, &value) in sent.iter().enumerate().skip(2) {
        let (is, mask) = page.byte(offset, current, changeable);
        if (value ^ is) & !mask != 0 {
            return Err(invalid(at + offset));
        }
    }
    change.add(page, sent, changeable);
    Ok(at + page.len())
}

impl Change {
    /// What a page that was checked asks for.
    fn add(&mut self, page: &Page, sent: &[u8], changeable: Modes) {
        for flag in page.flags.iter().filter(|flag| changeable.any_of(flag.mode)) {
            let begins = sent[flag.byte] >> flag.bit & 1 == 1;
            let (to, from) = if begins { (&mut self.begin, &mut self.end) } else { (&mut self.end, &mut self.begin) };
            *to = to.with(flag.mode);
            *from = from.without(flag.mode);
        }
    }
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// INVALID FIELD IN PARAMETER LIST, pointing at this byte.
fn invalid(byte: usize) -> Sense {
    Sense::invalid_field_in_parameter_list(u16::try_from(byte).unwrap_or(u16::MAX), None) // a list has at most 65535
}
