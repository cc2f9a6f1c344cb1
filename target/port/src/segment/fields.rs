//! The header fields that differ from one piece of a cut frame to the next. All offsets are inside the parsed headers.

use super::{BadOffload, Pieces};
use crate::checksum::Sum;
use crate::headers::{
    HEADERS_MAX, Headers, IP4_MORE_FRAGMENTS, IP6_LEN, NEXT_FRAGMENT, Network, PROTOCOL_TCP, PROTOCOL_UDP, Transport,
    word,
};
use crate::{Checksum, Offload, Segmentation};

/// What the frame had in these fields before it was cut.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    identification: u16,
    sequence: u32,
    tcp_flags: u8,
    /// Payload that went out before.
    sent: usize,
}

/// Which piece of the frame it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) index: usize,
    pub(super) last: bool,
    /// Bytes of payload in it.
    pub(super) payload: usize,
}

type Header = [u8; HEADERS_MAX];

impl Fields {
    pub(super) fn read(header: &Header, headers: &Headers) -> Fields {
        let (l3, l4) = (headers.l2_len, headers.l4_start());
        let mut fields = Fields::default();
        if headers.network == Network::Ip4 {
            fields.identification = word(header, l3 + IP4_IDENTIFICATION);
        }
        if headers.transport == Transport::Tcp {
            let sequence = u32::from(word(header, l4 + TCP_SEQUENCE)) << 16;
            fields.sequence = sequence | u32::from(word(header, l4 + TCP_SEQUENCE + 2));
            fields.tcp_flags = header[l4 + TCP_FLAGS];
        }
        fields
    }

