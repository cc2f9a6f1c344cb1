//! The table of supported commands: what is supported, how long its CDB is, which bits are evaluated and which are
//! refused, which way data moves, who answers it. What the remaining bits mean stands in `command`; how the table is
//! reported to initiators stands in `supported_opcodes`.

use self::{OtherForm::*, TransferForm::*};
use crate::{CDB_LEN, Cdb, sense::Sense};

/// One supported command: a row of the table.
#[derive(Debug)]
pub struct Opcode {
    name: &'static str,
    usage: &'static [u8],
    /// Bits that must be zero because what they ask for does not exist here: of one byte, and of the CONTROL byte.
    refused: [Refused; 2],
    service_action: Option<u8>,
    direction: Direction,
    answered_by: Answer,
    despite_attention: bool,
    timeout_s: u32,
    /// Which decoder in `command` reads the rest.
    pub(crate) form: Form,
}

/// Bits of a byte of a CDB that are refused when set.
#[derive(Clone, Copy, Debug)]
struct Refused {
    byte: u8,
    bits: u8,
}

/// Which way the data of a command moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// No data.
    None,
    /// From the logical unit to the initiator.
    In,
    /// From the initiator to the logical unit.
    Out,
}

/// Who answers a command with something other than a refusal. Each includes the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Answer {
    /// Logical units only.
    Unit,
    /// The REPORT LUNS well-known logical unit as well.
    WellKnown,
    /// Even a LUN that does not exist (SAM-6, incorrect logical unit numbers).
    Absent,
}

/// How a CDB is laid out: one arm in `command` each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// READ of one of the lengths.
    Read(TransferForm),
    /// WRITE of one of the lengths.
    Write(TransferForm),
    /// Any other command.
    Other(OtherForm),
}

/// Where the LBA and the number of blocks stand: by the length of the CDB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TransferForm {
    Six,
    Ten,
    Twelve,
    Sixteen,
}

/// The commands that do not move blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OtherForm {
    TestUnitReady,
    RequestSense,
    Inquiry,
    ModeSense6,
    ModeSense10,
    StartStopUnit,
    ReadCapacity10,
    ReadCapacity16,
    SynchronizeCache10,
    SynchronizeCache16,
    ReportLuns,
    ReportSupportedOperationCodes,
}

impl Opcode {
    /// OPERATION CODE.
    pub const fn code(&self) -> u8 {
        self.usage[0]
    }

    /// SERVICE ACTION (bits 4 to 0 of byte 1), for an operation code that has them.
    pub const fn service_action(&self) -> Option<u8> {
        self.service_action
    }

    /// The name in the standard.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// CDB usage data (SPC-5, REPORT SUPPORTED OPERATION CODES): the operation code, the service action, and ones in
    /// every other bit that is evaluated, if only to be refused. Its length is the CDB's.
    pub const fn usage(&self) -> &'static [u8] {
        self.usage
    }

    /// Which way data moves, if any does.
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// How long an initiator should wait for it before it suspects a fault, in seconds.
    pub const fn timeout_s(&self) -> u32 {
        self.timeout_s
    }

    /// Refuses a CDB that asks for what does not exist here: protection information, ACA, power conditions. Reserved
    /// and obsolete bits are ignored, which the standard allows and old initiators need (SPC-5, reserved fields).
    #[inline]
    pub(crate) fn check(&self, cdb: &Cdb) -> Result<(), Sense> {
        let [first, control] = &self.refused;
        if first.bits_in(cdb) | control.bits_in(cdb) == 0 { Ok(()) } else { Err(self.refusal(cdb)) }
    }

    /// INVALID FIELD IN CDB, pointing at the first field with a refused bit.
    #[cold]
    fn refusal(&self, cdb: &Cdb) -> Sense {
        let field = self.refused.iter().find(|refused| refused.bits_in(cdb) != 0);
        field.map_or(Sense::INVALID_FIELD_IN_CDB, |refused| {
            Sense::invalid_field_in_cdb(refused.byte.into(), Some(refused.leftmost_bit(cdb)))
        })
    }

    pub(crate) const fn answered_by(&self) -> Answer {
        self.answered_by
    }
}

