//! What a screener is: something that is asked about transfers and answers about each. Pure.

use std::fmt;

use alloy::primitives::{Address, B256};
use futures_util::future::BoxFuture;

use super::policy::ScreenerKind;
use crate::units::TokenAmount;

/// A transfer to be screened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    pub tx_hash: B256,
    pub amount: TokenAmount,
    /// Whose balance it left.
    pub sender: Address,
    /// Who signed the transaction; another one where a contract sent it.
    pub origin: Option<Address>,
}

impl Subject {
    /// Everybody it comes from, each once.
    pub fn addresses(&self) -> Vec<Address> {
        let mut addresses = vec![self.sender];
        addresses.extend(self.origin.filter(|origin| *origin != self.sender));
        addresses
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Who of them is a hit, and what the answer rests on.
    Screened { hits: Vec<Address>, evidence: serde_json::Value },
    /// No answer that can be used, and why.
    Unavailable { reason: String },
}

/// One way to screen. Several real ones exist, so this is a trait.
pub trait Screener: Send + Sync + fmt::Debug {
    fn kind(&self) -> ScreenerKind;

    /// One answer for each subject, in their order. Bounded in time; whatever goes wrong is an answer too.
    fn screen<'a>(&'a self, subjects: &'a [Subject]) -> BoxFuture<'a, Vec<Answer>>;
}
