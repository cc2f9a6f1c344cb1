//! Vital product data pages (SPC-5 and SBC-4, vital product data parameters). Standard INQUIRY data stands in
//! `inquiry`.

use alloc::vec::Vec;

use crate::{
    identity::printable,
    inquiry,
    sense::Sense,
    unit::{LogicalUnit, LogicalUnitConfig, Provisioning},
};

/// A page of a logical unit: its code and what follows the four bytes of the header.
struct Page {
    code: u8,
    append: fn(&LogicalUnit, &mut Vec<u8>),
}

/// The pages of a disk, in the order in which page 00h lists them.
const PAGES: [Page; 8] = [
    Page { code: SUPPORTED_PAGES, append: |_, out| out.extend(PAGES.iter().map(|page| page.code)) },
    Page { code: 0x80, append: |unit, out| out.extend(unit.identity().serial_bytes()) },
    Page { code: DEVICE_IDENTIFICATION, append: append_device_identification },
    Page { code: 0x86, append: append_extended_inquiry },
    Page { code: 0x87, append: append_mode_page_policy },
    Page { code: 0xb0, append: append_block_limits },
    Page { code: 0xb1, append: append_block_device_characteristics },
    Page { code: 0xb2, append: append_logical_block_provisioning },
];

/// Supported VPD Pages.
const SUPPORTED_PAGES: u8 = 0x00;
/// Device Identification.
const DEVICE_IDENTIFICATION: u8 = 0x83;

/// A page of a disk; INVALID FIELD IN CDB, pointing at PAGE CODE, for one that it does not have.
pub(crate) fn append_disk(unit: &LogicalUnit, code: u8, out: &mut Vec<u8>) -> Result<(), Sense> {
    let page = PAGES.iter().find(|page| page.code == code).ok_or(NO_SUCH_PAGE)?;
    append(inquiry::DISK, code, out, |out| (page.append)(unit, out));
    Ok(())
}

/// A page of the well-known logical unit. It is named through the target device that it belongs to, because a
/// well-known logical unit has no designation of its own (SPC-5, Device Identification VPD page).
pub(crate) fn append_well_known(code: u8, out: &mut Vec<u8>) -> Result<(), Sense> {
    match code {
        SUPPORTED_PAGES => append(inquiry::WELL_KNOWN, code, out, |out| {
            out.extend_from_slice(&[SUPPORTED_PAGES, DEVICE_IDENTIFICATION]);
        }),
        DEVICE_IDENTIFICATION => append(inquiry::WELL_KNOWN, code, out, |out| {
            append_designator(CODE_SET_ASCII, ASSOCIATION_TARGET | TYPE_T10_VENDOR, out, |out| {
                out.extend_from_slice(&inquiry::TARGET_VENDOR);
                out.extend_from_slice(&inquiry::TARGET_PRODUCT);
            });
        }),
        _ => return Err(NO_SUCH_PAGE),
    }
    Ok(())
}

const NO_SUCH_PAGE: Sense = Sense::invalid_field_in_cdb(2, None);

/// Peripheral, PAGE CODE, PAGE LENGTH (two bytes), then what `body` appends.
fn append(peripheral: u8, code: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[peripheral, code, 0, 0]);
    body(out);
    let len = u16::try_from(out.len() - start - 4).unwrap_or(u16::MAX); // at most a few hundred
    out[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// CODE SET of a designator.
const CODE_SET_BINARY: u8 = 0x1;
const CODE_SET_ASCII: u8 = 0x2;
/// ASSOCIATION of a designator, in place: the logical unit is 00b.
const ASSOCIATION_TARGET: u8 = 0x20;
/// DESIGNATOR TYPE.
const TYPE_T10_VENDOR: u8 = 0x1;
const TYPE_NAA: u8 = 0x3;

/// What Linux and Windows make the stable name of the disk from: an NAA, and vendor, product and serial number.
fn append_device_identification(unit: &LogicalUnit, out: &mut Vec<u8>) {
    let identity = unit.identity();
    append_designator(CODE_SET_BINARY, TYPE_NAA, out, |out| {
        out.extend_from_slice(identity.naa.as_bytes());
    });
    append_designator(CODE_SET_ASCII, TYPE_T10_VENDOR, out, |out| {
        out.extend_from_slice(&identity.vendor.map(printable));
        out.extend_from_slice(&identity.product.map(printable));
        out.extend(identity.serial_bytes());
    });
}

/// PROTOCOL IDENTIFIER 0 and CODE SET; PIV 0, ASSOCIATION, DESIGNATOR TYPE; reserved; DESIGNATOR LENGTH; designator.
fn append_designator(code_set: u8, association_type: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[code_set, association_type, 0, 0]);
    body(out);
    out[start + 3] = u8::try_from(out.len() - start - 4).unwrap_or(u8::MAX); // at most 8 + 16 + SERIAL_LEN_MAX
}

