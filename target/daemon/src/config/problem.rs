//! What can be wrong with a configuration, and how it is told to the operator: one line per problem, with line number,
//! key path, value and bound. Which values are allowed is decided by the modules that read them.

use std::fmt;

use super::size::{ByteSize, SizeError};

/// Every problem of one configuration text, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// What the text was called by the caller: a file name, as a rule.
    pub source_name: String,
    /// At least one problem.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.source_name)?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": {problem}")?;
        }
        Ok(())
    }
}

/// One problem: where it is, what stands there, and why it cannot stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the key or value, counted from 1; none if the parser gave none.
    pub line: Option<usize>,
    /// Key path such as `scsi[0].lun[1].bdev`; empty for a syntax error.
    pub key: String,
    /// The value as written, shortened to one line; none where there is no value.
    pub value: Option<String>,
    /// What is wrong.
    pub reason: Reason,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.value) {
            ("", _) => {}
            (key, None) => write!(f, "{key}: ")?,
            (key, Some(value)) => write!(f, "{key} = {value}: ")?,
        }
        write!(f, "{}", self.reason)
    }
}

/// Why a key or value is refused. The texts name the bound; key and value stand in front of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The text is no TOML; the parser's own words.
    #[error("{0}")]
    Syntax(String),
    /// A key that this version does not know at this place.
    #[error("unknown key; known here: {known}")]
    UnknownKey {
        /// The keys that are known, separated by commas.
        known: String,
    },
    /// A key that must be there is not.
    #[error("missing")]
    Missing,
    /// A value of another TOML type.
    #[error("must be {expected}, not {found}")]
    WrongType {
        /// The type wanted, with its article.
        expected: &'static str,
        /// The type found, with its article.
        found: &'static str,
    },
    /// An integer of more than 64 bits.
    #[error("must be an integer of 64 bits")]
    TooLarge,
    /// A number outside its bounds.
    #[error("must be {min} to {max}{why}")]
    OutOfRange {
        /// Smallest allowed value.
        min: u64,
        /// Largest allowed value.
        max: u64,
        /// Where the bound comes from, in brackets after a space; or empty.
        why: String,
    },
    /// A word that is none of the allowed ones.
    #[error("must be one of: {known}")]
    NotOneOf {
        /// The allowed words, separated by commas.
        known: String,
    },
    /// A name that would be hard to use as a label, an id or in a path.
    #[error("must be 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    NotAName,
    /// One of two keys that go together.
    #[error("goes with {other}, which is missing")]
    NeedsKey {
        /// The other key.
        other: &'static str,
    },
    /// Not an IP address with a port.
    #[error("must be an IP address and a port, such as 127.0.0.1:9464 or [::1]:9464")]
    NotAnAddress,
    /// Not a size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A block device needs at least one block.
    #[error("must be at least one block ({block_size} bytes)")]
    NoBlock {
        /// Bytes of a block.
        block_size: u32,
    },
    /// A size that ends within a block.
    #[error("must be a multiple of block_size ({block_size} bytes)")]
    PartialBlock {
        /// Bytes of a block.
        block_size: u32,
    },
    /// A block size that no guest is tested with.
    #[error("must be 512 or 4096")]
    NotABlockSize,
    /// A physical block that is smaller than a logical one.
    #[error("must be at least block_size ({block_size} bytes)")]
    BelowBlockSize {
        /// Bytes of a logical block.
        block_size: u32,
    },
    /// A ring size that split rings cannot have.
    #[error("must be a power of two")]
    NotAPowerOfTwo,
    /// Something that exists once is there twice.
    #[error("already used by {first}")]
    Duplicate {
        /// Key path and line of the first one.
        first: String,
    },
    /// Two LUNs of one controller at one address.
    #[error("target {target} lun {lun} is already used by {first}")]
    AddressTaken {
        /// Target number.
        target: u8,
        /// LUN number.
        lun: u16,
        /// Key path and line of the first one.
        first: String,
    },
    /// A block device that is not configured.
    #[error("there is no [[bdev]] of this name; known: {known}")]
    NoSuchBdev {
        /// The names that exist, separated by commas; or "none".
        known: String,
    },
    /// A block device with two users (R08).
    #[error("this bdev is already used by {first}; a bdev has one user, a LUN or another bdev")]
    BdevShared {
        /// Key path and line of the first user.
        first: String,
    },
    /// A chain of bases that comes back to its start.
    #[error("a bdev cannot stand on itself: {chain}")]
    BaseCycle {
        /// The names along the cycle.
        chain: String,
    },
    /// A port that is not configured.
    #[error("there is no [[port]] of this name; known: {known}")]
    NoSuchPort {
        /// The names that exist, separated by commas; or "none".
        known: String,
    },
    /// A second user of a port that takes one.
    #[error("this port is already used by {first}; a port of kind \"dpdk\" takes one net device, or one switch")]
    PortTaken {
        /// Key path and line of the first user.
        first: String,
    },
    /// Switches one behind the other, or in a ring.
    #[error("a switch cannot be the uplink of a switch")]
    UplinkIsASwitch,
    /// A kind of port that needs a library which this program was built without.
    #[error("this ringside was built without dpdk (its cargo feature \"dpdk\")")]
    WithoutDpdk,
    /// A kind of block device that needs SPDK, which this program was built without.
    #[error("this ringside was built without spdk (its cargo feature \"spdk\")")]
    WithoutSpdk,
    /// A size outside its bounds.
    #[error("must be {min} to {max}")]
    NotBetween {
        /// Smallest allowed size.
        min: ByteSize,
        /// Largest allowed size.
        max: ByteSize,
    },
    /// Not an Ethernet address.
    #[error("must be six bytes in hexadecimal with colons, as 52:54:00:00:00:01")]
    NotAMac,
    /// An address of a group.
    #[error("must not be the address of a group: its first byte is odd")]
    MacIsAGroup,
    /// The address of nobody.
    #[error("must not be all zeros")]
    MacIsZero,
    /// A key that means something on a switch only.
    #[error("needs a port of kind \"switch\"")]
    IsolatedWithoutASwitch,
    /// A list that needs at least one entry.
    #[error("must not be empty")]
    Empty,
    /// A controller's poller on a core that no poller runs on.
    #[error("must be one of reactor.cores: {cores}")]
    NotAPollerCore {
        /// The cores of the reactor, separated by commas.
        cores: String,
    },
    /// A text longer than its field.
    #[error("must be at most {max} bytes, is {len}")]
    TooLong {
        /// Most bytes that fit.
        max: usize,
        /// Bytes given.
        len: usize,
    },
    /// A text for an ASCII field of INQUIRY or VPD data (SPC-5 §4.3.1).
    #[error("must be printable ASCII (20h to 7Eh)")]
    NotPrintable,
    /// Not a world wide name.
    #[error("must be \"naa.\" and 16 hex digits starting with 2, 3 or 5, or 32 starting with 6")]
    NotAWwn,
    /// A path or an argument that C has no way to take.
    #[error("must not contain a NUL character")]
    NulInPath,
    /// Not a plan of what fails when.
    #[error(transparent)]
    NotAFaultPlan(bdev::FaultPlanError),
    /// The page cache, allowed by one key and forbidden by another.
    #[error("needs direct = true")]
    CacheNeedsDirect,
    /// A tail of the delay below its median.
    #[error("must be at least latency_us ({latency_us})")]
    BelowLatency {
        /// The delay's `latency_us`.
        latency_us: u32,
    },
    /// A transfer limit that refuses every read and write of a LUN (R06).
    #[error("must be at least {min}: one block of {lun} has {block_size} bytes")]
    BelowOneBlock {
        /// Smallest limit that lets a block through, in 512-byte sectors.
        min: u32,
        /// Key path of the LUN.
        lun: String,
        /// Bytes of a block of its bdev.
        block_size: u32,
    },
}
