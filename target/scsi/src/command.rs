//! What a CDB means. Which commands exist and which bits are refused outright stands in `opcode`; where the fields of
//! the rarer commands are stands in `decode`; carrying a command out stands in `execute`.

use crate::{
    Cdb,
    decode::{self, be16, be32, be64},
    opcode::{self, Form, TransferForm},
    sense::Sense,
};

/// A command with every field that matters, none of them out of its defined values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// READ (6), (10), (12), (16).
    Read(Transfer),
    /// WRITE (6), (10), (12), (16).
    Write(Transfer),
    /// VERIFY (10), (12), (16). Without data-out unless it is to compare.
    Verify {
        /// The blocks; FUA has no meaning.
        transfer: Transfer,
        /// BYTCHK 01b: compare the medium with the data-out; otherwise it need only be readable.
        compare: bool,
    },
    /// WRITE AND VERIFY (10), (12), (16).
    WriteAndVerify {
        /// The blocks, with FUA: what is verified is on the medium.
        transfer: Transfer,
        /// BYTCHK 01b: compare the medium with the data-out afterwards; otherwise it need only be readable.
        compare: bool,
    },
    /// WRITE SAME (10), (16): one block of data-out, or none, written to at least one block.
    WriteSame {
        /// The blocks; FUA and DPO have no meaning.
        transfer: Transfer,
        /// UNMAP: the blocks may be given up where that reads back the same.
        unmap: bool,
        /// NDOB: no data-out buffer, the block is all zeroes.
        no_data_out: bool,
    },
    /// COMPARE AND WRITE: twice as much data-out as blocks, what to compare with and what to write.
    CompareAndWrite(Transfer),
    /// UNMAP.
    Unmap {
        /// PARAMETER LIST LENGTH, in bytes.
        list_len: u16,
    },
    /// PRE-FETCH (10), (16). IMMED is ignored.
    PreFetch {
        /// First block.
        lba: u64,
        /// Blocks; 0 is all that follow.
        blocks: u32,
    },
    /// GET LBA STATUS. REPORT TYPE is ignored, which RTP in the answer says.
    GetLbaStatus {
        /// STARTING LOGICAL BLOCK ADDRESS.
        lba: u64,
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u32,
    },
    /// INQUIRY.
    Inquiry {
        /// EVPD = 1: PAGE CODE of a vital product data page; `None` for standard INQUIRY data.
        page: Option<u8>,
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u16,
    },
    /// REPORT LUNS.
    ReportLuns {
        /// SELECT REPORT.
        selection: LunSelection,
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u32,
    },
    /// TEST UNIT READY.
    TestUnitReady,
    /// REQUEST SENSE.
    RequestSense {
        /// DESC: descriptor format instead of fixed format.
        descriptor_format: bool,
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u8,
    },
    /// READ CAPACITY (10).
    ReadCapacity10,
    /// READ CAPACITY (16).
    ReadCapacity16 {
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u32,
    },
    /// MODE SENSE (6), (10).
    ModeSense {
        /// The ten-byte command with its longer header, instead of the six-byte one.
        ten: bool,
        /// DBD: leave out the block descriptor.
        disable_block_descriptors: bool,
        /// LLBAA: the block descriptor may be the long one. Never with the six-byte command.
        long_lba: bool,
        /// PC.
        control: PageControl,
        /// PAGE CODE; 3Fh is all pages.
        page: u8,
        /// SUBPAGE CODE; FFh is all subpages.
        subpage: u8,
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u16,
    },
    /// MODE SELECT (6), (10), with PF where there is a parameter list.
    ModeSelect {
        /// The ten-byte command with its longer header, instead of the six-byte one.
        ten: bool,
        /// PARAMETER LIST LENGTH, in bytes.
        list_len: u16,
    },
    /// LOG SENSE. PC is ignored: no page has thresholds.
    LogSense {
        /// PAGE CODE.
        page: u8,
        /// SUBPAGE CODE.
        subpage: u8,
        /// PARAMETER POINTER: the first parameter code wanted.
        first_parameter: u16,
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u16,
    },
    /// PREVENT ALLOW MEDIUM REMOVAL: either way nothing can be removed.
    PreventAllowMediumRemoval,
    /// SYNCHRONIZE CACHE (10), (16). IMMED is ignored: status comes when the data is on the medium.
    SynchronizeCache {
        /// First block.
        lba: u64,
        /// Blocks to write back; 0 is all that follow.
        blocks: u32,
    },
    /// START STOP UNIT with START_VALID. IMMED is ignored, as in SYNCHRONIZE CACHE.
    StartStopUnit {
        /// START.
        start: bool,
        /// NO_FLUSH: a stop need not write back the cache.
        no_flush: bool,
    },
    /// REPORT SUPPORTED OPERATION CODES.
    ReportSupportedOperationCodes {
        /// REPORTING OPTIONS and what it asks about.
        query: OpcodeQuery,
        /// RCTD: with command timeouts descriptors.
        timeouts: bool,
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u32,
    },
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    ReportSupportedTaskManagement {
        /// REPD: the extended parameter data.
        extended: bool,
        /// ALLOCATION LENGTH, in bytes.
        allocation_length: u32,
    },
}

