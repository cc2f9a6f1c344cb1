//! From the driver to the port. Frames are not copied here: the port gets the driver's own buffers, and a chain is completed
//! when the port says that it is done with them.

use std::iter;

use vhost_user::RingSet;

use crate::header::Rules;
use crate::pair::{BURST, Held, Pair, Scratch, Tally};
use crate::stats::NetDrop;

impl Pair {
    /// One burst of what the driver sends. Returns the number of chains.
    pub(crate) fn transmit(&mut self, rings: &mut RingSet, scratch: &mut Scratch, rules: &Rules) -> usize {
        let Scratch { chains, frames } = scratch;
        let count = rings.pop(self.tx_slot, BURST, chains);
        if count == 0 {
            return 0;
        }
        let stats = &self.stats.tx;
        let plain = frames.fill_bare(chains.short(0).map_while(|chain| rules.plain(&chain?)));
        let mut dropped = 0u64;
        for (index, chain) in chains.chains().iter().enumerate().skip(plain) {
            match rules.outgoing(chains.readable(chain), chain.readable_bytes) {
                Ok(frame) => frames.push(frame.first, frame.rest, frame.offload),
                Err(cause) => {
                    stats.dropped(cause, 1);
                    dropped |= 1 << index;
                }
            }
        }
        let taken = if frames.is_empty() { 0 } else { self.port.tx_burst(frames) };
        let mut tally = Tally::new(stats);
        match frames.bare().get(..taken) {
            Some(bare) => tally.add_all(bare),
            None => frames.frames().take(taken).for_each(|frame| tally.add(frame.len)),
        }
        tally.settle();
        if self.held.is_empty() && taken == count {
            // The usual case: every chain is a frame, and the port has copied all of them.
            self.done += self.port.tx_done();
            if self.done == taken {
                self.done = 0;
                rings.complete_popped(self.tx_slot, chains.chains(), iter::repeat(0));
                rings.publish(self.tx_slot);
                return count;
            }
        }
        stats.dropped(NetDrop::PortFull, frames.len() - taken);
        self.hold(rings, scratch, taken, dropped);
        count
    }

    /// Completes chains as far as their turn has come, and keeps the rest. The first `taken` of those that are frames went
    /// to the port; `dropped` has a bit for each that is none.
    #[inline(never)]
    fn hold(&mut self, rings: &mut RingSet, scratch: &Scratch, taken: usize, dropped: u64) {
        let mut frame = 0;
        for (index, chain) in scratch.chains.chains().iter().enumerate() {
            let ticket = rings.ticket(self.tx_slot, chain);
            let sent = dropped & (1 << index) == 0 && frame < taken;
            frame += usize::from(dropped & (1 << index) == 0);
            self.held.push_back(if sent { Held::Frame(ticket) } else { Held::Dropped(ticket) });
        }
        self.reap(rings);
        rings.publish(self.tx_slot);
    }
}
