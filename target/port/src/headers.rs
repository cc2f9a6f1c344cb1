//! Where the headers of a frame are and what they are: Ethernet with VLAN tags, IPv4, IPv6, TCP, UDP. Read from bytes of our
//! own; nothing in here changes them, and no tunnel is looked into.

/// Bytes at the start of a frame that are looked at: all headers that are understood lie within.
pub const HEADERS_MAX: usize = 256;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;

/// Lengths and kinds of the headers of a frame, as its first bytes have them. All lengths are in bytes, and all headers lie
/// inside the bytes that were parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The Ethernet header with its VLAN tags.
    pub l2_len: usize,
    /// The IPv4 header with its options, or the IPv6 header with its extension headers; 0 for other protocols.
    pub l3_len: usize,
    /// The TCP header with its options, or the UDP header; 0 for other protocols.
    pub l4_len: usize,
    /// What the Ethernet frame carries.
    pub network: Network,
    /// What the packet carries.
    pub transport: Transport,
    /// The packet has an IPv6 routing header with hops to go: the destination address is not the one in its checksums
    /// (RFC 8200 §8.1).
    pub routed: bool,
}

/// The protocol above Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
    /// Another, by its EtherType (or length: IEEE 802.3).
    Other(u16),
}

/// The protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Not known: the packet is a fragment of one.
    Fragment,
    /// Another, by its number.
    Other(u8),
    /// The frame carries no IP.
    None,
}

