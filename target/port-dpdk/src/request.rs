//! What a frame in an mbuf still needs: asked of the hardware where that can do it, done here where not. The bytes looked at
//! are our own copy. Cutting long frames in software is `port`'s.

use dpdk::{Mbuf, TxFlags, TxHeaders, TxOffloads};
use port::{Checksum, DropCause, HEADERS_MAX, Headers, Network, Offload, Offloads, Segmentation, Transport};

/// What the hardware can do, in the words of ports.
pub(crate) fn capable(offloads: TxOffloads) -> Offloads {
    let checksums = TxOffloads::TCP_CHECKSUM | TxOffloads::UDP_CHECKSUM;
    let cutting = checksums | TxOffloads::IP_CHECKSUM | TxOffloads::TCP_SEGMENTS | TxOffloads::SEGMENTS;
    let mut capable = Offloads::empty();
    capable.set(Offloads::CHECKSUM, offloads.contains(checksums));
    // Not ECN: nothing says what becomes of CWR. Not UDP: drivers disagree about whether it means datagrams or fragments.
    capable.set(Offloads::TCP4 | Offloads::TCP6, offloads.contains(cutting));
    capable
}

/// Sees to it that `offload` is done to a frame, by the hardware, which is `capable` of some, or here. Returns whether the
/// hardware was asked.
///
/// # Errors
/// Why the frame must be dropped.
pub(crate) fn apply(mbuf: &mut Mbuf, offload: Offload, capable: Offloads, frame_max: u32) -> Result<bool, DropCause> {
    let Checksum::Partial { start, offset } = offload.checksum else {
        return if offload.segmentation == Segmentation::None { Ok(false) } else { Err(DropCause::Offload) };
    };
    let plain = offload.segmentation == Segmentation::None;
    if plain && !capable.contains(Offloads::CHECKSUM) {
        return complete(mbuf, u32::from(start), u32::from(offset)).map(|()| false);
    }
    let mut bytes = [0; HEADERS_MAX];
    let known = mbuf.read(0, &mut bytes);
    let headers = Headers::parse(&bytes[..known]).ok();
    let asked = headers.and_then(|headers| wanted(&headers, offload, (start, offset)));
    if let Some((mut flags, mut lengths)) = asked {
        let segment =
            u32::from(lengths.l2) + u32::from(lengths.l3) + u32::from(lengths.l4) + u32::from(lengths.segment);
        if lengths.segment > 0 && (segment > frame_max || mbuf.len() > FRAME_CUT_MAX) {
            return Err(DropCause::Length);
        }
        if mbuf.len() <= segment {
            // One piece, which is what it is already.
            flags -= TxFlags::TCP_SEGMENTS | TxFlags::IP_CHECKSUM;
            lengths.segment = 0;
        }
        if mbuf.prepare(flags, lengths) {
            return Ok(true);
        }
    }
    if !plain {
        return Err(DropCause::Offload);
    }
    complete(mbuf, u32::from(start), u32::from(offset)).map(|()| false)
}

/// What to ask of the hardware: `None` if the frame is none that it understands, or not what `offload` says.
fn wanted(headers: &Headers, offload: Offload, (start, offset): (u16, u16)) -> Option<(TxFlags, TxHeaders)> {
    if headers.l4_start() != usize::from(start)
        || headers.checksum_offset() != Some(usize::from(offset))
        || headers.routed
    {
        return None;
    }
    let mut flags = match headers.network {
        Network::Ip4 => TxFlags::IPV4,
        Network::Ip6 => TxFlags::IPV6,
        Network::Other(_) => return None,
    };
    flags |= match headers.transport {
        Transport::Tcp => TxFlags::TCP_CHECKSUM,
        Transport::Udp => TxFlags::UDP_CHECKSUM,
        _ => return None,
    };
    let segment = match (offload.segmentation, headers.network, headers.transport) {
        (Segmentation::None, _, _) => 0,
        (Segmentation::Tcp4 { size, .. }, Network::Ip4, Transport::Tcp) => {
            flags |= TxFlags::TCP_SEGMENTS | TxFlags::IP_CHECKSUM;
            size
        }
        (Segmentation::Tcp6 { size, .. }, Network::Ip6, Transport::Tcp) => {
            flags |= TxFlags::TCP_SEGMENTS;
            size
        }
        _ => return None,
    };
    let lengths = TxHeaders {
        l2: u8::try_from(headers.l2_len).ok()?,
        l3: u16::try_from(headers.l3_len).ok()?,
        l4: u8::try_from(headers.l4_len).ok()?,
        segment,
    };
    Some((flags, lengths))
}

/// Completes a checksum wherever it is: for protocols that the hardware does not know.
fn complete(mbuf: &mut Mbuf, start: u32, offset: u32) -> Result<(), DropCause> {
    let field = start + offset;
    let rest = mbuf.len().checked_sub(start).filter(|_| field + 2 <= mbuf.len()).ok_or(DropCause::Offload)?;
    let sum = mbuf.sum(start, rest).ok_or(DropCause::Offload)?;
    let checksum = if sum == 0xffff { 0xffff } else { !sum };
    mbuf.write(field, &checksum.to_ne_bytes()); // the sum is in the order of memory, whatever that is
    Ok(())
}

/// The longest packet that an IP header can tell, and an Ethernet header with tags.
const FRAME_CUT_MAX: u32 = 65535 + 30;