/// Building rows, at compile time.
impl Opcode {
    /// A command for logical units, without service action; `usage` is its CDB usage data.
    const fn new(form: Form, name: &'static str, direction: Direction, usage: &'static [u8]) -> Opcode {
        assert!(usage.len() >= 6 && usage.len() <= USAGE_LEN_MAX);
        Opcode {
            name,
            usage,
            refused: [Refused { byte: 0, bits: 0 }, Refused { byte: usage.len() as u8 - 1, bits: NACA }],
            service_action: None,
            direction,
            answered_by: Answer::Unit,
            despite_attention: false,
            timeout_s: 30,
            form,
        }
    }

    /// Bits of one byte that are refused when set, besides NACA; they count as evaluated.
    const fn refuse(mut self, byte: u8, bits: u8) -> Opcode {
        assert!(self.usage[byte as usize] & bits == bits);
        assert!(self.refused[0].bits == 0, "one byte per row");
        self.refused[0] = Refused { byte, bits };
        self
    }

    /// The service action that `usage` states in byte 1.
    const fn with_service_action(mut self) -> Opcode {
        self.service_action = Some(self.usage[1] & SERVICE_ACTION_MASK);
        self
    }

    const fn answered_by_well_known(mut self) -> Opcode {
        self.answered_by = Answer::WellKnown;
        self
    }

    /// Answered whoever is addressed and whatever happened: INQUIRY, REPORT LUNS, REQUEST SENSE (SAM-6).
    const fn always_answered(mut self) -> Opcode {
        self.answered_by = Answer::Absent;
        self.despite_attention = true;
        self
    }

    const fn timeout(mut self, timeout_s: u32) -> Opcode {
        self.timeout_s = timeout_s;
        self
    }
}

impl Refused {
    #[inline]
    fn bits_in(&self, cdb: &Cdb) -> u8 {
        cdb[usize::from(self.byte) % CDB_LEN] & self.bits // always below CDB_LEN
    }

    /// BIT POINTER wants the leftmost bit of a field, which need not be set. Refused bits side by side are one field.
    fn leftmost_bit(&self, cdb: &Cdb) -> u8 {
        let set = |bit: u8, bits: u8| bits >> bit & 1 == 1;
        let mut bit = (0..8).rev().find(|&bit| set(bit, self.bits_in(cdb))).unwrap_or(0);
        while bit < 7 && set(bit + 1, self.bits) {
            bit += 1;
        }
        bit
    }
}

/// Every supported command, in the order of operation code and service action.
pub fn opcodes() -> &'static [Opcode] {
    &TABLE
}

/// Whether a pending unit attention is reported instead of this command: not for INQUIRY, REPORT LUNS and REQUEST SENSE
/// (SAM-6, unit attention conditions). An operation code that is not supported reports it too.
#[inline]
pub fn reports_unit_attention(opcode: u8) -> bool {
    rows_of(opcode).first().is_none_or(|row| !row.despite_attention)
}

/// The row of a CDB, by operation code and, where there is one, service action.
///
/// An unknown operation code is INVALID COMMAND OPERATION CODE; an unknown service action of a known one is INVALID
/// FIELD IN CDB, pointing at it.
#[inline]
pub(crate) fn find(cdb: &Cdb) -> Result<&'static Opcode, Sense> {
    match TABLE.get(usize::from(FIRST_ROW[usize::from(cdb[0])])) {
        Some(row) if row.service_action.is_none() => Ok(row),
        Some(_) => find_service_action(cdb),
        None => Err(Sense::INVALID_OPCODE),
    }
}

#[cold]
fn find_service_action(cdb: &Cdb) -> Result<&'static Opcode, Sense> {
    let action = cdb[1] & SERVICE_ACTION_MASK;
    let mut rows = rows_of(cdb[0]).iter();
    rows.find(|row| row.service_action == Some(action)).ok_or(Sense::invalid_field_in_cdb(1, Some(4)))
}

/// The rows of an operation code: none, one, or one for each service action.
pub(crate) fn rows_of(code: u8) -> &'static [Opcode] {
    let rows = TABLE.get(usize::from(FIRST_ROW[usize::from(code)])..).unwrap_or_default();
    let len = rows.iter().take_while(|row| row.code() == code).count();
    &rows[..len]
}

/// Longest CDB of any row.
const USAGE_LEN_MAX: usize = 16;
/// NACA in the CONTROL byte: NORMACA is 0, so ACA cannot be asked for (SAM-6, CONTROL byte).
const NACA: u8 = 0x04;
const SERVICE_ACTION_MASK: u8 = 0x1f;
/// RDPROTECT and WRPROTECT: there is no protection information (SBC-4, READ(10)).
const PROTECT: u8 = 0xe0;
/// CMDDT, obsolete since SPC-3: to ignore it would return data that was not asked for.
const CMDDT: u8 = 0x02;
/// POWER CONDITION and LOEJ of START STOP UNIT: there are no power conditions, and nothing to eject.
const POWER_CONDITION: u8 = 0xf0;
const LOEJ: u8 = 0x02;

