//! Requests as the bytes that a driver puts into its buffers, and the answers as the bytes it finds there. No memory
//! and no ring in here.

use virtqueue::Segment;

/// Byte that fills every device-writable buffer beforehand: what the device does not write, shows.
pub const UNWRITTEN: u8 = 0xa5;
/// Bytes of a request's response area: 12 of the response and 96 of sense data (virtio 1.3 §5.6.6.1).
pub const RESPONSE_LEN: usize = 108;

/// What a driver sends: bytes to be read and room to be written. Contiguous in each direction unless it is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Device-readable bytes.
    pub readable: Vec<u8>,
    /// Number of device-writable bytes.
    pub writable: usize,
}

/// A request of a request queue, field by field.
#[derive(Clone, Debug)]
pub struct Request {
    lun: [u8; 8],
    tag: u64,
    attribute: u8,
    cdb: [u8; 32],
    data_out: Vec<u8>,
    data_in: usize,
}

impl Request {
    /// A command without data, with tag 0 and attribute SIMPLE. The CDB is padded with zeroes.
    ///
    /// # Panics
    /// If the CDB has more than 32 bytes.
    #[must_use]
    pub fn new(lun: [u8; 8], cdb: &[u8]) -> Request {
        let mut padded = [0; 32];
        padded[..cdb.len()].copy_from_slice(cdb);
        Request { lun, tag: 0, attribute: 0, cdb: padded, data_out: Vec::new(), data_in: 0 }
    }

    /// With another tag.
    #[must_use]
    pub fn tag(self, tag: u64) -> Request {
        Request { tag, ..self }
    }

    /// With another task attribute.
    #[must_use]
    pub fn attribute(self, attribute: u8) -> Request {
        Request { attribute, ..self }
    }

    /// With data-out.
    #[must_use]
    pub fn data_out(self, bytes: impl Into<Vec<u8>>) -> Request {
        Request { data_out: bytes.into(), ..self }
    }

    /// With room for data-in.
    #[must_use]
    pub fn data_in(self, len: usize) -> Request {
        Request { data_in: len, ..self }
    }

    /// The 51 bytes of the header: lun, id, task_attr, prio, crn, cdb.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = self.lun.to_vec();
        bytes.extend(self.tag.to_le_bytes());
        bytes.extend([self.attribute, 0, 0]);
        bytes.extend(self.cdb);
        bytes
    }

    /// The whole of it.
    #[must_use]
    pub fn message(&self) -> Message {
        let readable = [self.header(), self.data_out.clone()].concat();
        Message { readable, writable: RESPONSE_LEN + self.data_in }
    }
}

impl From<&Message> for Message {
    fn from(message: &Message) -> Message {
        message.clone()
    }
}

impl From<&Request> for Message {
    fn from(request: &Request) -> Message {
        request.message()
    }
}

impl From<Request> for Message {
    fn from(request: Request) -> Message {
        request.message()
    }
}

/// A task management function: type 0, subtype, lun, id; one byte of response (virtio 1.3 §5.6.6.2).
#[must_use]
pub fn task_management(subtype: u32, lun: [u8; 8], tag: u64) -> Message {
    let mut readable = vec![0, 0, 0, 0];
    readable.extend(subtype.to_le_bytes());
    readable.extend(lun);
    readable.extend(tag.to_le_bytes());
    Message { readable, writable: 1 }
}

/// A LUN field in the form that Linux uses: 01h, target, flat space addressing.
#[must_use]
pub fn lun(target: u8, lun: u16) -> [u8; 8] {
    let [high, low] = lun.to_be_bytes();
    [1, target, 0x40 | high, low, 0, 0, 0, 0]
}

/// READ(10).
#[must_use]
pub fn read_10(lba: u32, blocks: u16) -> [u8; 10] {
    transfer_10(0x28, lba, blocks)
}

/// WRITE(10).
#[must_use]
pub fn write_10(lba: u32, blocks: u16) -> [u8; 10] {
    transfer_10(0x2a, lba, blocks)
}

fn transfer_10(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let ([a, b, c, d], [e, f]) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [opcode, 0, a, b, c, d, 0, e, f, 0]
}

