//! One virtqueue of the hostile driver: what it has put there, what the device has fetched of it and what came back. What
//! that must be is `session.rs`.

use std::collections::BTreeMap;
use std::ops::Range;

use guest_memory::MemTable;
use vhost_user::Notifier;
use virtqueue::split::{RawSplit, SplitDriver};
use virtqueue::{Features, RingAddresses, Segment, SplitLayout};

use super::shapes::{Expect, Poison};
use crate::device::{Guest, Noise, UNWRITTEN, USER_BASE};

/// Where the upper region begins.
pub const BORDER: u64 = 0x1_0000;
/// Where memory ends.
pub const END: u64 = 0x6_4000;
/// Distance of two rings.
const STRIDE: u64 = 0x800;
/// The first of the places for buffers. One of them lies across the border.
const PLACES: u64 = 0x3800;
/// Distance of two of them.
const PLACE: u64 = 0x1000;
/// Where in its place an indirect table lies.
const TABLE: u64 = 0xd80;
/// Entries that it may have.
const ENTRIES: usize = 32;
const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

/// A chain that has not come back.
pub struct Sent {
    pub expect: Expect,
    pub tag: u64,
    /// When it was made available, in steps of the sequence.
    pub since: u32,
    pub segments: Vec<Segment>,
    pub place: u64,
    /// When the device fetched it.
    pub fetched: Option<u32>,
    /// Whether it counts against its unit's limit.
    pub counts: bool,
}

/// A chain that came back.
pub struct Returned {
    pub token: usize,
    pub sent: Sent,
    pub written: u32,
    pub writable: Vec<u8>,
}

/// One ring.
pub struct Ring {
    pub index: u16,
    pub driver: SplitDriver,
    pub sent: BTreeMap<usize, Sent>,
    pub started: bool,
    pub enabled: bool,
    /// Somebody waits for it to fall quiet.
    pub waited_for: bool,
    /// The device must halt it when it sees this.
    pub poison: Option<(Poison, u64)>,
    /// The memory that some of its chains lie in went away.
    pub doubtful: bool,
    pub broken: bool,
    /// The device does not know its memory.
    pub lost: bool,
    /// Index of the next available entry that the device fetches.
    pub fetched: u16,
    /// The last step at which nothing was fetched from it.
    pub idle: u32,
    /// The used ring as it was when the device said that it had let go of this one.
    pub frozen: Option<Vec<u8>>,
    pub call: Notifier,
    /// The device wants to be kicked, and has to be when it is polled next.
    pub kick: bool,
    kind: Kind,
}

/// What was negotiated that changes how a ring works.
#[derive(Clone, Copy)]
pub struct Kind {
    pub features: Features,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
}

/// Places for buffers that nobody uses.
pub struct Places(Vec<u64>);

impl Places {
    pub fn new() -> Places {
        Places((0..).map(|index| PLACES + index * PLACE).take_while(|place| place + PLACE <= END).collect())
    }

    /// One of them; only from the lower region if that is all there is.
    pub fn take(&mut self, noise: &mut Noise, lower_only: bool) -> Option<u64> {
        let usable = |place: &u64| !lower_only || place + PLACE <= BORDER;
        let fitting = self.0.iter().filter(|place| usable(place)).count() as u64;
        let nth = if fitting == 0 { return None } else { noise.below(fitting) as usize };
        let (index, _) = self.0.iter().enumerate().filter(|(_, place)| usable(place)).nth(nth)?;
        Some(self.0.swap_remove(index))
    }

    pub fn give_back(&mut self, place: u64) {
        self.0.push(place);
    }
}

impl Ring {
    pub fn new(guest: &Guest, index: u16, size: u16, kind: Kind, call: Notifier) -> Ring {
        Ring {
            index,
            driver: driver(guest, index, size, kind),
            sent: BTreeMap::new(),
            started: false,
            enabled: false,
            waited_for: false,
            poison: None,
            doubtful: false,
            broken: false,
            lost: false,
            fetched: 0,
            idle: 0,
            frozen: None,
            call,
            kick: false,
            kind,
        }
    }

