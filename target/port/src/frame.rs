//! Frames as bursts carry them: segments of memory that somebody else owns, and what is left to be done to them.

use guest_memory::GuestSlice;

use crate::Offload;

/// One Ethernet frame, from the destination address on, without FCS.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Bytes in all segments.
    pub len: u32,
    /// What is left to be done to it.
    pub offload: Offload,
    /// Where it lies, in order; none is empty.
    pub segments: &'a [GuestSlice],
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
///
/// Nearly all frames are bare: they lie in one segment, nothing is left to be done to them and nothing is known of them. Those at
/// a batch's beginning are nothing but their segment, [`FrameBatch::bare`], so that whoever has something quick to do with many
/// can do it there.
#[derive(Debug)]
pub struct FrameBatch {
    /// What is filled of it is `bare_len`.
    bare: Box<[GuestSlice]>,
    bare_len: usize,
    /// The frames behind them.
    others: Vec<Other>,
    segments: Vec<GuestSlice>,
}

/// A frame that is not among the bare ones at the beginning. Its segments are in the batch.
#[derive(Clone, Copy, Debug)]
struct Other {
    len: u32,
    offload: Offload,
    start: u32,
    end: u32,
}

impl FrameBatch {
    /// Room for `frames` frames with `segments` segments altogether.
    #[must_use]
    pub fn new(frames: usize, segments: usize) -> FrameBatch {
        FrameBatch {
            bare: vec![GuestSlice::EMPTY; frames].into(),
            bare_len: 0,
            others: Vec::with_capacity(frames),
            segments: Vec::with_capacity(segments),
        }
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.bare_len = 0;
        self.others.clear();
        self.segments.clear();
    }

    /// Forgets all frames, and takes bare ones as long as there are such and room: each lies in one segment, which is not
    /// empty. Returns how many.
    #[inline(always)]
    pub fn fill_bare(&mut self, frames: impl Iterator<Item = GuestSlice>) -> usize {
        self.clear();
        let mut count = 0;
        for (place, segment) in self.bare.iter_mut().zip(frames) {
            debug_assert!(!segment.is_empty());
            *place = segment;
            count += 1;
        }
        self.bare_len = count;
        count
    }

    /// Adds a frame that lies in `first` and then `rest`, in order. Empty segments are allowed and not kept.
    #[inline]
    pub fn push(&mut self, first: GuestSlice, rest: &[GuestSlice], offload: Offload) {
        let bare = rest.is_empty() && !first.is_empty() && offload.is_none() && self.others.is_empty();
        match self.bare.get_mut(self.bare_len).filter(|_| bare) {
            Some(place) => {
                *place = first;
                self.bare_len += 1;
            }
            None => self.push_other(first, rest, offload),
        }
    }

    #[inline(never)]
    fn push_other(&mut self, first: GuestSlice, rest: &[GuestSlice], offload: Offload) {
        let start = self.segments.len() as u32;
        let mut len = 0;
        for segment in [first].iter().chain(rest).filter(|segment| !segment.is_empty()) {
            self.segments.push(*segment);
            len += segment.len();
        }
        let end = self.segments.len() as u32;
        self.others.push(Other { len: len as u32, offload, start, end });
    }

    /// The bare frames that the batch begins with, each as its only segment.
    #[must_use]
    #[inline]
    pub fn bare(&self) -> &[GuestSlice] {
        &self.bare[..self.bare_len]
    }

