//! One chain as its nodes show it: an ordered list of endpoints, asked one after the other.
//!
//! A small JSON-RPC caller on `reqwest` and not alloy's transport, because the border needs what that
//! transport does not offer: a cap on the answer's size, connect, read and total time limits, the check
//! that the answer carries our request's id, the exact error code, and errors that never print the URL.
//! URLs may hold API keys; an endpoint is named by its host and its position in the list.
//!
//! What holds here: `null` is never "empty" (it is [`Fault::NotFound`], or `None` where absence is an
//! ordinary answer); a block's hash is the hash of its header; the text of a node's error is read in
//! `error.rs` alone and leaves it as an enum; every endpoint proves its chain id before its first
//! answer counts, and again after each time it could not be reached.
//!
//! What money comes in on is asked of as many endpoints as must agree, and counts when they say the same.
//! Questions about many blocks go out in batches and ranges that adapt to what an endpoint takes.

mod answer;
mod bulk;
#[cfg(feature = "devkit")]
pub mod decode;
mod endpoint;
mod envelope;
mod error;
mod heads;
mod hex;
mod json;
mod node;
mod pace;
mod questions;
mod read;
#[cfg(test)]
mod reference;
mod sift;
mod trace;
mod verify;

pub use answer::{Block, FeeEstimate, Header, Log, RangeLog, Receipt, Transaction};
pub use bulk::{FoundLogs, LogQuery, Span};
pub use endpoint::{EndpointLimits, ProviderLimits};
pub use error::{Fault, RpcError, SendOutcome};
pub use heads::{HeadError, HeadLimits, HeadNotices};
pub use node::{CallRequest, EndpointStatus, Node, NodeError, NodeOptions, Usage};
pub use questions::{EndpointHead, FinalityTag, GAS_PRICE_ORACLE};
pub use trace::{Call, CallKind};
pub use verify::VerifyError;