    /// The driver starts over with an empty ring. The device has let go of it.
    pub fn renew(&mut self, guest: &Guest, places: &mut Places) {
        self.check_untouched(guest);
        for (_, sent) in std::mem::take(&mut self.sent) {
            assert!(sent.fetched.is_none(), "a chain of ring {} that never came back", self.index);
            places.give_back(sent.place);
        }
        if let Some((_, place)) = self.poison {
            places.give_back(place);
        }
        self.driver = driver(guest, self.index, self.driver.size(), self.kind);
        (self.poison, self.doubtful, self.fetched) = (None, false, 0);
    }

    /// Whether the device should be fetching from it.
    pub fn fetches(&self) -> bool {
        self.started && self.enabled && !self.waited_for && !self.broken && !self.lost
    }

    /// Lays a chain out and makes it available. False if there is no room.
    #[expect(clippy::too_many_arguments, reason = "the parts of one chain")]
    pub fn send(
        &mut self,
        guest: &Guest,
        place: u64,
        token: usize,
        readable: &[u8],
        segments: Vec<Segment>,
        (expect, tag, since): (Expect, u64, u32),
        indirect: bool,
    ) -> bool {
        guest.write(segments[0].addr, readable);
        for segment in segments.iter().filter(|segment| segment.writable) {
            guest.write(segment.addr, &vec![UNWRITTEN; segment.len as usize]);
        }
        let size = usize::from(self.driver.size());
        let added = if indirect && segments.len() <= ENTRIES.min(size) {
            let table = place + TABLE;
            // The place that lies across the border has its table behind it.
            self.driver.add_indirect(&segments, table, guest.slice(table, 16 * segments.len()), token)
        } else {
            self.driver.add(&segments, token)
        };
        if added.is_err() {
            return false;
        }
        self.kick |= self.driver.publish();
        let sent = Sent { expect, tag, since, segments, place, fetched: None, counts: false };
        self.sent.insert(token, sent);
        true
    }

    /// Makes something available that breaks the ring. False if there is no room for it.
    pub fn send_poison(&mut self, guest: &Guest, place: u64, poison: Poison) -> bool {
        let raw = self.driver.raw();
        let size = self.driver.size();
        let header = (place, 51);
        match poison {
            Poison::HeadOutOfRange => offer(raw, size),
            Poison::AvailIndexJump => raw.set_avail_index(raw.avail_index().wrapping_add(size + 1)),
            _ => {
                let chain = [Segment::readable(header.0, header.1), Segment::writable(place + 64, 108)];
                let chain = if poison == Poison::ReadableAfterWritable { [chain[1], chain[0]] } else { chain };
                let Ok(head) = self.driver.add(&chain, 0) else { return false };
                self.spoil(guest, raw, head, place, poison);
                let _ = self.driver.publish();
            }
        }
        self.poison = Some((poison, place));
        self.kick = true;
        true
    }

    fn spoil(&self, guest: &Guest, raw: RawSplit, head: u16, place: u64, poison: Poison) {
        let size = self.driver.size();
        let table = place + 0x200; // room for a table that is longer than the ring
        let entries = |entries: &[(u64, u32, u16, u16)]| {
            let bytes: Vec<u8> = entries.iter().flat_map(|e| RawSplit::descriptor_bytes(e.0, e.1, e.2, e.3)).collect();
            guest.write(table, &bytes);
        };
        match poison {
            Poison::Loop => raw.set_descriptor(head, place, 51, NEXT, head),
            Poison::NextOutOfRange => raw.set_descriptor(head, place, 51, NEXT, size),
            Poison::NestedIndirect => {
                entries(&[(place, 51, NEXT, 1), (table, 32, INDIRECT, 0)]);
                raw.set_descriptor(head, table, 32, INDIRECT, 0);
            }
            Poison::IndirectWithNext => raw.set_descriptor(head, table, 32, INDIRECT | NEXT, head),
            Poison::IndirectLength(len) => raw.set_descriptor(head, table, len, INDIRECT, 0),
            Poison::IndirectUnmapped => raw.set_descriptor(head, END, 32, INDIRECT, 0),
            Poison::Unmapped => raw.set_descriptor(head, END - 50, 51, 0, 0),
            Poison::AddressOverflow => raw.set_descriptor(head, u64::MAX - 49, 51, 0, 0),
            Poison::ChainTooLong => {
                let long: Vec<_> = (1..=size).map(|next| (place, 1, NEXT, next)).chain([(place, 1, 0, 0)]).collect();
                entries(&long);
                raw.set_descriptor(head, table, 16 * u32::from(size + 1), INDIRECT, 0);
            }
            Poison::ReadableAfterWritable | Poison::HeadOutOfRange | Poison::AvailIndexJump => {}
        }
    }

