//! Offloads in software: cutting long frames into those that fit (TSO, USO, UFO) and completing checksums, for whoever
//! consumes frames and has been left more to do than it can. Payload is not copied here: what comes out is header bytes of
//! our own and pieces of the original. No memory is allocated, and no destination known.
//!
//! Frames lie in memory that a guest may write at any time. So the headers are copied once, that copy is checked against what
//! the [`Offload`] says, and that copy is what goes out. A guest that changes its payload meanwhile gets a wrong checksum.
//!
//! ```
//! use port::{FrameBatch, Offloads, Segmenter};
//!
//! /// Sends all frames to something that can nothing; says how many it had to refuse.
//! fn send(segmenter: &mut Segmenter, batch: &FrameBatch, mut emit: impl FnMut(&[u8])) -> usize {
//!     let (mut refused, mut buffer) = (0, [0; 2048]);
//!     for frame in batch.frames() {
//!         match segmenter.begin(&frame, Offloads::empty()) {
//!             Ok(mut cut) if cut.longest() <= buffer.len() => {
//!                 while let Some(out) = cut.next_frame() {
//!                     let len = out.read(&mut buffer);
//!                     emit(&buffer[..len]);
//!                 }
//!             }
//!             _ => refused += 1,
//!         }
//!     }
//!     refused
//! }
//! # let batch = FrameBatch::new(1, 1);
//! # assert_eq!(send(&mut Segmenter::new(), &batch, |_| ()), 0);
//! ```

mod fields;
mod pieces;

use guest_memory::GuestSlice;

use crate::checksum::Sum;
use crate::frame::peek;
use crate::headers::{BadHeaders, HEADERS_MAX, Headers, Network, Transport};
use crate::{Checksum, Frame, Offload, Offloads, Segmentation};
use fields::Fields;
pub use pieces::Pieces;

/// Frames that one frame may become: 64 KiB in pieces of 256 bytes. TCP's smallest usual segment is 536 bytes (RFC 9293 §3.7.1).
pub const SEGMENTS_MAX: usize = 256;

/// Cuts frames, one after the other. Holds the headers of the one at hand.
#[derive(Debug)]
pub struct Segmenter {
    header: [u8; HEADERS_MAX],
    /// Of the next IPv6 datagram that is cut into fragments.
    identification: u32,
}

/// Why a frame cannot be sent as its [`Offload`] wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOffload {
    /// Its headers cannot be read.
    #[error(transparent)]
    Headers(#[from] BadHeaders),
    /// It is to be cut as one protocol and is another, or a fragment already.
    #[error("the headers are not of the protocol that the frame is to be cut as")]
    Protocol,
    /// It is to be cut, but its checksum is not left open, or not where the transport header has it.
    #[error("a checksum at {start} + {offset} is not that of the transport header")]
    Checksum {
        /// Where summing was to start: 0 if it was not to be.
        start: usize,
        /// Where the result was to go.
        offset: usize,
    },
    /// The checksum field lies outside the frame, or too far in to be found.
    #[error("a checksum at {start} + {offset} does not lie in the first {max} bytes of the frame")]
    Bounds {
        /// Where summing was to start.
        start: usize,
        /// Where the result was to go.
        offset: usize,
        /// What there is of the frame, at most [`HEADERS_MAX`].
        max: usize,
    },
    /// Pieces of no bytes (of less than 8 for fragments).
    #[error("{0} bytes of payload in each piece are too few")]
    Size(u16),
    /// It would become too many frames.
    #[error("{0} pieces, must be at most {SEGMENTS_MAX}")]
    Pieces(usize),
    /// A packet would be longer than its own header can say.
    #[error("a packet of {0} bytes, must be at most 65535")]
    Long(usize),
    /// An IPv6 routing header with hops to go, or extension headers of a datagram that is to be sent in fragments.
    #[error("IPv6 extension headers that cannot be cut behind")]
    Extensions,
}

impl Default for Segmenter {
    fn default() -> Self {
        Segmenter::new()
    }
}

impl Segmenter {
    /// Nothing to cut yet.
    #[must_use]
    pub const fn new() -> Segmenter {
        Segmenter { header: [0; HEADERS_MAX], identification: 0 }
    }

