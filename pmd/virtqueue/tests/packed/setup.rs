//! Taking a packed ring over: sizes, areas, and where the last back-end stopped.

use virtqueue::packed::PackedDevice;
use virtqueue::{ChainBatch, Features, PackedLayout, RingAddresses, RingFormat, SetupError};

use crate::fixture::{BUFFERS, WRITE};
use crate::ring::{AVAIL, Ring, USED};

#[test]
fn packed_layout_lengths_are_those_of_the_specification() {
    assert_eq!((PackedLayout::desc_len(3), PackedLayout::EVENT_LEN), (48, 4));
    assert_eq!(RingFormat::Packed.area_lens(256), [4096, 4, 4]);
    assert_eq!((RingFormat::Packed.first_base(), RingFormat::Split.first_base()), (0x8000, 0));
}

#[test]
fn r16_packed_ring_of_any_size_up_to_32768_is_taken() {
    for size in [1, 2, 3, 100, 255, 32768] {
        assert_eq!(Ring::new(size).device().size(), size);
    }
    let ring = Ring::new(8);
    let areas = ring.guest.rings_of(RingFormat::Packed);
    for size in [0, 32769] {
        let error = PackedDevice::new(size, areas, 0x8000, Features::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("queue size {size}: has to be 1 to 32768"));
    }
    let short = RingAddresses { used: areas.used.split_at(2).0, ..areas };
    assert!(matches!(
        PackedDevice::new(8, short, 0x8000, Features::default()),
        Err(SetupError::Length { len: 2, wanted: 4, .. })
    ));
}

#[test]
fn packed_base_outside_of_the_ring_is_refused() {
    let ring = Ring::new(8);
    for base in [0x8008, 0x0008, 0x8000_8008, 0x8008_8000] {
        let new = PackedDevice::new(8, ring.guest.rings_of(RingFormat::Packed), base, Features::default());
        assert_eq!(new.unwrap_err().to_string(), format!("base {base:#x}: a packed ring of size 8 has slots 0 to 7"));
    }
}

#[test]
fn r14_packed_ring_resumes_where_it_stopped_in_either_round() {
    let ring = Ring::new(2);
    let mut base = 0x8000;
    for turn in 0..9u16 {
        let mut device = ring.device_at(base);
        assert_eq!((device.resumed_at(), device.was_used()), (None, turn % 4 != 0), "turn {turn}");
        assert!(!device.has_available(), "what was there before is used");
        let (slot, round) = (turn % 2, turn / 2 % 2);
        ring.raw.set_descriptor(slot, BUFFERS, 16, 1, if round == 0 { AVAIL } else { USED });
        assert_eq!(device.pop(&ring.guest.table, 4, &mut ChainBatch::new(4, 4)), 1);
        assert_eq!(device.in_flight(), 1);
        device.complete(1, 9);
        assert_ne!(
            ring.raw.descriptor(slot),
            (9, 1, WRITE | if round == 0 { AVAIL | USED } else { 0 }),
            "not published"
        );
        device.publish();
        assert_eq!(ring.raw.descriptor(slot), (9, 1, WRITE | if round == 0 { AVAIL | USED } else { 0 }));
        base = device.base();
        // A front-end that knows only the lower half says only that.
        assert_eq!(ring.device_at(base & 0xffff).base() & 0xffff, base & 0xffff);
    }
}

#[test]
fn packed_base_of_a_back_end_that_died_resumes_at_what_was_not_answered() {
    let ring = Ring::new(8);
    ring.raw.set_descriptor(2, BUFFERS, 16, 5, AVAIL);
    // Fetched up to slot 3, answered up to slot 2.
    let mut device = ring.device_at(0x8002_8003);
    assert_eq!(device.resumed_at(), Some(0x8002));
    let mut batch = ChainBatch::new(4, 4);
    assert_eq!((device.pop(&ring.guest.table, 4, &mut batch), batch.chains()[0].head), (1, 5));
}
