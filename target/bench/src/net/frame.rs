//! The frames that are sent, byte by byte, and whether what came back is one of them. Ethernet, IPv4, and UDP or TCP; very
//! small ones are Ethernet alone. Nothing here knows a ring.
//!
//! A frame carries a stamp: the run that it is of and its number. The number's upper 16 bits are the queue pair.

use guest_memory::GuestSlice;

use super::args::{Args, Offload};
use super::wire::{DATA_VALID, GSO_TCPV4, HEADER_LEN, Header, NEEDS_CSUM};

/// Bytes of the smallest frame: two addresses and a type.
pub(crate) const MIN: u32 = ETHERNET as u32;
/// Bytes of the smallest one with a stamp.
pub(super) const STAMPED_MIN: u32 = (ETHERNET + STAMP) as u32;
/// Bytes of the smallest one of UDP.
pub(super) const UDP_MIN: u32 = (UDP_PAYLOAD + STAMP) as u32;
/// Bytes of the smallest one of TCP.
pub(super) const TCP_MIN: u32 = (TCP_PAYLOAD + STAMP) as u32;

/// All frames of a run: the same but for their number and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    /// Header and frame number 0 of flow 0.
    template: Vec<u8>,
    /// Where the stamp is in the frame; `None` where it has no room.
    stamp_at: Option<usize>,
    transport: Option<Transport>,
    run: u64,
    flows: u64,
    /// Contents follow from the number.
    verify: bool,
}

/// What the checksum of a frame is made of.
#[derive(Clone, Copy, Debug)]
struct Transport {
    /// Where its header begins in the frame.
    start: usize,
    /// Where the checksum is in the frame.
    checksum_at: usize,
    /// UDP says no checksum by 0.
    zero_is_none: bool,
    /// The sum over the pseudo header.
    pseudo: u64,
    /// That, and the template with a number, a source port and a checksum of 0.
    rest: u64,
    /// The device completes it.
    partial: bool,
}

/// What is wrong with a frame that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// Its length.
    #[error("{len} bytes, sent {wanted}")]
    Length { len: usize, wanted: usize },
    /// A byte of it.
    #[error("byte {at} is {found:#04x}, sent {wanted:#04x}")]
    Byte { at: usize, found: u8, wanted: u8 },
    /// Its checksum, which the device may have completed.
    #[error("checksum {found:#06x}, must be {wanted:#06x}")]
    Checksum { found: u16, wanted: u16 },
}