    /// Checks a frame, whose bytes are `segments`, and starts to do to it what its [`Offload`] leaves to be done, except for what
    /// the receiver can do itself, which is in `capable`. A frame to which nothing is to be done comes out as it went in.
    ///
    /// # Errors
    /// If what is to be done does not fit the frame: see [`BadOffload`]. That is the sender's fault, and the frame's end.
    pub fn begin<'a>(&'a mut self, frame: &Frame<'a>, capable: Offloads) -> Result<Cut<'a>, BadOffload> {
        let (len, segments) = (frame.len as usize, frame.segments);
        let partial = match frame.offload.checksum {
            Checksum::Partial { start, offset } => Some((usize::from(start), usize::from(offset))),
            Checksum::Unchecked | Checksum::Valid => None,
        };
        match (frame.offload.segmentation, partial) {
            (Segmentation::None, Some(field)) if !capable.contains(Offloads::CHECKSUM) => {
                self.complete(len, segments, field)
            }
            (Segmentation::None, _) => Ok(Cut::whole(&mut self.header, segments, len, 0, frame.offload)),
            (segmentation, _) => self.cut(frame.offload, segmentation, partial, len, segments, capable),
        }
    }

    /// Completes a checksum wherever it is (virtio 1.3 §5.1.6.2).
    fn complete<'a>(
        &'a mut self,
        len: usize,
        segments: &'a [GuestSlice],
        (start, offset): (usize, usize),
    ) -> Result<Cut<'a>, BadOffload> {
        let (field, header_len) = (start + offset, start + offset + 2);
        if header_len > len.min(HEADERS_MAX) || peek(segments, &mut self.header[..header_len]) < header_len {
            return Err(BadOffload::Bounds { start, offset, max: len.min(HEADERS_MAX) });
        }
        let mut sum = Sum::new();
        sum.add(&self.header[start..header_len]);
        Pieces::new(segments, header_len, len - header_len).for_each(|piece| sum.add_memory(piece));
        self.header[field..header_len].copy_from_slice(&sum.checksum_not_zero().to_be_bytes());
        let offload = Offload { checksum: Checksum::Valid, segmentation: Segmentation::None };
        Ok(Cut::whole(&mut self.header, segments, len, header_len, offload))
    }

    fn cut<'a>(
        &'a mut self,
        offload: Offload,
        segmentation: Segmentation,
        partial: Option<(usize, usize)>,
        len: usize,
        segments: &'a [GuestSlice],
        capable: Offloads,
    ) -> Result<Cut<'a>, BadOffload> {
        let known = peek(segments, &mut self.header);
        let headers = Headers::parse(&self.header[..known])?;
        check(&headers, segmentation, partial)?;
        let (total, field) = (headers.total_len(), partial.is_some());
        if capable.contains(needed(&headers, segmentation, field)) {
            return Ok(Cut::whole(&mut self.header, segments, len, total, offload));
        }
        let size = segmentation.size().unwrap_or(0);
        let payload = len.checked_sub(total).ok_or(BadHeaders::Short("last"))?;
        if matches!(segmentation, Segmentation::UdpFragments { .. }) {
            return self.fragment(headers, size, field, payload, segments);
        }
        if headers.routed {
            return Err(BadOffload::Extensions);
        }
        let size = usize::from(size);
        let count = pieces_of(payload, size)?;
        packet_fits(headers.l3_len + headers.l4_len + size.min(payload))?;
        let fields = Fields::read(&self.header, &headers);
        let way = if capable.contains(Offloads::CHECKSUM) { Way::Partial } else { Way::Complete };
        let pieces = Pieces::new(segments, total, payload);
        Ok(Cut { header: &mut self.header, headers, fields, way, pieces, size, first: size, count, at: 0 })
    }

    /// One datagram as IP fragments (RFC 791 §3.2, RFC 8200 §4.5).
    fn fragment<'a>(
        &'a mut self,
        mut headers: Headers,
        size: u16,
        partial: bool,
        payload: usize,
        segments: &'a [GuestSlice],
    ) -> Result<Cut<'a>, BadOffload> {
        let unit = usize::from(size & !7);
        if unit == 0 {
            return Err(BadOffload::Size(size));
        }
        let total = headers.total_len();
        let count = pieces_of(headers.l4_len + payload, unit)?;
        packet_fits(headers.l3_len + headers.l4_len + payload)?;
        let pieces = Pieces::new(segments, total, payload);
        if partial {
            fields::complete_datagram(&mut self.header, &headers, payload, pieces.clone())?;
        }
        if headers.network == Network::Ip6 {
            self.identification = self.identification.wrapping_add(1);
            fields::insert_fragment_header(&mut self.header, &mut headers, self.identification)?;
        }
        let fields = Fields::read(&self.header, &headers);
        let first = unit - headers.l4_len;
        Ok(Cut {
            header: &mut self.header,
            headers,
            fields,
            way: Way::Fragment,
            pieces,
            size: unit,
            first,
            count,
            at: 0,
        })
    }
}

