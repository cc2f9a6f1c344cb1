//! Bodies as a front-end writes them, and replies as a back-end writes them. No checks: the caller knows what it sends.

use guest_memory::RegionConfig;

use super::{Header, RequestCode, VringAddresses};

/// A whole reply: header and body.
pub fn reply(code: RequestCode, body: &[u8]) -> Vec<u8> {
    let header = Header { code, reply: true, need_reply: false, size: body.len() as u32 };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// "A vring state description": 8 bytes.
pub fn vring_state_body(index: u32, num: u32) -> [u8; 8] {
    let mut body = [0; 8];
    body[0..4].copy_from_slice(&index.to_le_bytes());
    body[4..8].copy_from_slice(&num.to_le_bytes());
    body
}

/// "A vring address description": 40 bytes; descriptor table, used ring, available ring, log, in this order.
pub fn vring_addr_body(index: u32, addresses: &VringAddresses) -> [u8; 40] {
    let mut body = [0; 40];
    body[0..4].copy_from_slice(&index.to_le_bytes());
    body[4..8].copy_from_slice(&addresses.flags.to_le_bytes());
    body[8..16].copy_from_slice(&addresses.desc_user.to_le_bytes());
    body[16..24].copy_from_slice(&addresses.used_user.to_le_bytes());
    body[24..32].copy_from_slice(&addresses.avail_user.to_le_bytes());
    body[32..40].copy_from_slice(&addresses.log_guest.to_le_bytes());
    body
}

/// "Memory regions description": 8 bytes and 32 for each region.
pub fn mem_table_body<'a>(regions: impl ExactSizeIterator<Item = &'a RegionConfig>) -> Vec<u8> {
    let mut body = (regions.len() as u32).to_le_bytes().to_vec();
    body.extend_from_slice(&[0; 4]);
    regions.for_each(|region| push_region(&mut body, region));
    body
}

/// "Single memory region description": 40 bytes.
pub fn region_body(region: &RegionConfig) -> Vec<u8> {
    let mut body = vec![0; 8];
    push_region(&mut body, region);
    body
}

/// "Virtio device config space": 12 bytes, then `bytes`.
pub fn config_body(offset: u32, flags: u32, bytes: &[u8]) -> Vec<u8> {
    let mut body = offset.to_le_bytes().to_vec();
    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    body.extend_from_slice(&flags.to_le_bytes());
    body.extend_from_slice(bytes);
    body
}

fn push_region(body: &mut Vec<u8>, region: &RegionConfig) {
    for field in [region.guest_addr, region.size, region.user_addr, region.mmap_offset] {
        body.extend_from_slice(&field.to_le_bytes());
    }
}