impl Frames {
    pub(super) fn new(args: &Args, run: u64) -> Frames {
        let size = args.size as usize;
        let mut template = vec![0; HEADER_LEN + size];
        let frame = &mut template[HEADER_LEN..];
        frame[..6].copy_from_slice(&args.dst_mac.0);
        frame[6..12].copy_from_slice(&args.src_mac.0);
        let (stamp_at, transport) = match args.offload {
            Offload::Tso => (Some(TCP_PAYLOAD), Some(tcp(frame))),
            _ if args.size >= UDP_MIN => (Some(UDP_PAYLOAD), Some(udp(frame))),
            _ => {
                frame[12..14].copy_from_slice(&EXPERIMENTAL);
                ((args.size >= STAMPED_MIN).then_some(ETHERNET), None)
            }
        };
        if let Some(at) = stamp_at {
            frame[at..at + 8].copy_from_slice(&run.to_be_bytes());
        }
        let transport = transport.map(|transport| Transport {
            rest: transport.pseudo + sum(&frame[transport.start..]),
            partial: args.offload != Offload::None,
            ..transport
        });
        let header = transport.map_or(Header::default(), |transport| header(&transport, args));
        template[..HEADER_LEN].copy_from_slice(&header.bytes());
        let mut frames = Frames { template, stamp_at, transport, run, flows: args.flows.into(), verify: args.verify };
        if let Some(transport) = frames.transport {
            let ports = HEADER_LEN + transport.start;
            frames.template[ports..ports + 2].copy_from_slice(&FIRST_PORT.to_be_bytes());
            let at = HEADER_LEN + transport.checksum_at;
            let checksum = transport.checksum(transport.rest + u64::from(FIRST_PORT));
            frames.template[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        frames
    }

    /// Bytes of header and frame.
    pub(super) fn len(&self) -> usize {
        self.template.len()
    }

    /// Writes frame `number` where nothing was before.
    pub(super) fn write(&self, to: GuestSlice, number: u64) {
        to.write(&self.bytes(number));
    }

    /// Makes another frame of one that [`Frames::write`] wrote there.
    #[inline(always)]
    pub(super) fn rewrite(&self, to: GuestSlice, number: u64) {
        if self.verify {
            self.write(to, number);
            return;
        }
        let Some(stamp_at) = self.stamp_at else { return };
        put(to, HEADER_LEN + stamp_at + 8, number.to_be_bytes());
        let Some(transport) = &self.transport else { return };
        let port = self.port(number);
        if self.flows > 1 {
            put(to, HEADER_LEN + transport.start, port.to_be_bytes());
        }
        if !transport.partial {
            let sum = transport.rest + words_of(number) + u64::from(port);
            put(to, HEADER_LEN + transport.checksum_at, transport.checksum(sum).to_be_bytes());
        }
    }

    /// Header and frame `number`.
    fn bytes(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.template.clone();
        let frame = &mut bytes[HEADER_LEN..];
        if let Some(at) = self.stamp_at {
            frame[at + 8..at + STAMP].copy_from_slice(&number.to_be_bytes());
            if self.verify {
                fill(&mut frame[at + STAMP..], self.run ^ number);
            }
        }
        if let Some(transport) = &self.transport {
            let port = self.port(number).to_be_bytes();
            frame[transport.start..transport.start + 2].copy_from_slice(&port);
            let at = transport.checksum_at;
            frame[at..at + 2].fill(0);
            let checksum = transport.checksum(transport.pseudo + sum(&frame[transport.start..]));
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }

    #[inline(always)]
    fn port(&self, number: u64) -> u16 {
        if self.flows == 1 {
            return FIRST_PORT;
        }
        FIRST_PORT + (number % self.flows) as u16
    }

    // --- what came back ---

    /// Bytes of a frame that have to be looked at for its number.
    pub(super) fn number_end(&self) -> usize {
        self.stamp_at.map_or(usize::MAX, |at| at + STAMP)
    }

    /// The number of a frame by its first bytes; `None` if it is of something else than this run.
    #[inline(always)]
    pub(super) fn number(&self, first: GuestSlice) -> Option<u64> {
        let stamp: [u8; STAMP] = first.subslice(self.stamp_at?, STAMP)?.read_array()?;
        self.number_by(&stamp)
    }

    /// The same of bytes of ours.
    pub(super) fn number_of(&self, first: &[u8]) -> Option<u64> {
        let stamp: &[u8; STAMP] = first.get(self.stamp_at?..)?.first_chunk()?;
        self.number_by(stamp)
    }

    #[inline(always)]
    fn number_by(&self, stamp: &[u8; STAMP]) -> Option<u64> {
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| stamp[at + byte]));
        (word(0) == self.run).then(|| word(8))
    }

    /// Whether the length of a frame is that of one of ours.
    #[inline(always)]
    pub(super) fn check_len(&self, len: usize) -> Result<(), Damage> {
        let wanted = self.template.len() - HEADER_LEN;
        if len == wanted { Ok(()) } else { Err(Damage::Length { len, wanted }) }
    }

    /// Compares frame `number`, whose header says `flags`, with what was sent: all bytes, or the checksum that the device
    /// had to make of it.
    pub(super) fn check(&self, number: u64, flags: u8, frame: &[u8]) -> Result<(), Damage> {
        self.check_len(frame.len())?;
        let sent = &self.bytes(number)[HEADER_LEN..];
        let checksum_at = self.transport.map_or(usize::MAX - 1, |transport| transport.checksum_at);
        let of_checksum = |at: usize| at == checksum_at || at == checksum_at + 1;
        let differs = |at: &usize| frame[*at] != sent[*at] && !of_checksum(*at);
        if let Some(at) = (0..frame.len()).find(differs) {
            return Err(Damage::Byte { at, found: frame[at], wanted: sent[at] });
        }
        let Some(transport) = &self.transport else { return Ok(()) };
        let found = u16::from_be_bytes([frame[checksum_at], frame[checksum_at + 1]]);
        let partial = fold(transport.pseudo);
        let mut zeroed = sent.to_vec();
        zeroed[checksum_at..checksum_at + 2].fill(0);
        let whole = transport.complete(transport.pseudo + sum(&zeroed[transport.start..]));
        let right = match flags & (NEEDS_CSUM | DATA_VALID) {
            0 => found == whole,
            NEEDS_CSUM => found == partial,
            // Known to be right, whatever is there.
            _ => found == whole || found == partial,
        };
        let wanted = if flags & NEEDS_CSUM != 0 { partial } else { whole };
        if right { Ok(()) } else { Err(Damage::Checksum { found, wanted }) }
    }
}

impl Transport {
    /// What stands in the field when the sum over everything is `sum`.
    #[inline(always)]
    fn checksum(&self, sum: u64) -> u16 {
        if self.partial { fold(self.pseudo) } else { self.complete(sum) }
    }

