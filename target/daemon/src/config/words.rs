//! Keys whose value is one word of a few: the words, and their meaning as enums.

use serde::{Serialize, Serializer};

/// An enum that the configuration spells as words.
pub(super) trait Words: Copy + PartialEq + 'static {
    /// Every value and its word.
    const WORDS: &'static [(&'static str, Self)];

    /// The value of a word.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }

    /// The word of this value.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, value)| *value == self);
        found.map(|(word, _)| *word).expect("every value has a word")
    }

    /// The words, separated by commas.
    fn known() -> String {
        let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        words.join(", ")
    }
}

/// An enum of the configuration with the word of each value.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$value_doc])* $value,)+
        }

        impl Words for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$value),)+];
        }

        impl $type {
            /// The word that the configuration uses for this value.
            pub fn as_str(self) -> &'static str {
                self.word()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

words! {
    /// What a poller does when it finds no work (`reactor.idle`).
    Idle {
        /// Spins for a while, then sleeps until something arrives. The default.
        Adaptive = "adaptive",
        /// Spins for ever.
        Busy = "busy",
    }
}

words! {
    /// Which side listens on a controller's vhost-user socket (`scsi.mode`).
    Mode {
        /// ringside listens, the front-end connects. The default.
        Server = "server",
        /// The front-end listens, ringside connects and comes back after a disconnection.
        Client = "client",
    }
}

words! {
    /// The answer to a command beyond `cmd_per_lun` (R02).
    OnCmdPerLun {
        /// `VIRTIO_SCSI_S_BUSY`. The default.
        Transport = "transport",
        /// `VIRTIO_SCSI_S_FAILURE`.
        Failure = "failure",
        /// `VIRTIO_SCSI_S_OK` with the SCSI status TASK SET FULL (28h).
        Scsi = "scsi",
    }
}

words! {
    /// The answer to a command whose data is larger than `max_sectors` (R01).
    OnMaxSectors {
        /// `VIRTIO_SCSI_S_FAILURE`. The default.
        Transport = "transport",
        /// CHECK CONDITION, ILLEGAL REQUEST, INVALID FIELD IN CDB (24h/00h).
        Scsi = "scsi",
    }
}

words! {
    /// What becomes of a block device while SPDK has no such bdev (`bdev.missing`).
    Missing {
        /// It and its LUNs are not there until SPDK has it. The default.
        Wait = "wait",
        /// The target does not start, and a reload changes nothing.
        Fail = "fail",
    }
}

words! {
    /// When what was written to a file is on stable storage (`bdev.cache`).
    Cache {
        /// After a flush: guests are told of a write cache. The default.
        Writeback = "writeback",
        /// When a write completes: guests are told that there is no write cache.
        Writethrough = "writethrough",
        /// As `writeback`, and never in the page cache of this host: without O_DIRECT the target does not start.
        None = "none",
    }
}
