//! What a CDB means: its fields, read and checked once. Which commands exist and which bits are refused outright stands
//! in `opcode`; carrying a command out stands in `execute`.

use crate::{
    Cdb,
    opcode::{self, Form, OtherForm, TransferForm},
    sense::Sense,
};

/// A supported command with every field that matters, none of them out of its defined values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// READ (6), (10), (12), (16).
    Read(Transfer),
    /// WRITE (6), (10), (12), (16).
    Write(Transfer),
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
            Form::Other(form) => Command::parse_other(form, cdb),
        }
    }

    /// Kept out of the path of READ and WRITE, which it would only make longer.
    #[inline(never)]
    fn parse_other(form: OtherForm, cdb: &Cdb) -> Result<Command, Sense> {
        Ok(match form {
            OtherForm::TestUnitReady => Command::TestUnitReady,
            OtherForm::RequestSense => {
                Command::RequestSense { descriptor_format: cdb[1] & 0x01 != 0, allocation_length: cdb[4] }
            }
            OtherForm::Inquiry => return inquiry(cdb),
            OtherForm::ModeSense6 => mode_sense(cdb, false, u16::from(cdb[4])),
            OtherForm::ModeSense10 => mode_sense(cdb, true, be16(cdb, 7)),
            OtherForm::StartStopUnit => {
                Command::StartStopUnit { start: cdb[4] & 0x01 != 0, no_flush: cdb[4] & 0x04 != 0 }
            }
            OtherForm::ReadCapacity10 => Command::ReadCapacity10,
            OtherForm::ReadCapacity16 => Command::ReadCapacity16 { allocation_length: be32(cdb, 10) },
            OtherForm::SynchronizeCache10 => {
                Command::SynchronizeCache { lba: be32(cdb, 2).into(), blocks: be16(cdb, 7).into() }
            }
            OtherForm::SynchronizeCache16 => Command::SynchronizeCache { lba: be64(cdb, 2), blocks: be32(cdb, 10) },
            OtherForm::ReportLuns => return report_luns(cdb),
            OtherForm::ReportSupportedOperationCodes => return report_supported_operation_codes(cdb),
        })
    }

    /// What moves, by the CDB alone.
    #[inline]
    pub fn data(&self, block_size: u32) -> DataPhase {
        let allocation_length = match *self {
            Command::Read(transfer) if transfer.blocks > 0 => {
                return DataPhase::In(transfer.bytes(block_size));
            }
            Command::Write(transfer) if transfer.blocks > 0 => {
                return DataPhase::Out(transfer.bytes(block_size));
            }
            Command::Read(_)
            | Command::Write(_)
            | Command::TestUnitReady
            | Command::SynchronizeCache { .. }
            | Command::StartStopUnit { .. } => return DataPhase::None,
            Command::ReadCapacity10 => 8, // it has no ALLOCATION LENGTH: its data is always eight bytes
            Command::RequestSense { allocation_length, .. } => allocation_length.into(),
            Command::Inquiry { allocation_length, .. } | Command::ModeSense { allocation_length, .. } => {
                allocation_length.into()
            }
            Command::ReportLuns { allocation_length, .. }
            | Command::ReadCapacity16 { allocation_length }
            | Command::ReportSupportedOperationCodes { allocation_length, .. } => allocation_length.into(),
        };
        DataPhase::InUpTo(allocation_length)
    }

    /// Whether a pending unit attention is reported instead of carrying this out; see
    /// [`reports_unit_attention`](crate::reports_unit_attention) for the answer before parsing.
    pub fn reports_unit_attention(&self) -> bool {
        !matches!(self, Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. })
    }
}

impl Transfer {
    /// Bytes that move. Never overflows.
    #[inline]
    pub fn bytes(&self, block_size: u32) -> u64 {
        u64::from(self.blocks) * u64::from(block_size)
    }

    #[inline]
    fn decode(form: TransferForm, cdb: &Cdb) -> Transfer {
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

    #[inline]
    fn with_flags(cdb: &Cdb, lba: u64, blocks: u32) -> Transfer {
        Transfer { lba, blocks, fua: cdb[1] & 0x08 != 0, dpo: cdb[1] & 0x10 != 0 }
    }
}

fn inquiry(cdb: &Cdb) -> Result<Command, Sense> {
    let vital = cdb[1] & 0x01 != 0;
    if !vital && cdb[2] != 0 {
        return Err(Sense::invalid_field_in_cdb(2, None)); // SPC-5, INQUIRY: PAGE CODE needs EVPD
    }
    Ok(Command::Inquiry { page: vital.then_some(cdb[2]), allocation_length: be16(cdb, 3) })
}

fn mode_sense(cdb: &Cdb, ten: bool, allocation_length: u16) -> Command {
    Command::ModeSense {
        ten,
        disable_block_descriptors: cdb[1] & 0x08 != 0,
        long_lba: ten && cdb[1] & 0x10 != 0,
        control: match cdb[2] >> 6 {
            0b00 => PageControl::Current,
            0b01 => PageControl::Changeable,
            0b10 => PageControl::Default,
            _ => PageControl::Saved,
        },
        page: cdb[2] & 0x3f,
        subpage: cdb[3],
        allocation_length,
    }
}

/// Any allocation length is good: SPC-3 and later only advise at least 16, and an allocation length may truncate.
fn report_luns(cdb: &Cdb) -> Result<Command, Sense> {
    let selection = match cdb[2] {
        0x00 => LunSelection::Units,
        0x01 => LunSelection::WellKnown,
        0x02 => LunSelection::All,
        _ => return Err(Sense::invalid_field_in_cdb(2, None)),
    };
    Ok(Command::ReportLuns { selection, allocation_length: be32(cdb, 6) })
}

fn report_supported_operation_codes(cdb: &Cdb) -> Result<Command, Sense> {
    let (code, action) = (cdb[3], be16(cdb, 4));
    let query = match cdb[2] & 0x07 {
        0b000 => OpcodeQuery::All,
        0b001 => OpcodeQuery::Code(code),
        0b010 => OpcodeQuery::CodeWithAction(code, action),
        0b011 => OpcodeQuery::CodeAndAction(code, action),
        _ => return Err(Sense::invalid_field_in_cdb(2, Some(2))),
    };
    Ok(Command::ReportSupportedOperationCodes { query, timeouts: cdb[2] & 0x80 != 0, allocation_length: be32(cdb, 6) })
}

#[inline(always)]
fn be16(cdb: &Cdb, at: usize) -> u16 {
    u16::from_be_bytes([cdb[at], cdb[at + 1]])
}

#[inline(always)]
fn be32(cdb: &Cdb, at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

#[inline(always)]
fn be64(cdb: &Cdb, at: usize) -> u64 {
    u64::from(be32(cdb, at)) << 32 | u64::from(be32(cdb, at + 4))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
