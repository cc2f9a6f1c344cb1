//! Standard INQUIRY data (SPC-5, INQUIRY command). Vital product data pages stand in `vpd`.

use alloc::vec::Vec;

use crate::identity::{Identity, printable};

/// PERIPHERAL QUALIFIER and PERIPHERAL DEVICE TYPE: a direct access block device.
pub(crate) const DISK: u8 = 0x00;
/// A well-known logical unit.
pub(crate) const WELL_KNOWN: u8 = 0x1e;
/// Qualifier 011b and type 1Fh: no logical unit can be here (SAM-6, incorrect logical unit numbers).
pub(crate) const ABSENT: u8 = 0x7f;

/// Vendor and product of the well-known logical unit, which belongs to the target and not to any disk.
pub(crate) const TARGET_VENDOR: [u8; 8] = *b"RINGSIDE";
pub(crate) const TARGET_PRODUCT: [u8; 16] = *b"REPORT LUNS     ";

/// VERSION: SPC-4, the last one that initiators and their test suites know all of. The version descriptors claim more.
const VERSION_SPC_4: u8 = 0x06;
/// HISUP (LUNs as SAM describes them) and RESPONSE DATA FORMAT 2; NORMACA 0.
const HISUP_FORMAT_2: u8 = 0x12;
/// CMDQUE: the task management model of SAM.
const CMDQUE: u8 = 0x02;

/// VERSION DESCRIPTORs, each "no version claimed".
const SAM_6: u16 = 0x00c0;
const SPC_5: u16 = 0x05c0;
const SPC_4: u16 = 0x0460;
const SBC_4: u16 = 0x0600;
const SBC_3: u16 = 0x04c0;

pub(crate) fn append_disk(identity: &Identity, out: &mut Vec<u8>) {
    append(DISK, &identity.vendor, &identity.product, &identity.revision, &[SAM_6, SPC_5, SBC_4, SPC_4, SBC_3], out);
}

pub(crate) fn append_well_known(out: &mut Vec<u8>) {
    append(WELL_KNOWN, &TARGET_VENDOR, &TARGET_PRODUCT, b"    ", &[SAM_6, SPC_5, SPC_4], out);
}

/// Of a LUN that does not exist only the first byte says something. The version does too: Linux sends REPORT LUNS only
/// to a target whose LUN 0 claims SCSI-3 or later.
pub(crate) fn append_absent(out: &mut Vec<u8>) {
    append(ABSENT, &[b' '; 8], &[b' '; 16], &[b' '; 4], &[SAM_6, SPC_5, SPC_4], out);
}

/// 96 bytes, the least with all eight version descriptors.
fn append(
    peripheral: u8,
    vendor: &[u8; 8],
    product: &[u8; 16],
    revision: &[u8; 4],
    standards: &[u16],
    out: &mut Vec<u8>,
) {
    let mut data = [0; 96];
    data[0] = peripheral;
    data[2] = VERSION_SPC_4;
    data[3] = HISUP_FORMAT_2;
    data[4] = 96 - 5; // ADDITIONAL LENGTH: what follows byte 4
    data[7] = CMDQUE;
    data[8..16].copy_from_slice(&vendor.map(printable));
    data[16..32].copy_from_slice(&product.map(printable));
    data[32..36].copy_from_slice(&revision.map(printable));
    for (descriptor, standard) in data[58..74].chunks_exact_mut(2).zip(standards) {
        descriptor.copy_from_slice(&standard.to_be_bytes());
    }
    out.extend_from_slice(&data);
}