/// Extended INQUIRY Data (SPC-5): 3Ch bytes. No protection information, no groups, no microcode, no self-test.
fn append_extended_inquiry(unit: &LogicalUnit, out: &mut Vec<u8>) {
    const HEADSUP_ORDSUP_SIMPSUP: u8 = 0x07;
    const V_SUP: u8 = 0x01;
    let mut page = [0; 0x3c];
    page[1] = HEADSUP_ORDSUP_SIMPSUP;
    page[2] = if unit.config().write_cache { V_SUP } else { 0 };
    out.extend_from_slice(&page);
}

/// Mode Page Policy (SPC-5): one descriptor for all pages and subpages: shared (00b), not by several units (MLUS 0).
fn append_mode_page_policy(_: &LogicalUnit, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x3f, 0xff, 0x00, 0x00]);
}

/// Block Limits (SBC-4): 3Ch bytes. Zero is "not supported" or "not reported" in every field left out.
fn append_block_limits(unit: &LogicalUnit, out: &mut Vec<u8>) {
    const WSNZ: u8 = 0x01;
    const UGAVALID: u32 = 1 << 31;
    let config = unit.config();
    let granularity = 1_u16 << unit.physical_block_exponent(); // exponent: 0 to 15
    let mut page = [0; 0x3c];
    if config.write_same_max_blocks > 0 {
        page[0] = WSNZ;
        page[32..40].copy_from_slice(&u64::from(config.write_same_max_blocks).to_be_bytes());
    }
    page[1] = unit.compare_and_write_max_blocks();
    page[2..4].copy_from_slice(&granularity.to_be_bytes()); // OPTIMAL TRANSFER LENGTH GRANULARITY
    page[4..8].copy_from_slice(&unit.max_transfer_blocks().to_be_bytes());
    page[8..12].copy_from_slice(&unit.optimal_transfer_blocks().to_be_bytes());
    if let Some(unmap) = config.unmap {
        page[16..20].copy_from_slice(&unmap.max_blocks.to_be_bytes());
        page[20..24].copy_from_slice(&u32::from(unmap.max_extents).to_be_bytes());
        page[24..28].copy_from_slice(&unmap.granularity_blocks.to_be_bytes());
        if unmap.granularity_blocks > 0 {
            page[28..32].copy_from_slice(&(UGAVALID | unmap.alignment_blocks).to_be_bytes());
        }
    }
    out.extend_from_slice(&page);
}

/// Block Device Characteristics (SBC-4): 3Ch bytes.
fn append_block_device_characteristics(unit: &LogicalUnit, out: &mut Vec<u8>) {
    const NON_ROTATING: u16 = 0x0001;
    const RPM_7200: u16 = 7200;
    const VBULS: u8 = 0x01; // VERIFY compares blocks that were given up, too
    let &LogicalUnitConfig { rotational, verify, unmap, .. } = unit.config();
    let rate = if rotational { RPM_7200 } else { NON_ROTATING };
    let mut page = [0; 0x3c];
    page[0..2].copy_from_slice(&rate.to_be_bytes()); // MEDIUM ROTATION RATE
    page[4] = if verify && unmap.is_some() { VBULS } else { 0 };
    out.extend_from_slice(&page);
}

/// Logical Block Provisioning (SBC-4). No thresholds (THRESHOLD EXPONENT 0), nothing can be anchored (ANC_SUP 0).
fn append_logical_block_provisioning(unit: &LogicalUnit, out: &mut Vec<u8>) {
    const LBPU: u8 = 0x80;
    const LBPWS_LBPWS10: u8 = 0x60;
    const LBPRZ_ZEROES: u8 = 0x04;
    let config = unit.config();
    let mut page = [0; 4];
    if let Some(unmap) = config.unmap {
        page[1] = LBPU;
        page[1] |= if config.write_same_max_blocks > 0 { LBPWS_LBPWS10 } else { 0 };
        page[1] |= if unmap.reads_zero { LBPRZ_ZEROES } else { 0 };
        page[2] = match unmap.provisioning {
            Provisioning::Resource => 0x01,
            Provisioning::Thin => 0x02,
        };
    }
    out.extend_from_slice(&page);
}
