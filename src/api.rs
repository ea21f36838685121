//! REST /v1 for the marketplace, the officers and the signing stations; and the typed client of it.
//!
//! Every write needs an `Idempotency-Key`; the key and the effect commit together. Errors are RFC 9457
//! problems. Amounts are strings.
//!
//! # A new route
//! 1. Wire types (`wire.rs`): derive `ToSchema`; say `#[schema(value_type = AddressText)]` (`HashText`, `BytesText`;
//!    `Option<…>` of them) over fields of another crate's types; give a request body an `#[schema(example = json!(…))]`
//!    that would be accepted. Types of a query derive `IntoParams`.
//! 2. The handler: a doc comment whose first line is its title, then
//!    ```text
//!    #[utoipa::path(
//!        post, path = "/v1/things/{id}/act", tag = "things",
//!        request_body = ActOnThing,
//!        responses((status = 200, body = ThingView), (status = 404, description = "not_found"), (status = 409, description = "thing_state")),
//!        security(("token" = ["things:write"]))
//!    )]
//!    ```
//!    `security` repeats what the handler asks of [`auth::Authenticated`]: `token` for `require`, `officer` for
//!    `require_officer`; a test compares. Statuses that every route of the form can give are added by `document.rs`.
//!    What changes something takes one [`idempotency::Writing`] in place of the token, the headers and the body: ask it
//!    `call.who.require(…)`, then `call.read::<ActOnThing>(caller, route)`, then `write.once(…)`.
//! 3. `server::routes`: `.routes(routes!(things::act))`; handlers of one path together.
//! 4. A new problem code: a line in `code.rs`, and in `docs/api.md`.
//! 5. `UPDATE_OPENAPI=1 INSTA_UPDATE=always cargo test --features devkit --test it contract` writes `docs/openapi.json`
//!    and the table of who may what; read the diff.

mod adopt;
mod adjustments;
mod auth;
mod client;
mod code;
mod document;
mod escrow;
mod feed;
mod held;
mod idempotency;
mod intents;
mod ledger;
mod limit;
mod payments;
mod policies;
mod problem;
mod quotes;
mod replace;
mod schema;
mod screenings;
mod server;
mod statements;
mod store;
mod tagged;
mod thresholds;
mod webhooks;
pub mod wire;

pub use client::{Client, ClientError};
pub use code::{CODES, CodeFacts};
pub use document::document;
pub use escrow::read_verdict;
pub use limit::Rate;
pub use problem::Problem;
pub use server::router;
pub use statements::{download_balances, download_statement};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::account::IssueLimit;
use crate::chains::ChainBook;
use crate::db::Database;
use crate::quote::Oracle;
use crate::rpc::Node;
use crate::units::ChainId;
use crate::webhook::Guard;

use feed::Streams;
use limit::Limiter;

/// What handlers share.
#[derive(Clone, Debug)]
pub struct ApiState {
    pub db: Database,
    pub book: Arc<ChainBook>,
    /// The chains that are configured, each with its node.
    pub nodes: Arc<BTreeMap<ChainId, Arc<Node>>>,
    /// The most that any transaction may pay per gas, in wei; a chain's own cap may be lower.
    pub max_fee_per_gas_max: u128,
    /// Where webhooks may go.
    pub webhook_guard: Guard,
    /// How much one caller may have.
    pub doors: Arc<Doors>,
    /// Prices; without it only payments in their own token are taken.
    pub oracle: Option<Arc<Oracle>>,
    /// How far deposit indices may be issued.
    pub issue_limit: IssueLimit,
    /// The clock, read by the daemon's choice and not here.
    pub clock: fn() -> OffsetDateTime,
}

impl ApiState {
    fn watched(&self) -> Vec<ChainId> {
        self.nodes.keys().copied().collect()
    }
}

/// Bounds on what callers may have of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Calls of one token.
    pub token: Rate,
    /// Calls without a live token from one remote address.
    pub address: Rate,
    /// Attempts to get into the console, of one remote address.
    pub entry: Rate,
    /// Streams of events at a time, of all callers.
    pub streams_max: usize,
    /// From one look of a stream at a feed without news to the next, if nobody knocks.
    pub stream_pause: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            token: Rate::TOKEN,
            address: Rate::ADDRESS,
            entry: Rate::ENTRY,
            streams_max: 64,
            // Not long: what an older transaction held back comes without a knock.
            stream_pause: Duration::from_millis(500),
        }
    }
}

/// What each caller has had of it.
#[derive(Debug)]
pub struct Doors {
    limiter: Limiter,
    streams: Streams,
}

/// What was refused since the start, and what is open now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorTotals {
    pub token_calls_refused: u64,
    pub address_calls_refused: u64,
    pub streams_open: usize,
}

impl Doors {
    /// Streams end at `stop`.
    pub fn new(limits: DoorLimits, stop: CancellationToken) -> Self {
        Self {
            limiter: Limiter::new(limits.token, limits.address, limits.entry),
            streams: Streams::new(limits.streams_max, limits.stream_pause, stop),
        }
    }

    /// Wakes the streams: something may have happened. It says nothing of what; they look themselves.
    pub fn knock(&self) {
        self.streams.knock();
    }

    /// Lets somebody at a remote address try to get into the console; refused with the whole seconds until the next try.
    pub fn admit_entry(&self, address: IpAddr, now: OffsetDateTime) -> Result<(), u64> {
        self.limiter.take_entry(address, now)
    }

    pub fn totals(&self) -> DoorTotals {
        let (token_calls_refused, address_calls_refused) = self.limiter.refused();
        DoorTotals { token_calls_refused, address_calls_refused, streams_open: self.streams.open() }
    }
}

impl Default for Doors {
    fn default() -> Self {
        Self::new(DoorLimits::default(), CancellationToken::new())
    }
}
