//! Who a logical unit says it is: the names that INQUIRY and the VPD pages carry. How they are laid out there stands in
//! `inquiry` and `vpd`.

use alloc::string::String;
use core::fmt;

/// Longest serial number, in bytes: it must fit, with vendor and product, into one designator.
pub const SERIAL_LEN_MAX: usize = 128;

/// The names of a logical unit. Whatever the fields hold, what goes on the wire is well-formed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// T10 VENDOR IDENTIFICATION, ASCII, padded with blanks.
    pub vendor: [u8; 8],
    /// PRODUCT IDENTIFICATION, ASCII, padded with blanks.
    pub product: [u8; 16],
    /// PRODUCT REVISION LEVEL, ASCII, padded with blanks.
    pub revision: [u8; 4],
    /// PRODUCT SERIAL NUMBER, ASCII, at most [`SERIAL_LEN_MAX`] bytes; what is longer is cut.
    pub serial: String,
    /// NAA designator of eight bytes: its top four bits say which kind, 2h, 3h (locally assigned) or 5h. With other
    /// bits there, they are replaced by 3h.
    pub naa: u64,
}

impl Identity {
    /// Checks what an operator typed and pads it. `naa` is taken as it is; [`Identity::local_naa`] makes one.
    ///
    /// # Errors
    /// A text that is too long or has a character outside printable ASCII, or an empty serial number.
    pub fn new(vendor: &str, product: &str, revision: &str, serial: &str, naa: u64) -> Result<Identity, IdentityError> {
        check("serial", serial, SERIAL_LEN_MAX)?;
        if serial.is_empty() {
            return Err(IdentityError::Empty { field: "serial" });
        }
        Ok(Identity {
            vendor: padded("vendor", vendor)?,
            product: padded("product", product)?,
            revision: padded("revision", revision)?,
            serial: serial.into(),
            naa,
        })
    }

    /// A locally assigned NAA (3h) of 60 bits that the caller chose, e.g. from a hash of stable names.
    pub const fn local_naa(bits: u64) -> u64 {
        NAA_LOCAL << 60 | (bits & (u64::MAX >> 4))
    }

    /// The NAA designator as it goes on the wire.
    pub(crate) fn naa_bytes(&self) -> [u8; 8] {
        let known = matches!(self.naa >> 60, 0x2 | NAA_LOCAL | 0x5);
        if known { self.naa } else { Identity::local_naa(self.naa) }.to_be_bytes()
    }

    /// The serial number as it goes on the wire.
    pub(crate) fn serial_bytes(&self) -> impl Iterator<Item = u8> {
        self.serial.bytes().take(SERIAL_LEN_MAX).map(printable)
    }
}

/// NAA 3h: locally assigned.
const NAA_LOCAL: u64 = 0x3;

/// Why a text cannot be part of an [`Identity`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdentityError {
    /// It has more bytes than the field.
    TooLong {
        /// Which text.
        field: &'static str,
        /// What it was.
        value: String,
        /// How many bytes the field has.
        len_max: usize,
    },
    /// It has a character outside 20h to 7Eh.
    NotPrintable {
        /// Which text.
        field: &'static str,
        /// What it was.
        value: String,
    },
    /// It is empty and must not be.
    Empty {
        /// Which text.
        field: &'static str,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::TooLong { field, value, len_max } => {
                write!(f, "{field} {value:?} has {} bytes, more than {len_max}", value.len())
            }
            IdentityError::NotPrintable { field, value } => {
                write!(f, "{field} {value:?} has a character that is not printable ASCII")
            }
            IdentityError::Empty { field } => write!(f, "{field} is empty: at least 1 character"),
        }
    }
}

impl core::error::Error for IdentityError {}

/// A byte that may stand in an ASCII field of the standard: 20h to 7Eh (SPC-5, ASCII data field requirements).
pub(crate) fn printable(byte: u8) -> u8 {
    if matches!(byte, 0x20..=0x7e) { byte } else { b'?' }
}

fn check(field: &'static str, value: &str, len_max: usize) -> Result<(), IdentityError> {
    if value.len() > len_max {
        return Err(IdentityError::TooLong { field, value: value.into(), len_max });
    }
    if value.bytes().any(|byte| printable(byte) != byte) {
        return Err(IdentityError::NotPrintable { field, value: value.into() });
    }
    Ok(())
}

fn padded<const N: usize>(field: &'static str, value: &str) -> Result<[u8; N], IdentityError> {
    check(field, value, N)?;
    let mut bytes = [b' '; N];
    bytes[..value.len()].copy_from_slice(value.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn new_short_texts_are_padded_with_blanks() {
        let identity = Identity::new("RING", "disk", "1", "s", 0x3000_0000_0000_0001).unwrap();
        assert_eq!(&identity.vendor, b"RING    ");
        assert_eq!(&identity.product, b"disk            ");
        assert_eq!(&identity.revision, b"1   ");
    }

    #[test]
    fn new_bad_text_names_field_value_and_bound() {
        let error = Identity::new("NINECHARS", "", "", "s", 0).unwrap_err();
        assert_eq!(error.to_string(), r#"vendor "NINECHARS" has 9 bytes, more than 8"#);
        let error = Identity::new("V", "a\tb", "", "s", 0).unwrap_err();
        assert_eq!(error.to_string(), r#"product "a\tb" has a character that is not printable ASCII"#);
        let error = Identity::new("V", "P", "R", "", 0).unwrap_err();
        assert_eq!(error.to_string(), "serial is empty: at least 1 character");
        assert!(Identity::new("V", "P", "R", &"s".repeat(128), 0).is_ok());
        assert!(Identity::new("V", "P", "R", &"s".repeat(129), 0).is_err());
    }

    #[test]
    fn naa_of_unknown_kind_becomes_locally_assigned() {
        let naa = |naa| Identity::new("V", "P", "R", "s", naa).unwrap().naa_bytes();
        assert_eq!(naa(0x5000_c500_1234_5678), [0x50, 0x00, 0xc5, 0x00, 0x12, 0x34, 0x56, 0x78]);
        assert_eq!(naa(0x6fff_ffff_ffff_ffff), [0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(Identity::local_naa(u64::MAX), 0x3fff_ffff_ffff_ffff);
    }
}
