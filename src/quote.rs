//! Quotes: what is owed in one money, to be paid in another. Sources to a price, a price to an amount.
//!
//! Everything between what sources said and the stored row is pure: [`observation`] → [`aggregate`] →
//! [`depeg`] and [`jump`] → [`formula`], put together in [`decide`]. When prices are not good enough there
//! is no quote, with a typed [`refusal`]; there is never a default of one dollar, and never an old price.
//! What a quote rests on is stored with it ([`evidence`]) and gives it again, bit for bit.

pub mod aggregate;
mod board;
pub mod chart;
pub mod decide;
pub mod depeg;
pub mod evidence;
pub mod formula;
pub mod hours;
pub mod jump;
pub mod late;
pub mod limits;
pub mod observation;
pub mod refusal;
pub mod replay;
pub mod source;
pub mod store;
pub mod vectors;
mod worker;

pub use decide::{Asked, Decision, Fx, Memory, PairInput, Quote, QuoteKind, Round};
pub use evidence::Evidence;
pub use limits::{LimitBook, LimitKey, Limits};
pub use refusal::Refusal;
pub use worker::{Oracle, Quoted, Remembered, RoundReport, Sample, SourceOptions, Tally};

use crate::db::DbError;
use crate::units::{ChainId, Disposition};

/// What keeps the oracle from its work. That there is no quote is no error, but a [`Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum QuoteError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("price source {0:?} is not a venue of chains.toml with an adapter in this version")]
    UnknownSource(String),
    #[error("the HTTP client of a price source cannot be made")]
    Client(#[source] source::http::ClientError),
    #[error("chains.toml: feed {pair} of chain {chain} is listed as {listed}, and is {found} on the chain; refusing to start")]
    Feed { chain: ChainId, pair: String, found: String, listed: String },
}

impl QuoteError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::UnknownSource(_) | Self::Client(_) | Self::Feed { .. } => Disposition::Stop,
        }
    }
}
