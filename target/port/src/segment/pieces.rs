//! A range of bytes of a frame, as the pieces of memory that it lies in. Nothing is read or written.

use guest_memory::GuestSlice;

/// So many bytes from some place in a list of memory slices on: an iterator over the slices that they lie in.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    slices: &'a [GuestSlice],
    /// Bytes of the first slice that do not belong to it.
    skip: usize,
    left: usize,
}

impl<'a> Pieces<'a> {
    /// The `len` bytes from `start` on, or as many as there are.
    pub(crate) fn new(slices: &'a [GuestSlice], start: usize, len: usize) -> Pieces<'a> {
        let mut all = Pieces::all(slices);
        all.take_bytes(start);
        all.take_bytes(len)
    }

    /// All bytes.
    pub(crate) fn all(slices: &'a [GuestSlice]) -> Pieces<'a> {
        Pieces { slices, skip: 0, left: slices.iter().map(|slice| slice.len()).sum() }
    }

    /// Bytes that are left.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes the next `len` bytes out, or as many as are left.
    pub fn take_bytes(&mut self, len: usize) -> Pieces<'a> {
        let taken = Pieces { left: len.min(self.left), ..self.clone() };
        let mut skip = taken.left;
        self.left -= skip;
        while let Some(slice) = self.slices.first()
            && skip >= slice.len() - self.skip
        {
            skip -= slice.len() - self.skip;
            self.slices = &self.slices[1..];
            self.skip = 0;
        }
        self.skip += skip;
        taken
    }
}

impl Iterator for Pieces<'_> {
    type Item = GuestSlice;

    #[inline]
    fn next(&mut self) -> Option<GuestSlice> {
        while self.left > 0 {
            let (slice, rest) = self.slices.split_first()?;
            let (skip, len) = (self.skip, (slice.len() - self.skip).min(self.left));
            (self.slices, self.skip) = (rest, 0);
            self.left -= len;
            if len > 0 {
                return slice.subslice(skip, len);
            }
        }
        None
    }
}