/// Whether the headers are what the frame is to be cut as, and the open checksum theirs.
fn check(headers: &Headers, segmentation: Segmentation, partial: Option<(usize, usize)>) -> Result<(), BadOffload> {
    let fits = match segmentation {
        Segmentation::None => true,
        Segmentation::Tcp4 { .. } => headers.network == Network::Ip4 && headers.transport == Transport::Tcp,
        Segmentation::Tcp6 { .. } => headers.network == Network::Ip6 && headers.transport == Transport::Tcp,
        Segmentation::Udp { .. } | Segmentation::UdpFragments { .. } => headers.transport == Transport::Udp,
    };
    if !fits {
        return Err(BadOffload::Protocol);
    }
    if let Some(0) = segmentation.size() {
        return Err(BadOffload::Size(0));
    }
    match (partial, segmentation) {
        (None, Segmentation::UdpFragments { .. }) => Ok(()),
        (Some((start, offset)), _) if start == headers.l4_start() && Some(offset) == headers.checksum_offset() => {
            Ok(())
        }
        _ => {
            let (start, offset) = partial.unwrap_or_default();
            Err(BadOffload::Checksum { start, offset })
        }
    }
}

/// What a receiver must be capable of to take the frame uncut.
fn needed(headers: &Headers, segmentation: Segmentation, partial: bool) -> Offloads {
    let ecn = |ecn| if ecn { Offloads::ECN } else { Offloads::empty() };
    let cutting = match segmentation {
        Segmentation::None => Offloads::empty(),
        Segmentation::Tcp4 { ecn: marked, .. } => Offloads::TCP4 | ecn(marked),
        Segmentation::Tcp6 { ecn: marked, .. } => Offloads::TCP6 | ecn(marked),
        Segmentation::Udp { .. } if headers.network == Network::Ip4 => Offloads::UDP4,
        Segmentation::Udp { .. } => Offloads::UDP6,
        Segmentation::UdpFragments { .. } => Offloads::UDP_FRAGMENTS,
    };
    if partial { cutting | Offloads::CHECKSUM } else { cutting }
}

fn pieces_of(payload: usize, size: usize) -> Result<usize, BadOffload> {
    let count = payload.div_ceil(size).max(1);
    if count > SEGMENTS_MAX { Err(BadOffload::Pieces(count)) } else { Ok(count) }
}

fn packet_fits(len: usize) -> Result<(), BadOffload> {
    if len > usize::from(u16::MAX) { Err(BadOffload::Long(len)) } else { Ok(()) }
}

/// A frame on its way out, as one or several. Lives as long as its [`Segmenter`] has nothing else to do.
#[derive(Debug)]
pub struct Cut<'a> {
    header: &'a mut [u8; HEADERS_MAX],
    headers: Headers,
    fields: Fields,
    way: Way,
    /// The payload that has not gone out yet.
    pieces: Pieces<'a>,
    /// Payload of each frame but the last, and of the first, where the header at its start is not payload.
    size: usize,
    first: usize,
    count: usize,
    at: usize,
}

/// What is done to the frames on their way out.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// One frame, with so many bytes of header in our copy.
    Whole { header_len: usize, offload: Offload },
    /// Segments, their checksums left open.
    Partial,
    /// Segments with their checksums.
    Complete,
    /// IP fragments.
    Fragment,
}

