//! Carrying a command out, for whoever it is addressed to. Reading a CDB stands in `command`; limits, task attributes,
//! unit attentions and buffers are the caller's, before it comes here.

use alloc::vec::Vec;

use crate::{
    Cdb, capacity,
    command::{Command, DataPhase, Transfer},
    inquiry,
    lba_status::LbaStatusQuery,
    log::{self, LogData},
    mode, mode_select,
    opcode::{self, Answer},
    report_luns,
    sense::Sense,
    supported_opcodes, task_management,
    unit::LogicalUnit,
    unit_attention::UnitAttention,
    unmap::{self, Extent},
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

/// What a command is carried out with, besides its CDB: what only the caller knows. The default is nothing at all.
#[derive(Clone, Copy, Default, Debug)]
pub struct Context<'a> {
    /// LUN numbers of the addressed target, in the order in which REPORT LUNS is to list them; for the well-known
    /// logical unit those of target 0.
    pub luns: &'a [u16],
    /// The unit attention condition to come next. Only REQUEST SENSE looks at it: it returns the condition as data, and
    /// the caller [clears](crate::UnitAttentions::clear) it.
    pub pending: Option<UnitAttention>,
    /// The parameter list of a command [that has one](Command::parameter_list_len), all of it; otherwise empty.
    pub data_out: &'a [u8],
    /// Whether any data-out came with the command.
    pub has_data_out: bool,
    /// What LOG SENSE tells.
    pub log: LogData,
}

/// What an answer leaves behind besides its [`Action`]. Keeping it from command to command saves allocations; a read or
/// write never looks at it.
#[derive(Default, Debug)]
pub struct Scratch {
    /// Parameter data of [`Action::DataIn`], at most 128 KiB.
    pub data_in: Vec<u8>,
    /// Blocks of [`Action::Unmap`], at most as many as the unit's `max_extents`.
    pub extents: Vec<Extent>,
}

/// What the caller is to do. All blocks that are named exist, and there is at least one; the limits of the unit hold,
/// and it is not write-protected where anything is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Read these blocks.
    Read(Transfer),
    /// Write these blocks.
    Write(Transfer),
    /// Write the volatile cache back to the medium.
    Flush,
    /// Make sure that these blocks are readable.
    Verify(Transfer),
    /// Compare these blocks with the data-out; what differs is [`Sense::miscompare`].
    Compare(Transfer),
    /// Write these blocks past any cache, then make sure that they are readable or compare them with what was written.
    WriteAndVerify {
        /// The blocks; FUA is set.
        transfer: Transfer,
        /// Compare.
        compare: bool,
    },
    /// Compare these blocks with the first half of the data-out; if all are equal write the second half to them, and
    /// let no other write come in between. What differs is [`Sense::miscompare`].
    CompareAndWrite(Transfer),
    /// Write one block to all of these.
    WriteSame {
        /// The blocks.
        transfer: Transfer,
        /// They may be given up instead, as far as they read back the same afterwards.
        unmap: bool,
        /// There is no data-out: the block is all zeroes.
        no_data_out: bool,
    },
    /// Give up the blocks in [`Scratch::extents`], of which there is at least one. They may overlap.
    Unmap,
    /// Find out which blocks are there, then [`answer`](LbaStatusQuery::answer).
    LbaStatus(LbaStatusQuery),
    /// GOOD, with the parameter data in [`Scratch::data_in`]: cut to the allocation length, possibly to nothing.
    DataIn,
    /// GOOD, without data.
    Good,
    /// CHECK CONDITION with this sense data.
    Check(Sense),
}

impl Addressee<'_> {
    /// Whether a command is answered here at all, whatever its fields hold. Meant for the moment before the rest of the
    /// CDB is looked at: an absent LUN answers 05h/25h/00h to anything but INQUIRY, REPORT LUNS and REQUEST SENSE,
    /// well-formed or not, and a logical unit answers what it is not [able](LogicalUnit::has) to do as if there were no
    /// such command. READ and WRITE are admitted by every logical unit.
    ///
    /// # Errors
    /// The sense data of the refusal.
    pub fn admits(&self, cdb: &Cdb) -> Result<(), Sense> {
        let (asked, refusal) = match self {
            Addressee::Unit(unit) => {
                return match opcode::find(cdb) {
                    Ok(row) if !unit.has(row.feature()) => Err(row.unsupported()),
                    _ => Ok(()),
                };
            }
            Addressee::Absent => (Answer::Absent, Sense::LU_NOT_SUPPORTED),
            Addressee::ReportLunsWellKnown => (Answer::WellKnown, Sense::INVALID_OPCODE),
        };
        let answered = opcode::rows_of(cdb[0]).iter().any(|row| row.answered_by() >= asked);
        if answered { Ok(()) } else { Err(refusal) }
    }
}

