//! Quotes: what is owed in one money, to be paid in another. Sources to a price, a price to an amount.
//!
//! Everything between what sources said and the stored row is pure: [`observation`] → [`aggregate`] →
//! [`depeg`] and [`jump`] → [`formula`], put together in [`decide`]. When prices are not good enough there
//! is no quote, with a typed [`refusal`]; there is never a default of one dollar, and never an old price.
//! What a quote rests on is stored with it ([`evidence`]) and gives it again, bit for bit.

pub mod aggregate;
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
pub mod vectors;

pub use decide::{Asked, Decision, Fx, Memory, PairInput, Quote, QuoteKind, Round};
pub use evidence::Evidence;
pub use limits::{LimitBook, LimitKey, Limits};
pub use refusal::Refusal;
