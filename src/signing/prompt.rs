//! What a waiting device asks for, and what an officer types at the console.
//!
//! PIN positions and passphrases live in memory that is wiped, never in a log, an error or a store.

use std::fmt;

use zeroize::Zeroizing;

/// What the device thread is doing. No job is pending while it is `Idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Idle,
    /// Finding and waking the device.
    Connecting,
    /// The device works without needing anybody.
    Working,
    /// The device shows a page: `step` counts from 1 within the job. How many follow depends on the
    /// model, so no total is given. `code` is the device's kind of page.
    Waiting {
        step: u32,
        code: i32,
    },
    /// The device shows a scrambled grid: type where the digits are, as on a keypad.
    WaitingPin {
        failures: u32,
    },
    WaitingPassphrase,
}

/// An officer's answer to a prompt of the device.
#[derive(Debug)]
pub enum Input {
    Pin(PinPositions),
    /// Empty for the standard wallet.
    Passphrase(Passphrase),
}

/// Where the PIN's digits are in the grid on the device: 7 8 9 above 4 5 6 above 1 2 3.
pub struct PinPositions(Zeroizing<String>);

impl PinPositions {
    const LEN_MAX: usize = 50;

    /// Only digits 1 to 9: the device takes anything else for a cancelled prompt.
    pub fn new(positions: Zeroizing<String>) -> Result<Self, InputError> {
        if positions.is_empty() || positions.len() > Self::LEN_MAX || !positions.bytes().all(|byte| matches!(byte, b'1'..=b'9')) {
            return Err(InputError::Pin);
        }
        Ok(Self(positions))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// A passphrase the device can take.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// At 51 bytes a Trezor One reports an error and goes on waiting.
    const LEN_MAX: usize = 50;

    /// Only ASCII: other letters can be written in several ways that look alike, and each opens
    /// another wallet.
    pub fn new(passphrase: Zeroizing<String>) -> Result<Self, InputError> {
        if !passphrase.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(InputError::PassphraseLetters);
        }
        if passphrase.len() > Self::LEN_MAX {
            return Err(InputError::PassphraseLength { found: passphrase.len() });
        }
        Ok(Self(passphrase))
    }

    /// The wallet without a passphrase.
    pub fn standard() -> Self {
        Self(Zeroizing::new(String::new()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PinPositions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinPositions(…)")
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("pin: type 1 to 50 positions from 1 to 9, numbered as on a keypad")]
    Pin,
    #[error("passphrase: only ASCII letters, digits, signs and spaces are supported")]
    PassphraseLetters,
    #[error("passphrase: {found} bytes, the device takes 50")]
    PassphraseLength { found: usize },
    #[error("the device is not asking for this now")]
    NotAsked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_device_takes_can_be_typed() {
        let pin = |text: &str| PinPositions::new(Zeroizing::new(text.to_owned())).map(|_| ());
        let passphrase = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned())).map(|_| ());
        assert_eq!(pin("1379"), Ok(()));
        for bad in ["", "0", "12a", "1 2", "１", &"1".repeat(51)] {
            assert_eq!(pin(bad), Err(InputError::Pin), "{bad}");
        }
        assert_eq!(passphrase(""), Ok(()));
        assert_eq!(passphrase(&"x".repeat(50)), Ok(()));
        assert_eq!(passphrase(&"x".repeat(51)), Err(InputError::PassphraseLength { found: 51 }));
        assert_eq!(passphrase("caf\u{e9}"), Err(InputError::PassphraseLetters));
        assert_eq!(passphrase("a\n"), Err(InputError::PassphraseLetters));
    }

    #[test]
    fn y7_what_was_typed_is_not_printed() {
        let inputs = [
            Input::Pin(PinPositions::new(Zeroizing::new("1379".to_owned())).unwrap()),
            Input::Passphrase(Passphrase::new(Zeroizing::new("canary".to_owned())).unwrap()),
        ];
        let printed = format!("{inputs:?}");
        assert!(!printed.contains("1379") && !printed.contains("canary"), "{printed}");
    }
}