/// Carries a command out as far as it can be without I/O.
///
/// `scratch` is emptied and filled as the [`Action`] says.
///
/// # Panics
/// If a LUN number that REPORT LUNS has to list is above [`LUN_MAX`](crate::LUN_MAX). Never for what a CDB or a
/// parameter list holds.
#[inline]
pub fn execute(to: Addressee<'_>, command: &Command, context: &Context<'_>, scratch: &mut Scratch) -> Action {
    match (to, command) {
        (Addressee::Unit(unit), Command::Read(transfer)) => read_or_write(unit, transfer, false),
        (Addressee::Unit(unit), Command::Write(transfer)) => read_or_write(unit, transfer, true),
        _ => execute_rare(to, command, context, scratch),
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
fn execute_rare(to: Addressee<'_>, command: &Command, context: &Context<'_>, scratch: &mut Scratch) -> Action {
    scratch.data_in.clear();
    scratch.extents.clear();
    let answer = match to {
        Addressee::Unit(unit) => on_unit(unit, command, context, scratch),
        Addressee::Absent => on_absent(command, context, &mut scratch.data_in),
        Addressee::ReportLunsWellKnown => on_well_known(command, context, &mut scratch.data_in),
    };
    match answer {
        Ok(Action::DataIn) => {
            cut(command, &mut scratch.data_in);
            Action::DataIn
        }
        Ok(action) => action,
        Err(sense) => {
            scratch.data_in.clear();
            scratch.extents.clear();
            Action::Check(sense)
        }
    }
}

/// Commands for a logical unit: those that concern its blocks, then those that only tell something.
fn on_unit(
    unit: &LogicalUnit,
    command: &Command,
    context: &Context<'_>,
    scratch: &mut Scratch,
) -> Result<Action, Sense> {
    match *command {
        Command::Read(transfer) => Ok(read_or_write(unit, &transfer, false)),
        Command::Write(transfer) => Ok(read_or_write(unit, &transfer, true)),
        Command::TestUnitReady | Command::PreventAllowMediumRemoval => Ok(Action::Good),
        Command::SynchronizeCache { lba, blocks } => unit.check_range(lba, blocks).map(|()| Action::Flush),
        // A disk of this kind is always ready: a stop writes the cache back and changes nothing else.
        Command::StartStopUnit { start: false, no_flush: false } => Ok(Action::Flush),
        Command::StartStopUnit { .. } => Ok(Action::Good),
        Command::PreFetch { lba, blocks } => unit.check_range(lba, blocks).map(|()| Action::Good),
        Command::Verify { transfer, compare } => verify(unit, transfer, compare),
        Command::WriteAndVerify { transfer, compare } => write_and_verify(unit, transfer, compare),
        Command::WriteSame { transfer, unmap, no_data_out } => write_same(unit, transfer, unmap, no_data_out),
        Command::CompareAndWrite(transfer) => compare_and_write(unit, transfer, context.has_data_out),
        Command::Unmap { list_len } => unmap(unit, parameter_list(context, list_len)?, &mut scratch.extents),
        Command::ModeSelect { ten, list_len } => {
            let flush = mode_select::apply(unit, ten, parameter_list(context, list_len)?)?;
            Ok(if flush { Action::Flush } else { Action::Good })
        }
        Command::GetLbaStatus { lba, allocation_length } => lba_status(unit, lba, allocation_length),
        _ => tell(unit, command, context, &mut scratch.data_in).map(|()| Action::DataIn),
    }
}

fn verify(unit: &LogicalUnit, transfer: Transfer, compare: bool) -> Result<Action, Sense> {
    supported(unit.config().verify)?;
    unit.check_transfer(&transfer, false)?;
    Ok(match compare {
        _ if transfer.blocks == 0 => Action::Good,
        true => Action::Compare(transfer),
        false => Action::Verify(transfer),
    })
}

fn write_and_verify(unit: &LogicalUnit, transfer: Transfer, compare: bool) -> Result<Action, Sense> {
    supported(unit.config().verify)?;
    unit.check_transfer(&transfer, true)?;
    Ok(if transfer.blocks == 0 { Action::Good } else { Action::WriteAndVerify { transfer, compare } })
}

/// The maximum transfer length does not apply: what moves is one block (SBC-4, Block Limits VPD page).
fn write_same(unit: &LogicalUnit, transfer: Transfer, unmap: bool, no_data_out: bool) -> Result<Action, Sense> {
    let blocks_max = unit.config().write_same_max_blocks;
    supported(blocks_max > 0)?;
    if unmap && unit.config().unmap.is_none() {
        return Err(Sense::invalid_field_in_cdb(1, Some(3))); // UNMAP, with LBPWS and LBPWS10 0
    }
    unit.check_range(transfer.lba, transfer.blocks)?;
    if transfer.blocks > blocks_max {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    unit.check_writable()?;
    Ok(Action::WriteSame { transfer, unmap, no_data_out })
}

/// No blocks are no error, but no blocks with data are more blocks than the one byte of the CDB can say.
fn compare_and_write(unit: &LogicalUnit, transfer: Transfer, has_data_out: bool) -> Result<Action, Sense> {
    let blocks_max = u32::from(unit.compare_and_write_max_blocks());
    supported(blocks_max > 0)?;
    unit.check_range(transfer.lba, transfer.blocks)?;
    if transfer.blocks > blocks_max || transfer.blocks == 0 && has_data_out {
        return Err(Sense::invalid_field_in_cdb(13, None)); // NUMBER OF LOGICAL BLOCKS
    }
    if transfer.blocks == 0 {
        return Ok(Action::Good);
    }
    unit.check_writable()?;
    Ok(Action::CompareAndWrite(transfer))
}

fn unmap(unit: &LogicalUnit, list: &[u8], extents: &mut Vec<Extent>) -> Result<Action, Sense> {
    let limits = unit.config().unmap.as_ref().ok_or(Sense::INVALID_OPCODE)?;
    unmap::read(unit, limits, list, extents)?;
    Ok(if extents.is_empty() { Action::Good } else { Action::Unmap })
}

fn lba_status(unit: &LogicalUnit, lba: u64, allocation_length: u32) -> Result<Action, Sense> {
    supported(unit.config().lba_status)?;
    unit.check_range(lba, 1)?;
    Ok(Action::LbaStatus(LbaStatusQuery::new(lba, allocation_length)))
}

/// [`Addressee::admits`] says so first. A caller that did not ask it still gets no action that the unit cannot do.
fn supported(able: bool) -> Result<(), Sense> {
    if able { Ok(()) } else { Err(Sense::INVALID_OPCODE) }
}

fn parameter_list<'a>(context: &Context<'a>, len: u16) -> Result<&'a [u8], Sense> {
    context.data_out.get(..usize::from(len)).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)
}