/// TEST UNIT READY.
pub const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// A chain that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it was submitted as.
    pub token: usize,
    /// Head of the chain.
    pub head: u16,
    /// Length that the used entry tells.
    pub written: u32,
    /// Every byte of the device-writable buffers.
    pub writable: Vec<u8>,
    /// Those buffers.
    pub segments: Vec<Segment>,
}

impl Reply {
    /// Guest address of the response.
    ///
    /// # Panics
    /// If there was no writable buffer.
    #[must_use]
    pub fn response_addr(&self) -> u64 {
        self.segments.iter().find(|segment| segment.writable).expect("a writable buffer").addr
    }

    /// The virtio response code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.writable[11]
    }

    /// The SCSI status.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.writable[10]
    }

    /// Code and status.
    #[must_use]
    pub fn outcome(&self) -> (u8, u8) {
        (self.code(), self.status())
    }

    /// Data bytes that were left unused.
    #[must_use]
    pub fn residual(&self) -> u32 {
        self.word(4)
    }

    /// Length of the sense data.
    #[must_use]
    pub fn sense_len(&self) -> u32 {
        self.word(0)
    }

    /// The sense data, as long as the response says.
    #[must_use]
    pub fn sense_bytes(&self) -> &[u8] {
        &self.writable[12..12 + self.sense_len() as usize]
    }

    /// Sense key, ASC and ASCQ of a CHECK CONDITION; `None` for anything else.
    #[must_use]
    pub fn sense(&self) -> Option<(u8, u8, u8)> {
        let fixed = self.sense_len() == 18 && self.writable[12] & 0x7f == 0x70;
        (self.outcome() == (0, 2) && fixed).then(|| (self.writable[14], self.writable[24], self.writable[25]))
    }

    /// What the data-in buffers hold.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.writable[RESPONSE_LEN..]
    }

    /// The only byte that there was room for: the response to a task management function.
    ///
    /// # Panics
    /// If there was room for more or less than one.
    #[must_use]
    pub fn byte(&self) -> u8 {
        assert_eq!(self.writable.len(), 1, "the response of a task management function is one byte");
        self.writable[0]
    }

    /// Nothing moved: no data-in buffer was touched.
    #[must_use]
    pub fn data_untouched(&self) -> bool {
        self.data().iter().all(|byte| *byte == UNWRITTEN)
    }

    /// # Panics
    /// If this is not a transport response of this code, byte for byte, with nothing moved and everything residual.
    #[track_caller]
    pub fn assert_transport(&self, code: u8, residual: u32) {
        let [a, b, c, d] = residual.to_le_bytes();
        assert_eq!(self.writable[..12], [0, 0, 0, 0, a, b, c, d, 0, 0, 0, code], "response header");
        assert!(self.writable[12..].iter().all(|byte| *byte == UNWRITTEN), "nothing behind the response is written");
        assert_eq!(self.written, 12);
    }

    /// # Panics
    /// If this is not CHECK CONDITION with this sense, byte for byte, with nothing moved and everything residual.
    #[track_caller]
    pub fn assert_check(&self, sense: (u8, u8, u8), residual: u32) {
        assert_eq!(self.sense(), Some(sense), "sense of {:02x?}", &self.writable[..RESPONSE_LEN]);
        let [a, b, c, d] = residual.to_le_bytes();
        assert_eq!(self.writable[..12], [18, 0, 0, 0, a, b, c, d, 0, 0, 2, 0], "response header");
        assert!(self.data_untouched(), "no data was moved");
        assert_eq!(self.written, 30);
    }

    /// # Panics
    /// If this is not GOOD with so many data bytes unused.
    #[track_caller]
    pub fn assert_good(&self, residual: u32) {
        let [a, b, c, d] = residual.to_le_bytes();
        assert_eq!(self.writable[..12], [0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0], "response header");
    }

    /// # Panics
    /// If this is not GOOD with these bytes at the start of data-in, nothing behind them, and the rest residual.
    #[track_caller]
    pub fn assert_data(&self, data: &[u8]) {
        let room = self.data().len();
        self.assert_good((room - data.len()) as u32);
        assert!(self.data()[..data.len()] == *data, "data-in differs");
        assert!(self.data()[data.len()..].iter().all(|byte| *byte == UNWRITTEN), "data-in behind what the CDB says");
        assert_eq!(self.written as usize, if data.is_empty() { 12 } else { RESPONSE_LEN + data.len() });
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.writable[at..at + 4].try_into().expect("four bytes"))
    }
}