#[rustfmt::skip] // one line of facts, one line of CDB usage data
static TABLE: [Opcode; 20] = [
    Opcode::new(Form::Other(TestUnitReady), "TEST UNIT READY", Direction::None,
        &[0x00, 0, 0, 0, 0, NACA]).answered_by_well_known(),
    Opcode::new(Form::Other(RequestSense), "REQUEST SENSE", Direction::In,
        &[0x03, 0x01, 0, 0, 0xff, NACA]).always_answered(),
    Opcode::new(Form::Read(Six), "READ(6)", Direction::In,
        &[0x08, 0x1f, 0xff, 0xff, 0xff, NACA]),
    Opcode::new(Form::Write(Six), "WRITE(6)", Direction::Out,
        &[0x0a, 0x1f, 0xff, 0xff, 0xff, NACA]),
    Opcode::new(Form::Other(Inquiry), "INQUIRY", Direction::In,
        &[0x12, 0x01 | CMDDT, 0xff, 0xff, 0xff, NACA]).refuse(1, CMDDT).always_answered(),
    Opcode::new(Form::Other(ModeSense6), "MODE SENSE(6)", Direction::In,
        &[0x1a, 0x08, 0xff, 0xff, 0xff, NACA]),
    Opcode::new(Form::Other(StartStopUnit), "START STOP UNIT", Direction::None,
        &[0x1b, 0, 0, 0, 0x05 | POWER_CONDITION | LOEJ, NACA]).refuse(4, POWER_CONDITION | LOEJ).timeout(60),
    Opcode::new(Form::Other(ReadCapacity10), "READ CAPACITY(10)", Direction::In,
        &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, NACA]),
    Opcode::new(Form::Read(Ten), "READ(10)", Direction::In,
        &[0x28, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Write(Ten), "WRITE(10)", Direction::Out,
        &[0x2a, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Other(SynchronizeCache10), "SYNCHRONIZE CACHE(10)", Direction::None,
        &[0x35, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).timeout(60),
    Opcode::new(Form::Other(ModeSense10), "MODE SENSE(10)", Direction::In,
        &[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, NACA]),
    Opcode::new(Form::Read(Sixteen), "READ(16)", Direction::In,
        &[0x88, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Write(Sixteen), "WRITE(16)", Direction::Out,
        &[0x8a, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Other(SynchronizeCache16), "SYNCHRONIZE CACHE(16)", Direction::None,
        &[0x91, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).timeout(60),
    Opcode::new(Form::Other(ReadCapacity16), "READ CAPACITY(16)", Direction::In,
        &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]).with_service_action(),
    Opcode::new(Form::Other(ReportLuns), "REPORT LUNS", Direction::In,
        &[0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]).always_answered(),
    Opcode::new(Form::Other(ReportSupportedOperationCodes), "REPORT SUPPORTED OPERATION CODES", Direction::In,
        &[0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).with_service_action(),
    Opcode::new(Form::Read(Twelve), "READ(12)", Direction::In,
        &[0xa8, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Write(Twelve), "WRITE(12)", Direction::Out,
        &[0xaa, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT),
];

/// First row of each operation code; `NO_ROW` where there is none.
static FIRST_ROW: [u8; 256] = first_rows();
const NO_ROW: u8 = u8::MAX;

/// Also proves, at compile time, that rows are sorted and unique.
const fn first_rows() -> [u8; 256] {
    let mut first = [NO_ROW; 256];
    assert!(TABLE.len() < NO_ROW as usize);
    let mut row = TABLE.len();
    while row > 0 {
        row -= 1;
        assert!(row == 0 || sort_key(&TABLE[row - 1]) < sort_key(&TABLE[row]));
        first[TABLE[row].usage[0] as usize] = row as u8;
    }
    first
}

const fn sort_key(row: &Opcode) -> u16 {
    let action = match row.service_action {
        Some(action) => action as u16,
        None => 0,
    };
    (row.usage[0] as u16) << 8 | action
}

#[cfg(test)]
#[path = "opcode_tests.rs"]
mod tests;
