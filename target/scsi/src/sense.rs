//! Sense data: why a command ended in CHECK CONDITION, and its two wire formats. Unit attentions, which become sense
//! data only when they are reported, stand in `unit_attention`.

use core::{fmt, ops::Deref};

/// Sense key, additional sense code and qualifier, with what else is known about the fault (SPC-5 §4.4).
///
/// Equality compares everything, the field pointer included; compare [`code`](Sense::code) where only the three codes
/// matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// SENSE KEY, 0h to Fh.
    pub key: u8,
    /// ADDITIONAL SENSE CODE.
    pub asc: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    pub ascq: u8,
    /// Which field of the CDB or parameter list was at fault, for ILLEGAL REQUEST.
    pub pointer: Option<FieldPointer>,
    /// INFORMATION: for a medium error, the first block that could not be transferred, if it fits 32 bits; for a
    /// miscompare, the offset of the first byte that differs. (Wider, it would make every answer on the hot path so.)
    pub information: Option<u32>,
}

/// Field pointer sense-key-specific data (SPC-5 §4.4.2.4.2): where the first field in error stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldPointer {
    /// C/D: the field is in the CDB (`true`) or in the data-out parameter list (`false`).
    pub in_cdb: bool,
    /// Offset of the first byte of the field.
    pub byte: u16,
    /// BIT POINTER: the leftmost bit of the field, 7 to 0; `None` where the field is whole bytes.
    pub bit: Option<u8>,
}

impl Sense {
    /// NO SENSE: nothing to report.
    pub const NO_SENSE: Sense = Sense::new(0x00, 0x00, 0x00);
    /// MEDIUM ERROR, UNRECOVERED READ ERROR.
    pub const UNRECOVERED_READ_ERROR: Sense = Sense::new(0x03, 0x11, 0x00);
    /// MEDIUM ERROR, WRITE ERROR.
    pub const WRITE_ERROR: Sense = Sense::new(0x03, 0x0c, 0x00);
    /// HARDWARE ERROR, INTERNAL TARGET FAILURE.
    pub const INTERNAL_TARGET_FAILURE: Sense = Sense::new(0x04, 0x44, 0x00);
    /// ILLEGAL REQUEST, PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH_ERROR: Sense = Sense::new(0x05, 0x1a, 0x00);
    /// ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPCODE: Sense = Sense::new(0x05, 0x20, 0x00);
    /// ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: Sense = Sense::new(0x05, 0x21, 0x00);
    /// ILLEGAL REQUEST, INVALID FIELD IN CDB.
    pub const INVALID_FIELD_IN_CDB: Sense = Sense::new(0x05, 0x24, 0x00);
    /// ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED.
    pub const LU_NOT_SUPPORTED: Sense = Sense::new(0x05, 0x25, 0x00);
    /// ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_FIELD_IN_PARAMETER_LIST: Sense = Sense::new(0x05, 0x26, 0x00);
    /// ILLEGAL REQUEST, SAVING PARAMETERS NOT SUPPORTED.
    pub const SAVING_PARAMETERS_NOT_SUPPORTED: Sense = Sense::new(0x05, 0x39, 0x00);
    /// ILLEGAL REQUEST, INVALID MESSAGE ERROR: a task attribute that is not supported.
    pub const INVALID_MESSAGE_ATTRIBUTE: Sense = Sense::new(0x05, 0x49, 0x00);
    /// DATA PROTECT, WRITE PROTECTED.
    pub const WRITE_PROTECTED: Sense = Sense::new(0x07, 0x27, 0x00);
    /// DATA PROTECT, LOGICAL UNIT SOFTWARE WRITE PROTECTED: the initiator's own doing (SWP of the control mode page).
    pub const SOFTWARE_WRITE_PROTECTED: Sense = Sense::new(0x07, 0x27, 0x02);
    /// ABORTED COMMAND, NO ADDITIONAL SENSE INFORMATION: a fault that a retry may get past.
    pub const ABORTED_COMMAND: Sense = Sense::new(0x0b, 0x00, 0x00);

    /// Bytes of [`fixed`](Sense::fixed).
    pub const FIXED_LEN: usize = 18;
    /// Most bytes of [`descriptor`](Sense::descriptor): a header, an information and a sense-key-specific descriptor.
    pub const DESCRIPTOR_LEN_MAX: usize = 8 + 12 + 8;

