//! Taking a ring over: what is refused, and where fetching goes on.

use virtqueue::split::{RawSplit, SplitDevice};
use virtqueue::{Area, ChainBatch, RingAddresses, Segment, SetupError, SplitLayout};

use crate::fixture::{BUFFERS, Guest, make_available};

#[test]
fn layout_lengths_are_those_of_the_specification() {
    assert_eq!(SplitLayout::desc_len(256), 4096);
    assert_eq!(SplitLayout::avail_len(256), 518);
    assert_eq!(SplitLayout::used_len(256), 2054);
    assert_eq!(SplitLayout::desc_len(32768), 524_288);
    assert_eq!(SplitLayout::used_len(32768), 262_150);
}

#[test]
fn r16_queue_size_that_cannot_be_is_refused() {
    for size in [0, 3, 100, 65535] {
        let guest = Guest::new(128);
        let error = SplitDevice::new(size, guest.rings(), 0, guest.features).unwrap_err();
        assert_eq!(error, SetupError::Size { size });
        assert_eq!(error.to_string(), format!("queue size {size}: has to be a power of two, 1 to 32768"));
    }
}

#[test]
fn r16_every_power_of_two_up_to_32768_is_a_queue_size() {
    for size in (0..16).map(|bits| 1u16 << bits) {
        let guest = Guest::new(size);
        let mut driver = guest.driver();
        let mut device = guest.device();
        assert_eq!((device.size(), driver.num_free()), (size, usize::from(size)));
        for token in 0..usize::from(size) {
            driver.add(&[Segment::readable(BUFFERS, 1)], token).unwrap();
        }
        assert!(driver.add(&[Segment::readable(BUFFERS, 1)], 0).is_err());
        driver.publish();
        let mut batch = ChainBatch::new(usize::from(size), 0);
        assert_eq!(device.pop(&guest.table, usize::MAX, &mut batch), usize::from(size));
        assert_eq!(device.in_flight(), size);
    }
}

#[test]
fn ring_area_of_the_wrong_length_is_refused() {
    let guest = Guest::new(8);
    let good = guest.rings();
    let cut = |slice: guest_memory::GuestSlice| slice.subslice(0, slice.len() - 1).unwrap();
    let cases = [
        (RingAddresses { desc: cut(good.desc), ..good }, Area::Desc, 127, 128),
        (RingAddresses { avail: cut(good.avail), ..good }, Area::Avail, 21, 22),
        (RingAddresses { used: cut(good.used), ..good }, Area::Used, 69, 70),
    ];
    for (rings, area, len, wanted) in cases {
        let error = SplitDevice::new(8, rings, 0, guest.features).unwrap_err();
        assert_eq!(error, SetupError::Length { area, len, wanted, size: 8 });
    }
    let error = SplitDevice::new(8, cases[0].0, 0, guest.features).unwrap_err();
    assert_eq!(error.to_string(), "descriptor area of 127 bytes: a queue of size 8 has 128");
}

#[test]
fn ring_area_that_is_not_aligned_is_refused() {
    let guest = Guest::new(8);
    let good = guest.rings();
    let moved = |by: u64, len: u32| guest.bytes(BUFFERS + by, len);
    let cases = [
        (RingAddresses { desc: moved(8, 128), ..good }, Area::Desc, 16),
        (RingAddresses { avail: moved(1, 22), ..good }, Area::Avail, 2),
        (RingAddresses { used: moved(2, 70), ..good }, Area::Used, 4),
    ];
    for (rings, area, align) in cases {
        let error = SplitDevice::new(8, rings, 0, guest.features).unwrap_err();
        assert!(matches!(error, SetupError::Alignment { area: a, align: b, .. } if (a, b) == (area, align)), "{error}");
    }
}

#[test]
fn r16_setting_a_ring_up_writes_nothing_to_it() {
    let guest = Guest::new(8);
    let rings = guest.rings();
    for area in [rings.desc, rings.avail, rings.used] {
        area.fill(0xa5);
    }
    let _ = SplitDevice::new(8, rings, 7, guest.features).unwrap();
    for area in [rings.desc, rings.avail, rings.used] {
        let mut bytes = vec![0; area.len()];
        area.read(&mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0xa5));
    }
}

