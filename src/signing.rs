//! The signing room: the request an officer sees, the device, and the check that what was signed is
//! what was approved.
//!
//! There is no software signer. Tests and the demo plug a simulated device in at the wire, so the
//! code that runs for them is the code that runs for a Trezor.
//!
//! Logging: the target `trezor_client` stays at `warn` or quieter in every build (see
//! [`CLIENT_LOG_CAP`]); at TRACE that library prints PIN positions and passphrases. None are handed
//! to its logging parts here, and the cap makes sure that a later change cannot undo this.

mod check;
mod definitions;
mod device;
mod error;
mod features;
mod intent;
mod job;
mod known;
mod link;
mod prompt;
mod request;
mod screens;
mod session;
#[cfg(feature = "devkit")]
mod udp;
mod usb;
mod wire;

pub use check::{CheckError, SignatureField, SignedTransfer, SignedTx, TxField, WireSignature};
pub use definitions::{DefinitionKind, Definitions, MissingDefinition, MissingReason};
pub use device::{Device, DeviceAddress, DeviceAddressError, OpenAccount};
pub use error::{DeviceError, DeviceText, FirmwareVersion, Step};
pub use features::DeviceFeatures;
pub use intent::request_for;
pub use link::DeviceLimits;
pub use prompt::{Input, InputError, Passphrase, PinPositions, Progress};
pub use request::{CallError, FeeCaps, RequestError, TransactionDraft, TransactionRequest, Transfer};
pub use screens::{ExpectedScreen, ExpectedScreens};
pub use usb::{UsbPlace, usb_devices};

/// A filter directive that every log subscriber of the house must end with.
pub const CLIENT_LOG_CAP: &str = "trezor_client=warn";