/// Blocks to read or write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks; 0 moves nothing and is no error.
    pub blocks: u32,
    /// FUA: past any volatile cache.
    pub fua: bool,
    /// DPO: not worth keeping in a cache.
    pub dpo: bool,
}

/// What moves, as the CDB says it. The caller compares it with the buffers it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataPhase {
    /// Nothing.
    None,
    /// Exactly this many bytes, to the initiator, from the backend.
    In(u64),
    /// Exactly this many bytes, from the initiator.
    Out(u64),
    /// At most this many bytes (the allocation length), to the initiator: parameter data that
    /// [`execute()`](crate::execute()) makes. How many there are is known once they are made.
    InUpTo(u64),
}

/// SELECT REPORT of REPORT LUNS (SPC-5). 10h to 12h concern logical unit conglomerates and are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LunSelection {
    /// 00h: logical units, without the well-known ones.
    Units,
    /// 01h: well-known logical units only.
    WellKnown,
    /// 02h: both.
    All,
}

/// PC of MODE SENSE: which values are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageControl {
    /// 00b.
    Current,
    /// 01b: a mask of the bits that MODE SELECT may change.
    Changeable,
    /// 10b.
    Default,
    /// 11b.
    Saved,
}

/// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES (SPC-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpcodeQuery {
    /// 000b: every supported command.
    All,
    /// 001b: an operation code that has no service actions.
    Code(u8),
    /// 010b: an operation code that has service actions, and one of these.
    CodeWithAction(u8, u16),
    /// 011b: either; the service action is 0 for an operation code that has none.
    CodeAndAction(u8, u16),
}

impl Command {
    /// Reads a CDB. An `Err` is the CHECK CONDITION that answers it.
    ///
    /// The path of READ and WRITE is short: look up the row, test all refused bits at once, jump, read the fields.
    #[inline]
    pub fn parse(cdb: &Cdb) -> Result<Command, Sense> {
        let row = opcode::find(cdb)?;
        row.check(cdb)?;
        match row.form {
            Form::Read(form) => Ok(Command::Read(Transfer::decode(form, cdb))),
            Form::Write(form) => Ok(Command::Write(Transfer::decode(form, cdb))),
            Form::Other(form) => decode::other(form, cdb),
        }
    }

    /// What moves, by the CDB alone.
    #[inline]
    pub fn data(&self, block_size: u32) -> DataPhase {
        match *self {
            Command::Read(transfer) if transfer.blocks > 0 => DataPhase::In(transfer.bytes(block_size)),
            Command::Write(transfer) if transfer.blocks > 0 => DataPhase::Out(transfer.bytes(block_size)),
            Command::Read(_) | Command::Write(_) => DataPhase::None,
            _ => self.data_of_other(block_size),
        }
    }

    #[inline(never)]
    fn data_of_other(&self, block_size: u32) -> DataPhase {
        match self.data_out_len(block_size) {
            Some(0) => DataPhase::None,
            Some(bytes) => DataPhase::Out(bytes),
            None => self.allocation_length().map_or(DataPhase::None, DataPhase::InUpTo),
        }
    }

    /// Bytes of data-out of a command that has any, READ and WRITE aside.
    fn data_out_len(&self, block_size: u32) -> Option<u64> {
        Some(match *self {
            Command::Verify { compare: false, .. } | Command::WriteSame { no_data_out: true, .. } => 0,
            Command::WriteSame { .. } => block_size.into(),
            Command::Verify { transfer, .. } | Command::WriteAndVerify { transfer, .. } => transfer.bytes(block_size),
            Command::CompareAndWrite(transfer) => 2 * transfer.bytes(block_size),
            Command::Unmap { list_len } | Command::ModeSelect { list_len, .. } => list_len.into(),
            _ => return None,
        })
    }

