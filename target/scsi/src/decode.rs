//! The fields of every CDB that is not a READ or WRITE. Which bits are refused outright stands in `opcode`.

use crate::{
    Cdb,
    command::{Command, LunSelection, OpcodeQuery, PageControl, Transfer},
    opcode::{OtherForm, TransferForm},
    sense::Sense,
};

/// Kept out of the path of READ and WRITE, which it would only make longer.
#[inline(never)]
pub(crate) fn other(form: OtherForm, cdb: &Cdb) -> Result<Command, Sense> {
    Ok(match form {
        OtherForm::TestUnitReady => Command::TestUnitReady,
        OtherForm::RequestSense => {
            Command::RequestSense { descriptor_format: cdb[1] & 0x01 != 0, allocation_length: cdb[4] }
        }
        OtherForm::Inquiry => return inquiry(cdb),
        OtherForm::ModeSelect6 => return mode_select(cdb, false, cdb[4].into()),
        OtherForm::ModeSelect10 => return mode_select(cdb, true, be16(cdb, 7)),
        OtherForm::ModeSense6 => mode_sense(cdb, false, cdb[4].into()),
        OtherForm::ModeSense10 => mode_sense(cdb, true, be16(cdb, 7)),
        OtherForm::LogSense => return log_sense(cdb),
        OtherForm::StartStopUnit => Command::StartStopUnit { start: cdb[4] & 0x01 != 0, no_flush: cdb[4] & 0x04 != 0 },
        OtherForm::PreventAllow => Command::PreventAllowMediumRemoval,
        OtherForm::ReadCapacity10 => Command::ReadCapacity10,
        OtherForm::ReadCapacity16 => Command::ReadCapacity16 { allocation_length: be32(cdb, 10) },
        OtherForm::GetLbaStatus => Command::GetLbaStatus { lba: be64(cdb, 2), allocation_length: be32(cdb, 10) },
        OtherForm::Verify => Command::Verify {
            transfer: Transfer { fua: false, ..transfer(cdb) }, // bit 3 is reserved
            compare: compares(cdb)?,
        },
        OtherForm::WriteAndVerify => {
            Command::WriteAndVerify { transfer: Transfer { fua: true, ..transfer(cdb) }, compare: compares(cdb)? }
        }
        OtherForm::WriteSame => return write_same(cdb),
        OtherForm::CompareAndWrite => Command::CompareAndWrite(Transfer {
            blocks: cdb[13].into(), // the only 16-byte command with one byte for it
            ..transfer(cdb)
        }),
        OtherForm::Unmap => Command::Unmap { list_len: be16(cdb, 7) },
        OtherForm::PreFetch => {
            let Transfer { lba, blocks, .. } = transfer(cdb);
            Command::PreFetch { lba, blocks }
        }
        OtherForm::SynchronizeCache => {
            let Transfer { lba, blocks, .. } = transfer(cdb);
            Command::SynchronizeCache { lba, blocks }
        }
        OtherForm::ReportLuns => return report_luns(cdb),
        OtherForm::ReportSupportedOperationCodes => return report_supported_operation_codes(cdb),
        OtherForm::ReportSupportedTaskManagement => {
            Command::ReportSupportedTaskManagement { extended: cdb[2] & 0x80 != 0, allocation_length: be32(cdb, 6) }
        }
    })
}

fn transfer(cdb: &Cdb) -> Transfer {
    Transfer::decode(TransferForm::of(cdb[0]), cdb)
}

/// The refusal of a flag that is set in byte 1.
fn refuse_flag(cdb: &Cdb, bit: u8) -> Result<(), Sense> {
    if cdb[1] >> bit & 1 == 0 { Ok(()) } else { Err(Sense::invalid_field_in_cdb(1, Some(bit))) }
}

/// BYTCHK: 01b compares with the data-out. 11b, one block compared with all, is not supported, and 10b is reserved.
fn compares(cdb: &Cdb) -> Result<bool, Sense> {
    match cdb[1] >> 1 & 0b11 {
        0b00 => Ok(false),
        0b01 => Ok(true),
        _ => Err(Sense::invalid_field_in_cdb(1, Some(2))),
    }
}

/// WSNZ is 1: no blocks are an error, and not all that follow. Nothing can be anchored (ANC_SUP 0).
fn write_same(cdb: &Cdb) -> Result<Command, Sense> {
    refuse_flag(cdb, 4)?; // ANCHOR
    let form = TransferForm::of(cdb[0]);
    let transfer = Transfer::without_flags(form, cdb);
    let long = form == TransferForm::Sixteen;
    if transfer.blocks == 0 {
        return Err(Sense::invalid_field_in_cdb(if long { 10 } else { 7 }, None)); // NUMBER OF LOGICAL BLOCKS
    }
    let no_data_out = long && cdb[1] & 0x01 != 0;
    Ok(Command::WriteSame { transfer, unmap: cdb[1] & 0x08 != 0, no_data_out })
}

/// Nothing is saved (SP) and nothing is reverted on demand (RTD). Without PF the pages would be vendor specific.
fn mode_select(cdb: &Cdb, ten: bool, list_len: u16) -> Result<Command, Sense> {
    refuse_flag(cdb, 0)?; // SP
    refuse_flag(cdb, 1)?; // RTD
    if cdb[1] & 0x10 == 0 && list_len > 0 {
        return Err(Sense::invalid_field_in_cdb(1, Some(4)));
    }
    Ok(Command::ModeSelect { ten, list_len })
}

/// Nothing is saved (SP), and changed parameters only (PPC) cannot be told, obsolete as it is.
fn log_sense(cdb: &Cdb) -> Result<Command, Sense> {
    refuse_flag(cdb, 0)?; // SP
    refuse_flag(cdb, 1)?; // PPC
    Ok(Command::LogSense {
        page: cdb[2] & 0x3f,
        subpage: cdb[3],
        first_parameter: be16(cdb, 5),
        allocation_length: be16(cdb, 7),
    })
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
pub(crate) fn be16(cdb: &Cdb, at: usize) -> u16 {
    u16::from_be_bytes([cdb[at], cdb[at + 1]])
}

#[inline(always)]
pub(crate) fn be32(cdb: &Cdb, at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

#[inline(always)]
pub(crate) fn be64(cdb: &Cdb, at: usize) -> u64 {
    u64::from(be32(cdb, at)) << 32 | u64::from(be32(cdb, at + 4))
}
