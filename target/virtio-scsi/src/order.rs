//! Task attributes (R10): which commands of one logical unit on one request queue wait for which (SAM-6 §8.6). Across
//! queues virtio promises no order (virtio 1.3 §5.6.6.1). How a command is carried out is `request.rs`.
//!
//! Nothing is kept while all commands are SIMPLE: a queue's state is made when an ORDERED or HEAD OF QUEUE command has
//! something to wait for or to be waited for, and goes when that is over.

use std::collections::VecDeque;

use guest_memory::GuestSlice;
use reactor::Tsc;
use vhost_user::Ticket;
use virtqueue::Chain;

use crate::fence::{Scope, UnitIndex};
use crate::limits::CommandSlot;
use crate::pending::covers;
use crate::wire::{REQUEST_LEN, task_attr};

/// Where in the task set a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// Waits for older ORDERED and HEAD OF QUEUE commands.
    Simple,
    /// Waits for all older commands.
    Ordered,
    /// Waits for none.
    Head,
}

impl Attribute {
    /// The attribute of a command: INQUIRY, REPORT LUNS and REQUEST SENSE are implicitly HEAD OF QUEUE.
    pub(crate) fn of(attr: u8, opcode: u8) -> Attribute {
        match attr {
            _ if !scsi::reports_unit_attention(opcode) => Attribute::Head,
            task_attr::ORDERED => Attribute::Ordered,
            task_attr::HEAD_OF_QUEUE => Attribute::Head,
            _ => Attribute::Simple,
        }
    }

    /// Whether younger commands wait for one of these.
    fn is_barrier(self) -> bool {
        self != Attribute::Simple
    }
}

/// A command that was accepted and waits for older ones: its chain, copied out of the batch.
#[derive(Debug)]
pub(crate) struct Blocked {
    pub ticket: Ticket,
    pub slot: CommandSlot,
    pub header: [u8; REQUEST_LEN],
    pub attribute: Attribute,
    pub tag: u64,
    pub readable: Vec<GuestSlice>,
    pub writable: Vec<GuestSlice>,
    pub chain: Chain,
    pub ring_size: u16,
    pub since: Tsc,
}

/// The task sets of one logical unit, by queue, as far as they are not trivial.
#[derive(Debug, Default)]
pub(crate) struct TaskSets(Vec<TaskSet>);

#[derive(Debug)]
struct TaskSet {
    ring: usize,
    /// Commands at the backend.
    active: u32,
    /// Those of them that younger commands wait for.
    barriers: u32,
    blocked: VecDeque<Blocked>,
}

