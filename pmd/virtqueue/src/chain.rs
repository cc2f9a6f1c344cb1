//! Descriptor chains as the device side hands them over, in an arena that is used again and again. How they are fetched
//! is the ring format's business.

use guest_memory::GuestSlice;

/// One popped descriptor chain. Its slices lie in the [`ChainBatch`] that it came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Number of bytes in all readable buffers.
    pub readable_bytes: u64,
    /// Number of bytes in all writable buffers.
    pub writable_bytes: u64,
    /// Where the readable slices start in the arena. The writable ones follow, up to `end`.
    pub(crate) start: u32,
    pub(crate) writable_start: u32,
    pub(crate) end: u32,
    /// What the chain is completed by.
    pub head: u16,
    /// Number of readable descriptors, those without a byte not counted.
    pub readable_descriptors: u16,
    /// Number of writable descriptors, those without a byte not counted.
    pub writable_descriptors: u16,
}

/// Popped chains and their slices: an arena that one `pop` after the other fills. It allocates when it is made, and when
/// a driver builds a longer chain than it has met before; never otherwise.
#[derive(Debug)]
pub struct ChainBatch {
    /// What is filled of it is `chains_len`.
    pub(crate) chains: Box<[Chain]>,
    pub(crate) chains_len: usize,
    /// First a cell of [`CELL`] slices for each chain, then room for the slices of chains that do not fit into a cell.
    pub(crate) slices: Box<[GuestSlice]>,
    /// See [`ChainBatch::continued`]. Hardly ever anything.
    pub(crate) continued: Vec<u32>,
}

/// A chain of a few slices, which nearly all are, with these at hand: nothing has to be checked to find them.
#[derive(Clone, Copy, Debug)]
pub struct ShortChain<'a> {
    /// The chain.
    pub chain: &'a Chain,
    cell: &'a [GuestSlice; CELL],
}

impl<'a> ShortChain<'a> {
    /// How many slices of it are readable. The writable ones follow.
    #[must_use]
    #[inline(always)]
    pub fn readable_slices(&self) -> usize {
        (self.chain.writable_start - self.chain.start) as usize
    }

    /// Slice number `index`, the readable ones first. What is behind the last one, up to the fourth, is some other chain's, and of no
    /// use; whoever asks has seen by the chain's bytes that it is there.
    ///
    /// # Panics
    /// If `index` is greater than 3.
    #[must_use]
    #[inline(always)]
    pub fn slice(&self, index: usize) -> &'a GuestSlice {
        &self.cell[index]
    }

    /// Its only slice, if the device writes it and there is no other.
    #[must_use]
    #[inline(always)]
    pub fn sole_writable(&self) -> Option<GuestSlice> {
        let Chain { readable_descriptors: 0, start, end, .. } = *self.chain else { return None };
        (end - start == 1).then(|| self.cell[0])
    }

    /// Slices `from` to `to`; none if the chain has not got them.
    #[must_use]
    #[inline(always)]
    pub fn slices(&self, from: usize, to: usize) -> &'a [GuestSlice] {
        self.cell[..self.chain.slices().min(CELL)].get(from..to).unwrap_or_default()
    }
}

/// How many slices a usual chain has at most: the header, the response and two buffers. One cache line of slices.
pub(crate) const CELL: usize = 4;

impl ChainBatch {
    /// An arena for up to `chains_max` chains a `pop`, with room for `slices_hint` slices of chains that have more than
    /// four. A `pop` ends early when a further such chain does not fit; only a chain that does not fit alone makes the
    /// arena grow.
    ///
    /// # Panics
    /// If `chains_max` is 0: nothing could ever be popped.
    #[must_use]
    pub fn new(chains_max: usize, slices_hint: usize) -> ChainBatch {
        assert!(chains_max > 0, "a batch of no chains");
        ChainBatch {
            chains: vec![Chain::default(); chains_max].into(),
            chains_len: 0,
            slices: vec![GuestSlice::EMPTY; CELL * chains_max + slices_hint].into(),
            continued: Vec::with_capacity(CELL * chains_max),
        }
    }

