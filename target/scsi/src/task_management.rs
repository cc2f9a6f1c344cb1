//! REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS parameter data (SPC-5). Carrying the functions out is the transport's
//! business.

use alloc::vec::Vec;

/// ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK: ATS, ATSS, CTSS, LURS, QTS; not CACAS.
const FIRST: u8 = 0x80 | 0x40 | 0x10 | 0x08 | 0x04;
/// QUERY TASK SET, I_T NEXUS RESET: QTSS, ITNRS; not QAES.
const SECOND: u8 = 0x02 | 0x01;

/// Extended parameter data says of no function how long it may take (TMFTMOV 0).
pub(crate) fn append(extended: bool, out: &mut Vec<u8>) {
    let additional_len = if extended { 12 } else { 0 };
    out.extend_from_slice(&[FIRST, SECOND, 0, additional_len]);
    out.extend_from_slice(&[0; 12][..usize::from(additional_len)]);
}
