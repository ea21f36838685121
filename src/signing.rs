//! The signing room: the request an officer sees, the device, and the check that what was signed is
//! what was approved.
//!
//! There is no software signer. Tests and the demo plug a simulated device in at the wire, so the
//! code that runs for them is the code that runs for a Trezor.

mod check;
mod definitions;
mod known;
mod request;
mod screens;

pub use check::{CheckError, SignatureField, SignedTx, TxField, WireSignature};
pub use definitions::{DefinitionKind, Definitions, MissingDefinition, MissingReason};
pub use request::{CallError, FeeCaps, RequestError, TransactionDraft, TransactionRequest, Transfer};
pub use screens::{ExpectedScreen, ExpectedScreens};
