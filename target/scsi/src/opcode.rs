//! What a row of the table of commands says, and how a row is found. The rows stand in `opcode/table.rs`; what the
//! remaining bits of a CDB mean stands in `command`; how the table is reported to initiators stands in
//! `supported_opcodes`.

use self::table::{FIRST_ROW, TABLE};
use crate::{CDB_LEN, Cdb, sense::Sense};

mod table;

/// A command that this crate knows: a row of the table. Whether a logical unit supports it depends on its
/// [`feature`](Opcode::feature).
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
    feature: Feature,
    timeout_s: u16,
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

/// What a logical unit must be able to do for a command to be supported. Which of these it is able to do stands in its
/// configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// Nothing: every logical unit supports the command.
    Always,
    /// Reading back and comparing what is on the medium: VERIFY, WRITE AND VERIFY.
    Verify,
    /// One block written to many: WRITE SAME.
    WriteSame,
    /// Giving up blocks: UNMAP.
    Unmap,
    /// COMPARE AND WRITE.
    CompareAndWrite,
    /// Knowing which blocks are there: GET LBA STATUS.
    LbaStatus,
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

/// The commands that are not READ or WRITE. No data in the variants: telling READ and WRITE apart from them would cost
/// the fast path more. Where a form has several lengths, the operation code [tells](TransferForm::of) which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OtherForm {
    TestUnitReady,
    RequestSense,
    Inquiry,
    ModeSelect6,
    ModeSelect10,
    ModeSense6,
    ModeSense10,
    LogSense,
    StartStopUnit,
    PreventAllow,
    ReadCapacity10,
    ReadCapacity16,
    GetLbaStatus,
    Verify,
    WriteAndVerify,
    WriteSame,
    CompareAndWrite,
    Unmap,
    PreFetch,
    SynchronizeCache,
    ReportLuns,
    ReportSupportedOperationCodes,
    ReportSupportedTaskManagement,
}

impl TransferForm {
    /// The form that operation codes of this group have (SPC-5, operation code): the top three bits are the group.
    pub(crate) fn of(code: u8) -> TransferForm {
        match code >> 5 {
            0 => TransferForm::Six,
            4 => TransferForm::Sixteen,
            5 => TransferForm::Twelve,
            _ => TransferForm::Ten,
        }
    }
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

    /// What a logical unit must be able to do to support it.
    pub const fn feature(&self) -> Feature {
        self.feature
    }

    /// How long an initiator should wait for it before it suspects a fault, in seconds.
    pub const fn timeout_s(&self) -> u16 {
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

    /// How a logical unit refuses it that is not able to do it: just as if there were no such row.
    pub(crate) const fn unsupported(&self) -> Sense {
        match self.service_action {
            None => Sense::INVALID_OPCODE,
            Some(_) => NO_SUCH_SERVICE_ACTION,
        }
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
            feature: Feature::Always,
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

    const fn needs(mut self, feature: Feature) -> Opcode {
        self.feature = feature;
        self
    }

    const fn timeout(mut self, timeout_s: u16) -> Opcode {
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

/// Every command that this crate knows, in the order of operation code and service action.
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
    rows.find(|row| row.service_action == Some(action)).ok_or(NO_SUCH_SERVICE_ACTION)
}

/// Whether a READ or WRITE of ten or more bytes has a refused bit, in its second byte or in CONTROL: what their rows
/// say, for who does not look at them.
#[inline(always)]
pub(crate) fn asks_for_more(flags: u8, control: u8) -> bool {
    (flags & table::PROTECT) | (control & NACA) != 0
}

const NO_SUCH_SERVICE_ACTION: Sense = Sense::invalid_field_in_cdb(1, Some(4));

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

#[cfg(test)]
#[path = "opcode_tests.rs"]
mod tests;
