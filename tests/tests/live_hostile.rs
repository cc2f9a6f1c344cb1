//! Front-ends that keep to the protocol and are hostile all the same, or whose device breaks down: what they share with
//! their neighbours, pollers and the process, goes on.

use std::os::fd::AsFd;
use std::sync::Arc;

use bdev::{Bdev, BdevInfo, Channel, Completion, Io, IoChannel, Submitted};
use guest_memory::{Pages, RegionConfig};
use reactor::Tsc;
use rustix::fs::{OFlags, fcntl_setfl};
use tests::live::client::{Client, FIRST, Plan, good, read, test_unit_ready};
use tests::live::memory::Region;
use tests::live::rig::{Rig, Setup, malloc};
use tests::live::until;
use vhost_user::message::{RequestCode, region_body};

#[test]
fn kick_descriptor_that_is_made_blocking_later_holds_no_poller_up() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::default());
    client.ready(FIRST, 0);
    // The flags belong to the open file, which the target has a descriptor of, too.
    for queue in [0, FIRST] {
        fcntl_setfl(client.queue(queue).kick_fd().as_fd(), OFlags::empty()).unwrap();
    }
    for _ in 0..50 {
        good(client.run(FIRST, test_unit_ready(0)));
        load.progress(16);
    }
    rig.undisturbed(load);
}

/// As many regions as were promised, a command in the last of them; then one more.
#[test]
fn memory_slots_are_taken_up_to_their_number_and_one_more_is_refused() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan { own_data_region: true, ..Plan::default() });
    client.ready(FIRST, 0);
    let slots = client.frontend.max_mem_slots().unwrap();
    assert_eq!(slots, 509);
    let memory = Region::create(8, 4096, Pages::Small).unwrap();
    let slot = |at: u64| RegionConfig {
        guest_addr: memory.config().guest_addr + 8192 * at,
        user_addr: memory.config().user_addr + 8192 * at,
        ..*memory.config()
    };
    for at in 2..slots {
        client.frontend.add_region(&slot(at), memory.memory().fd()).unwrap();
    }
    let one_more = region_body(&slot(slots));
    assert_eq!(client.acknowledged(RequestCode::ADD_MEM_REG, &one_more, &[memory.memory().fd()]), 1);
    assert_eq!(memory.mappings() as u64, 1 + slots - 2);
    good(client.run(FIRST, read(0, 0, 8)));
    for at in (2..slots).rev() {
        client.frontend.remove_region(&slot(at)).unwrap();
    }
    assert_eq!((memory.mappings(), memory.descriptors()), (1, 1));
    good(client.run(FIRST, read(0, 0, 8)));
    rig.undisturbed(load);
}

/// A device with a bug: it panics when block 13 is touched.
struct Fragile(Arc<dyn Bdev>);

struct FragileChannel(Channel);

impl Bdev for Fragile {
    fn info(&self) -> &BdevInfo {
        self.0.info()
    }

    fn open(&self) -> Channel {
        let channel: Box<dyn IoChannel> = Box::new(FragileChannel(self.0.open()));
        Channel::from(channel)
    }
}

impl IoChannel for FragileChannel {
    fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        assert_ne!(io.lba, 13, "a bug, as the test wants it");
        self.0.submit(io, now)
    }

    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        self.0.poll(now, done)
    }

    fn next_deadline(&self) -> Option<Tsc> {
        self.0.next_deadline()
    }
}

#[test]
fn bug_in_a_device_ends_its_connection_and_nobody_elses() {
    let rig = Rig::start(Setup::new("dut").on(0, Arc::new(Fragile(malloc("fragile", 1 << 20)))));
    let load = rig.load();
    for round in 1..=3 {
        let mut client = Client::connect(&rig.socket("dut"), &Plan::default());
        client.ready(FIRST, 0);
        good(client.run(FIRST, read(0, 12, 1)));
        client.send(FIRST, read(0, 13, 1));
        until("the shard has panicked", || rig.pollers()[0].stats().panics.value() == round);
        load.progress(100);
        drop(client);
        until("the connection has ended", || rig.service().stats().live() == 0);
    }
    rig.undisturbed(load);
}
