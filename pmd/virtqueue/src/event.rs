//! The event index rule that both sides share (virtio 1.3 §2.7.7.2, §2.7.10.1). Reads and writes no ring.

/// Whether an index that moved from `old` to `new` has passed `event`, so that the other side wants to be told.
///
/// All are free-running 16-bit indices; `new - old` is the number of entries in between, wrapping.
#[inline]
pub(crate) fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::passed;

    #[test]
    fn event_is_passed_exactly_when_it_lies_in_the_batch() {
        assert!(passed(0, 1, 0));
        assert!(!passed(1, 1, 0), "the event is the entry after the batch");
        assert!(passed(7, 8, 4));
        assert!(passed(4, 8, 4));
        assert!(!passed(3, 8, 4), "the event is the entry before the batch");
        assert!(!passed(8, 8, 4));
        assert!(!passed(4, 4, 4), "no entry, no event");
    }

    #[test]
    fn event_across_the_wrap_of_the_index_counts_the_same() {
        // Entries 65534, 65535, 0, 1 became used.
        for event in [65534, 65535, 0, 1] {
            assert!(passed(event, 2, 65534), "event {event}");
        }
        assert!(!passed(65533, 2, 65534));
        assert!(!passed(2, 2, 65534));
        // The batch ends exactly at the wrap.
        assert!(passed(65535, 0, 65535));
        assert!(!passed(0, 0, 65535));
    }
}
