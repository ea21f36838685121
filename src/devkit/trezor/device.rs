//! The device: one message at a time, as the firmware's main loop takes them.
//!
//! Written like the firmware, in blocking style: a request that needs a person waits inside
//! `prompt.rs`, deaf to everything but its answer, Cancel and Initialize. Between the chunks of a
//! transaction the main loop is back here, and other requests are served.

use std::sync::Arc;

use protobuf::EnumOrUnknown;
use trezor_client::protos::features::{BackupAvailability, Capability};
use trezor_client::protos::{ApplySettings, EndSession, Features, GetFeatures, Initialize, LockDevice, Ping, SafetyCheckLevel};

use super::dice::Dice;
use super::fault::Fault;
use super::frame::Message;
use super::message::{self, Failure, Halt, button, read};
use super::screen::lines;
use super::session::Sessions;
use super::shared::Shared;
use super::signing::Signing;
use super::wire::{Heard, Wire};
use super::{Firmware, Safety, SimulatorOptions};

/// The first firmware that knows EIP-1559.
const EIP1559: Firmware = Firmware { major: 1, minor: 10, patch: 4 };

/// Ten minutes, the factory setting. The simulator does not lock by itself.
const AUTO_LOCK_MS: u32 = 600_000;

#[derive(Debug)]
pub(super) struct Device {
    pub(super) wire: Wire,
    pub(super) shared: Arc<Shared>,
    /// What survives without power. Faults and settings change it.
    pub(super) options: SimulatorOptions,
    pub(super) sessions: Sessions,
    pub(super) unlocked: bool,
    pub(super) wrong_pins: u32,
    /// A fault: what the officer should have typed.
    pub(super) other_passphrase: Option<String>,
    /// The transaction that waits for its next chunk.
    pub(super) signing: Option<Signing>,
    pub(super) dice: Dice,
    auto_lock_ms: u32,
}

impl Device {
    pub(super) fn new(options: SimulatorOptions, wire: Wire, shared: Arc<Shared>, dice: Dice) -> Self {
        let unlocked = options.pin.is_none();
        Self {
            wire,
            shared,
            options,
            sessions: Sessions::default(),
            unlocked,
            wrong_pins: 0,
            other_passphrase: None,
            signing: None,
            dice,
            auto_lock_ms: AUTO_LOCK_MS,
        }
    }

    /// Serves until the simulator is dropped; the body of the device's thread.
    pub(super) fn run(mut self) {
        loop {
            match self.wire.hear(None) {
                Heard::Stop => return,
                Heard::PowerCycle => self.power_cycle(),
                // Nothing is shown, so there is nothing to press.
                Heard::Wake | Heard::Deadline => {}
                Heard::TooBig { from } => {
                    self.wire.answer_to(from);
                    self.wire.send_failure(&Failure::data("Message too big"));
                }
                Heard::Message { from, message } => {
                    self.wire.answer_to(from);
                    match self.answer(&message) {
                        Ok(()) => {}
                        Err(Halt::Failure(failure)) => self.wire.send_failure(&failure),
                        Err(Halt::Initialize) => self.begin_session(),
                        Err(Halt::PowerCycle) => self.power_cycle(),
                        Err(Halt::Stop) => return,
                    }
                }
            }
        }
    }

    fn answer(&mut self, message: &Message) -> Result<(), Halt> {
        self.suffer();
        if self.strike_answer(message.id)? {
            return Ok(());
        }
        let payload = &message.payload[..];
        match message.id {
            message::INITIALIZE => self.initialize(&read(payload)?),
            message::CANCEL => {
                self.signing = None;
                return Err(Failure::CANCELLED.into());
            }
            message::GET_FEATURES => {
                read::<GetFeatures>(payload)?;
                self.send_features(false);
            }
            message::PING => self.ping(&read(payload)?)?,
            message::LOCK_DEVICE => {
                read::<LockDevice>(payload)?;
                self.unlocked = false;
                self.wire.send_success("Session cleared");
            }
            message::END_SESSION => {
                read::<EndSession>(payload)?;
                self.sessions.end();
                self.wire.send_success("Session ended");
            }
            message::APPLY_SETTINGS => self.apply_settings(&read(payload)?)?,
            message::GET_ADDRESS => self.get_address(&read(payload)?)?,
            message::GET_PUBLIC_KEY => self.get_public_key(&read(payload)?)?,
            message::SIGN_MESSAGE => self.sign_message(&read(payload)?)?,
            message::SIGN_TYPED_HASH => self.sign_typed_hash(&read(payload)?)?,
            message::SIGN_TX => self.sign_tx(&read(payload)?)?,
            message::SIGN_TX_EIP1559 if self.options.firmware >= EIP1559 => self.sign_tx_eip1559(&read(payload)?)?,
            message::TX_ACK => self.tx_ack(&read(payload)?)?,
            _ => return Err(Failure::UNKNOWN_MESSAGE.into()),
        }
        Ok(())
    }

