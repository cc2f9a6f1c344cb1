//! Numbers of virtio-net that both sides must agree on (virtio 1.3 §5.1): feature bits and the header of a frame. Frames
//! themselves are in `frame`.

use crate::link::Needed;

/// Bytes of the header with VERSION_1 (virtio 1.3 §5.1.6.1).
pub(crate) const HEADER_LEN: usize = 12;
/// A header that says nothing but that the frame lies in one buffer.
pub(crate) const ONE_BUFFER: [u8; HEADER_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// Flag: the checksum is partial.
pub(super) const NEEDS_CSUM: u8 = 1;
/// Flag: the checksum was checked.
pub(super) const DATA_VALID: u8 = 2;
/// Segmentation: TCP over IPv4.
pub(super) const GSO_TCPV4: u8 = 1;

/// VIRTIO_NET_F_CSUM: the device completes checksums of what it is sent.
pub(super) const CSUM: Needed = offload("VIRTIO_NET_F_CSUM", 0);
/// VIRTIO_NET_F_GUEST_CSUM: the driver takes frames with partial checksums.
pub(super) const GUEST_CSUM: Needed = offload("VIRTIO_NET_F_GUEST_CSUM", 1);
/// VIRTIO_NET_F_GUEST_TSO4: the driver takes segments of TCP over IPv4 in one frame.
pub(super) const GUEST_TSO4: Needed = offload("VIRTIO_NET_F_GUEST_TSO4", 7);
/// VIRTIO_NET_F_HOST_TSO4: the device takes them.
pub(super) const HOST_TSO4: Needed = offload("VIRTIO_NET_F_HOST_TSO4", 11);
/// VIRTIO_NET_F_MRG_RXBUF: a frame may lie in several receive buffers.
pub(crate) const MRG_RXBUF: Needed = Needed { option: Some("--mrg on"), name: "VIRTIO_NET_F_MRG_RXBUF", bit: 15 };
/// VIRTIO_NET_F_MQ: several queue pairs.
pub(super) const MQ: Needed = Needed { option: Some("--queues"), name: "VIRTIO_NET_F_MQ", bit: 22 };
/// VIRTIO_F_INDIRECT_DESC.
pub(crate) const INDIRECT: Needed = Needed { option: Some("--indirect"), name: "VIRTIO_F_INDIRECT_DESC", bit: 28 };
/// VIRTIO_F_EVENT_IDX.
pub(crate) const EVENT_IDX: Needed = Needed { option: None, name: "VIRTIO_F_EVENT_IDX", bit: 29 };
/// VIRTIO_F_VERSION_1.
pub(crate) const VERSION_1: Needed = Needed { option: None, name: "VIRTIO_F_VERSION_1", bit: 32 };

const fn offload(name: &'static str, bit: u32) -> Needed {
    Needed { option: Some("--offload"), name, bit }
}

/// The header in front of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
    /// Receive buffers that the frame lies in; 0 in what is sent.
    pub num_buffers: u16,
}

impl Header {
    pub(super) fn bytes(self) -> [u8; HEADER_LEN] {
        let Header { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers } = self;
        let mut bytes = [0; HEADER_LEN];
        (bytes[0], bytes[1]) = (flags, gso_type);
        for (at, value) in [(2, hdr_len), (4, gso_size), (6, csum_start), (8, csum_offset), (10, num_buffers)] {
            bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_lie_where_the_specification_says() {
        let header = Header {
            flags: 1,
            gso_type: 2,
            hdr_len: 0x0403,
            gso_size: 0x0605,
            csum_start: 0x0807,
            csum_offset: 0x0a09,
            num_buffers: 0x0c0b,
        };
        assert_eq!(header.bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }
}
