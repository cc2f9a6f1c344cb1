//! What a logical unit says of itself (INQUIRY, VPD 80h and 83h): the texts, the world wide name, and their defaults.
//! How they are laid out in SCSI data is the SCSI target's business.

use std::fmt;

use super::name::Name;
use super::problem::Reason;
use super::reader::{Field, Place, Problems, Section, Unique};

/// The texts and the name by which guests tell logical units apart.
///
/// The defaults depend on nothing but the names of controller and bdev and ringside's version, so they are the same
/// after a restart and on the other host of a live migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// T10 vendor identification, at most 8 printable ASCII bytes; default `RINGSIDE`.
    pub vendor: String,
    /// Product identification, at most 16 printable ASCII bytes; default the first 16 of the bdev's name.
    pub product: String,
    /// Product revision level, at most 4 printable ASCII bytes; default ringside's major and minor version.
    pub revision: String,
    /// Unit serial number, at most 32 printable ASCII bytes; default 16 hex digits of [`stable_hash`].
    pub serial: String,
    /// Designator of VPD page 83h; default NAA 3h and 60 bits of [`stable_hash`].
    pub wwn: Wwn,
}

impl Identity {
    /// The identity of the logical unit that `controller` makes of `bdev`, if nothing else is configured.
    pub fn derived(controller: &Name, bdev: &Name) -> Self {
        let hash = stable_hash(controller, bdev);
        Self {
            vendor: VENDOR.to_owned(),
            product: bdev.chars().take(PRODUCT_MAX).collect(),
            revision: VERSION.chars().take(REVISION_MAX).collect(),
            serial: format!("{hash:016x}"),
            wwn: Wwn::locally_assigned(hash),
        }
    }
}

/// A SCSI name of the NAA formats (SPC-5 §7.7.6.6), written `naa.` and hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wwn {
    bytes: [u8; 16],
    len: usize,
}

impl Wwn {
    /// The designator's bytes: 8 for NAA 2h, 3h and 5h, 16 for NAA 6h.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// NAA 3h (locally assigned) with the low 60 bits of `number`: unique where the operator's names are, and the one
    /// format that needs no company identifier of the IEEE.
    fn locally_assigned(number: u64) -> Self {
        let name = (3 << 60) | (number & (u64::MAX >> 4));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&name.to_be_bytes());
        Self { bytes, len: 8 }
    }

    /// Reads `naa.` and hex digits; the first digit settles how many there must be.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("naa.")?;
        let len = match digits.bytes().next()? {
            b'2' | b'3' | b'5' => 8,
            b'6' => 16,
            _ => return None,
        };
        if digits.len() != len * 2 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 16];
        for (index, byte) in bytes[..len].iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16).ok()?;
        }
        Some(Self { bytes, len })
    }
}

impl fmt::Display for Wwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("naa.")?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Wwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number that default serials and world wide names are made of: FNV-1a over `controller/bdev` (`/` is in no name).
/// It must never change, or guests would see other disks after an upgrade.
pub fn stable_hash(controller: &Name, bdev: &Name) -> u64 {
    fnv_1a(controller.bytes().chain([b'/']).chain(bdev.bytes()))
}

/// 64-bit FNV-1a. Written out here because no library's hasher promises to stay the same.
pub(super) fn fnv_1a(bytes: impl Iterator<Item = u8>) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// Takes the identity keys out of a LUN's table; what is not given is derived. Nothing if a given one is wrong, or if
/// the names that the defaults derive from are missing.
pub(super) fn read<'t>(
    section: &mut Section<'t>,
    controller: Option<&Name>,
    bdev: Option<&Name>,
    wwns: &mut Unique<'t, Wwn>,
    problems: &mut Problems,
) -> Option<Identity> {
    let vendor = text(section.take("vendor"), VENDOR_MAX, problems);
    let product = text(section.take("product"), PRODUCT_MAX, problems);
    let revision = text(section.take("revision"), REVISION_MAX, problems);
    let serial = text(section.take("serial"), SERIAL_MAX, problems);
    let wwn = wwn(section.take("wwn"), problems);

    let derived = Identity::derived(controller?, bdev?);
    let wwn = match wwn? {
        Some((wwn, place)) => {
            wwns.claim(wwn, &place, problems);
            wwn
        }
        None => {
            wwns.claim(derived.wwn, section.place(), problems);
            derived.wwn
        }
    };
    Some(Identity {
        vendor: vendor?.unwrap_or(derived.vendor),
        product: product?.unwrap_or(derived.product),
        revision: revision?.unwrap_or(derived.revision),
        serial: serial?.unwrap_or(derived.serial),
        wwn,
    })
}

