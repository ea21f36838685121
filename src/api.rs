//! REST /v1 for the marketplace, the officers and the signing stations; and the typed client of it.
//!
//! Every write needs an `Idempotency-Key`; the key and the effect commit together. Errors are RFC 9457
//! problems. Amounts are strings. OpenAPI, roles per route and server-sent events join later.

mod auth;
mod client;
mod idempotency;
mod intents;
mod ledger;
mod payments;
mod problem;
mod server;
mod store;
pub mod wire;

pub use client::{Client, ClientError};
pub use problem::Problem;
pub use server::{ApiState, router};