    /// Resumes the session that is named, or begins one: an unknown id is no error.
    fn initialize(&mut self, request: &Initialize) {
        if request.session_id.as_deref().is_some_and(|id| self.sessions.resume(id)) {
            self.signing = None;
            self.send_features(true);
        } else {
            self.begin_session();
        }
    }

    /// Also the answer to Initialize inside a prompt, whatever id that carries.
    fn begin_session(&mut self) {
        self.signing = None;
        self.sessions.begin(self.dice.bytes());
        self.send_features(true);
    }

    fn ping(&mut self, request: &Ping) -> Result<(), Halt> {
        if request.button_protection() {
            self.require(button::PROTECT_CALL, lines(["Answer to ping?"]))?;
        }
        self.wire.send_success(request.message());
        Ok(())
    }

    fn apply_settings(&mut self, request: &ApplySettings) -> Result<(), Halt> {
        self.require_initialized()?;
        let safety = request.safety_checks.map(|level| level.enum_value_or_default());
        if request.label.is_none() && request.use_passphrase.is_none() && request.auto_lock_delay_ms.is_none() && safety.is_none() {
            return Err(Failure::data("No setting provided").into());
        }
        self.unlock()?;
        if let Some(label) = &request.label {
            self.require(button::PROTECT_CALL, lines(["Change the label to", &format!("{label}?")]))?;
        }
        if let Some(on) = request.use_passphrase {
            let which = if on { "Turn the passphrase on?" } else { "Turn the passphrase off?" };
            self.require(button::PROTECT_CALL, lines([which]))?;
        }
        if let Some(level) = safety {
            let which = match level {
                SafetyCheckLevel::Strict => "Enforce safety checks?",
                SafetyCheckLevel::PromptAlways => "Allow unsafe actions always?",
                SafetyCheckLevel::PromptTemporarily => "Allow unsafe actions until power is cut?",
            };
            self.require(button::PROTECT_CALL, lines([which]))?;
        }
        if let Some(delay_ms) = request.auto_lock_delay_ms {
            self.require(button::PROTECT_CALL, lines(["Lock by itself after", &format!("{delay_ms} ms?")]))?;
            self.auto_lock_ms = delay_ms;
        }
        if let Some(label) = &request.label {
            self.options.label.clone_from(label);
        }
        self.options.passphrase_protection = request.use_passphrase.unwrap_or(self.options.passphrase_protection);
        self.options.safety = match safety {
            None => self.options.safety,
            Some(SafetyCheckLevel::Strict) => Safety::Strict,
            Some(SafetyCheckLevel::PromptAlways | SafetyCheckLevel::PromptTemporarily) => Safety::Prompt,
        };
        self.wire.send_success("Settings applied");
        Ok(())
    }

