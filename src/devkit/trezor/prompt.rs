//! Prompts: the states in which the device waits for a person and is deaf to nearly everything.
//!
//! Heard are the acknowledgement that fits, Cancel and Initialize. All else is dropped without a
//! reply, which is why a host that gives up without Cancel finds the device mute.

use std::time::{Duration, Instant};

use trezor_client::protos::{PassphraseAck, PinMatrixAck};

use super::device::Device;
use super::message::{
    BUTTON_ACK, CANCEL, Failure, Halt, INITIALIZE, PASSPHRASE_ACK, PASSPHRASE_REQUEST, PIN_MATRIX_ACK, PIN_MATRIX_REQUEST, button, read,
};
use super::officer::{Awaits, Press};
use super::screen::{Lines, lines};
use super::wallet::{Key, Seed};
use super::wire::Heard;

/// The wrong PIN with this number wipes the device.
const WRONG_PINS_MAX: u32 = 16;

const PASSPHRASE_BYTES_MAX: usize = 50;

const PASSPHRASE_DISMISSED: Failure = Failure::new(4, "Passphrase dismissed");

impl Device {
    /// Shows a screen and insists on the right button.
    pub(super) fn require(&mut self, code: u32, lines: Lines) -> Result<(), Halt> {
        if self.confirm(code, lines)? { Ok(()) } else { Err(Failure::CANCELLED.into()) }
    }

    /// Shows a screen: was it the right button? Cancel is a Failure, not an answer.
    pub(super) fn confirm(&mut self, code: u32, lines: Lines) -> Result<bool, Halt> {
        self.shared.lock().desk.show(Awaits::Button(code), lines);
        self.wire.send_button_request(code);
        let confirmed = self.wait_for(BUTTON_ACK).and_then(|_| self.wait_for_press());
        self.shared.lock().desk.close();
        confirmed
    }

    /// Asks for the PIN if the device is locked.
    pub(super) fn unlock(&mut self) -> Result<(), Halt> {
        if self.unlocked {
            return Ok(());
        }
        let Some(pin) = self.options.pin.clone() else {
            self.unlocked = true;
            return Ok(());
        };
        let typed = self.ask_pin()?;
        // The real device waits before it looks, longer after each wrong one.
        let doublings = 1_u32 << self.wrong_pins.min(WRONG_PINS_MAX);
        self.rest(self.options.pin_wait.saturating_mul(doublings - 1))?;
        if typed == pin {
            self.wrong_pins = 0;
            self.unlocked = true;
            return Ok(());
        }
        self.wrong_pins += 1;
        if self.wrong_pins == WRONG_PINS_MAX {
            self.wipe();
        }
        Err(Failure::PIN_INVALID.into())
    }

    /// The key at a path of the wallet in use, after asking for the passphrase if need be.
    pub(super) fn key(&mut self, path: &[u32]) -> Result<Key, Halt> {
        if self.sessions.id().is_none() {
            return Err(Failure::INVALID_SESSION.into());
        }
        if let Some(seed) = self.sessions.seed() {
            return Ok(seed.derive(path));
        }
        let typed = if self.options.passphrase_protection { self.ask_passphrase()? } else { String::new() };
        let passphrase = self.other_passphrase.as_ref().unwrap_or(&typed);
        let seed = Seed::open(&self.options.mnemonic, passphrase);
        let key = seed.derive(path);
        self.sessions.remember(seed);
        Ok(key)
    }

    /// The PIN that was typed, digits already.
    fn ask_pin(&mut self) -> Result<String, Halt> {
        let matrix = {
            let mut state = self.shared.lock();
            let matrix = state.desk.take_next_matrix().unwrap_or_else(|| self.dice.pin_matrix());
            state.desk.show_matrix(&matrix);
            matrix
        };
        self.wire.send(PIN_MATRIX_REQUEST, vec![0x08, 0x01]);
        let typed = loop {
            match self.wait_for(PIN_MATRIX_ACK) {
                Ok(payload) => match read::<PinMatrixAck>(&payload) {
                    Ok(ack) => break Ok(ack.pin().to_owned()),
                    Err(failure) => self.wire.send_failure(&failure),
                },
                Err(Halt::Failure(_)) => break Err(Failure::PIN_CANCELLED.into()),
                Err(halt) => break Err(halt),
            }
        };
        self.shared.lock().desk.close();
        let digit = |position: char| {
            let place = position.to_digit(10)?.checked_sub(1)?;
            matrix.chars().nth(usize::try_from(place).ok()?)
        };
        let digits: Option<String> = typed?.chars().map(digit).collect();
        digits.ok_or(Failure::PIN_CANCELLED.into())
    }