impl TaskSets {
    /// Whether every task set is trivial: SIMPLE commands need not ask any further.
    #[inline]
    pub(crate) fn is_trivial(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a new command may be carried out now. `active` counts the commands of this unit and queue that are at
    /// the backend; it is asked only if this queue's task set was trivial.
    pub(crate) fn admits(&self, ring: usize, attribute: Attribute, active: impl FnOnce() -> u32) -> bool {
        match (self.of(ring), attribute) {
            (_, Attribute::Head) | (None, Attribute::Simple) => true,
            (None, Attribute::Ordered) => active() == 0,
            (Some(set), attribute) => set.blocked.is_empty() && set.admits(attribute),
        }
    }

    /// A command was carried out and is now at the backend; `active` as for [`TaskSets::admits`], without this one.
    /// Returns whether younger commands wait for it.
    pub(crate) fn started(&mut self, ring: usize, attribute: Attribute, active: impl FnOnce() -> u32) -> bool {
        let barrier = attribute.is_barrier();
        match self.of_mut(ring) {
            Some(set) => {
                set.active += 1;
                set.barriers += u32::from(barrier);
            }
            None if barrier => {
                let active = active() + 1;
                self.0.push(TaskSet { ring, active, barriers: 1, blocked: VecDeque::new() });
            }
            None => {}
        }
        barrier
    }

    /// A command has to wait.
    pub(crate) fn block(&mut self, ring: usize, blocked: Blocked, active: impl FnOnce() -> u32) {
        match self.of_mut(ring) {
            Some(set) => set.blocked.push_back(blocked),
            None => {
                let active = active();
                self.0.push(TaskSet { ring, active, barriers: 0, blocked: VecDeque::from([blocked]) });
            }
        }
    }

    /// A command that was at the backend has ended.
    pub(crate) fn ended(&mut self, ring: usize, barrier: bool) {
        if let Some(set) = self.of_mut(ring) {
            set.active -= 1;
            set.barriers -= u32::from(barrier);
        }
        self.forget_trivial();
    }

    /// The next command of the queue that need not wait any longer.
    pub(crate) fn next(&mut self, ring: usize) -> Option<Blocked> {
        let set = self.of_mut(ring)?;
        let attribute = set.blocked.front()?.attribute;
        let next = if set.admits(attribute) { set.blocked.pop_front() } else { None };
        self.forget_trivial();
        next
    }

    /// Takes out every waiting command in the scope of a task management function.
    pub(crate) fn take(&mut self, scope: Scope, unit: UnitIndex, target: u8) -> Vec<Blocked> {
        let mut taken = Vec::new();
        for set in &mut self.0 {
            let (out, kept) =
                set.blocked.drain(..).partition::<Vec<_>, _>(|blocked| covers(scope, unit, target, blocked.tag));
            set.blocked = kept.into();
            taken.extend(out);
        }
        self.forget_trivial();
        taken
    }

    /// Takes out every waiting command.
    pub(crate) fn take_all(&mut self) -> Vec<Blocked> {
        let taken = self.0.iter_mut().flat_map(|set| set.blocked.drain(..)).collect();
        self.forget_trivial();
        taken
    }

    /// Whether a waiting command is in the scope.
    pub(crate) fn holds(&self, scope: Scope, unit: UnitIndex, target: u8) -> bool {
        self.0.iter().flat_map(|set| &set.blocked).any(|blocked| covers(scope, unit, target, blocked.tag))
    }

    fn of(&self, ring: usize) -> Option<&TaskSet> {
        self.0.iter().find(|set| set.ring == ring)
    }

    fn of_mut(&mut self, ring: usize) -> Option<&mut TaskSet> {
        self.0.iter_mut().find(|set| set.ring == ring)
    }

    fn forget_trivial(&mut self) {
        self.0.retain(|set| set.barriers > 0 || !set.blocked.is_empty());
    }
}

impl TaskSet {
    fn admits(&self, attribute: Attribute) -> bool {
        match attribute {
            Attribute::Simple => self.barriers == 0,
            Attribute::Ordered => self.active == 0,
            Attribute::Head => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r10_attributes_and_implicit_head_of_queue() {
        assert_eq!(Attribute::of(0, 0x28), Attribute::Simple);
        assert_eq!(Attribute::of(1, 0x28), Attribute::Ordered);
        assert_eq!(Attribute::of(2, 0x28), Attribute::Head);
        for opcode in [0x12, 0xa0, 0x03] {
            assert_eq!(Attribute::of(1, opcode), Attribute::Head, "{opcode:#x}");
        }
    }

    #[test]
    fn r10_simple_waits_for_an_active_barrier_and_ordered_for_everything() {
        let mut sets = TaskSets::default();
        assert!(sets.is_trivial());
        assert!(sets.admits(0, Attribute::Simple, || panic!("not asked")));
        assert!(!sets.admits(0, Attribute::Ordered, || 1));
        assert!(sets.admits(0, Attribute::Ordered, || 0));
        assert!(sets.started(0, Attribute::Ordered, || 0));
        assert!(!sets.admits(0, Attribute::Simple, || 1));
        assert!(sets.admits(0, Attribute::Head, || 1));
        assert!(sets.admits(1, Attribute::Simple, || 0), "another queue is not held up");
        sets.ended(0, true);
        assert!(sets.is_trivial());
    }

    #[test]
    fn r10_head_of_queue_counts_what_was_active_before_it() {
        let mut sets = TaskSets::default();
        assert!(sets.started(3, Attribute::Head, || 2));
        sets.ended(3, true);
        assert!(sets.is_trivial(), "the two simple commands need no state");
    }
}
