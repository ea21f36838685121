//! The device: one thread that owns it, and a handle the rest of the house can wait on.
//!
//! The thread takes one job at a time from a queue of one, so nothing else can speak into a prompt.
//! A job ends with its answer, with a named error, or because it was cancelled; a caller that stops
//! waiting cancels its job. The thread holds no database connection, and nothing secret survives it.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self as sync_mpsc, SyncSender, TrySendError};

#[cfg(feature = "devkit")]
use std::net::SocketAddr;

use alloy::primitives::Address;
use tokio::sync::mpsc::error::TrySendError as QueueError;
use tokio::sync::{mpsc, oneshot, watch};

use super::check::SignedTx;
use super::definitions::Definitions;
use super::error::DeviceError;
use super::features::DeviceFeatures;
use super::job::{self, MessageJob, SignJob};
use super::link::{CancelFlag, DeviceLimits, Jobs};
use super::prompt::{Input, InputError, Progress};
use super::request::TransactionRequest;
use super::session::Session;
use super::usb::UsbPlace;
use crate::account::{AccountIndex, AccountXpub, DerivationPath};

/// How to reach a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAddress {
    /// The only Trezor on USB, or the one at this place.
    Usb(Option<UsbPlace>),
    /// A simulated device on loopback.
    #[cfg(feature = "devkit")]
    Udp(SocketAddr),
}

impl FromStr for DeviceAddress {
    type Err = DeviceAddressError;

    /// Reads `usb`, `usb:BUS:ADDRESS`, and in devkit builds `udp:127.0.0.1:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || DeviceAddressError(text.chars().take(60).collect());
        if text == "usb" {
            return Ok(Self::Usb(None));
        }
        #[cfg(feature = "devkit")]
        if let Some(device) = text.strip_prefix("udp:") {
            return device.parse().ok().filter(|device: &SocketAddr| device.ip().is_loopback()).map(Self::Udp).ok_or_else(refused);
        }
        let (bus, address) = text.strip_prefix("usb:").and_then(|place| place.split_once(':')).ok_or_else(refused)?;
        let number = |digits: &str| digits.parse::<u8>().map_err(|_| refused());
        Ok(Self::Usb(Some(UsbPlace { bus: number(bus)?, address: number(address)? })))
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {0:?} is neither usb nor usb:BUS:ADDRESS")]
pub struct DeviceAddressError(String);

type Answer<T> = oneshot::Sender<Result<T, DeviceError>>;

enum Job {
    Features(Answer<DeviceFeatures>),
    AccountXpub(AccountIndex, Answer<AccountXpub>),
    ShowAddress(DerivationPath, Answer<Address>),
    OpenAccount(AccountXpub, Answer<()>),
    Sign(Box<SignJob>, Answer<SignedTx>),
    SignMessage(Box<MessageJob>, Answer<Vec<u8>>),
}

struct Ticket {
    job: Job,
    cancel: CancelFlag,
}

/// A handle on the device thread. When it is dropped, pending work is cancelled, the device forgets
/// the session and the thread ends.
#[derive(Debug)]
pub struct Device {
    queue: mpsc::Sender<Ticket>,
    inputs: SyncSender<Input>,
    progress: watch::Receiver<Progress>,
    jobs: Arc<Jobs>,
}

impl Device {
    /// Starts the thread, finds the device and checks that it can be used.
    pub async fn open(address: DeviceAddress, limits: DeviceLimits) -> Result<Self, DeviceError> {
        let (queue, tickets) = mpsc::channel(1);
        let (inputs, typed) = sync_mpsc::sync_channel(1);
        let (told, progress) = watch::channel(Progress::Idle);
        let session = Session::new(address, limits, told, typed);
        let thread = std::thread::Builder::new().name("trezor".to_owned());
        thread.spawn(move || run(session, tickets)).map_err(|error| DeviceError::Thread(error.kind()))?;
        let device = Self { queue, inputs, progress, jobs: Arc::default() };
        device.features().await?;
        Ok(device)
    }

    /// Wakes the device and reads what it says about itself.
    pub async fn features(&self) -> Result<DeviceFeatures, DeviceError> {
        self.run(Job::Features).await
    }

    /// Asks for an account's xpub, to register it. Needs no button; may need PIN and passphrase.
    pub async fn account_xpub(&self, account: AccountIndex) -> Result<AccountXpub, DeviceError> {
        self.run(|answer| Job::AccountXpub(account, answer)).await
    }

    /// Shows an address on the device for an officer to compare, and returns it after the press.
    /// The device's "No" only turns the page; to leave without confirming, cancel.
    pub async fn show_address(&self, path: DerivationPath) -> Result<Address, DeviceError> {
        self.run(|answer| Job::ShowAddress(path, answer)).await
    }

    /// Makes sure that the device, with the passphrase typed, holds this account. A wrong passphrase
    /// is not an error to a device: it opens another wallet, which signs just as well.
    pub async fn open_account(&self, expected: AccountXpub) -> Result<OpenAccount<'_>, DeviceError> {
        let xpub = expected.clone();
        self.run(|answer| Job::OpenAccount(expected, answer)).await?;
        Ok(OpenAccount { device: self, xpub })
    }

