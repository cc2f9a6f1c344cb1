//! The rows: every command that a logical unit may support, its CDB usage data, and what is refused outright. What a row
//! means stands in `opcode.rs`.

use super::{Direction, Feature, Form, NACA, Opcode, OtherForm::*, TransferForm::*};

/// RDPROTECT, WRPROTECT, VRPROTECT: there is no protection information (SBC-4, READ(10)).
pub(super) const PROTECT: u8 = 0xe0;
/// CMDDT, obsolete since SPC-3: to ignore it would return data that was not asked for.
const CMDDT: u8 = 0x02;
/// POWER CONDITION and LOEJ of START STOP UNIT: there are no power conditions, and nothing to eject.
const POWER_CONDITION: u8 = 0xf0;
const LOEJ: u8 = 0x02;
/// The upper bit of PREVENT, obsolete since SPC-4: removal from a medium changer, of which there is none.
const PREVENT_CHANGER: u8 = 0x02;
/// BYTCHK of VERIFY and WRITE AND VERIFY.
const BYTCHK: u8 = 0x06;
/// ANCHOR and UNMAP of WRITE SAME.
const ANCHOR_UNMAP: u8 = 0x18;
/// PBDATA and LBDATA of WRITE SAME, obsolete since SBC-3: to ignore them would write data that was not asked for.
const PBDATA_LBDATA: u8 = 0x06;
/// NDOB of WRITE SAME (16).
const NDOB: u8 = 0x01;
/// ANCHOR of UNMAP: no block can be anchored (ANC_SUP 0).
const UNMAP_ANCHOR: u8 = 0x01;
/// PF of MODE SELECT.
const PF: u8 = 0x10;
/// RTD and SP of MODE SELECT.
const RTD_SP: u8 = 0x03;
/// PPC and SP of LOG SENSE.
const PPC_SP: u8 = 0x03;