    fn ask_passphrase(&mut self) -> Result<String, Halt> {
        let said = lines(["Enter the passphrase", "at the computer"]);
        self.shared.lock().desk.show(Awaits::Passphrase, said);
        self.wire.send(PASSPHRASE_REQUEST, Vec::new());
        let typed = self.wait_for_passphrase();
        self.shared.lock().desk.close();
        let passphrase = typed?;
        if !passphrase.is_empty() {
            self.show_passphrase(&passphrase)?;
        }
        Ok(passphrase)
    }

    fn wait_for_passphrase(&mut self) -> Result<String, Halt> {
        loop {
            let payload = self.wait_for(PASSPHRASE_ACK)?;
            let ack: PassphraseAck = match read(&payload) {
                Ok(ack) => ack,
                Err(failure) => {
                    self.wire.send_failure(&failure);
                    continue;
                }
            };
            if ack.on_device() {
                let text = "This firmware is incapable of passphrase entry on the device.";
                return Err(Failure::data(text).into());
            }
            match ack.passphrase {
                // The buffer is what complains here, below the prompt, which goes on.
                Some(long) if long.len() > PASSPHRASE_BYTES_MAX => {
                    self.wire.send_failure(&Failure::data("string overflow"));
                }
                Some(passphrase) => return Ok(passphrase),
                None => {
                    let text = "No passphrase provided. Use empty string to set an empty passphrase.";
                    return Err(Failure::data(text).into());
                }
            }
        }
    }

    fn show_passphrase(&mut self, passphrase: &str) -> Result<(), Halt> {
        let screens =
            [lines(["Access the hidden wallet?", "The next screen shows its passphrase"]), lines(["Use this passphrase?", passphrase])];
        for screen in screens {
            match self.require(button::OTHER, screen) {
                Err(Halt::Failure(_)) => return Err(PASSPHRASE_DISMISSED.into()),
                other => other?,
            }
        }
        Ok(())
    }

    /// Waits for the acknowledgement that fits, and returns its payload.
    fn wait_for(&mut self, ack: u16) -> Result<Vec<u8>, Halt> {
        loop {
            match self.hear_in_prompt(None, ack)? {
                Waited::Acknowledged(payload) => return Ok(payload),
                Waited::Woken | Waited::TimeIsUp => {}
            }
        }
    }

    /// Waits until one of the buttons counts. Here the host has acknowledged.
    fn wait_for_press(&mut self) -> Result<bool, Halt> {
        // What was pressed before the acknowledgement was held until now, and comes first.
        let mut press = {
            let mut desk = self.shared.lock();
            let overtaken = desk.desk.pressed();
            overtaken.unwrap_or_else(|| desk.desk.plan())
        };
        loop {
            let now = Instant::now();
            let (outcome, deadline) = match press {
                Press::Confirm => return Ok(true),
                Press::Reject => return Ok(false),
                Press::ConfirmAfter(delay) => (true, now.checked_add(delay)),
                Press::RejectAfter(delay) => (false, now.checked_add(delay)),
                Press::Never => (false, None),
            };
            press = loop {
                // A second ButtonAck is nothing: the first one counts.
                if matches!(self.hear_in_prompt(deadline, BUTTON_ACK)?, Waited::TimeIsUp) {
                    return Ok(outcome);
                }
                if let Some(press) = self.shared.lock().desk.overtaken() {
                    break press;
                }
            };
        }
    }

    /// Does nothing for a while, and hears nothing.
    fn rest(&mut self, pause: Duration) -> Result<(), Halt> {
        let until = Instant::now().checked_add(pause);
        while until.is_none_or(|until| Instant::now() < until) {
            match self.wire.hear(until) {
                Heard::Stop => return Err(Halt::Stop),
                Heard::PowerCycle => return Err(Halt::PowerCycle),
                Heard::Message { .. } | Heard::TooBig { .. } | Heard::Wake | Heard::Deadline => {}
            }
        }
        Ok(())
    }

    fn hear_in_prompt(&mut self, deadline: Option<Instant>, ack: u16) -> Result<Waited, Halt> {
        loop {
            match self.wire.hear(deadline) {
                Heard::Stop => return Err(Halt::Stop),
                Heard::PowerCycle => return Err(Halt::PowerCycle),
                Heard::Deadline => return Ok(Waited::TimeIsUp),
                Heard::Wake => return Ok(Waited::Woken),
                Heard::Message { from, message } if message.id == ack => {
                    self.wire.answer_to(from);
                    return Ok(Waited::Acknowledged(message.payload));
                }
                Heard::Message { from, message } if message.id == CANCEL => {
                    self.wire.answer_to(from);
                    return Err(Failure::CANCELLED.into());
                }
                Heard::Message { from, message } if message.id == INITIALIZE => {
                    self.wire.answer_to(from);
                    return Err(Halt::Initialize);
                }
                Heard::Message { .. } | Heard::TooBig { .. } => {}
            }
        }
    }
}

enum Waited {
    Acknowledged(Vec<u8>),
    Woken,
    TimeIsUp,
}
