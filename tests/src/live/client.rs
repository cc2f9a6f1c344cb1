//! A connected front-end with rings: negotiation, memory, starting and stopping rings, SCSI requests and task management
//! on them. What goes wrong on purpose is sent through [`Client::frontend`] and [`Queue::raw`].

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use guest_memory::{Pages, RegionConfig};
use vhost_user::frontend::Frontend;
use vhost_user::message::{Header, RequestCode, protocol};
use virtqueue::Features;

use super::memory::Region;
use super::queue::{Queue, REQUEST_LEN};
use super::{PATIENCE, readable};
use crate::device::{
    Message, RESPONSE_LEN, Reply, Request, TEST_UNIT_READY, event_of, lun, read_10, task_management, write_10,
};

/// How a front-end sets itself up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rings to be set up, by index in the device: 0 control, 1 event, from 2 on request.
    pub rings: Vec<u16>,
    /// Descriptors of each.
    pub ring_size: u16,
    /// Whether to take VIRTIO_F_EVENT_IDX.
    pub event_idx: bool,
    /// Features of the device that are to be taken, beside those of the rings.
    pub features: u64,
    /// Buffers of each ring.
    pub slots: usize,
    /// Data bytes of each buffer, beside what request and response take.
    pub data_len: usize,
    /// Whether the buffers have a region of their own, the second one.
    pub own_data_region: bool,
    /// Whether the rings begin at address 0, the guest's and the front-end's.
    pub at_zero: bool,
    /// What memory is made of.
    pub pages: Pages,
}

/// A front-end. Dropping it closes the socket, as if its process were killed.
pub struct Client {
    /// Its end of the socket.
    pub frontend: Frontend,
    /// Its memory: first the rings, last the buffers.
    pub regions: Vec<Region>,
    queues: BTreeMap<u16, Queue>,
}

/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_EVENT_IDX.
pub const EVENT_IDX: u64 = 1 << 29;
/// DEVICE_NEEDS_RESET in the device status.
pub const NEEDS_RESET: u64 = 0x40;
/// The event queue.
pub const EVENT: u16 = 1;
/// The first request queue.
pub const FIRST: u16 = 2;
/// Bytes of a block of the test disks.
pub const BLOCK: usize = 512;
/// LOGICAL UNIT RESET, the subtype.
pub const LOGICAL_UNIT_RESET: u32 = 5;
/// ABORT TASK, the subtype.
pub const ABORT_TASK: u32 = 0;

impl Default for Plan {
    /// Control queue and one request queue, 16 buffers with 4 KiB each.
    fn default() -> Plan {
        Plan {
            rings: vec![0, FIRST],
            ring_size: 64,
            event_idx: true,
            features: 0,
            slots: 16,
            data_len: 4096,
            own_data_region: false,
            at_zero: false,
            pages: Pages::Small,
        }
    }
}

impl Plan {
    /// Control queue and this many request queues.
    #[must_use]
    pub fn queues(count: u16) -> Plan {
        let rings = [0].into_iter().chain((0..count).map(|queue| FIRST + queue)).collect();
        Plan { rings, ..Plan::default() }
    }
}

impl Client {
    /// Connects to a listening target and starts every ring of the plan.
    ///
    /// # Panics
    /// If anything of that does not work.
    #[must_use]
    #[track_caller]
    pub fn connect(path: &Path, plan: &Plan) -> Client {
        Client::attach(Frontend::connect(path).expect("the target listens"), plan)
    }

    /// Starts every ring of the plan on a connected socket.
    ///
    /// # Panics
    /// If that does not work.
    #[must_use]
    #[track_caller]
    pub fn attach(frontend: Frontend, plan: &Plan) -> Client {
        let mut client = Client::negotiated(frontend, plan);
        client.send_table();
        for index in plan.rings.clone() {
            client.start(index);
        }
        client
    }

    /// Negotiates and lays memory and rings out, but tells the target of neither.
    ///
    /// # Panics
    /// If that does not work.
    #[must_use]
    #[track_caller]
    pub fn negotiated(mut frontend: Frontend, plan: &Plan) -> Client {
        frontend.set_reply_timeout(Some(PATIENCE)).expect("a time-out");
        let wanted = plan.features | if plan.event_idx { VERSION_1 | EVENT_IDX } else { VERSION_1 };
        let negotiated = frontend.negotiate(wanted, !protocol::BACKEND_REQ).expect("negotiation");
        assert_eq!(negotiated.features & wanted, wanted, "offered features");
        assert_ne!(negotiated.protocol_features & protocol::REPLY_ACK, 0, "offered protocol features");
        frontend.set_owner().expect("SET_OWNER");
        let (regions, queues) = lay_out(plan);
        Client { frontend, regions, queues }
    }

