//! Why a virtqueue halts (requirement R19). Who is told and what recovers the queue is the connection's business.

use std::fmt;

/// A fault that halts a virtqueue for good: nothing further is fetched from it until it is set up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub reason: FaultReason,
    /// Head of the chain it was found in, as the driver gave it; `None` if the fault is not in a chain.
    pub head: Option<u16>,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $text:literal;)*) => {
        /// What is wrong with a virtqueue.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FaultReason {
            $($(#[$doc])* $name,)*
        }

        impl FaultReason {
            /// Every reason, in the order of their values (`reason as usize` is the index).
            pub const ALL: [FaultReason; [$(FaultReason::$name),*].len()] = [$(FaultReason::$name),*];

            /// The reason as a metric label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(FaultReason::$name => $label,)* }
            }

            const fn text(self) -> &'static str {
                match self { $(FaultReason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The driver's index claims more entries than the ring has.
    AvailIndexJump = "avail_index_jump", "the available index is further ahead than the ring has entries";
    /// The head is not a descriptor of the ring.
    HeadOutOfRange = "head_out_of_range", "the head is not below the ring's size";
    /// The head belongs to a chain that has not been completed yet.
    HeadInFlight = "head_in_flight", "the head is in flight already";
    /// A `next` field leads out of its table.
    NextOutOfRange = "next_out_of_range", "a next field leads out of its table";
    /// A device-readable descriptor after a device-writable one (virtio 1.3 §2.7.4.2).
    ReadableAfterWritable = "readable_after_writable", "a readable descriptor comes after a writable one";
    /// An indirect descriptor inside an indirect table (virtio 1.3 §2.7.5.3.1).
    NestedIndirect = "nested_indirect", "an indirect table contains an indirect descriptor";
    /// INDIRECT and NEXT in one descriptor (virtio 1.3 §2.7.5.3.1).
    IndirectWithNext = "indirect_with_next", "an indirect descriptor has a next one";
    /// An indirect table of no entries, or not of whole entries.
    IndirectLength = "indirect_length", "the length of an indirect table is 0 or not a multiple of 16";
    /// An indirect table that the memory table does not hold.
    IndirectUnmapped = "indirect_unmapped", "an indirect table is not in the memory table";
    /// A chain longer than the ring (virtio 1.3 §2.7.5.3.1), or of more pieces than descriptors and memory regions together.
    ChainTooLong = "chain_too_long", "the chain has more descriptors than the ring";
    /// A chain that comes back to a descriptor of its own (virtio 1.3 §2.7.5.2).
    Loop = "loop", "the chain comes back to itself";
    /// Address plus length of a buffer or table exceed 64 bits.
    AddressOverflow = "address_overflow", "address plus length exceed 64 bits";
    /// A buffer that the memory table does not hold.
    Unmapped = "unmapped", "a buffer is not in the memory table";
    /// The ring itself is not in the memory table any more. Found by the connection.
    RingUnmapped = "ring_unmapped", "the ring is not in the memory table";
    /// Guest memory went away (SIGBUS). Found by the connection.
    MemoryLost = "memory_lost", "guest memory went away";
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.head {
            Some(head) => write!(f, "head {head}: {}", self.reason),
            None => write!(f, "{}", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_labels_are_snake_case_and_unlike_each_other() {
        for (index, reason) in FaultReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let label = reason.as_str();
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{label}");
            let same = FaultReason::ALL
                .iter()
                .filter(|other| other.as_str() == label || other.text() == reason.text())
                .count();
            assert_eq!(same, 1, "{label}");
        }
    }

    #[test]
    fn fault_text_names_the_head_where_there_is_one() {
        let fault = Fault { reason: FaultReason::NestedIndirect, head: Some(7) };
        assert_eq!(fault.to_string(), "head 7: an indirect table contains an indirect descriptor");
        let fault = Fault { reason: FaultReason::MemoryLost, head: None };
        assert_eq!(fault.to_string(), "guest memory went away");
    }
}