    /// The frames, oldest first.
    #[inline]
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        (0..self.len()).map(|index| self.frame(index))
    }

    /// Frame number `index`, the oldest being 0.
    ///
    /// # Panics
    /// If there is no such frame.
    #[must_use]
    #[inline]
    pub fn frame(&self, index: usize) -> Frame<'_> {
        if let Some(segment) = self.bare().get(index) {
            let segments = std::slice::from_ref(segment);
            return Frame { len: segment.len() as u32, offload: Offload::NONE, segments };
        }
        let Other { len, offload, start, end } = self.others[index - self.bare_len];
        Frame { len, offload, segments: &self.segments[start as usize..end as usize] }
    }

    /// Number of frames.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.bare_len + self.others.len()
    }

    /// Whether there is no frame.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Memory;
    use crate::{Checksum, Segmentation};

    const VALID: Offload = Offload { checksum: Checksum::Valid, segmentation: Segmentation::None };

    #[test]
    fn bare_frames_end_at_the_first_that_is_not() {
        let memory = Memory::of(&[0; 64]);
        let at = |offset| memory.at(offset, 8);
        let mut batch = FrameBatch::new(8, 8);
        batch.push(at(0), &[], Offload::NONE);
        batch.push(at(8), &[GuestSlice::EMPTY], Offload::NONE);
        batch.push(at(16), &[], Offload::NONE);
        assert_eq!((batch.bare().len(), batch.len()), (1, 3));
        batch.clear();
        batch.push(at(0), &[], VALID);
        assert_eq!((batch.bare().len(), batch.len()), (0, 1));
        assert_eq!(batch.frame(0).offload, VALID);
        batch.clear();
        batch.push(GuestSlice::EMPTY, &[], Offload::NONE);
        assert_eq!((batch.bare().len(), batch.len(), batch.frame(0).len), (0, 1, 0));
    }

    #[test]
    fn filled_batch_has_what_there_is_room_for_and_nothing_from_before() {
        let memory = Memory::of(&[0; 64]);
        let mut batch = FrameBatch::new(3, 8);
        batch.push(memory.at(0, 1), &[memory.at(1, 1)], VALID);
        let taken = batch.fill_bare((0..8).map(|index| memory.at(8 * index, 1 + index)));
        assert_eq!((taken, batch.len()), (3, 3));
        assert_eq!(batch.frames().map(|frame| frame.len).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(batch.fill_bare(std::iter::empty()), 0);
        assert!(batch.is_empty());
    }

    proptest! {
        /// Whatever is pushed comes back as it was, in order, more often than there is room for as well.
        #[test]
        fn batch_gives_back_what_was_pushed(
            frames in vec((vec(0usize..4, 1..4), any::<bool>()), 0..12),
            filled in 0usize..4,
        ) {
            let memory = Memory::of(&[0; 256]);
            let mut batch = FrameBatch::new(6, 4);
            let whole = |index: usize| memory.at(200 + index, 1);
            batch.fill_bare((0..filled).map(whole));
            let mut at = 0;
            let mut wanted: Vec<_> = (0..filled).map(|index| (vec![(whole(index).as_ptr(), 1)], Offload::NONE)).collect();
            for (lens, valid) in &frames {
                let slices: Vec<GuestSlice> = lens.iter().map(|len| { at += len; memory.at(at - len, *len) }).collect();
                let offload = if *valid { VALID } else { Offload::NONE };
                batch.push(slices[0], &slices[1..], offload);
                let kept = slices.iter().filter(|slice| !slice.is_empty());
                wanted.push((kept.map(|slice| (slice.as_ptr(), slice.len())).collect(), offload));
            }
            let places = |segments: &[GuestSlice]| segments.iter().map(|slice| (slice.as_ptr(), slice.len())).collect::<Vec<_>>();
            prop_assert_eq!(batch.len(), wanted.len());
            prop_assert_eq!(batch.frames().len(), wanted.len());
            for (frame, (segments, offload)) in batch.frames().zip(&wanted) {
                prop_assert_eq!(&places(frame.segments), segments);
                prop_assert_eq!(frame.offload, *offload);
                prop_assert_eq!(frame.len as usize, segments.iter().map(|(_, len)| len).sum::<usize>());
            }
            for (segment, (segments, offload)) in batch.bare().iter().zip(&wanted) {
                prop_assert_eq!((&places(std::slice::from_ref(segment)), offload), (segments, &Offload::NONE));
            }
        }
    }
}
