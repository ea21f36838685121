//! Every way a job on the device can end without a result, each with its name.
//!
//! Failures are told apart by code, never by text: the device's words are kept for the log and shown
//! to nobody. The one question the rest of the house asks is [`DeviceError::may_have_signed`]: as
//! long as it is true, the nonce of the request may not be used for anything else.

use std::fmt;

use alloy::primitives::Address;

use super::check::CheckError;
use crate::account::{AccountIndex, DerivationPath, DeriveError, Fingerprint};
use crate::units::Disposition;

/// What was being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Finding the device, waking it, reading its features.
    Opening,
    /// The first use of the seed, which takes a real device seconds.
    Seed,
    Pin,
    Passphrase,
    /// A press; counts from 1 within one job.
    Button(u32),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("the device to wake"),
            Self::Seed => f.write_str("the device to derive the key"),
            Self::Pin => f.write_str("the PIN"),
            Self::Passphrase => f.write_str("the passphrase"),
            Self::Button(step) => write!(f, "button {step}"),
        }
    }
}

/// Three numbers, compared in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirmwareVersion(pub u32, pub u32, pub u32);

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("no Trezor is connected, or it does not answer; plug it in")]
    NotFound,
    #[error("{count} Trezors are connected; unplug all but one, or name one by bus and address")]
    Several { count: usize },
    #[error("another program holds the device; close Trezor Suite and its bridge")]
    HeldElsewhere,
    #[error("no permission to use the device; install the udev rule")]
    NoPermission,
    #[error("USB is not available: {reason}")]
    UsbUnavailable { reason: String },
    #[error("the device thread cannot be started: {0}")]
    Thread(std::io::ErrorKind),
    #[error("the device works on another job; wait for it or cancel it")]
    QueueFull,
    #[error("the device thread has ended")]
    Closed { may_have_signed: bool },

    #[error("the device is in bootloader mode; unplug it and plug it in without holding a button")]
    Bootloader,
    #[error("the device holds no seed; restore it first")]
    NotInitialized,
    #[error("the device's firmware cannot sign for Ethereum; install the universal firmware")]
    NoEthereum,
    #[error("firmware {found} is too old; install {needed} or newer")]
    FirmwareTooOld { found: FirmwareVersion, needed: FirmwareVersion },
    #[error("the firmware is made by {vendor:?}, not by SatoshiLabs; do not use this device")]
    ForeignFirmware { vendor: String },
    #[error("this is a simulated device, and only a devkit build talks to one")]
    Simulator,
    #[error("this model speaks another protocol (a Safe 7 does) and is not supported")]
    UnsupportedModel,

    #[error("the PIN was wrong ({failures} in a row here); the 16th wrong PIN in a row wipes the device")]
    PinWrong { failures: u32 },
    #[error("the PIN was not entered")]
    PinCancelled,
    #[error("the device refused the passphrase")]
    PassphraseRefused,
    #[error("the officer refused on the device, at step {step}")]
    Refused { step: u32 },
    #[error("cancelled here")]
    Cancelled { may_have_signed: bool },
    #[error("nobody answered in time: waited for {step}")]
    TimedOut { step: Step, may_have_signed: bool },

    #[error("this device or passphrase does not hold account {account} with fingerprint {expected}")]
    OtherAccount { account: AccountIndex, expected: Fingerprint },
    #[error("{path} is {derived}, the request says {requested}")]
    OtherSender { path: DerivationPath, derived: Address, requested: Address },
    #[error(transparent)]
    Derive(#[from] DeriveError),
    #[error("the device was locked, or could not sign")]
    Locked,
    #[error("the device has forgotten the session")]
    SessionLost,
    #[error("the device is busy")]
    DeviceBusy,

    #[error("the connection to the device was lost")]
    Disconnected { may_have_signed: bool },
    #[error("the device sent what cannot be understood: {what}")]
    Garbled { what: String, may_have_signed: bool },
    #[error("the device refuses the request as it is")]
    Data { text: DeviceText },
    #[error("the device did not expect this request (failure {code}); it is another model, or there is a bug")]
    Unexpected { code: i32, text: DeviceText },
    #[error("the device's firmware failed (failure {code})")]
    Firmware { code: i32, text: DeviceText },
    #[error("the device asked for {asked} bytes after it had the whole transaction")]
    ChunkOutOfBounds { asked: u32 },
    #[error("the signature is not of the approved request")]
    BadSignature(#[source] CheckError),
}

/// Words of the device, for the log only: an error's message never contains them.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceText(String);

impl DeviceText {
    const LEN_MAX: usize = 200;

    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().filter(|character| !character.is_control()).take(Self::LEN_MAX).collect())
    }
}