    /// The chains of the last `pop`, in the order that the driver made them available in.
    #[must_use]
    #[inline]
    pub fn chains(&self) -> &[Chain] {
        &self.chains[..self.chains_len]
    }

    /// The readable bytes of a chain of this batch, in order. A buffer that lies across two memory regions is two slices.
    #[must_use]
    #[inline]
    pub fn readable(&self, chain: &Chain) -> &[GuestSlice] {
        &self.slices[chain.start as usize..chain.writable_start as usize]
    }

    /// The writable bytes of a chain of this batch, in order.
    #[must_use]
    #[inline]
    pub fn writable(&self, chain: &Chain) -> &[GuestSlice] {
        &self.slices[chain.writable_start as usize..chain.end as usize]
    }

    /// A hint that the chain at `index`, if there is one, is looked at soon: hides the cache miss of its first buffer.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        let first = self.chains().get(index).and_then(|chain| self.slices.get(chain.start as usize));
        first.into_iter().for_each(|slice| slice.prefetch_read());
    }

    /// The chains from the `from`th on; `None` for those that have more than four slices.
    #[inline(always)]
    pub fn short(&self, from: usize) -> impl Iterator<Item = Option<ShortChain<'_>>> {
        let (cells, _) = self.slices.as_chunks::<CELL>();
        let chains = self.chains().get(from..).unwrap_or_default();
        let mut place = (CELL * from) as u32;
        chains.iter().zip(cells.get(from..).unwrap_or_default()).map(move |(chain, cell)| {
            let start = place;
            place += CELL as u32;
            (chain.start == start).then_some(ShortChain { chain, cell })
        })
    }

    /// Where in the arena the slices are that go on with the descriptor of the slice before them, because it lies across
    /// memory regions. What [`Chain::whole_descriptors`] wants to know.
    #[must_use]
    #[inline]
    pub fn continued(&self) -> &[u32] {
        &self.continued
    }

    /// Forgets the chains.
    #[inline]
    pub fn clear(&mut self) {
        self.chains_len = 0;
        self.continued.clear();
    }

    /// More room for chains that do not fit into a cell. Forgets all slices.
    #[cold]
    pub(crate) fn grow(&mut self) {
        let cells = CELL * self.chains.len();
        let spill = self.slices.len() - cells;
        self.continued.clear();
        self.slices = vec![GuestSlice::EMPTY; cells + 2 * spill.max(CELL)].into();
    }
}

impl Chain {
    /// How many descriptors the first `bytes` of the chain's readable or writable `slices` take up whole. Those without a
    /// byte are not counted. `continued` is what [`ChainBatch::continued`] says.
    #[must_use]
    pub fn whole_descriptors(&self, slices: &[GuestSlice], writable: bool, bytes: usize, continued: &[u32]) -> u32 {
        let first = if writable { self.writable_start } else { self.start };
        let (mut end, mut whole) = (0, 0);
        for (next, slice) in (first + 1..).zip(slices) {
            end += slice.len();
            if end > bytes {
                break;
            }
            whole += u32::from(!continued.contains(&next));
        }
        whole
    }

    /// Number of slices, in both directions.
    #[must_use]
    #[inline(always)]
    pub fn slices(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// The same chain, its slices `by` further on in the arena.
    pub(crate) fn shifted(self, by: u32) -> Chain {
        Chain { start: self.start + by, writable_start: self.writable_start + by, end: self.end + by, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a batch of no chains")]
    fn batch_of_no_chains_is_refused() {
        let _ = ChainBatch::new(0, 64);
    }

    #[test]
    fn batch_grows_from_nothing() {
        let mut batch = ChainBatch::new(2, 0);
        batch.grow();
        assert_eq!(batch.slices.len(), 2 * CELL + 8);
        batch.grow();
        assert_eq!(batch.slices.len(), 2 * CELL + 16);
    }
}
