//! Rings whose chains are used in order (VIRTIO_F_IN_ORDER), as far as somebody has to know that a chain that was completed may
//! not have been published. The order itself is `virtqueue`'s.

use virtqueue::{DeviceQueue, InOrderDevice};

use super::{Ring, RingSet, Ticket};

impl RingSet {
    /// Somebody waits until the chain of this ticket has been published: [`RingSet::is_awaited`] until then. Does nothing for
    /// a ring that is not in order, whose chains are published at the end of the poll that completes them.
    pub fn await_published(&mut self, ticket: &Ticket) {
        if let Some(queue) = self.rings[usize::from(ticket.ring)].in_order() {
            queue.await_published(ticket.head);
        }
    }

    /// Somebody waits until all chains have been published that have been completed by now, in any ring.
    pub fn await_completed(&mut self) {
        self.rings.iter_mut().filter_map(Ring::in_order).for_each(InOrderDevice::await_ended);
    }

    /// Whether a chain that somebody waits for has not been published.
    #[must_use]
    pub fn is_awaited(&mut self) -> bool {
        self.rings.iter_mut().filter_map(Ring::in_order).any(|queue| queue.is_awaited())
    }
}

impl Ring {
    fn in_order(&mut self) -> Option<&mut InOrderDevice> {
        match &mut self.queue {
            Some(DeviceQueue::InOrder(queue)) => Some(queue),
            _ => None,
        }
    }
}