impl fmt::Debug for DeviceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl DeviceError {
    /// Whether a valid signature of the request may exist although we have none. Certainty needs an
    /// answer of the device; a line that went dead after an officer pressed gives none.
    pub fn may_have_signed(&self) -> bool {
        match self {
            Self::Cancelled { may_have_signed }
            | Self::TimedOut { may_have_signed, .. }
            | Self::Disconnected { may_have_signed }
            | Self::Garbled { may_have_signed, .. }
            // The thread died with the job: nothing is known about it.
            | Self::Closed { may_have_signed } => *may_have_signed,
            Self::BadSignature(_) | Self::ChunkOutOfBounds { .. } => true,
            _ => false,
        }
    }

    pub fn disposition(&self) -> Disposition {
        match self {
            Self::QueueFull | Self::SessionLost | Self::Locked | Self::DeviceBusy => Disposition::Retry,
            Self::Unexpected { .. } | Self::Firmware { .. } | Self::NotInitialized | Self::Closed { .. } => Disposition::Stop,
            error if error.may_have_signed() => Disposition::Officer,
            Self::Disconnected { .. } | Self::Garbled { .. } => Disposition::Retry,
            _ => Disposition::Officer,
        }
    }

    /// Whether the line is in step after this error, so that the next job can go on with it.
    pub(super) fn line_in_step(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::PinWrong { .. }
                | Self::PinCancelled
                | Self::OtherAccount { .. }
                | Self::OtherSender { .. }
                | Self::Derive(_)
                | Self::Locked
                | Self::SessionLost
                | Self::Data { .. }
                | Self::BadSignature(_)
        )
    }
}

/// What a failure code means, apart from who cancelled: code 4 does not say.
pub(super) fn from_failure(code: i32, text: &str, step: u32, pin_failures: u32) -> DeviceError {
    let text = DeviceText::new(text);
    match code {
        3 => DeviceError::Data { text },
        4 => DeviceError::Refused { step },
        5 | 6 => DeviceError::PinCancelled,
        7 => DeviceError::PinWrong { failures: pin_failures },
        9 => DeviceError::Locked,
        11 => DeviceError::NotInitialized,
        14 => DeviceError::SessionLost,
        15 => DeviceError::DeviceBusy,
        16 | 17 => DeviceError::UnsupportedModel,
        1 | 2 => DeviceError::Unexpected { code, text },
        _ => DeviceError::Firmware { code, text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_code_has_its_outcome_and_never_shows_the_devices_words() {
        let secret = "words of the device";
        let outcomes: Vec<String> = (0..=20)
            .chain([99])
            .map(|code| {
                let error = from_failure(code, secret, 2, 3);
                assert!(!error.to_string().contains(secret), "{error}");
                assert!(!error.may_have_signed(), "an answer is certainty: {error}");
                let name = format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
                format!("{code} {name} {:?}", error.disposition())
            })
            .collect();
        assert_eq!(
            outcomes.join("\n"),
            "0 Firmware Stop\n1 Unexpected Stop\n2 Unexpected Stop\n3 Data Officer\n4 Refused Officer\n5 PinCancelled Officer\n\
             6 PinCancelled Officer\n7 PinWrong Officer\n8 Firmware Stop\n9 Locked Retry\n10 Firmware Stop\n11 NotInitialized Stop\n\
             12 Firmware Stop\n13 Firmware Stop\n14 SessionLost Retry\n15 DeviceBusy Retry\n16 UnsupportedModel Officer\n\
             17 UnsupportedModel Officer\n18 Firmware Stop\n19 Firmware Stop\n20 Firmware Stop\n99 Firmware Stop"
        );
    }

    #[test]
    fn n3_a_lost_line_is_no_certainty_and_never_retried_alone() {
        for error in [
            DeviceError::Disconnected { may_have_signed: true },
            DeviceError::TimedOut { step: Step::Button(4), may_have_signed: true },
            DeviceError::Cancelled { may_have_signed: true },
            DeviceError::Garbled { what: String::new(), may_have_signed: true },
        ] {
            assert!(error.may_have_signed());
            assert_eq!(error.disposition(), Disposition::Officer, "{error}");
        }
        assert_eq!(DeviceError::Disconnected { may_have_signed: false }.disposition(), Disposition::Retry);
    }
}
