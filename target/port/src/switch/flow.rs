//! Which flow a frame belongs to, for spreading flows over the queue pairs of a device: frames of one flow stay in order.

use crate::headers::{HEADERS_MAX, Headers, Network, Transport};

/// Bytes at the start of a frame that are looked at.
pub(super) const LOOKED_AT: usize = 128;

/// A number that is the same for all frames of a flow. `bytes` are the first of the frame, at least its addresses.
pub(super) fn flow_hash(bytes: &[u8]) -> u32 {
    debug_assert!(bytes.len() <= HEADERS_MAX);
    let Ok(headers) = Headers::parse(bytes) else { return mix(&bytes[..12.min(bytes.len())], 0) };
    let l3 = headers.l2_len;
    let addresses = match headers.network {
        Network::Ip4 => l3 + 12..l3 + 20,
        Network::Ip6 => l3 + 8..l3 + 40,
        Network::Other(_) => 0..12,
    };
    match headers.transport {
        // The two ports.
        Transport::Tcp | Transport::Udp => {
            let l4 = headers.l4_start();
            mix(&bytes[addresses], u64::from(mix(&bytes[l4..l4 + 4], 0)))
        }
        // Fragments of one datagram must not part, and only the first has ports.
        Transport::Fragment | Transport::Other(_) | Transport::None => mix(&bytes[addresses], 0),
    }
}

fn mix(bytes: &[u8], start: u64) -> u32 {
    let step = |hash: u64, word: &[u8]| {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        (hash ^ u64::from(u32::from_le_bytes(padded))).wrapping_mul(FACTOR).rotate_left(29)
    };
    (bytes.chunks(4).fold(start, step).wrapping_mul(FACTOR) >> 32) as u32
}

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Shape;

    const TCP: Shape = Shape { tags: 1, ip6: false, tcp: true, options: 0 };

    #[test]
    fn flow_is_addresses_and_ports_and_nothing_else() {
        let hash = |frame: &[u8]| flow_hash(&frame[..frame.len().min(LOOKED_AT)]);
        let frame = TCP.frame(&[1; 100]);
        let mut later = TCP.frame(&[2; 500]);
        later[38 + 4] = 9; // sequence number
        assert_eq!(hash(&frame), hash(&later));
        for at in [18 + 15, 18 + 19, 38 + 1, 38 + 3] {
            let mut other = frame.clone();
            other[at] ^= 1;
            assert_ne!(hash(&frame), hash(&other), "byte {at}");
        }
    }

    #[test]
    fn flow_of_fragments_is_that_of_the_datagram() {
        let udp = Shape { tags: 0, ip6: false, tcp: false, options: 0 };
        let (mut first, mut second) = (udp.frame(&[1; 40]), udp.frame(&[1; 40]));
        first[14 + 6] = 0x20;
        second[14 + 7] = 0x20;
        second[34..38].fill(0x77);
        assert_eq!(flow_hash(&first), flow_hash(&second));
    }

    #[test]
    fn flows_are_spread() {
        let mut queues = [0; 4];
        for port in 0..1000u16 {
            let mut frame = TCP.frame(&[]);
            frame[38..40].copy_from_slice(&(30000 + port).to_be_bytes());
            queues[((u64::from(flow_hash(&frame)) * 4) >> 32) as usize] += 1;
        }
        assert!(queues.iter().all(|frames| (150..350).contains(frames)), "{queues:?}");
    }

    proptest! {
        #[test]
        fn flow_of_garbage_is_some_number(bytes in prop::collection::vec(any::<u8>(), 0..LOOKED_AT)) {
            prop_assert_eq!(flow_hash(&bytes), flow_hash(&bytes));
        }
    }
}