    /// Sense data of three codes and nothing else.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Sense {
        Sense { key, asc, ascq, pointer: None, information: None }
    }

    /// INVALID FIELD IN CDB that points at the field: its first byte, and its leftmost bit where it is not whole bytes.
    pub const fn invalid_field_in_cdb(byte: u16, bit: Option<u8>) -> Sense {
        Sense { pointer: Some(FieldPointer { in_cdb: true, byte, bit }), ..Sense::INVALID_FIELD_IN_CDB }
    }

    /// INVALID FIELD IN PARAMETER LIST that points at the field.
    pub const fn invalid_field_in_parameter_list(byte: u16, bit: Option<u8>) -> Sense {
        Sense { pointer: Some(FieldPointer { in_cdb: false, byte, bit }), ..Sense::INVALID_FIELD_IN_PARAMETER_LIST }
    }

    /// MISCOMPARE, MISCOMPARE DURING VERIFY OPERATION; the first byte that differs has this offset in the data-out
    /// buffer (SBC-4, COMPARE AND WRITE and VERIFY).
    pub const fn miscompare(offset: u64) -> Sense {
        Sense::new(0x0e, 0x1d, 0x00).with_information(offset)
    }

    /// The same sense with an INFORMATION field. What needs more than the four bytes of fixed format is left out, as
    /// the standard has it (VALID 0).
    pub const fn with_information(self, information: u64) -> Sense {
        let fits = information <= u32::MAX as u64;
        Sense { information: if fits { Some(information as u32) } else { None }, ..self }
    }

    /// (sense key, ASC, ASCQ).
    pub const fn code(&self) -> (u8, u8, u8) {
        (self.key, self.asc, self.ascq)
    }

    /// Fixed format, current error (SPC-5 §4.4.3): what autosense carries unless
    /// [`descriptor_sense`](crate::LogicalUnit::descriptor_sense).
    pub fn fixed(&self) -> [u8; Sense::FIXED_LEN] {
        let mut bytes = [0; Sense::FIXED_LEN];
        bytes[0] = 0x70;
        bytes[2] = self.key & 0x0f;
        if let Some(information) = self.information {
            bytes[0] |= 0x80; // VALID
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[7] = 0x0a; // ADDITIONAL SENSE LENGTH: what follows byte 7
        bytes[12] = self.asc;
        bytes[13] = self.ascq;
        if let Some(pointer) = self.pointer {
            bytes[15..18].copy_from_slice(&pointer.bytes());
        }
        bytes
    }

    /// Descriptor format, current error (SPC-5 §4.4.2): what autosense carries when D_SENSE is 1, and REQUEST SENSE
    /// for DESC = 1.
    pub fn descriptor(&self) -> SenseBytes {
        let mut bytes = SenseBytes { bytes: [0; Sense::DESCRIPTOR_LEN_MAX], len: 0 };
        bytes.append(&[0x72, self.key & 0x0f, self.asc, self.ascq, 0, 0, 0, 0]);
        if let Some(information) = self.information {
            bytes.append(&[0x00, 0x0a, 0x80, 0x00]); // information descriptor, VALID
            bytes.append(&u64::from(information).to_be_bytes());
        }
        if let Some(pointer) = self.pointer {
            let [flags, high, low] = pointer.bytes();
            bytes.append(&[0x02, 0x06, 0x00, 0x00, flags, high, low, 0x00]); // sense-key-specific descriptor
        }
        bytes.bytes[7] = bytes.len - 8; // ADDITIONAL SENSE LENGTH
        bytes
    }

    /// Descriptor or fixed format.
    pub fn bytes(&self, descriptor_format: bool) -> SenseBytes {
        if descriptor_format {
            return self.descriptor();
        }
        let mut bytes = SenseBytes { bytes: [0; Sense::DESCRIPTOR_LEN_MAX], len: 0 };
        bytes.append(&self.fixed());
        bytes
    }
}

/// Sense data as it goes on the wire: dereferences to its bytes.
#[derive(Clone, Copy, Debug)]
pub struct SenseBytes {
    bytes: [u8; Sense::DESCRIPTOR_LEN_MAX],
    len: u8,
}

impl SenseBytes {
    fn append(&mut self, part: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + part.len()].copy_from_slice(part);
        self.len += part.len() as u8; // all parts fit DESCRIPTOR_LEN_MAX
    }
}

