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
    /// World wide name.
    pub naa: Naa,
}

/// A Network Address Authority name (SPC-5 §7.7.6.6): 8 bytes of the kinds 2h, 3h and 5h, or 16 bytes of the kind 6h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Naa {
    bytes: [u8; 16],
    len: usize,
}

impl Naa {
    /// The name that these bytes are; `None` if their number does not fit the kind in the top four bits.
    pub fn new(name: &[u8]) -> Option<Naa> {
        let len = match name.first()? >> 4 {
            0x2 | 0x3 | 0x5 => 8,
            0x6 => 16,
            _ => return None,
        };
        let mut bytes = [0; 16];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        (name.len() == len).then_some(Naa { bytes, len })
    }

    /// A locally assigned name (3h) of 60 bits that the caller chose, e.g. from a hash of stable names.
    pub fn local(bits: u64) -> Naa {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(0x3 << 60 | (bits & (u64::MAX >> 4))).to_be_bytes());
        Naa { bytes, len: 8 }
    }

    /// Its bytes as they go on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Identity {
    /// Checks what an operator typed and pads it.
    ///
    /// # Errors
    /// A text that is too long or has a character outside printable ASCII, or an empty serial number.
    pub fn new(vendor: &str, product: &str, revision: &str, serial: &str, naa: Naa) -> Result<Identity, IdentityError> {
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

    /// The serial number as it goes on the wire.
    pub(crate) fn serial_bytes(&self) -> impl Iterator<Item = u8> {
        self.serial.bytes().take(SERIAL_LEN_MAX).map(printable)
    }
}

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
        let identity = Identity::new("RING", "disk", "1", "s", Naa::local(1)).unwrap();
        assert_eq!(&identity.vendor, b"RING    ");
        assert_eq!(&identity.product, b"disk            ");
        assert_eq!(&identity.revision, b"1   ");
    }

    #[test]
    fn new_bad_text_names_field_value_and_bound() {
        let error = Identity::new("NINECHARS", "", "", "s", Naa::local(0)).unwrap_err();
        assert_eq!(error.to_string(), r#"vendor "NINECHARS" has 9 bytes, more than 8"#);
        let error = Identity::new("V", "a\tb", "", "s", Naa::local(0)).unwrap_err();
        assert_eq!(error.to_string(), r#"product "a\tb" has a character that is not printable ASCII"#);
        let error = Identity::new("V", "P", "R", "", Naa::local(0)).unwrap_err();
        assert_eq!(error.to_string(), "serial is empty: at least 1 character");
        assert!(Identity::new("V", "P", "R", &"s".repeat(128), Naa::local(0)).is_ok());
        assert!(Identity::new("V", "P", "R", &"s".repeat(129), Naa::local(0)).is_err());
    }

    #[test]
    fn naa_length_follows_its_kind() {
        let seagate = [0x50, 0x00, 0xc5, 0x00, 0x12, 0x34, 0x56, 0x78];
        assert_eq!(Naa::new(&seagate).unwrap().as_bytes(), seagate);
        let mut extended = [0x11; 16];
        extended[0] = 0x60;
        assert_eq!(Naa::new(&extended).unwrap().as_bytes(), extended);
        assert!(Naa::new(&extended[..8]).is_none());
        assert!(Naa::new(&seagate[..7]).is_none());
        assert!(Naa::new(&[0x40; 8]).is_none());
        assert!(Naa::new(&[0x30; 17]).is_none());
        assert!(Naa::new(&[]).is_none());
        assert_eq!(Naa::local(u64::MAX).as_bytes(), [0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    }
}
