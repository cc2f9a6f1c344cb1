//! Carrying a command out, for whoever it is addressed to. Reading a CDB stands in `command`; limits, task attributes,
//! unit attentions and buffers are the caller's, before it comes here.

use alloc::vec::Vec;

use crate::{
    capacity,
    command::{Command, DataPhase, Transfer},
    inquiry, mode,
    opcode::{self, Answer},
    report_luns,
    sense::Sense,
    supported_opcodes,
    unit::LogicalUnit,
    unit_attention::UnitAttention,
    vpd,
};

/// Who a command is addressed to.
#[derive(Clone, Copy, Debug)]
pub enum Addressee<'a> {
    /// A logical unit.
    Unit(&'a LogicalUnit),
    /// A LUN that does not exist, of a target that does (SAM-6, incorrect logical unit numbers).
    Absent,
    /// The REPORT LUNS well-known logical unit.
    ReportLunsWellKnown,
}

/// What the caller is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Read these blocks, at least one, all of them there.
    Read(Transfer),
    /// Write these blocks, at least one, all of them there.
    Write(Transfer),
    /// Write the volatile cache back to the medium.
    Flush,
    /// GOOD, with the parameter data in `out`: cut to the allocation length, possibly to nothing.
    DataIn,
    /// GOOD, without data.
    Good,
    /// CHECK CONDITION with this sense data.
    Check(Sense),
}

impl Addressee<'_> {
    /// Whether an operation code is answered here at all. Meant for the moment before the unit attention and the rest
    /// of the CDB are looked at: an absent LUN answers 05h/25h/00h to anything but INQUIRY, REPORT LUNS and REQUEST
    /// SENSE, well-formed or not.
    ///
    /// # Errors
    /// The sense data of the refusal.
    #[inline]
    pub fn admits(&self, opcode: u8) -> Result<(), Sense> {
        let (asked, refusal) = match self {
            Addressee::Unit(_) => return Ok(()),
            Addressee::Absent => (Answer::Absent, Sense::LU_NOT_SUPPORTED),
            Addressee::ReportLunsWellKnown => (Answer::WellKnown, Sense::INVALID_OPCODE),
        };
        let answered = opcode::rows_of(opcode).iter().any(|row| row.answered_by() >= asked);
        if answered { Ok(()) } else { Err(refusal) }
    }
}

/// Carries a command out as far as it can be without I/O.
///
/// `luns` are the LUN numbers of the addressed target, in the order in which they are to be listed; for the
/// well-known logical unit those of target 0. `pending` matters to REQUEST SENSE only: it returns the condition as data
/// and the caller [clears](crate::UnitAttentions::clear) it. `out` is emptied and filled when the answer is
/// [`Action::DataIn`]; keeping it saves allocations. A read or write never looks at it.
///
/// # Panics
/// If a LUN number that REPORT LUNS has to list is above [`LUN_MAX`](crate::LUN_MAX). Never for what a CDB holds.
#[inline]
pub fn execute(
    to: Addressee<'_>,
    command: &Command,
    luns: &[u16],
    pending: Option<UnitAttention>,
    out: &mut Vec<u8>,
) -> Action {
    match (to, command) {
        (Addressee::Unit(unit), Command::Read(transfer)) => read_or_write(unit, transfer, false),
        (Addressee::Unit(unit), Command::Write(transfer)) => read_or_write(unit, transfer, true),
        _ => execute_rare(to, command, luns, pending, out),
    }
}

#[inline]
fn read_or_write(unit: &LogicalUnit, transfer: &Transfer, write: bool) -> Action {
    match unit.check_transfer(transfer, write) {
        Err(sense) => Action::Check(sense),
        Ok(()) if transfer.blocks == 0 => Action::Good,
        Ok(()) if write => Action::Write(*transfer),
        Ok(()) => Action::Read(*transfer),
    }
}

/// Everything that is not a read or write.
#[inline(never)]
fn execute_rare(
    to: Addressee<'_>,
    command: &Command,
    luns: &[u16],
    pending: Option<UnitAttention>,
    out: &mut Vec<u8>,
) -> Action {
    out.clear();
    let answer = match to {
        Addressee::Unit(unit) => on_unit(unit, command, luns, pending, out),
        Addressee::Absent => on_absent(command, luns, out),
        Addressee::ReportLunsWellKnown => on_well_known(command, luns, pending, out),
    };
    match answer {
        Ok(Action::DataIn) => {
            cut(command, out);
            Action::DataIn
        }
        Ok(action) => action,
        Err(sense) => {
            out.clear();
            Action::Check(sense)
        }
    }
}