impl<'a> Cut<'a> {
    fn whole(
        header: &'a mut [u8; HEADERS_MAX],
        segments: &'a [GuestSlice],
        len: usize,
        header_len: usize,
        offload: Offload,
    ) -> Cut<'a> {
        let size = len.saturating_sub(header_len);
        Cut {
            header,
            headers: NO_HEADERS,
            fields: Fields::default(),
            way: Way::Whole { header_len, offload },
            pieces: Pieces::new(segments, header_len, size),
            size,
            first: size,
            count: 1,
            at: 0,
        }
    }

    /// Frames that are still to come.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.count - self.at
    }

    /// Bytes in the longest of the frames that are still to come.
    #[must_use]
    pub fn longest(&self) -> usize {
        let header_len = self.header_len(self.at);
        let payload = if self.at == 0 { self.first } else { self.size };
        let later = if self.at + 1 < self.count { self.header_len(1) + self.size.min(self.pieces.len()) } else { 0 };
        (header_len + payload.min(self.pieces.len())).max(later)
    }

    /// The next frame.
    #[inline]
    pub fn next_frame(&mut self) -> Option<OutFrame<'_>> {
        if self.at == self.count {
            return None;
        }
        let size = if self.at == 0 { self.first } else { self.size };
        let payload = self.pieces.take_bytes(size);
        let header_len = self.header_len(self.at);
        let place = fields::Place { index: self.at, last: self.at + 1 == self.count, payload: payload.len() };
        let offload = match self.way {
            Way::Whole { offload, .. } => offload,
            Way::Partial => {
                self.fields.write(self.header, &self.headers, place);
                self.fields.write_partial(self.header, &self.headers, place)
            }
            Way::Complete => {
                self.fields.write(self.header, &self.headers, place);
                self.fields.write_complete(self.header, &self.headers, payload.clone())
            }
            Way::Fragment => {
                self.fields.write_fragment(self.header, &self.headers, place, self.size);
                Offload::NONE
            }
        };
        self.at += 1;
        Some(OutFrame { header: &self.header[..header_len], payload, offload })
    }

    fn header_len(&self, at: usize) -> usize {
        match self.way {
            Way::Whole { header_len, .. } => header_len,
            Way::Partial | Way::Complete => self.headers.total_len(),
            Way::Fragment if at == 0 => self.headers.total_len(),
            Way::Fragment => self.headers.l4_start(),
        }
    }
}

const NO_HEADERS: Headers =
    Headers { l2_len: 0, l3_len: 0, l4_len: 0, network: Network::Other(0), transport: Transport::None, routed: false };

/// A frame as it goes out: bytes of our own, then pieces of the original frame.
#[derive(Clone, Debug)]
pub struct OutFrame<'a> {
    /// Its headers as they are now. Empty where nothing had to be looked at.
    pub header: &'a [u8],
    /// The rest of it.
    pub payload: Pieces<'a>,
    /// What is left to be done to it: something that the receiver is capable of.
    pub offload: Offload,
}

impl OutFrame<'_> {
    /// Bytes in all.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies it into memory of our own: as many bytes as both hold. Returns that number.
    pub fn read(&self, to: &mut [u8]) -> usize {
        let mut at = self.header.len().min(to.len());
        to[..at].copy_from_slice(&self.header[..at]);
        for piece in self.payload.clone() {
            at += piece.read(&mut to[at..]);
        }
        at
    }

    /// Copies it into the buffers `to`, one after the other: as many bytes as both hold. Returns that number.
    pub fn copy_to(&self, to: &[GuestSlice]) -> usize {
        let mut room = Pieces::all(to);
        let mut header = self.header;
        for part in room.take_bytes(header.len()) {
            header = &header[part.write(header)..];
        }
        let mut copied = self.header.len() - header.len();
        for mut piece in self.payload.clone() {
            for part in room.take_bytes(piece.len()) {
                let (now, later) = piece.split_at(part.len());
                copied += now.copy_to(part);
                piece = later;
            }
        }
        copied
    }
}

#[cfg(test)]
mod tests;
