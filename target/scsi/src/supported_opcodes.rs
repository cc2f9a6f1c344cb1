//! REPORT SUPPORTED OPERATION CODES parameter data (SPC-5), made from the table in `opcode` that also decides support:
//! what the logical unit is not able to do is not in it.

use alloc::vec::Vec;

use crate::{
    command::OpcodeQuery,
    opcode::{self, Opcode},
    sense::Sense,
    unit::LogicalUnit,
};

/// Appends the whole answer; `out` must be empty.
///
/// An operation code with service actions where none is asked for, or the other way round, is INVALID FIELD IN CDB; one
/// that is not supported is answered as such.
pub(crate) fn append(unit: &LogicalUnit, query: OpcodeQuery, timeouts: bool, out: &mut Vec<u8>) -> Result<(), Sense> {
    const CONTRADICTION: Sense = Sense::invalid_field_in_cdb(2, Some(2)); // REPORTING OPTIONS
    let row = match query {
        OpcodeQuery::All => {
            append_all(unit, timeouts, out);
            return Ok(());
        }
        OpcodeQuery::Code(code) => match rows_of(unit, code).next() {
            Some(row) if row.service_action().is_some() => return Err(CONTRADICTION),
            row => row,
        },
        OpcodeQuery::CodeWithAction(code, action) => match rows_of(unit, code).next() {
            Some(row) if row.service_action().is_none() => return Err(CONTRADICTION),
            _ => with_action(unit, code, action),
        },
        OpcodeQuery::CodeAndAction(code, action) => with_action(unit, code, action),
    };
    append_one(row, timeouts, out);
    Ok(())
}

/// The rows of an operation code that the unit supports.
fn rows_of(unit: &LogicalUnit, code: u8) -> impl Iterator<Item = &'static Opcode> {
    opcode::rows_of(code).iter().filter(|row| unit.has(row.feature()))
}

/// The row with this service action; a command without one counts as 0.
fn with_action(unit: &LogicalUnit, code: u8, action: u16) -> Option<&'static Opcode> {
    rows_of(unit, code).find(|row| u16::from(row.service_action().unwrap_or(0)) == action)
}

/// All_commands parameter data: a command descriptor for each row.
fn append_all(unit: &LogicalUnit, timeouts: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
    for row in opcode::opcodes().iter().filter(|row| unit.has(row.feature())) {
        let action = row.service_action().unwrap_or(0);
        let timeouts_present = if timeouts { 0x02 } else { 0x00 }; // CTDP
        let has_action = u8::from(row.service_action().is_some()); // SERVACTV
        out.extend_from_slice(&[row.code(), 0, 0, action, 0, timeouts_present | has_action]);
        out.extend_from_slice(&cdb_len(row));
        if timeouts {
            append_timeouts(row, out);
        }
    }
    let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_be_bytes()); // COMMAND DATA LENGTH
}

/// One_command parameter data. Not supported: SUPPORT 001b, and nothing further is defined.
fn append_one(row: Option<&Opcode>, timeouts: bool, out: &mut Vec<u8>) {
    const NOT_SUPPORTED: u8 = 0x01;
    const AS_STANDARD: u8 = 0x03;
    let Some(row) = row else {
        out.extend_from_slice(&[0, NOT_SUPPORTED, 0, 0]);
        return;
    };
    let timeouts_present = if timeouts { 0x80 } else { 0x00 }; // CTDP
    out.extend_from_slice(&[0, timeouts_present | AS_STANDARD]);
    out.extend_from_slice(&cdb_len(row));
    out.extend_from_slice(row.usage());
    if timeouts {
        append_timeouts(row, out);
    }
}

fn cdb_len(row: &Opcode) -> [u8; 2] {
    u16::try_from(row.usage().len()).unwrap_or(u16::MAX).to_be_bytes() // 6 to 16
}

/// Command timeouts descriptor: no nominal processing time, a recommended timeout in seconds.
fn append_timeouts(row: &Opcode, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x00, 0x0a, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&u32::from(row.timeout_s()).to_be_bytes());
}