/// Headers that contradict themselves, or that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeaders {
    /// A header that the one before announces is not there, or not all of it.
    #[error("the {0} header is cut short")]
    Short(&'static str),
    /// A version or length field has a value that the protocol does not have.
    #[error("the {0} header has a bad version or length")]
    Malformed(&'static str),
    /// More extension headers, or VLAN tags, than anybody sends.
    #[error("more than {0} of them in a row")]
    TooMany(usize),
}

impl Headers {
    /// Reads the headers at the start of `bytes`: a frame, or its first [`HEADERS_MAX`] bytes.
    ///
    /// # Errors
    /// If a header that is understood is malformed or not all there. A protocol that is not understood is no error.
    pub fn parse(bytes: &[u8]) -> Result<Headers, BadHeaders> {
        let (l2_len, ether_type) = ethernet(bytes)?;
        let rest = &bytes[l2_len..];
        match ether_type {
            ETHER_TYPE_IP4 => Headers::ip4(l2_len, rest),
            ETHER_TYPE_IP6 => Headers::ip6(l2_len, rest),
            other => Ok(Headers {
                l2_len,
                l3_len: 0,
                l4_len: 0,
                network: Network::Other(other),
                transport: Transport::None,
                routed: false,
            }),
        }
    }

    /// Where the transport header starts, in bytes from the start of the frame.
    #[must_use]
    #[inline]
    pub fn l4_start(&self) -> usize {
        self.l2_len + self.l3_len
    }

    /// Bytes of all headers.
    #[must_use]
    #[inline]
    pub fn total_len(&self) -> usize {
        self.l2_len + self.l3_len + self.l4_len
    }

    /// Where the checksum field of the transport header is, in bytes from the start of that header.
    #[must_use]
    #[inline]
    pub fn checksum_offset(&self) -> Option<usize> {
        match self.transport {
            Transport::Tcp => Some(TCP_CHECKSUM),
            Transport::Udp => Some(UDP_CHECKSUM),
            _ => None,
        }
    }

    /// RFC 791 §3.1.
    fn ip4(l2_len: usize, bytes: &[u8]) -> Result<Headers, BadHeaders> {
        let header = bytes.get(..IP4_LEN).ok_or(BadHeaders::Short("IPv4"))?;
        let l3_len = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || l3_len < IP4_LEN {
            return Err(BadHeaders::Malformed("IPv4"));
        }
        let rest = bytes.get(l3_len..).ok_or(BadHeaders::Short("IPv4"))?;
        let fragment = word(header, 6) & (IP4_MORE_FRAGMENTS | IP4_FRAGMENT_OFFSET) != 0;
        let (transport, l4_len) = if fragment { (Transport::Fragment, 0) } else { transport(header[9], rest)? };
        Ok(Headers { l2_len, l3_len, l4_len, network: Network::Ip4, transport, routed: false })
    }

    /// RFC 8200 §3 and §4.
    fn ip6(l2_len: usize, bytes: &[u8]) -> Result<Headers, BadHeaders> {
        let header = bytes.get(..IP6_LEN).ok_or(BadHeaders::Short("IPv6"))?;
        if header[0] >> 4 != 6 {
            return Err(BadHeaders::Malformed("IPv6"));
        }
        let (mut next, mut l3_len, mut routed) = (header[6], IP6_LEN, false);
        let ip6 = |l3_len, l4_len, transport, routed| Headers {
            l2_len,
            l3_len,
            l4_len,
            network: Network::Ip6,
            transport,
            routed,
        };
        for _ in 0..=EXTENSIONS_MAX {
            let rest = &bytes[l3_len..];
            match next {
                NEXT_HOP_BY_HOP | NEXT_ROUTING | NEXT_DESTINATION => {
                    let extension = rest.get(..8).ok_or(BadHeaders::Short("IPv6 extension"))?;
                    let len = 8 + usize::from(extension[1]) * 8;
                    if rest.len() < len {
                        return Err(BadHeaders::Short("IPv6 extension"));
                    }
                    routed |= next == NEXT_ROUTING && extension[3] != 0;
                    next = extension[0];
                    l3_len += len;
                }
                NEXT_FRAGMENT => return Ok(ip6(l3_len, 0, Transport::Fragment, routed)),
                next => {
                    let (transport, l4_len) = transport(next, rest)?;
                    return Ok(ip6(l3_len, l4_len, transport, routed));
                }
            }
        }
        Err(BadHeaders::TooMany(EXTENSIONS_MAX))
    }
}

/// Length of the Ethernet header with its tags, and the type behind them. IEEE 802.1Q §9.
fn ethernet(bytes: &[u8]) -> Result<(usize, u16), BadHeaders> {
    let mut len = ETHERNET_LEN;
    for _ in 0..=TAGS_MAX {
        if bytes.len() < len {
            return Err(BadHeaders::Short("Ethernet"));
        }
        match word(bytes, len - 2) {
            ETHER_TYPE_VLAN | ETHER_TYPE_QINQ => len += TAG_LEN,
            other => return Ok((len, other)),
        }
    }
    Err(BadHeaders::TooMany(TAGS_MAX))
}

fn transport(protocol: u8, bytes: &[u8]) -> Result<(Transport, usize), BadHeaders> {
    match protocol {
        PROTOCOL_TCP => {
            let header = bytes.get(..TCP_LEN).ok_or(BadHeaders::Short("TCP"))?;
            let len = usize::from(header[12] >> 4) * 4;
            match len {
                ..TCP_LEN => Err(BadHeaders::Malformed("TCP")),
                _ if len > bytes.len() => Err(BadHeaders::Short("TCP")),
                _ => Ok((Transport::Tcp, len)),
            }
        }
        PROTOCOL_UDP if bytes.len() < UDP_LEN => Err(BadHeaders::Short("UDP")),
        PROTOCOL_UDP => Ok((Transport::Udp, UDP_LEN)),
        other => Ok((Transport::Other(other), 0)),
    }
}

/// The 16-bit field at `at`, which is inside.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

const ETHER_TYPE_IP4: u16 = 0x0800;
const ETHER_TYPE_IP6: u16 = 0x86dd;
const ETHER_TYPE_VLAN: u16 = 0x8100;
const ETHER_TYPE_QINQ: u16 = 0x88a8;
const TAG_LEN: usize = 4;
/// Two are what QinQ has.
const TAGS_MAX: usize = 4;

const IP4_LEN: usize = 20;
pub(crate) const IP4_MORE_FRAGMENTS: u16 = 0x2000;
const IP4_FRAGMENT_OFFSET: u16 = 0x1fff;

pub(crate) const IP6_LEN: usize = 40;
const NEXT_HOP_BY_HOP: u8 = 0;
const NEXT_ROUTING: u8 = 43;
pub(crate) const NEXT_FRAGMENT: u8 = 44;
const NEXT_DESTINATION: u8 = 60;
const EXTENSIONS_MAX: usize = 8;

pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_UDP: u8 = 17;
const TCP_LEN: usize = 20;
const TCP_CHECKSUM: usize = 16;
const UDP_LEN: usize = 8;
const UDP_CHECKSUM: usize = 6;

#[cfg(test)]
mod tests;