    /// Everything but the transport checksum of a segment.
    pub(super) fn write(&mut self, header: &mut Header, headers: &Headers, place: Place) {
        let l4 = headers.l4_start();
        write_network(header, headers, headers.l4_len + place.payload);
        if headers.network == Network::Ip4 {
            let identification = self.identification.wrapping_add(place.index as u16);
            put(header, headers.l2_len + IP4_IDENTIFICATION, identification);
            write_ip4_checksum(header, headers);
        }
        if headers.transport == Transport::Tcp {
            let sequence = self.sequence.wrapping_add(self.sent as u32);
            header[l4 + TCP_SEQUENCE..l4 + TCP_SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
            let mut flags = self.tcp_flags;
            if !place.last {
                flags &= !(TCP_FIN | TCP_PSH);
            }
            if place.index > 0 {
                flags &= !TCP_CWR; // RFC 3168 §6.1.2: once per reduced window
            }
            header[l4 + TCP_FLAGS] = flags;
        } else {
            put(header, l4 + UDP_LENGTH, (headers.l4_len + place.payload) as u16);
        }
        self.sent += place.payload;
    }

    /// The sum of the pseudo header, for a receiver that completes the checksum.
    pub(super) fn write_partial(&self, header: &mut Header, headers: &Headers, place: Place) -> Offload {
        let offset = headers.checksum_offset().unwrap_or(0);
        let sum = pseudo_header(header, headers, headers.l4_len + place.payload);
        put(header, headers.l4_start() + offset, sum.partial());
        let checksum = Checksum::Partial { start: headers.l4_start() as u16, offset: offset as u16 };
        Offload { checksum, segmentation: Segmentation::None }
    }

    /// The transport checksum.
    pub(super) fn write_complete(&self, header: &mut Header, headers: &Headers, payload: Pieces<'_>) -> Offload {
        complete_transport(header, headers, payload);
        Offload { checksum: Checksum::Valid, segmentation: Segmentation::None }
    }

    /// The fields of a fragment; `unit` is what all but the last carry.
    pub(super) fn write_fragment(&mut self, header: &mut Header, headers: &Headers, place: Place, unit: usize) {
        let carried = if place.index == 0 { headers.l4_len + place.payload } else { place.payload };
        write_network(header, headers, carried);
        // At most 65535 bytes, a multiple of 8: 13 bits of units of 8 bytes.
        let units = (place.index * unit / 8) as u16;
        if headers.network == Network::Ip4 {
            let at = headers.l2_len + IP4_FRAGMENT;
            let more = if place.last { 0 } else { IP4_MORE_FRAGMENTS };
            let kept = word(header, at) & IP4_DONT_FRAGMENT;
            put(header, at, kept | more | units);
            write_ip4_checksum(header, headers);
        } else {
            let at = headers.l4_start() - FRAGMENT_LEN + FRAGMENT_OFFSET;
            put(header, at, units << 3 | u16::from(!place.last));
        }
    }
}

/// Completes the checksum of a datagram that is sent in fragments, which is that of the whole.
pub(super) fn complete_datagram(
    header: &mut Header,
    headers: &Headers,
    payload_len: usize,
    payload: Pieces<'_>,
) -> Result<(), BadOffload> {
    if headers.routed {
        return Err(BadOffload::Extensions);
    }
    put(header, headers.l4_start() + UDP_LENGTH, (headers.l4_len + payload_len) as u16);
    complete_transport(header, headers, payload);
    Ok(())
}

/// Makes room for a fragment header behind the IPv6 header, and fills in what all fragments have the same (RFC 8200 §4.5).
pub(super) fn insert_fragment_header(
    header: &mut Header,
    headers: &mut Headers,
    identification: u32,
) -> Result<(), BadOffload> {
    if headers.l3_len != IP6_LEN {
        return Err(BadOffload::Extensions);
    }
    let at = headers.l4_start();
    header.copy_within(at..at + headers.l4_len, at + FRAGMENT_LEN);
    header[at..at + 4].copy_from_slice(&[PROTOCOL_UDP, 0, 0, 0]);
    header[at + 4..at + FRAGMENT_LEN].copy_from_slice(&identification.to_be_bytes());
    header[headers.l2_len + IP6_NEXT] = NEXT_FRAGMENT;
    headers.l3_len += FRAGMENT_LEN;
    Ok(())
}

/// The length field; `carried` is what comes behind the network header.
fn write_network(header: &mut Header, headers: &Headers, carried: usize) {
    let l3 = headers.l2_len;
    match headers.network {
        Network::Ip4 => put(header, l3 + IP4_TOTAL_LENGTH, (headers.l3_len + carried) as u16),
        // Extension headers count as payload.
        _ => put(header, l3 + IP6_PAYLOAD_LENGTH, (headers.l3_len - IP6_LEN + carried) as u16),
    }
}

fn write_ip4_checksum(header: &mut Header, headers: &Headers) {
    let l3 = headers.l2_len;
    put(header, l3 + IP4_CHECKSUM, 0);
    let mut sum = Sum::new();
    sum.add(&header[l3..l3 + headers.l3_len]);
    put(header, l3 + IP4_CHECKSUM, sum.checksum());
}

fn complete_transport(header: &mut Header, headers: &Headers, payload: Pieces<'_>) {
    let (l4, end) = (headers.l4_start(), headers.total_len());
    let field = l4 + headers.checksum_offset().unwrap_or(0);
    let mut sum = pseudo_header(header, headers, headers.l4_len + payload.len());
    put(header, field, 0);
    sum.add(&header[l4..end]);
    payload.for_each(|piece| sum.add_memory(piece));
    put(header, field, sum.checksum_not_zero());
}

/// RFC 9293 §3.1, RFC 8200 §8.1.
fn pseudo_header(header: &Header, headers: &Headers, len: usize) -> Sum {
    let l3 = headers.l2_len;
    let addresses = match headers.network {
        Network::Ip4 => l3 + IP4_ADDRESSES..l3 + IP4_ADDRESSES + 8,
        _ => l3 + IP6_ADDRESSES..l3 + IP6_ADDRESSES + 32,
    };
    let protocol = if headers.transport == Transport::Tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
    let mut sum = Sum::new();
    sum.add(&header[addresses]);
    sum.add_word(u16::from(protocol));
    sum.add_word(len as u16);
    sum
}

fn put(header: &mut Header, at: usize, word: u16) {
    header[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

const IP4_TOTAL_LENGTH: usize = 2;
const IP4_IDENTIFICATION: usize = 4;
const IP4_FRAGMENT: usize = 6;
const IP4_CHECKSUM: usize = 10;
const IP4_ADDRESSES: usize = 12;
const IP4_DONT_FRAGMENT: u16 = 0x4000;

const IP6_PAYLOAD_LENGTH: usize = 4;
const IP6_NEXT: usize = 6;
const IP6_ADDRESSES: usize = 8;
const FRAGMENT_LEN: usize = 8;
const FRAGMENT_OFFSET: usize = 2;

const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const UDP_LENGTH: usize = 4;