#[rustfmt::skip] // one line of facts, one line of CDB usage data
pub(super) static TABLE: [Opcode; 38] = [
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
    Opcode::new(Form::Other(ModeSelect6), "MODE SELECT(6)", Direction::Out,
        &[0x15, PF | RTD_SP, 0, 0, 0xff, NACA]),
    Opcode::new(Form::Other(ModeSense6), "MODE SENSE(6)", Direction::In,
        &[0x1a, 0x08, 0xff, 0xff, 0xff, NACA]),
    Opcode::new(Form::Other(StartStopUnit), "START STOP UNIT", Direction::None,
        &[0x1b, 0, 0, 0, 0x05 | POWER_CONDITION | LOEJ, NACA]).refuse(4, POWER_CONDITION | LOEJ).timeout(60),
    Opcode::new(Form::Other(PreventAllow), "PREVENT ALLOW MEDIUM REMOVAL", Direction::None,
        &[0x1e, 0, 0, 0, PREVENT_CHANGER, NACA]).refuse(4, PREVENT_CHANGER),
    Opcode::new(Form::Other(ReadCapacity10), "READ CAPACITY(10)", Direction::In,
        &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, NACA]),
    Opcode::new(Form::Read(Ten), "READ(10)", Direction::In,
        &[0x28, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Write(Ten), "WRITE(10)", Direction::Out,
        &[0x2a, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Other(WriteAndVerify), "WRITE AND VERIFY(10)", Direction::Out,
        &[0x2e, 0x10 | BYTCHK | PROTECT, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).refuse(1, PROTECT).needs(Feature::Verify),
    Opcode::new(Form::Other(Verify), "VERIFY(10)", Direction::Out,
        &[0x2f, 0x10 | BYTCHK | PROTECT, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).refuse(1, PROTECT).needs(Feature::Verify),
    Opcode::new(Form::Other(PreFetch), "PRE-FETCH(10)", Direction::None,
        &[0x34, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]),
    Opcode::new(Form::Other(SynchronizeCache), "SYNCHRONIZE CACHE(10)", Direction::None,
        &[0x35, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).timeout(60),
    Opcode::new(Form::Other(WriteSame), "WRITE SAME(10)", Direction::Out,
        &[0x41, ANCHOR_UNMAP | PBDATA_LBDATA | PROTECT, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]).refuse(1, PBDATA_LBDATA | PROTECT).needs(Feature::WriteSame).timeout(60),
    Opcode::new(Form::Other(Unmap), "UNMAP", Direction::Out,
        &[0x42, UNMAP_ANCHOR, 0, 0, 0, 0, 0, 0xff, 0xff, NACA]).refuse(1, UNMAP_ANCHOR).needs(Feature::Unmap).timeout(60),
    Opcode::new(Form::Other(LogSense), "LOG SENSE", Direction::In,
        &[0x4d, PPC_SP, 0x3f, 0xff, 0, 0xff, 0xff, 0xff, 0xff, NACA]),
    Opcode::new(Form::Other(ModeSelect10), "MODE SELECT(10)", Direction::Out,
        &[0x55, PF | RTD_SP, 0, 0, 0, 0, 0, 0xff, 0xff, NACA]),
    Opcode::new(Form::Other(ModeSense10), "MODE SENSE(10)", Direction::In,
        &[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, NACA]),
    Opcode::new(Form::Read(Sixteen), "READ(16)", Direction::In,
        &[0x88, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Other(CompareAndWrite), "COMPARE AND WRITE", Direction::Out,
        &[0x89, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, NACA]).refuse(1, PROTECT).needs(Feature::CompareAndWrite),
    Opcode::new(Form::Write(Sixteen), "WRITE(16)", Direction::Out,
        &[0x8a, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Other(WriteAndVerify), "WRITE AND VERIFY(16)", Direction::Out,
        &[0x8e, 0x10 | BYTCHK | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT).needs(Feature::Verify),
    Opcode::new(Form::Other(Verify), "VERIFY(16)", Direction::Out,
        &[0x8f, 0x10 | BYTCHK | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT).needs(Feature::Verify),
    Opcode::new(Form::Other(PreFetch), "PRE-FETCH(16)", Direction::None,
        &[0x90, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    Opcode::new(Form::Other(SynchronizeCache), "SYNCHRONIZE CACHE(16)", Direction::None,
        &[0x91, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).timeout(60),
    Opcode::new(Form::Other(WriteSame), "WRITE SAME(16)", Direction::Out,
        &[0x93, ANCHOR_UNMAP | PBDATA_LBDATA | NDOB | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PBDATA_LBDATA | PROTECT).needs(Feature::WriteSame).timeout(60),
    Opcode::new(Form::Other(ReadCapacity16), "READ CAPACITY(16)", Direction::In,
        &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]).with_service_action(),
    Opcode::new(Form::Other(GetLbaStatus), "GET LBA STATUS", Direction::In,
        &[0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).with_service_action().needs(Feature::LbaStatus),
    Opcode::new(Form::Other(ReportLuns), "REPORT LUNS", Direction::In,
        &[0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]).always_answered(),
    Opcode::new(Form::Other(ReportSupportedOperationCodes), "REPORT SUPPORTED OPERATION CODES", Direction::In,
        &[0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).with_service_action(),
    Opcode::new(Form::Other(ReportSupportedTaskManagement), "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", Direction::In,
        &[0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]).with_service_action(),
    Opcode::new(Form::Read(Twelve), "READ(12)", Direction::In,
        &[0xa8, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Write(Twelve), "WRITE(12)", Direction::Out,
        &[0xaa, 0x18 | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT),
    Opcode::new(Form::Other(WriteAndVerify), "WRITE AND VERIFY(12)", Direction::Out,
        &[0xae, 0x10 | BYTCHK | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT).needs(Feature::Verify),
    Opcode::new(Form::Other(Verify), "VERIFY(12)", Direction::Out,
        &[0xaf, 0x10 | BYTCHK | PROTECT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]).refuse(1, PROTECT).needs(Feature::Verify),
];

/// First row of each operation code; `NO_ROW` where there is none.
pub(super) static FIRST_ROW: [u8; 256] = first_rows();
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

/// The fast path multiplies by it: 48 is two cheap instructions, 56 is not.
const _: () = assert!(size_of::<Opcode>() == 48);