    /// What the device waits for, for the console to show.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Hands over what the officer typed, if the device asks for it right now.
    pub fn answer(&self, input: Input) -> Result<(), InputError> {
        let asked = match (*self.progress.borrow(), &input) {
            (Progress::WaitingPin { .. }, Input::Pin(_)) | (Progress::WaitingPassphrase, Input::Passphrase(_)) => true,
            (_, Input::Pin(_) | Input::Passphrase(_)) => false,
        };
        if !asked {
            return Err(InputError::NotAsked);
        }
        self.inputs.try_send(input).map_err(|refused| match refused {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => InputError::NotAsked,
        })
    }

    /// Cancels the job under way and the one that waits. Later jobs are not affected.
    pub fn cancel(&self) {
        let submitted = self.jobs.submitted.load(Ordering::Acquire);
        self.jobs.cancelled_through.fetch_max(submitted, Ordering::AcqRel);
    }

    async fn run<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, DeviceError> {
        let (answer, answered) = oneshot::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let number = self.jobs.submitted.fetch_add(1, Ordering::AcqRel) + 1;
        let cancel = CancelFlag { number, jobs: Arc::clone(&self.jobs), abandoned: Arc::clone(&abandoned) };
        self.queue.try_send(Ticket { job: job(answer), cancel }).map_err(|refused| match refused {
            QueueError::Full(_) => DeviceError::QueueFull,
            QueueError::Closed(_) => DeviceError::Closed { may_have_signed: false },
        })?;
        // Dropping this future, at a client's disconnect for example, cancels the job.
        let _abandon = AbandonOnDrop(abandoned);
        answered.await.map_err(|_| DeviceError::Closed { may_have_signed: true })?
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.jobs.cancelled_through.store(u64::MAX, Ordering::Release);
    }
}

struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A device that was seen to hold an account. Only from here can anything be signed.
#[derive(Debug)]
pub struct OpenAccount<'d> {
    device: &'d Device,
    xpub: AccountXpub,
}

impl OpenAccount<'_> {
    /// The account that was found.
    pub fn xpub(&self) -> &AccountXpub {
        &self.xpub
    }

    /// Has the officer sign on the device. The account is compared again in the same session, since
    /// the device may have been exchanged in between, and the sender must be the request's path.
    pub async fn sign(&self, request: TransactionRequest, definitions: Definitions) -> Result<SignedTx, DeviceError> {
        let job = Box::new(SignJob { account: self.xpub.clone(), request, definitions });
        self.device.run(|answer| Job::Sign(job, answer)).await
    }

    /// Has the officer sign a text (EIP-191) with an address of the account. The device shows the whole text.
    /// Such a signature is of no transaction: the text is hashed behind a prefix that none can begin with.
    ///
    /// Gives back r, s and v (27 or 28). Whose signature it is, is for the caller to check against the text.
    pub async fn sign_message(&self, path: DerivationPath, text: String) -> Result<Vec<u8>, DeviceError> {
        let job = Box::new(MessageJob { account: self.xpub.clone(), path, text });
        self.device.run(|answer| Job::SignMessage(job, answer)).await
    }
}

/// The thread's life: ends when every handle is gone.
fn run(mut session: Session, mut tickets: mpsc::Receiver<Ticket>) {
    while let Some(Ticket { job, cancel }) = tickets.blocking_recv() {
        match job {
            Job::Features(answer) => serve(&mut session, cancel, answer, |_, features| Ok(features)),
            Job::AccountXpub(account, answer) => serve(&mut session, cancel, answer, |session, _| job::account_xpub(session, account)),
            Job::ShowAddress(path, answer) => serve(&mut session, cancel, answer, |session, _| job::show_address(session, path)),
            Job::OpenAccount(expected, answer) => serve(&mut session, cancel, answer, |session, _| job::verify_account(session, &expected)),
            Job::Sign(sign, answer) => serve(&mut session, cancel, answer, |session, _| job::sign(session, &sign)),
            Job::SignMessage(text, answer) => serve(&mut session, cancel, answer, |session, _| job::sign_text(session, &text)),
        }
    }
}

fn serve<T>(
    session: &mut Session,
    cancel: CancelFlag,
    answer: Answer<T>,
    work: impl FnOnce(&mut Session, DeviceFeatures) -> Result<T, DeviceError>,
) {
    let result = session.begin(cancel).and_then(|features| work(session, features));
    session.end(result.as_ref().err());
    // A caller that went away does not want to know; its job was cancelled.
    let _ = answer.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_addresses_are_read_strictly() {
        assert_eq!("usb".parse(), Ok(DeviceAddress::Usb(None)));
        assert_eq!("usb:1:5".parse(), Ok(DeviceAddress::Usb(Some(UsbPlace { bus: 1, address: 5 }))));
        for bad in ["", "USB", "usb:", "usb:1", "usb:1:256", "usb:1:5:6", "tcp:127.0.0.1:1", "udp:192.0.2.1:21324", "udp:localhost:1"] {
            assert!(bad.parse::<DeviceAddress>().is_err(), "{bad}");
        }
        assert_eq!("udp:127.0.0.1:21324".parse::<DeviceAddress>().is_ok(), cfg!(feature = "devkit"));
    }
}
