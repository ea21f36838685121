//! A conversation with the device: waking it, its prompts, and the requests we make.
//!
//! Runs on the device's thread and blocks. Acknowledges each page itself, so that the console can
//! tell which one is shown. A PIN is never sent twice, and a request that was refused is never
//! repeated; only a session the device forgot is opened again, before anything was shown.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use protobuf::Message as _;
use tokio::sync::watch;
use trezor_client::TrezorMessage;
use trezor_client::protos::{ButtonAck, ButtonRequest, Cancel, EndSession, Failure, Features, Initialize, MessageType};
use trezor_client::transport::ProtoMessage;

use super::device::DeviceAddress;
use super::error::{DeviceError, Step, from_failure};
use super::features::DeviceFeatures;
use super::link::{CancelFlag, DeviceLimits, Port, PortError, Stop};
use super::prompt::{Input, Progress};
#[cfg(feature = "devkit")]
use super::udp::UdpPort;
use super::usb::UsbPort;
use super::wire::{SecretAck, Wire, WireError};

/// Prompts within one request. A shown address can be turned over and back; nobody does so often.
const PROMPTS_MAX: u32 = 200;
/// After 2^n - 1 seconds the device takes the next PIN; beyond this it wipes itself.
const PIN_FAILURES_MAX: u32 = 15;

/// What is asked of the device, as far as waiting is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// Answered at once.
    Plain,
    /// Uses the seed, which may need PIN and passphrase first.
    Seed,
    /// Makes a signature: from the first press on, a lost line leaves doubt.
    Signature,
}

/// Where one request stands.
struct Turn {
    ask: Ask,
    step: Step,
    presses: u32,
    /// The passphrase was just sent, so an error is about it.
    passphrase_sent: bool,
}

impl Turn {
    fn may_have_signed(&self) -> bool {
        matches!(self.ask, Ask::Signature) && self.presses > 0
    }
}

pub(super) struct Session {
    address: DeviceAddress,
    pub(super) limits: DeviceLimits,
    progress: watch::Sender<Progress>,
    inputs: Receiver<Input>,
    wire: Option<Wire>,
    /// Kept for the life of the thread, so that the passphrase is asked for once.
    session_id: Option<Vec<u8>>,
    pin_failures: u32,
    cancel: Option<CancelFlag>,
}

impl Session {
    pub(super) fn new(address: DeviceAddress, limits: DeviceLimits, progress: watch::Sender<Progress>, inputs: Receiver<Input>) -> Self {
        Self { address, limits, progress, inputs, wire: None, session_id: None, pin_failures: 0, cancel: None }
    }

    /// Starts a job: wakes the device, or finds it again, and resumes the session.
    pub(super) fn begin(&mut self, cancel: CancelFlag) -> Result<DeviceFeatures, DeviceError> {
        if cancel.is_set() {
            return Err(DeviceError::Cancelled { may_have_signed: false });
        }
        self.cancel = Some(cancel);
        if let Some(wire) = &mut self.wire {
            self.progress.send_replace(Progress::Working);
            wire.serve(self.cancel.clone());
            match self.initialize() {
                // It was unplugged since the last job, and may be back.
                Err(DeviceError::NotFound) => self.wire = None,
                answer => return answer,
            }
        }
        self.progress.send_replace(Progress::Connecting);
        self.wire = Some(self.connect()?);
        self.progress.send_replace(Progress::Working);
        self.initialize()
    }

    /// Ends a job. A line that may be out of step is given up; the next job opens a new one.
    pub(super) fn end(&mut self, failed: Option<&DeviceError>) {
        if failed.is_some_and(|error| !error.line_in_step())
            && let Some(mut wire) = self.wire.take()
        {
            wire.leave();
        }
        self.cancel = None;
        self.progress.send_replace(Progress::Idle);
    }

    /// Makes the device forget the session and its passphrase.
    pub(super) fn forget(&mut self) {
        if self.session_id.take().is_some()
            && let Some(wire) = &mut self.wire
        {
            wire.serve(None);
            // Nothing is left to do about a device that does not even answer this.
            if wire.call(&EndSession::new(), self.limits.answer).is_err() {
                self.wire = None;
            }
        }
    }

    /// Forgets a session that the device does not know any more, and opens a new one.
    pub(super) fn renew(&mut self) -> Result<DeviceFeatures, DeviceError> {
        self.session_id = None;
        self.initialize()
    }

