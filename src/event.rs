//! What happened, appended in the transaction that made it true. Webhooks and the console read it
//! later; nobody here knows that they do.

pub mod store;

/// The channel on which the database knocks when events were written. What happened is read, not told.
pub const WRITTEN: &str = "amanat_events";

/// Somebody else used a nonce of ours. What is told here and resumed by an officer halts nothing again.
pub const FOREIGN_NONCE: &str = "chain.foreign_nonce";

use crate::units::{ChainId, IntentId, PaymentId};

/// A fact, named `noun.verb`, with what a reader needs to understand it.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: &'static str,
    pub payment: Option<PaymentId>,
    pub intent: Option<IntentId>,
    pub chain: Option<ChainId>,
    pub detail: serde_json::Value,
}

impl Event {
    pub fn of_payment(kind: &'static str, payment: PaymentId, detail: serde_json::Value) -> Self {
        Self { kind, payment: Some(payment), intent: None, chain: None, detail }
    }

    pub fn of_intent(kind: &'static str, intent: IntentId, payment: Option<PaymentId>, chain: ChainId, detail: serde_json::Value) -> Self {
        Self { kind, payment, intent: Some(intent), chain: Some(chain), detail }
    }
}