/// A text of 1 to `max` bytes: `Some(None)` if it is not given, `None` if it is wrong.
fn text(field: Option<Field<'_>>, max: usize, problems: &mut Problems) -> Option<Option<String>> {
    let Some(field) = field else { return Some(None) };
    let text = field.string(problems)?;
    let reason = match text.len() {
        0 => Reason::Empty,
        len if len > max => Reason::TooLong { max, len },
        _ if !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) => Reason::NotPrintable,
        _ => return Some(Some(text.to_owned())),
    };
    problems.at(field.place(), reason);
    None
}

/// A world wide name and its place: `Some(None)` if it is not given, `None` if it is wrong.
fn wwn<'t>(field: Option<Field<'t>>, problems: &mut Problems) -> Option<Option<(Wwn, Place<'t>)>> {
    let Some(field) = field else { return Some(None) };
    let wwn = Wwn::parse(field.string(problems)?);
    if wwn.is_none() {
        problems.at(field.place(), Reason::NotAWwn);
    }
    wwn.map(|wwn| Some((wwn, field.place().clone())))
}

const VENDOR: &str = "RINGSIDE";
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
/// SPC-5 §6.6.2: the fields of standard INQUIRY data.
const VENDOR_MAX: usize = 8;
const PRODUCT_MAX: usize = 16;
const REVISION_MAX: usize = 4;
/// Our own bound; VPD page 80h would take 252 bytes, guests' tools show far less.
const SERIAL_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn identity_derived_from_names_is_pinned() {
        // A guest's /dev/disk/by-id is made of these: they must not change between versions.
        let identity = Identity::derived(&name("vm0"), &name("disk0"));
        assert_eq!(identity.vendor, "RINGSIDE");
        assert_eq!(identity.product, "disk0");
        assert_eq!(identity.serial, "c15abacf3f131d98");
        assert_eq!(identity.wwn.as_bytes(), [0x31, 0x5a, 0xba, 0xcf, 0x3f, 0x13, 0x1d, 0x98]);
        assert_eq!(identity.wwn.to_string(), "naa.315abacf3f131d98");
        assert_eq!(identity.revision, VERSION);
    }

    #[test]
    fn identity_of_names_that_join_alike_differs() {
        assert_ne!(stable_hash(&name("a"), &name("bc")), stable_hash(&name("ab"), &name("c")));
    }

    #[test]
    fn fnv_1a_of_published_texts_gives_published_values() {
        // The check values of the reference implementation.
        assert_eq!(fnv_1a(b"".iter().copied()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a(b"foobar".iter().copied()), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn identity_of_a_long_bdev_name_fits_the_product_field() {
        let identity = Identity::derived(&name("vm0"), &name("a-very-long-bdev-name"));
        assert_eq!(identity.product, "a-very-long-bdev");
    }

    #[test]
    fn wwn_texts_of_every_naa_format_give_their_bytes() {
        let wwn = Wwn::parse("naa.5000C500A1B2C3D4").unwrap();
        assert_eq!(wwn.as_bytes(), [0x50, 0x00, 0xc5, 0x00, 0xa1, 0xb2, 0xc3, 0xd4]);
        assert_eq!(wwn.to_string(), "naa.5000c500a1b2c3d4");
        let wwn = Wwn::parse("naa.60014050123456789abcdef012345678").unwrap();
        assert_eq!(wwn.as_bytes().len(), 16);
        assert_eq!(wwn.to_string(), "naa.60014050123456789abcdef012345678");
    }
}