    #[inline(always)]
    fn complete(&self, sum: u64) -> u16 {
        match !fold(sum) {
            0 if self.zero_is_none => 0xffff,
            checksum => checksum,
        }
    }
}

fn header(transport: &Transport, args: &Args) -> Header {
    let payload = args.size as usize - TCP_PAYLOAD.min(args.size as usize);
    let partial = Header {
        flags: NEEDS_CSUM,
        csum_start: transport.start as u16,
        csum_offset: (transport.checksum_at - transport.start) as u16,
        ..Header::default()
    };
    match args.offload {
        Offload::None => Header::default(),
        Offload::Tso if payload > MSS => {
            Header { gso_type: GSO_TCPV4, gso_size: MSS as u16, hdr_len: TCP_PAYLOAD as u16, ..partial }
        }
        Offload::Csum | Offload::Tso => partial,
    }
}

/// IPv4 (RFC 791) with the addresses of benchmarks (RFC 2544 appendix C.2.2).
fn ipv4(frame: &mut [u8], protocol: u8) {
    let len = (frame.len() - ETHERNET) as u16;
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = &mut frame[ETHERNET..TRANSPORT];
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 19, 0, 1]);
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let checksum = !fold(sum(ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// RFC 768.
fn udp(frame: &mut [u8]) -> Transport {
    ipv4(frame, 17);
    let len = (frame.len() - TRANSPORT) as u16;
    let udp = &mut frame[TRANSPORT..UDP_PAYLOAD];
    udp[2..4].copy_from_slice(&PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&len.to_be_bytes());
    transport(frame, 6, 17)
}

/// RFC 9293.
fn tcp(frame: &mut [u8]) -> Transport {
    ipv4(frame, 6);
    let tcp = &mut frame[TRANSPORT..TCP_PAYLOAD];
    tcp[2..4].copy_from_slice(&PORT.to_be_bytes());
    // Sequence number, then 20 bytes of header, ACK, a window.
    tcp[4..8].copy_from_slice(&[0, 0, 0, 1]);
    tcp[12..16].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
    transport(frame, 16, 6)
}

fn transport(frame: &[u8], offset: usize, protocol: u8) -> Transport {
    let addresses = sum(&frame[ETHERNET + 12..TRANSPORT]);
    let pseudo = addresses + u64::from(protocol) + (frame.len() - TRANSPORT) as u64;
    let checksum_at = TRANSPORT + offset;
    Transport { start: TRANSPORT, checksum_at, zero_is_none: protocol == 17, pseudo, rest: 0, partial: false }
}

#[inline(always)]
fn put<const N: usize>(to: GuestSlice, at: usize, bytes: [u8; N]) {
    to.subslice(at, N).expect("inside the frame").write(&bytes);
}

/// Contents that follow from a number.
fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed;
    for chunk in bytes.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes()[..chunk.len()]);
    }
}

/// The sum of 16-bit words (RFC 1071), not yet folded.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    sum + rest.first().map_or(0, |byte| u64::from(*byte) << 8)
}

#[inline(always)]
fn words_of(number: u64) -> u64 {
    (number >> 48) + (number >> 32 & 0xffff) + (number >> 16 & 0xffff) + (number & 0xffff)
}

#[inline(always)]
fn fold(sum: u64) -> u16 {
    // A frame has too few words for a sum of more than 32 bits.
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + (once & 0xffff)) as u16
}

const ETHERNET: usize = 14;
const TRANSPORT: usize = ETHERNET + 20;
const UDP_PAYLOAD: usize = TRANSPORT + 8;
const TCP_PAYLOAD: usize = TRANSPORT + 20;
/// Run and number.
const STAMP: usize = 16;
/// EtherType for local experiments (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Discard.
const PORT: u16 = 9;
/// The first source port: the range of dynamic ones has 16384.
const FIRST_PORT: u16 = 49152;
/// Payload of a segment.
const MSS: usize = 1460;

#[cfg(test)]
mod tests;