    /// ALLOCATION LENGTH of a command that has one.
    fn allocation_length(&self) -> Option<u64> {
        Some(match *self {
            Command::ReadCapacity10 => 8, // it has no ALLOCATION LENGTH: its data is always eight bytes
            Command::RequestSense { allocation_length, .. } => allocation_length.into(),
            Command::Inquiry { allocation_length, .. }
            | Command::ModeSense { allocation_length, .. }
            | Command::LogSense { allocation_length, .. } => allocation_length.into(),
            Command::ReportLuns { allocation_length, .. }
            | Command::ReadCapacity16 { allocation_length }
            | Command::GetLbaStatus { allocation_length, .. }
            | Command::ReportSupportedOperationCodes { allocation_length, .. }
            | Command::ReportSupportedTaskManagement { allocation_length, .. } => allocation_length.into(),
            _ => return None,
        })
    }

    /// Bytes of the parameter list that [`execute()`](crate::execute()) is to be given, of a command that has one. All
    /// other data-out is for the backend.
    pub fn parameter_list_len(&self) -> Option<u16> {
        match *self {
            Command::Unmap { list_len } | Command::ModeSelect { list_len, .. } => Some(list_len),
            _ => None,
        }
    }

    /// Whether a pending unit attention is reported instead of carrying this out; see
    /// [`reports_unit_attention`](crate::reports_unit_attention) for the answer before parsing.
    pub fn reports_unit_attention(&self) -> bool {
        !matches!(self, Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. })
    }
}

/// READ or WRITE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadWrite {
    /// READ.
    Read(Transfer),
    /// WRITE.
    Write(Transfer),
}

impl ReadWrite {
    /// The short way for READ and WRITE of ten and of sixteen bytes, which nearly all commands are: none through the
    /// table. `None` is no answer: ask [`Command::parse`], which says the same of these and knows all others.
    #[inline(always)]
    pub fn parse(cdb: &Cdb) -> Option<ReadWrite> {
        const WRITE: u8 = 0x02;
        let (transfer, control) = match cdb[0] & !WRITE {
            0x28 => (Transfer::decode(TransferForm::Ten, cdb), cdb[9]),
            0x88 => (Transfer::decode(TransferForm::Sixteen, cdb), cdb[15]),
            _ => return None,
        };
        if opcode::asks_for_more(cdb[1], control) {
            return None;
        }
        Some(if cdb[0] & WRITE == 0 { ReadWrite::Read(transfer) } else { ReadWrite::Write(transfer) })
    }
}

/// Whether a READ or WRITE of ten or more bytes is to reach the medium before it ends (SBC-4 §5.14, FUA).
#[must_use]
#[inline]
pub fn is_fua(cdb: &Cdb) -> bool {
    cdb[1] & 0x08 != 0
}

impl Transfer {
    /// Bytes that move. Never overflows.
    #[inline]
    pub fn bytes(&self, block_size: u32) -> u64 {
        u64::from(self.blocks) * u64::from(block_size)
    }

    #[inline]
    pub(crate) fn decode(form: TransferForm, cdb: &Cdb) -> Transfer {
        match form {
            TransferForm::Ten => Transfer::with_flags(cdb, be32(cdb, 2).into(), be16(cdb, 7).into()),
            TransferForm::Sixteen => Transfer::with_flags(cdb, be64(cdb, 2), be32(cdb, 10)),
            TransferForm::Twelve => Transfer::with_flags(cdb, be32(cdb, 2).into(), be32(cdb, 6)),
            TransferForm::Six => Transfer::six(cdb),
        }
    }

    /// READ(6), WRITE(6): a 21-bit LBA, and 0 blocks mean 256.
    fn six(cdb: &Cdb) -> Transfer {
        let blocks = if cdb[4] == 0 { 256 } else { cdb[4].into() };
        Transfer { lba: (be32(cdb, 0) & 0x001f_ffff).into(), blocks, fua: false, dpo: false }
    }

    /// Where the LBA and the number of blocks stand for [`Transfer::decode`], but with the bits of FUA and DPO free for
    /// something else.
    pub(crate) fn without_flags(form: TransferForm, cdb: &Cdb) -> Transfer {
        Transfer { fua: false, dpo: false, ..Transfer::decode(form, cdb) }
    }

    #[inline]
    fn with_flags(cdb: &Cdb, lba: u64, blocks: u32) -> Transfer {
        Transfer { lba, blocks, fua: is_fua(cdb), dpo: cdb[1] & 0x10 != 0 }
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
