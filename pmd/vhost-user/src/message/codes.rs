//! The request codes of a front-end and their names ("Front-end message types"). No body in here.

use std::fmt;

/// A request code as it stands in a header; unknown ones survive as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestCode(pub u32);

macro_rules! codes {
    ($($name:ident = $value:literal,)*) => {
        #[allow(missing_docs)] // the names are the protocol's own
        impl RequestCode {
            $(pub const $name: RequestCode = RequestCode($value);)*

            /// The name in the protocol text, where there is one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    RESET_OWNER = 4,
    SET_MEM_TABLE = 5,
    SET_LOG_BASE = 6,
    SET_LOG_FD = 7,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    GET_VRING_BASE = 11,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    SET_VRING_ERR = 14,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    GET_QUEUE_NUM = 17,
    SET_VRING_ENABLE = 18,
    SEND_RARP = 19,
    NET_SET_MTU = 20,
    SET_BACKEND_REQ_FD = 21,
    IOTLB_MSG = 22,
    SET_VRING_ENDIAN = 23,
    GET_CONFIG = 24,
    SET_CONFIG = 25,
    CREATE_CRYPTO_SESSION = 26,
    CLOSE_CRYPTO_SESSION = 27,
    POSTCOPY_ADVISE = 28,
    POSTCOPY_LISTEN = 29,
    POSTCOPY_END = 30,
    GET_INFLIGHT_FD = 31,
    SET_INFLIGHT_FD = 32,
    GPU_SET_SOCKET = 33,
    RESET_DEVICE = 34,
    VRING_KICK = 35,
    GET_MAX_MEM_SLOTS = 36,
    ADD_MEM_REG = 37,
    REM_MEM_REG = 38,
    SET_STATUS = 39,
    GET_STATUS = 40,
    GET_SHARED_OBJECT = 41,
    SET_DEVICE_STATE_FD = 42,
    CHECK_DEVICE_STATE = 43,
    GET_SHMEM_CONFIG = 44,
}

impl RequestCode {
    /// Whether the front-end waits for an answer to this request even without asking for an acknowledgement.
    ///
    /// It includes requests that only make sense with features that are not served here: whoever sends one
    /// nevertheless gets an error instead of silence.
    pub fn solicits_reply(self) -> bool {
        matches!(
            self,
            RequestCode::GET_FEATURES
                | RequestCode::GET_VRING_BASE
                | RequestCode::GET_PROTOCOL_FEATURES
                | RequestCode::GET_QUEUE_NUM
                | RequestCode::IOTLB_MSG
                | RequestCode::GET_CONFIG
                | RequestCode::CREATE_CRYPTO_SESSION
                | RequestCode::POSTCOPY_ADVISE
                | RequestCode::POSTCOPY_END
                | RequestCode::GET_INFLIGHT_FD
                | RequestCode::GET_MAX_MEM_SLOTS
                | RequestCode::GET_STATUS
                | RequestCode::GET_SHARED_OBJECT
                | RequestCode::SET_DEVICE_STATE_FD
                | RequestCode::CHECK_DEVICE_STATE
                | RequestCode::GET_SHMEM_CONFIG
        )
    }
}

impl fmt::Display for RequestCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "request {}", self.0),
        }
    }
}