    /// The fields that a Trezor One sends; the session's id only in answer to Initialize.
    fn send_features(&mut self, with_session: bool) {
        let options = &self.options;
        let mut features = Features::new();
        features.set_vendor("trezor.io".to_owned());
        features.set_major_version(options.firmware.major);
        features.set_minor_version(options.firmware.minor);
        features.set_patch_version(options.firmware.patch);
        features.bootloader_mode = options.bootloader_mode.then_some(true);
        features.set_device_id(options.device_id.clone());
        features.set_pin_protection(options.pin.is_some());
        features.set_passphrase_protection(options.passphrase_protection);
        features.set_language("en-US".to_owned());
        features.set_label(options.label.clone());
        features.set_initialized(options.initialized);
        features.set_revision(vec![0; 20]);
        features.set_bootloader_hash(vec![0; 32]);
        features.set_imported(true);
        features.set_unlocked(self.unlocked);
        features.set_backup_availability(BackupAvailability::NotAvailable);
        features.set_model("1".to_owned());
        features.set_fw_vendor(options.fw_vendor.clone());
        features.set_unfinished_backup(false);
        features.set_no_backup(false);
        features.capabilities = options.capabilities.iter().map(|number| capability(*number)).collect();
        if self.unlocked {
            features.set_wipe_code_protection(false);
            features.set_auto_lock_delay_ms(self.auto_lock_ms);
        }
        if let Some(id) = self.sessions.id().filter(|_| with_session) {
            features.set_session_id(id.to_vec());
        }
        features.set_safety_checks(match options.safety {
            Safety::Strict => SafetyCheckLevel::Strict,
            Safety::Prompt => SafetyCheckLevel::PromptTemporarily,
        });
        features.set_busy(false);
        self.wire.send_message(message::FEATURES, &features);
    }

    pub(super) fn require_initialized(&self) -> Result<(), Failure> {
        if self.options.initialized { Ok(()) } else { Err(Failure::NOT_INITIALIZED) }
    }

    /// The sixteenth wrong PIN: the wallet is gone, and with it everything that named the device.
    pub(super) fn wipe(&mut self) {
        self.sessions.forget_all();
        self.signing = None;
        self.unlocked = true;
        self.wrong_pins = 0;
        self.options.initialized = false;
        self.options.pin = None;
        self.options.passphrase_protection = false;
        self.options.device_id = self.dice.device_id();
    }

    /// Unplugged and plugged in again: sessions, the open transaction and the temporary safety
    /// level are lost.
    fn power_cycle(&mut self) {
        self.wire.reset();
        self.shared.lock().desk.close();
        self.sessions.forget_all();
        self.signing = None;
        self.unlocked = self.options.pin.is_none();
        self.options.safety = Safety::Strict;
    }

    /// Faults that change what the device is.
    fn suffer(&mut self) {
        loop {
            let fault = self.shared.lock().faults.take(|fault| match fault {
                Fault::OtherSeed(_)
                | Fault::OtherDeviceId(_)
                | Fault::OtherPassphrase(_)
                | Fault::SessionsEvicted
                | Fault::OldFirmware(_) => Some(fault.clone()),
                _ => None,
            });
            match fault {
                Some(Fault::OtherSeed(words)) => {
                    self.options.mnemonic = words;
                    self.sessions.forget_all();
                }
                Some(Fault::OtherDeviceId(device_id)) => self.options.device_id = device_id,
                Some(Fault::OtherPassphrase(passphrase)) => {
                    self.other_passphrase = Some(passphrase);
                    self.sessions.forget_all();
                }
                Some(Fault::SessionsEvicted) => self.sessions.forget_all(),
                Some(Fault::OldFirmware(firmware)) => self.options.firmware = firmware,
                Some(_) | None => return,
            }
        }
    }

    /// Faults that answer in place of the device. Opening it stays possible but for the last,
    /// or nobody would get as far as a request.
    fn strike_answer(&mut self, id: u16) -> Result<bool, Failure> {
        let mut state = self.shared.lock();
        if state.faults.has(&Fault::InvalidProtocol) {
            return Err(Failure::INVALID_PROTOCOL);
        }
        if matches!(id, message::INITIALIZE | message::CANCEL | message::GET_FEATURES) {
            return Ok(false);
        }
        if state.faults.strike(&Fault::Busy) {
            return Err(Failure::BUSY);
        }
        let other = state.faults.take(|fault| match fault {
            Fault::UnknownMessage(id) => Some(*id),
            _ => None,
        });
        drop(state);
        if let Some(id) = other {
            self.wire.send(id, Vec::new());
        }
        Ok(other.is_some())
    }
}

fn capability(number: i32) -> EnumOrUnknown<Capability> {
    EnumOrUnknown::from_i32(number)
}
