//! Message numbers, failures, and how a request is read: the vocabulary of protocol v1.
//!
//! Texts of failures are those of a production build; the host must go by the code alone.

use protobuf::Message;

pub(super) const INITIALIZE: u16 = 0;
pub(super) const PING: u16 = 1;
pub(super) const SUCCESS: u16 = 2;
pub(super) const FAILURE: u16 = 3;
pub(super) const FEATURES: u16 = 17;
pub(super) const PIN_MATRIX_REQUEST: u16 = 18;
pub(super) const PIN_MATRIX_ACK: u16 = 19;
pub(super) const CANCEL: u16 = 20;
pub(super) const LOCK_DEVICE: u16 = 24;
pub(super) const APPLY_SETTINGS: u16 = 25;
pub(super) const BUTTON_REQUEST: u16 = 26;
pub(super) const BUTTON_ACK: u16 = 27;
pub(super) const PASSPHRASE_REQUEST: u16 = 41;
pub(super) const PASSPHRASE_ACK: u16 = 42;
pub(super) const GET_FEATURES: u16 = 55;
pub(super) const END_SESSION: u16 = 83;
pub(super) const GET_ADDRESS: u16 = 56;
pub(super) const ADDRESS: u16 = 57;
pub(super) const SIGN_TX: u16 = 58;
pub(super) const TX_REQUEST: u16 = 59;
pub(super) const TX_ACK: u16 = 60;
pub(super) const SIGN_MESSAGE: u16 = 64;
pub(super) const MESSAGE_SIGNATURE: u16 = 66;
pub(super) const GET_PUBLIC_KEY: u16 = 450;
pub(super) const PUBLIC_KEY: u16 = 451;
pub(super) const SIGN_TX_EIP1559: u16 = 452;
pub(super) const TYPED_DATA_SIGNATURE: u16 = 469;
pub(super) const SIGN_TYPED_HASH: u16 = 470;

/// `ButtonRequest.code`: the only thing a Trezor One tells the host about its screen.
pub mod button {
    /// Anything without a code of its own: messages, hashes, the passphrase.
    pub const OTHER: u32 = 1;
    /// A warning or a setting.
    pub const PROTECT_CALL: u32 = 7;
    /// Part of a transaction.
    pub const SIGN_TX: u32 = 8;
    /// An address to compare.
    pub const ADDRESS: u32 = 10;
    /// A public key to compare.
    pub const PUBLIC_KEY: u32 = 11;
    /// A key path outside the rules, at safety level prompt.
    pub const UNKNOWN_PATH: u32 = 15;
}

/// A Failure message: what the device says instead of doing what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u32,
    pub(super) text: &'static str,
}

impl Failure {
    pub(super) const UNKNOWN_MESSAGE: Self = Self::new(1, "Unknown message");
    pub(super) const NOT_SIGNING: Self = Self::new(1, "Not in Ethereum signing mode");
    pub(super) const CANCELLED: Self = Self::new(4, "Action cancelled by user");
    pub(super) const PIN_CANCELLED: Self = Self::new(6, "PIN cancelled");
    pub(super) const PIN_INVALID: Self = Self::new(7, "PIN invalid");
    pub(super) const LOCKED: Self = Self::new(9, "Locked");
    pub(super) const NOT_INITIALIZED: Self = Self::new(11, "Device not initialized");
    pub(super) const INVALID_SESSION: Self = Self::new(14, "Invalid session");
    pub(super) const BUSY: Self = Self::new(15, "Device is busy");
    pub(super) const INVALID_PROTOCOL: Self = Self::new(17, "Invalid protocol");

    pub(super) const fn new(code: u32, text: &'static str) -> Self {
        Self { code, text }
    }

    /// Code 3, the device's answer to anything wrong inside a request.
    pub(super) const fn data(text: &'static str) -> Self {
        Self::new(3, text)
    }
}

/// Why a request ended before its answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The device says no.
    Failure(Failure),
    /// Initialize came in the middle of a prompt: the answer is Features, and no Failure.
    Initialize,
    /// The device was unplugged and plugged in again: nobody waits for an answer.
    PowerCycle,
    /// The simulator is being dropped.
    Stop,
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Reads a request, or answers as the device does to bytes that are none.
pub(super) fn read<M: Message>(payload: &[u8]) -> Result<M, Failure> {
    let mut message = M::new();
    message.merge_from_bytes(payload).map_err(|_| Failure::data("end-of-stream"))?;
    if message.is_initialized() { Ok(message) } else { Err(Failure::data("missing required fields")) }
}

/// The device's buffers are fixed: a field that is longer is an error before anything else.
pub(super) fn fits(field: Option<&[u8]>, bytes_max: usize) -> Result<(), Failure> {
    match field {
        Some(bytes) if bytes.len() > bytes_max => Err(Failure::data("bytes overflow")),
        Some(_) | None => Ok(()),
    }
}