    fn connect(&self) -> Result<Wire, DeviceError> {
        let port = match self.address {
            DeviceAddress::Usb(at) => UsbPort::open(at).map(Port::Usb),
            #[cfg(feature = "devkit")]
            DeviceAddress::Udp(device) => UdpPort::open(device).map(Port::Udp),
        };
        let mut wire = Wire::new(port.map_err(port_error)?, self.limits);
        wire.serve(self.cancel.clone());
        // Whatever prompt another program left open is closed. An idle device answers the same.
        let answer = wire.call(&Cancel::new(), self.limits.answer).map_err(opening_error)?;
        if let Some(error) = unsupported(&answer) {
            return Err(error);
        }
        wire.drain().map_err(opening_error)?;
        Ok(wire)
    }

    fn initialize(&mut self) -> Result<DeviceFeatures, DeviceError> {
        let mut message = Initialize::new();
        message.session_id = self.session_id.clone();
        let features: Features = match self.ask(&message, Ask::Plain) {
            // Silence right at the start means that nothing is there.
            Err(DeviceError::Disconnected { .. }) => return Err(DeviceError::NotFound),
            answer => answer?,
        };
        let checked = DeviceFeatures::check(&features)?;
        // An unknown id silently yields another session, and a new passphrase prompt.
        self.session_id = features.session_id;
        Ok(checked)
    }

    /// Sends a request and goes through its prompts to its answer.
    pub(super) fn ask<S: TrezorMessage, R: TrezorMessage>(&mut self, message: &S, ask: Ask) -> Result<R, DeviceError> {
        let (step, limit) = match ask {
            Ask::Plain => (Step::Opening, self.limits.answer),
            Ask::Seed | Ask::Signature => (Step::Seed, self.limits.seed),
        };
        let mut turn = Turn { ask, step, presses: 0, passphrase_sent: false };
        let mut reply = self.wire()?.call(message, limit);
        for _ in 0..PROMPTS_MAX {
            let message = reply.map_err(|error| wire_error(error, &turn))?;
            reply = match message.message_type() {
                kind if kind == R::MESSAGE_TYPE => return parse(message, &turn),
                MessageType::MessageType_Failure => return Err(self.failure(&parse(message, &turn)?, &turn)),
                MessageType::MessageType_ButtonRequest => self.button(&parse(message, &turn)?, &mut turn),
                MessageType::MessageType_PinMatrixRequest => self.pin(&mut turn),
                MessageType::MessageType_PassphraseRequest => self.passphrase(&mut turn),
                kind => return Err(garbled(format!("{kind:?}, which is no answer here"), &turn)),
            };
        }
        Err(garbled("prompts without end".to_owned(), &turn))
    }

    fn wire(&mut self) -> Result<&mut Wire, DeviceError> {
        self.wire.as_mut().ok_or(DeviceError::NotFound)
    }

    fn button(&mut self, request: &ButtonRequest, turn: &mut Turn) -> Result<ProtoMessage, WireError> {
        turn.presses += 1;
        turn.step = Step::Button(turn.presses);
        turn.passphrase_sent = false;
        let code = request.code.map_or(0, |code| code.value());
        self.progress.send_replace(Progress::Waiting { step: turn.presses, code });
        let limit = self.limits.button;
        self.with_wire(|wire| wire.call(&ButtonAck::new(), limit))
    }

    fn pin(&mut self, turn: &mut Turn) -> Result<ProtoMessage, WireError> {
        turn.step = Step::Pin;
        let failures = self.pin_failures;
        let typed = self.input(Progress::WaitingPin { failures }, |input| match input {
            Input::Pin(pin) => Some(pin),
            Input::Passphrase(_) => None,
        })?;
        let pause = Duration::from_secs(1 << failures.min(PIN_FAILURES_MAX));
        let limit = self.limits.pin_answer + pause;
        let answer = self.with_wire(|wire| wire.call_secret(SecretAck::Pin, typed.expose(), limit))?;
        if answer.message_type() != MessageType::MessageType_Failure {
            self.pin_failures = 0;
        }
        Ok(answer)
    }

    fn passphrase(&mut self, turn: &mut Turn) -> Result<ProtoMessage, WireError> {
        turn.step = Step::Passphrase;
        let typed = self.input(Progress::WaitingPassphrase, |input| match input {
            Input::Passphrase(passphrase) => Some(passphrase),
            Input::Pin(_) => None,
        })?;
        turn.passphrase_sent = true;
        let limit = self.limits.seed;
        self.with_wire(|wire| wire.call_secret(SecretAck::Passphrase, typed.expose(), limit))
    }