impl Deref for SenseBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl FieldPointer {
    /// SKSV, C/D, BPV, BIT POINTER; FIELD POINTER.
    fn bytes(&self) -> [u8; 3] {
        let in_cdb = if self.in_cdb { 0x40 } else { 0x00 };
        let bit = self.bit.map_or(0x00, |bit| 0x08 | (bit & 0x07));
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | in_cdb | bit, high, low]
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}h/{:02X}h/{:02X}h", self.key, self.asc, self.ascq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn fixed_plain_code_is_18_bytes_of_response_code_70h() {
        assert_eq!(
            Sense::LU_NOT_SUPPORTED.fixed(),
            [0x70, 0, 0x05, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0x25, 0x00, 0, 0, 0, 0]
        );
    }

    #[test]
    fn fixed_field_pointer_sets_sksv_and_cd_and_bpv() {
        let sense = Sense::invalid_field_in_cdb(0x0102, Some(4));
        assert_eq!(sense.fixed()[12..], [0x24, 0x00, 0x00, 0xcc, 0x01, 0x02]);
        let whole_byte = Sense::invalid_field_in_cdb(2, None);
        assert_eq!(whole_byte.fixed()[15..], [0xc0, 0x00, 0x02]);
        let parameter = FieldPointer { in_cdb: false, byte: 9, bit: Some(0) };
        assert_eq!(parameter.bytes(), [0x88, 0x00, 0x09]);
    }

    #[test]
    fn fixed_information_sets_valid_only_if_it_fits() {
        let sense = Sense::UNRECOVERED_READ_ERROR.with_information(0xdead_beef).fixed();
        assert_eq!(sense[..8], [0xf0, 0, 0x03, 0xde, 0xad, 0xbe, 0xef, 0x0a]);
        let sense = Sense::UNRECOVERED_READ_ERROR.with_information(0x1_0000_0000).fixed();
        assert_eq!(sense[..8], [0x70, 0, 0x03, 0, 0, 0, 0, 0x0a]);
    }

    #[test]
    fn descriptor_carries_information_and_pointer() {
        assert_eq!(*Sense::NO_SENSE.descriptor(), [0x72, 0, 0, 0, 0, 0, 0, 0]);
        let sense = Sense::invalid_field_in_cdb(1, Some(7)).with_information(5).descriptor();
        assert_eq!(sense[..8], [0x72, 0x05, 0x24, 0x00, 0, 0, 0, 20]);
        assert_eq!(sense[8..20], [0x00, 0x0a, 0x80, 0x00, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(sense[20..], [0x02, 0x06, 0x00, 0x00, 0xcf, 0x00, 0x01, 0x00]);
        assert_eq!(sense.len(), Sense::DESCRIPTOR_LEN_MAX);
    }

    #[test]
    fn bytes_are_in_the_format_asked_for() {
        let sense = Sense::invalid_field_in_parameter_list(9, None);
        assert_eq!(*sense.bytes(false), sense.fixed());
        assert_eq!(*sense.bytes(true), *sense.descriptor());
        assert_eq!(sense.fixed()[12..], [0x26, 0x00, 0x00, 0x80, 0x00, 0x09]);
    }

    #[test]
    fn miscompare_information_is_the_byte_offset() {
        let sense = Sense::miscompare(0x1234);
        assert_eq!(sense.fixed(), [0xf0, 0, 0x0e, 0, 0, 0x12, 0x34, 0x0a, 0, 0, 0, 0, 0x1d, 0x00, 0, 0, 0, 0]);
        let descriptor = [0x72, 0x0e, 0x1d, 0, 0, 0, 0, 12, 0, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34];
        assert_eq!(*sense.descriptor(), descriptor);
    }

    #[test]
    fn constants_have_the_codes_of_the_standard() {
        let expected = [
            (Sense::NO_SENSE, "00h/00h/00h"),
            (Sense::UNRECOVERED_READ_ERROR, "03h/11h/00h"),
            (Sense::WRITE_ERROR, "03h/0Ch/00h"),
            (Sense::INTERNAL_TARGET_FAILURE, "04h/44h/00h"),
            (Sense::PARAMETER_LIST_LENGTH_ERROR, "05h/1Ah/00h"),
            (Sense::INVALID_OPCODE, "05h/20h/00h"),
            (Sense::LBA_OUT_OF_RANGE, "05h/21h/00h"),
            (Sense::INVALID_FIELD_IN_CDB, "05h/24h/00h"),
            (Sense::LU_NOT_SUPPORTED, "05h/25h/00h"),
            (Sense::INVALID_FIELD_IN_PARAMETER_LIST, "05h/26h/00h"),
            (Sense::SAVING_PARAMETERS_NOT_SUPPORTED, "05h/39h/00h"),
            (Sense::INVALID_MESSAGE_ATTRIBUTE, "05h/49h/00h"),
            (Sense::WRITE_PROTECTED, "07h/27h/00h"),
            (Sense::SOFTWARE_WRITE_PROTECTED, "07h/27h/02h"),
            (Sense::ABORTED_COMMAND, "0Bh/00h/00h"),
        ];
        for (sense, text) in expected {
            assert_eq!(sense.to_string(), text);
        }
    }
}
