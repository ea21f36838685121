//! From an approved intent to the request that a device signs and a signature is checked against.

use super::request::{FeeCaps, RequestError, TransactionDraft, TransactionRequest, Transfer};
use crate::chains::ChainSpec;
use crate::intent::Intent;

/// The one transaction that carries out an intent.
pub fn request_for(intent: &Intent, spec: &ChainSpec) -> Result<TransactionRequest, RequestError> {
    let draft = TransactionDraft {
        chain: intent.chain(),
        from: intent.from.path,
        sender: intent.from.address,
        nonce: intent.nonce,
        transfer: Transfer { asset: intent.amount.asset.asset, to: intent.to, amount: intent.amount.units },
        fees: FeeCaps {
            gas_limit: intent.fees.gas_limit,
            max_fee_per_gas: intent.fees.max_fee_per_gas,
            max_priority_fee_per_gas: intent.fees.max_priority_fee_per_gas,
        },
    };
    TransactionRequest::check(draft, spec)
}
