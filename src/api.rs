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
mod quotes;
mod server;
mod store;
mod thresholds;
mod webhooks;
pub mod wire;

pub use client::{Client, ClientError};
pub use problem::Problem;
pub use server::router;

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::chains::ChainBook;
use crate::db::Database;
use crate::quote::Oracle;
use crate::rpc::Node;
use crate::units::ChainId;
use crate::webhook::Guard;

/// What handlers share.
#[derive(Clone, Debug)]
pub struct ApiState {
    pub db: Database,
    pub book: Arc<ChainBook>,
    /// The chains that are configured, each with its node.
    pub nodes: Arc<BTreeMap<ChainId, Arc<Node>>>,
    /// Where webhooks may go.
    pub webhook_guard: Guard,
    /// Prices; without it only payments in their own token are taken.
    pub oracle: Option<Arc<Oracle>>,
    /// The clock, read by the daemon's choice and not here.
    pub clock: fn() -> OffsetDateTime,
}

impl ApiState {
    fn watched(&self) -> Vec<ChainId> {
        self.nodes.keys().copied().collect()
    }
}
