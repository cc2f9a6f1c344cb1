//! One used descriptor for all chains that are published together (virtio 1.3 §2.8.9), where the device only reads.

use std::iter;

use virtqueue::{ChainBatch, Segment};

use crate::fixture::{BUFFERS, Dice, NEXT};
use crate::ring::{AVAIL, Ring, USED};

#[test]
fn packed_chains_of_a_ring_that_is_only_read_come_back_by_one_used_descriptor() {
    for in_order in [true, false] {
        let ring = Ring::new(4);
        let mut device = ring.device();
        device.set_read_only(in_order);
        let mut batch = ChainBatch::new(8, 16);
        // The id of a chain is that of its last descriptor.
        ring.raw.set_descriptor(0, BUFFERS, 16, 2, AVAIL);
        ring.raw.set_descriptor(1, BUFFERS, 16, 5, NEXT | AVAIL);
        ring.raw.set_descriptor(2, BUFFERS, 16, 1, AVAIL);
        assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 2);
        device.complete(2, 0);
        device.complete(1, 0);
        assert_eq!(ring.raw.descriptor(0), (16, 2, AVAIL), "not before it is published");
        device.publish();
        let used = if in_order {
            [(0, 1, AVAIL | USED), (16, 5, NEXT | AVAIL)]
        } else {
            [(0, 2, AVAIL | USED), (0, 1, AVAIL | USED)]
        };
        assert_eq!([0, 1].map(|slot| ring.raw.descriptor(slot)), used);
        // The next one goes on behind all of them, and then around.
        ring.raw.set_descriptor(3, BUFFERS, 16, 3, AVAIL);
        ring.raw.set_descriptor(0, BUFFERS, 16, 0, USED);
        assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 2);
        device.complete_popped(batch.chains(), iter::repeat(0));
        device.publish();
        let used = if in_order { [(0, 0, AVAIL | USED), (16, 0, USED)] } else { [(0, 3, AVAIL | USED), (0, 0, 0)] };
        assert_eq!([3, 0].map(|slot| ring.raw.descriptor(slot)), used);
    }
}

#[test]
fn packed_driver_in_order_gets_back_every_chain_once_in_order() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let size = 1 + dice.below(9) as u16;
        let ring = Ring::with(size, seed % 2 == 0);
        let (mut device, mut driver) = (ring.device(), ring.driver());
        device.set_read_only(true);
        driver.expect_in_order();
        let mut batch = ChainBatch::new(8, 64);
        let (mut sent, mut completed, mut done, mut waiting) = (0, 0, 0, Vec::new());
        for _ in 0..300 {
            match dice.below(4) {
                0 | 1 => {
                    let chain = vec![Segment::readable(BUFFERS, 64); 1 + dice.below(3) as usize];
                    if chain.len() <= driver.num_free() {
                        driver.add(&chain, sent).unwrap();
                        driver.publish();
                        sent += 1;
                    }
                }
                2 => {
                    device.pop(&ring.guest.table, 1 + dice.below(4) as usize, &mut batch);
                    waiting.extend(batch.chains().iter().map(|chain| chain.head));
                }
                _ => {
                    let count = dice.below(1 + waiting.len() as u64) as usize;
                    waiting.drain(..count).for_each(|head| device.complete(head, 0));
                    completed += count;
                    device.publish();
                    while let Some(used) = driver.pop_used() {
                        assert_eq!(used.token, done, "seed {seed}");
                        done += 1;
                    }
                    assert_eq!((done, usize::from(device.in_flight())), (completed, waiting.len()), "seed {seed}");
                }
            }
        }
        assert!(done > 10 && device.fault().is_none() && driver.fault().is_none(), "seed {seed}: {done} of {sent}");
    }
}
