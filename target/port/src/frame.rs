//! Frames as bursts carry them: segments of memory that somebody else owns, and what is left to be done to them.

use guest_memory::GuestSlice;

use crate::Offload;

/// One Ethernet frame, from the destination address on, without FCS. Its segments lie in the [`FrameBatch`] that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes in all segments.
    pub len: u32,
    /// What is left to be done to it.
    pub offload: Offload,
    start: u32,
    end: u32,
}

impl Frame {
    /// Whether nothing is left to be done to it and nothing is known of it: its offload is [`Offload::NONE`].
    #[must_use]
    #[inline]
    pub fn is_bare(&self) -> bool {
        self.offload.is_none()
    }
}

/// Reads the first bytes of a frame into memory of our own: as many as both hold. Returns that number.
#[inline]
pub fn peek(segments: &[GuestSlice], to: &mut [u8]) -> usize {
    let mut at = 0;
    for segment in segments {
        if at == to.len() {
            break;
        }
        at += segment.read(&mut to[at..]);
    }
    at
}

/// Frames and their segments: an arena that one burst after the other fills. It allocates when it is made, and when frames
/// have more segments than it has met before.
#[derive(Debug)]
pub struct FrameBatch {
    frames: Vec<Frame>,
    segments: Vec<GuestSlice>,
}

impl FrameBatch {
    /// Room for `frames` frames with `segments` segments altogether.
    #[must_use]
    pub fn new(frames: usize, segments: usize) -> FrameBatch {
        FrameBatch { frames: Vec::with_capacity(frames), segments: Vec::with_capacity(segments) }
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.frames.clear();
        self.segments.clear();
    }

    /// Adds a frame that lies in `first` and then `rest`, in order. Empty segments are allowed and not kept.
    #[inline]
    pub fn push(&mut self, first: GuestSlice, rest: &[GuestSlice], offload: Offload) {
        if !rest.is_empty() || first.is_empty() {
            return self.push_pieces(first, rest, offload);
        }
        let start = self.segments.len() as u32;
        self.segments.push(first);
        self.frames.push(Frame { len: first.len() as u32, offload, start, end: start + 1 });
    }

    /// Adds a frame that lies in one segment, which is not empty, and to which nothing is left to be done: nearly all are like
    /// that.
    #[inline(always)]
    pub fn push_bare(&mut self, segment: GuestSlice) {
        let start = self.segments.len() as u32;
        self.segments.push(segment);
        self.frames.push(Frame { len: segment.len() as u32, offload: Offload::NONE, start, end: start + 1 });
    }

    #[inline(never)]
    fn push_pieces(&mut self, first: GuestSlice, rest: &[GuestSlice], offload: Offload) {
        let start = self.segments.len() as u32;
        let mut len = 0;
        for segment in [first].iter().chain(rest).filter(|segment| !segment.is_empty()) {
            self.segments.push(*segment);
            len += segment.len();
        }
        let end = self.segments.len() as u32;
        self.frames.push(Frame { len: len as u32, offload, start, end });
    }

    /// The frames, oldest first.
    #[must_use]
    #[inline]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The bytes of a frame of this batch, in order.
    #[must_use]
    #[inline]
    pub fn segments(&self, frame: &Frame) -> &[GuestSlice] {
        &self.segments[frame.start as usize..frame.end as usize]
    }

    /// Number of frames.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no frame.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}