    /// Waits for the officer to type. What was typed before the prompt is dropped unread.
    fn input<T>(&mut self, prompt: Progress, take: impl Fn(Input) -> Option<T>) -> Result<T, WireError> {
        while self.inputs.try_recv().is_ok() {}
        self.progress.send_replace(prompt);
        let deadline = Instant::now() + self.limits.input;
        let reason = loop {
            if self.cancel.as_ref().is_some_and(CancelFlag::is_set) {
                break Stop::Cancelled;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Stop::TimedOut;
            }
            match self.inputs.recv_timeout(left.min(self.limits.slice)) {
                Ok(input) => {
                    if let Some(typed) = take(input) {
                        self.progress.send_replace(Progress::Working);
                        return Ok(typed);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody can type any more.
                Err(RecvTimeoutError::Disconnected) => break Stop::Cancelled,
            }
        };
        let mut stopped = WireError::Lost(PortError::Gone);
        self.with_wire(|wire| {
            stopped = wire.abandon(reason);
            Ok(())
        })?;
        Err(stopped)
    }

    fn with_wire<T>(&mut self, work: impl FnOnce(&mut Wire) -> Result<T, WireError>) -> Result<T, WireError> {
        self.wire.as_mut().map_or(Err(WireError::Lost(PortError::Gone)), work)
    }

    fn failure(&mut self, failure: &Failure, turn: &Turn) -> DeviceError {
        let code = failure.code.map_or(0, |code| code.value());
        tracing::debug!(failure.code = code, failure.text = failure.message(), step = %turn.step, "device answered with a failure");
        if code == PIN_INVALID {
            self.pin_failures += 1;
        }
        match from_failure(code, failure.message(), turn.presses, self.pin_failures) {
            DeviceError::Data { .. } if turn.passphrase_sent => DeviceError::PassphraseRefused,
            error => error,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.forget();
    }
}

const PIN_INVALID: i32 = 7;

fn parse<M: TrezorMessage>(message: ProtoMessage, turn: &Turn) -> Result<M, DeviceError> {
    M::parse_from_bytes(message.payload()).map_err(|error| garbled(error.to_string(), turn))
}

fn garbled(what: String, turn: &Turn) -> DeviceError {
    DeviceError::Garbled { what, may_have_signed: turn.may_have_signed() }
}

fn wire_error(error: WireError, turn: &Turn) -> DeviceError {
    let doubt = turn.may_have_signed();
    match error {
        WireError::Lost(_) => DeviceError::Disconnected { may_have_signed: doubt },
        WireError::Garbled(what) => garbled(what, turn),
        WireError::OtherProtocol => garbled("packets of another protocol".to_owned(), turn),
        // Without the device's word it may have acted on a press that came with our Cancel.
        WireError::Stopped { acknowledged: false, .. } => DeviceError::Disconnected { may_have_signed: doubt },
        WireError::Stopped { reason: Stop::Cancelled, overtaken, .. } => DeviceError::Cancelled { may_have_signed: doubt && overtaken },
        WireError::Stopped { reason: Stop::TimedOut, overtaken, .. } => {
            DeviceError::TimedOut { step: turn.step, may_have_signed: doubt && overtaken }
        }
    }
}

fn opening_error(error: WireError) -> DeviceError {
    match error {
        WireError::Lost(fault) => port_error(fault),
        WireError::Stopped { reason: Stop::Cancelled, .. } => DeviceError::Cancelled { may_have_signed: false },
        WireError::Stopped { reason: Stop::TimedOut, .. } => DeviceError::NotFound,
        WireError::Garbled(what) => DeviceError::Garbled { what, may_have_signed: false },
        // A Safe 7 has the USB id of other models, so it is only noticed here.
        WireError::OtherProtocol => DeviceError::UnsupportedModel,
    }
}

fn port_error(fault: PortError) -> DeviceError {
    match fault {
        PortError::NotFound | PortError::Gone => DeviceError::NotFound,
        PortError::Several(count) => DeviceError::Several { count },
        PortError::Held => DeviceError::HeldElsewhere,
        PortError::NoPermission => DeviceError::NoPermission,
        PortError::Unavailable(reason) => DeviceError::UsbUnavailable { reason },
    }
}

/// A device of another protocol refuses even `Cancel`, with a code of its own.
fn unsupported(answer: &ProtoMessage) -> Option<DeviceError> {
    if answer.message_type() != MessageType::MessageType_Failure {
        return None;
    }
    let failure = Failure::parse_from_bytes(answer.payload()).ok()?;
    let error = from_failure(failure.code.map_or(0, |code| code.value()), failure.message(), 0, 0);
    matches!(error, DeviceError::UnsupportedModel).then_some(error)
}