    /// What came back since the last time.
    pub fn take(&mut self, guest: &Guest) -> Vec<Returned> {
        let mut returned = Vec::new();
        while let Some(used) = self.driver.pop_used() {
            let sent = self.sent.remove(&used.token).expect("a chain comes back once");
            let mut writable = Vec::new();
            for segment in sent.segments.iter().filter(|segment| segment.writable) {
                writable.extend(guest.read(segment.addr, segment.len as usize));
            }
            returned.push(Returned { token: used.token, sent, written: used.written, writable });
        }
        assert_eq!(self.driver.fault(), None, "what the device did to the used ring {}", self.index);
        returned
    }

    /// The device says that it has let go of the ring: from here on nothing of it changes.
    pub fn freeze(&mut self, guest: &Guest) {
        assert!(
            !self.sent.values().any(|sent| sent.fetched.is_some()),
            "ring {}: quiet with a chain in flight",
            self.index
        );
        self.call.drain();
        let used = self.used(guest);
        self.frozen.get_or_insert(used);
    }

    /// Nothing has been written or called since [`Ring::freeze`], which is over.
    pub fn thaw(&mut self, guest: &Guest) {
        if let Some(before) = self.frozen.take() {
            assert!(before == self.used(guest), "ring {}: written after the device had let go of it", self.index);
            assert_eq!(self.call.drain(), 0, "ring {}: called after the device had let go of it", self.index);
            self.check_untouched(guest);
        }
    }

    /// Nobody has written to a buffer that was never fetched.
    fn check_untouched(&self, guest: &Guest) {
        for segment in self.sent.values().filter(|sent| sent.fetched.is_none()).flat_map(|sent| &sent.segments) {
            if segment.writable {
                let bytes = guest.read(segment.addr, segment.len as usize);
                assert!(bytes.iter().all(|byte| *byte == UNWRITTEN), "ring {}: written, not fetched", self.index);
            }
        }
    }

    fn used(&self, guest: &Guest) -> Vec<u8> {
        let used = ranges(self.index, self.driver.size())[2].clone();
        guest.read(used.start, (used.end - used.start) as usize)
    }
}

fn offer(raw: RawSplit, head: u16) {
    raw.set_avail_entry(raw.avail_index(), head);
    raw.set_avail_index(raw.avail_index().wrapping_add(1));
}

/// Guest addresses of a ring: descriptor table, available ring, used ring.
fn ranges(index: u16, size: u16) -> [Range<u64>; 3] {
    let desc = u64::from(index) * STRIDE;
    let avail = desc + SplitLayout::desc_len(size) as u64;
    let used = (avail + SplitLayout::avail_len(size) as u64).next_multiple_of(64);
    let end = used + SplitLayout::used_len(size) as u64;
    assert!(end <= desc + STRIDE && end <= PLACES, "a ring of {size} descriptors does not fit");
    [desc..avail, avail..avail + SplitLayout::avail_len(size) as u64, used..end]
}

fn driver(guest: &Guest, index: u16, size: u16, kind: Kind) -> SplitDriver {
    let [desc, avail, used] = ranges(index, size).map(|part| guest.slice(part.start, (part.end - part.start) as usize));
    let areas = RingAddresses { desc, avail, used };
    let mut driver = SplitDriver::new(size, areas, kind.features).expect("a ring that can be");
    if kind.in_order {
        driver.expect_in_order();
    }
    driver
}

/// The ring as the device sees it through a memory table; `None` if that does not have it.
pub fn addresses(table: &MemTable, index: u16, size: u16) -> Option<RingAddresses> {
    let [desc, avail, used] =
        ranges(index, size).map(|part| table.translate_user(USER_BASE + part.start, (part.end - part.start) as usize));
    Some(RingAddresses { desc: desc?, avail: avail?, used: used? })
}