/// Commands whose answer is parameter data.
fn tell(unit: &LogicalUnit, command: &Command, context: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Sense> {
    match *command {
        Command::Inquiry { page: None, .. } => inquiry::append_disk(unit.identity(), out),
        Command::Inquiry { page: Some(page), .. } => vpd::append_disk(unit, page, out)?,
        Command::ReportLuns { selection, .. } => report_luns::append(selection, context.luns, out),
        Command::RequestSense { descriptor_format, .. } => {
            append_sense(context.pending.map_or(Sense::NO_SENSE, UnitAttention::sense), descriptor_format, out);
        }
        Command::ReadCapacity10 => capacity::append_ten(unit, out),
        Command::ReadCapacity16 { .. } => capacity::append_sixteen(unit, out),
        Command::ModeSense { ten, disable_block_descriptors, long_lba, control, page, subpage, .. } => {
            let request = mode::Request { ten, disable_block_descriptors, long_lba, control, page, subpage };
            mode::append(unit, &request, out)?;
        }
        Command::LogSense { page, subpage, first_parameter, .. } => {
            log::append(page, subpage, first_parameter, &context.log, out)?;
        }
        Command::ReportSupportedOperationCodes { query, timeouts, .. } => {
            supported_opcodes::append(unit, query, timeouts, out)?;
        }
        Command::ReportSupportedTaskManagement { extended, .. } => task_management::append(extended, out),
        _ => return Err(Sense::INVALID_OPCODE), // `on_unit` has dealt with all others
    }
    Ok(())
}

/// A LUN that does not exist (SAM-6, incorrect logical unit numbers). It has no VPD pages, so EVPD is refused.
fn on_absent(command: &Command, context: &Context<'_>, out: &mut Vec<u8>) -> Result<Action, Sense> {
    match *command {
        Command::Inquiry { page: None, .. } => inquiry::append_absent(out),
        Command::Inquiry { page: Some(_), .. } => return Err(Sense::invalid_field_in_cdb(1, Some(0))),
        Command::ReportLuns { selection, .. } => report_luns::append(selection, context.luns, out),
        Command::RequestSense { descriptor_format, .. } => {
            append_sense(Sense::LU_NOT_SUPPORTED, descriptor_format, out);
        }
        _ => return Err(Sense::LU_NOT_SUPPORTED),
    }
    Ok(Action::DataIn)
}

/// The REPORT LUNS well-known logical unit (SPC-5): what it must answer and nothing else.
fn on_well_known(command: &Command, context: &Context<'_>, out: &mut Vec<u8>) -> Result<Action, Sense> {
    match *command {
        Command::TestUnitReady => return Ok(Action::Good),
        Command::Inquiry { page: None, .. } => inquiry::append_well_known(out),
        Command::Inquiry { page: Some(page), .. } => vpd::append_well_known(page, out)?,
        Command::ReportLuns { selection, .. } => report_luns::append(selection, context.luns, out),
        Command::RequestSense { descriptor_format, .. } => {
            append_sense(context.pending.map_or(Sense::NO_SENSE, UnitAttention::sense), descriptor_format, out);
        }
        _ => return Err(Sense::INVALID_OPCODE),
    }
    Ok(Action::DataIn)
}

fn append_sense(sense: Sense, descriptor_format: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&sense.bytes(descriptor_format));
}

/// The allocation length truncates; the lengths inside the data stay what they are (SPC-5, allocation length).
fn cut(command: &Command, out: &mut Vec<u8>) {
    if let DataPhase::InUpTo(allocation_length) = command.data(0) {
        out.truncate(usize::try_from(allocation_length).unwrap_or(usize::MAX));
    }
}