    /// The driver side of a ring.
    ///
    /// # Panics
    /// If the plan does not have it.
    pub fn queue(&mut self, index: u16) -> &mut Queue {
        self.queues.get_mut(&index).expect("a ring of the plan")
    }

    /// Lets the socket go but keeps memory and rings, to look at what becomes of them.
    #[must_use]
    pub fn kill(self) -> (Vec<Region>, BTreeMap<u16, Queue>) {
        let Client { frontend, regions, queues } = self;
        drop(frontend);
        (regions, queues)
    }

    /// The memory table as it is sent.
    #[must_use]
    pub fn table(&self) -> Vec<(RegionConfig, BorrowedFd<'_>)> {
        table(&self.regions)
    }

    /// SET_MEM_TABLE with all regions.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn send_table(&mut self) {
        self.frontend.set_mem_table(&table(&self.regions)).expect("SET_MEM_TABLE");
    }

    /// Starts a ring from index 0, as a driver that has just loaded.
    ///
    /// # Panics
    /// If a message is refused.
    #[track_caller]
    pub fn start(&mut self, index: u16) {
        let queue = self.queues.get_mut(&index).expect("a ring of the plan");
        queue.reset();
        let (ring, fd_index, frontend) = (u32::from(index), index as u8, &mut self.frontend);
        frontend.set_vring_num(ring, u32::from(queue.size())).expect("SET_VRING_NUM");
        frontend.set_vring_base(ring, 0).expect("SET_VRING_BASE");
        frontend.set_vring_addr(ring, &queue.addresses()).expect("SET_VRING_ADDR");
        frontend.set_vring_call(fd_index, Some(queue.call_fd())).expect("SET_VRING_CALL");
        frontend.set_vring_err(fd_index, Some(queue.err_fd())).expect("SET_VRING_ERR");
        frontend.set_vring_kick(fd_index, Some(queue.kick_fd())).expect("SET_VRING_KICK");
        frontend.set_vring_enable(ring, true).expect("SET_VRING_ENABLE");
    }

    /// Stops a ring; the index where it would go on.
    ///
    /// # Panics
    /// If there is no answer.
    #[track_caller]
    pub fn stop(&mut self, index: u16) -> u32 {
        self.frontend.vring_base(u32::from(index)).expect("GET_VRING_BASE")
    }

    /// Sends a request.
    pub fn send(&mut self, index: u16, message: impl Into<Message>) -> usize {
        let queue = self.queue(index);
        let token = queue.put(message);
        queue.publish();
        token
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn run(&mut self, index: u16, message: impl Into<Message>) -> Reply {
        let token = self.send(index, message);
        self.queue(index).wait_for(token)
    }

    /// Takes the unit attention of a new session, which every LUN has to report first (29h/01h).
    ///
    /// # Panics
    /// If there is none, or something else.
    #[track_caller]
    pub fn ready(&mut self, index: u16, lun: u16) {
        let attention = self.run(index, test_unit_ready(lun));
        assert_eq!(attention.sense(), Some((6, 0x29, 1)), "a new session");
        good(self.run(index, test_unit_ready(lun)));
    }

    /// Puts buffers for events on the event queue, which the plan must have.
    pub fn post_event_buffers(&mut self, count: usize) {
        for _ in 0..count {
            self.send(EVENT, Message { readable: Vec::new(), writable: 16 });
        }
    }

    /// Waits, asleep until the device calls, for the next event: event, lun, reason.
    ///
    /// # Panics
    /// If none comes, or something that is no event.
    #[track_caller]
    pub fn wait_event(&mut self) -> (u32, [u8; 8], u32) {
        event_of(&self.queue(EVENT).wait())
    }

    /// Sends a task management function about target 0.
    pub fn send_tmf(&mut self, subtype: u32, number: u16, tag: u64) -> usize {
        self.send(0, task_management(subtype, lun(0, number), tag))
    }

    /// Whether the target has sent something that was not read: a reply, or the end of the stream.
    #[must_use]
    pub fn has_reply(&self) -> bool {
        readable(&self.frontend)
    }

    /// Sends a message and does not wait for its reply.
    ///
    /// # Panics
    /// If the socket does not take it.
    pub fn send_message(&mut self, code: RequestCode, body: &[u8], fds: &[BorrowedFd<'_>]) {
        self.frontend.send_raw(&message(code, body), fds).expect("the target reads");
    }

    /// Reads the acknowledgement of a message: 0 if it was done.
    ///
    /// # Panics
    /// If something else comes.
    #[track_caller]
    pub fn acknowledgement(&mut self, code: RequestCode) -> u64 {
        let reply = self.frontend.recv_reply().unwrap_or_else(|error| panic!("{code}: {error}"));
        assert_eq!((reply.header.code, reply.header.reply), (code, true));
        u64::from_le_bytes(reply.body.try_into().unwrap_or_else(|body| panic!("{code}: {body:?}")))
    }

    /// Sends a message that asks for an acknowledgement; the acknowledgement.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn acknowledged(&mut self, code: RequestCode, body: &[u8], fds: &[BorrowedFd<'_>]) -> u64 {
        self.send_message(code, body, fds);
        self.acknowledgement(code)
    }

    /// Checks that the stream is in step: the next question gets its own answer.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn in_step(&mut self) {
        self.frontend.queue_num().expect("the stream is in step");
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.frontend.as_fd()
    }
}