fn on_unit(
    unit: &LogicalUnit,
    command: &Command,
    luns: &[u16],
    pending: Option<UnitAttention>,
    out: &mut Vec<u8>,
) -> Result<Action, Sense> {
    match *command {
        Command::Read(transfer) => return Ok(read_or_write(unit, &transfer, false)),
        Command::Write(transfer) => return Ok(read_or_write(unit, &transfer, true)),
        Command::TestUnitReady => return Ok(Action::Good),
        Command::SynchronizeCache { lba, blocks } => {
            unit.check_range(lba, blocks)?;
            return Ok(Action::Flush);
        }
        // A disk of this kind is always ready: a stop writes the cache back and changes nothing else.
        Command::StartStopUnit { start: false, no_flush: false } => return Ok(Action::Flush),
        Command::StartStopUnit { .. } => return Ok(Action::Good),
        Command::Inquiry { page: None, .. } => inquiry::append_disk(unit.identity(), out),
        Command::Inquiry { page: Some(page), .. } => vpd::append_disk(unit, page, out)?,
        Command::ReportLuns { selection, .. } => report_luns::append(selection, luns, out),
        Command::RequestSense { descriptor_format, .. } => {
            append_sense(pending.map_or(Sense::NO_SENSE, UnitAttention::sense), descriptor_format, out);
        }
        Command::ReadCapacity10 => capacity::append_ten(unit, out),
        Command::ReadCapacity16 { .. } => capacity::append_sixteen(unit, out),
        Command::ModeSense { ten, disable_block_descriptors, long_lba, control, page, subpage, .. } => {
            let request = mode::Request { ten, disable_block_descriptors, long_lba, control, page, subpage };
            mode::append(unit, &request, out)?;
        }
        Command::ReportSupportedOperationCodes { query, timeouts, .. } => {
            supported_opcodes::append(query, timeouts, out)?;
        }
    }
    Ok(Action::DataIn)
}

/// A LUN that does not exist (SAM-6, incorrect logical unit numbers). It has no VPD pages, so EVPD is refused.
fn on_absent(command: &Command, luns: &[u16], out: &mut Vec<u8>) -> Result<Action, Sense> {
    match *command {
        Command::Inquiry { page: None, .. } => inquiry::append_absent(out),
        Command::Inquiry { page: Some(_), .. } => return Err(Sense::invalid_field_in_cdb(1, Some(0))),
        Command::ReportLuns { selection, .. } => report_luns::append(selection, luns, out),
        Command::RequestSense { descriptor_format, .. } => {
            append_sense(Sense::LU_NOT_SUPPORTED, descriptor_format, out);
        }
        _ => return Err(Sense::LU_NOT_SUPPORTED),
    }
    Ok(Action::DataIn)
}

/// The REPORT LUNS well-known logical unit (SPC-5): what it must answer and nothing else.
fn on_well_known(
    command: &Command,
    luns: &[u16],
    pending: Option<UnitAttention>,
    out: &mut Vec<u8>,
) -> Result<Action, Sense> {
    match *command {
        Command::TestUnitReady => return Ok(Action::Good),
        Command::Inquiry { page: None, .. } => inquiry::append_well_known(out),
        Command::Inquiry { page: Some(page), .. } => vpd::append_well_known(page, out)?,
        Command::ReportLuns { selection, .. } => report_luns::append(selection, luns, out),
        Command::RequestSense { descriptor_format, .. } => {
            append_sense(pending.map_or(Sense::NO_SENSE, UnitAttention::sense), descriptor_format, out);
        }
        _ => return Err(Sense::INVALID_OPCODE),
    }
    Ok(Action::DataIn)
}

fn append_sense(sense: Sense, descriptor_format: bool, out: &mut Vec<u8>) {
    if descriptor_format {
        sense.append_descriptor_format(out);
    } else {
        out.extend_from_slice(&sense.fixed());
    }
}

/// The allocation length truncates; the lengths inside the data stay what they are (SPC-5, allocation length).
fn cut(command: &Command, out: &mut Vec<u8>) {
    if let DataPhase::InUpTo(allocation_length) = command.data(0) {
        out.truncate(usize::try_from(allocation_length).unwrap_or(usize::MAX));
    }
}