#[test]
fn r14_stopped_ring_resumes_where_it_stopped() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    let mut batch = ChainBatch::new(8, 8);
    let mut base = 0;
    for round in 0..5 {
        let mut device = SplitDevice::new(8, guest.rings(), base, guest.features).unwrap();
        assert_eq!(device.resumed_at(), None);
        for token in 0..3 {
            driver.add(&[Segment::readable(BUFFERS, 8)], token).unwrap();
        }
        driver.publish();
        assert_eq!(device.pop(&guest.table, 8, &mut batch), 3);
        for chain in batch.chains() {
            device.complete(chain.head, 0);
        }
        device.publish();
        base = device.next_avail();
        assert_eq!(base, 3 * (round + 1));
        assert_eq!((0..3).map(|_| driver.pop_used().unwrap().token).collect::<Vec<_>>(), [0, 1, 2]);
    }
}

#[test]
fn base_of_zero_on_a_living_ring_resumes_at_the_used_index() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    for index in 0..8 {
        raw.set_descriptor(index, BUFFERS, 16, 0, 0);
        raw.set_avail_entry(100 + index, index);
    }
    raw.set_used_index(100);
    raw.set_avail_index(104);
    let mut device = guest.device();
    assert_eq!(device.resumed_at(), Some(100));
    assert_eq!((device.next_avail(), device.in_flight(), device.unpublished()), (100, 0, 0));
    let mut batch = ChainBatch::new(8, 8);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 4);
    assert_eq!(batch.chains().iter().map(|chain| chain.head).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(device.in_flight(), 4);
    device.complete(0, 0);
    device.publish();
    assert_eq!((raw.used_index(), device.in_flight()), (101, 3));
}

#[test]
fn base_and_used_index_that_mean_nothing_to_each_other_keep_the_base() {
    // available - used = 9 > 8: no ring of 8 descriptors can be in that state.
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_descriptor(5, BUFFERS, 16, 0, 0);
    raw.set_used_index(65535);
    raw.set_avail_index(8);
    raw.set_avail_entry(7, 5);
    let mut device = SplitDevice::new(8, guest.rings(), 7, guest.features).unwrap();
    assert_eq!((device.resumed_at(), device.next_avail(), device.in_flight()), (None, 7, 0));
    let mut batch = ChainBatch::new(8, 8);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 1);
    assert_eq!(device.in_flight(), 1);
    device.complete(5, 4);
    device.publish();
    // Used entries go on where the memory says.
    assert_eq!((raw.used_index(), raw.used_element(65535), device.in_flight()), (0, (5, 4), 0));
}

#[test]
fn resume_across_the_wrap_of_the_index() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_used_index(65534);
    raw.set_avail_index(2);
    for (index, head) in [(65534, 1), (65535, 2), (0, 3), (1, 4)] {
        raw.set_avail_entry(index, head);
        raw.set_descriptor(head, BUFFERS, 16, 0, 0);
    }
    let mut device = guest.device();
    assert_eq!(device.resumed_at(), Some(65534));
    let mut batch = ChainBatch::new(8, 8);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 4);
    assert_eq!(batch.chains().iter().map(|chain| chain.head).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(device.next_avail(), 2);
}

#[test]
fn resume_on_a_full_ring() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_used_index(100);
    raw.set_avail_index(108);
    assert_eq!(guest.device().resumed_at(), Some(100));
    raw.set_avail_index(109);
    assert_eq!(guest.device().resumed_at(), None);
}

#[test]
fn rebased_ring_goes_on_at_its_new_addresses() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_descriptor(0, BUFFERS, 16, 0, 0);
    raw.set_descriptor(1, BUFFERS, 32, 0, 0);
    make_available(&raw, &[0]);
    let mut device = guest.device();
    let mut batch = ChainBatch::new(8, 8);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 1);

    // The same memory, mapped once more: what a new memory table does.
    let mut again = Guest::new(8);
    for area in [(guest.rings().desc, again.rings().desc), (guest.rings().avail, again.rings().avail)] {
        area.0.copy_to(area.1);
    }
    again.size = 16;
    assert!(matches!(device.rebase(again.rings()), Err(SetupError::Length { area: Area::Desc, .. })));
    again.size = 8;
    device.rebase(again.rings()).unwrap();
    let raw = RawSplit::new(8, again.rings()).unwrap();
    raw.set_avail_entry(1, 1);
    raw.set_avail_index(2);
    assert_eq!(device.pop(&again.table, 8, &mut batch), 1);
    assert_eq!(batch.chains()[0].readable_bytes, 32);
    device.complete(0, 7);
    device.publish();
    assert_eq!((raw.used_index(), raw.used_element(0)), (1, (0, 7)));
}