/// A message that asks for an acknowledgement.
#[must_use]
pub fn message(code: RequestCode, body: &[u8]) -> Vec<u8> {
    let header = Header { code, reply: false, need_reply: true, size: body.len() as u32 };
    [&header.encode()[..], body].concat()
}

/// READ (10) of a LUN of target 0.
#[must_use]
pub fn read(number: u16, lba: u32, blocks: u16) -> Request {
    Request::new(lun(0, number), &read_10(lba, blocks)).data_in(BLOCK * usize::from(blocks))
}

/// WRITE (10) of whole blocks to a LUN of target 0.
///
/// # Panics
/// If there are more than 65535.
#[must_use]
pub fn write(number: u16, lba: u32, data: &[u8]) -> Request {
    let blocks = u16::try_from(data.len() / BLOCK).expect("fits a WRITE (10)");
    Request::new(lun(0, number), &write_10(lba, blocks)).data_out(data)
}

/// TEST UNIT READY of a LUN of target 0.
#[must_use]
pub fn test_unit_ready(number: u16) -> Request {
    Request::new(lun(0, number), &TEST_UNIT_READY)
}

/// The data of a command that ended well.
///
/// # Panics
/// If it did not.
#[track_caller]
pub fn good(reply: Reply) -> Vec<u8> {
    assert_eq!(reply.outcome(), (0, 0), "sense {:x?}", reply.sense());
    reply.data().to_vec()
}

fn table(regions: &[Region]) -> Vec<(RegionConfig, BorrowedFd<'_>)> {
    regions.iter().map(|region| (*region.config(), region.memory().fd())).collect()
}

/// Memory and rings of a plan, for front-ends that are not ours.
///
/// # Panics
/// If there is no memory for it.
#[must_use]
pub fn lay_out(plan: &Plan) -> (Vec<Region>, BTreeMap<u16, Queue>) {
    const PER_RING: usize = 2 << 10; // what alignment costs, generously
    let slot_len = (REQUEST_LEN + RESPONSE_LEN + plan.data_len).next_multiple_of(64);
    let rings = plan.rings.len() * (26 * usize::from(plan.ring_size) + PER_RING);
    let data = plan.rings.len() * plan.slots * slot_len;
    let (first, second) = if plan.own_data_region { (rings, Some(data)) } else { (rings + data, None) };
    let first = match plan.at_zero {
        true => Region::create_at(0, 0, first, plan.pages),
        false => Region::create(0, first, plan.pages),
    };
    let second = second.map(|size| Region::create(1, size, plan.pages));
    let mut regions: Vec<Region> =
        [Some(first), second].into_iter().flatten().map(|region| region.expect("memory for the test")).collect();
    let features = Features { event_idx: plan.event_idx };
    let queues = plan
        .rings
        .iter()
        .map(|index| (*index, Queue::new(*index, plan.ring_size, features, &mut regions, (plan.slots, slot_len))))
        .collect();
    (regions, queues)
}
