//! Which transfers to our addresses a block holds, pure: out of its transactions, logs and receipts.
//!
//! Logs and transactions only say which receipts to read ([`hits`]). The receipts decide
//! ([`transfers`]): they say whether the transaction succeeded, and only they give a log's place among
//! the logs of its transaction, which the economic key needs. A token is its contract: names and
//! symbols are never looked at. What looks like a transfer and is none is counted by reason.
//!
//! The chain's own coin also moves inside a transaction, from contract to contract, and no log shows it.
//! A trace does: a frame that calls, creates or ends a contract moves its value, unless it or a frame
//! above it failed.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, U256, b256};

use super::transfer::{Position, Transfer};
use crate::deposit::WatchedSet;
use crate::rpc::{Block, Call, CallKind, Log, Receipt};
use crate::units::{Asset, BlockRef};

/// `keccak256("Transfer(address,address,uint256)")`.
pub const TRANSFER_TOPIC: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// What counts as ours.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub watched: &'a WatchedSet,
    /// Contracts of the listed tokens.
    pub tokens: &'a [Address],
}

/// What a block shows of itself before its receipts are read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub block: &'a Block,
    pub logs: &'a [Log],
    /// The inside of its transactions; empty where nobody traces.
    pub calls: &'a [Call],
}

/// What looked like a transfer to us and was not taken, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// The transaction failed.
    pub failed: u64,
    /// A contract that is not listed.
    pub unlisted: u64,
    /// Not three topics and one word, or an address with more than 20 bytes.
    pub malformed: u64,
    pub zero: u64,
    /// Taken away by a reorg, or in no block yet.
    pub unmined: u64,
}

/// Why a block's parts do not fit together. The node contradicts itself; nothing of the block is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    #[error("a log of transaction {tx_hash} is not in its receipt")]
    LogNotInReceipt { tx_hash: B256 },
    #[error("transaction {tx_hash} has two different logs with index {log_index}")]
    TwoLogs { tx_hash: B256, log_index: u64 },
    #[error("transaction {tx_hash} has a log that the block's filter excludes")]
    LogOutsideBloom { tx_hash: B256 },
    #[error("the receipt of transaction {tx_hash} is of {found}, not of {wanted}")]
    ReceiptElsewhere { tx_hash: B256, found: BlockRef, wanted: BlockRef },
    #[error("the receipt of transaction {tx_hash} was not read")]
    NoReceipt { tx_hash: B256 },
}

/// The transactions whose receipts decide.
pub fn hits(view: View<'_>, scope: Scope<'_>) -> BTreeSet<B256> {
    let transactions = &view.block.transactions;
    let by_value = transactions.iter().filter(|tx| !tx.value.is_zero() && tx.to.is_some_and(|to| scope.watched.contains(to)));
    let by_log = view.logs.iter().filter(|log| is_mined(log) && log.topics.get(2).is_some_and(|topic| pays_us(topic, scope)));
    let by_call = view.calls.iter().filter(|call| pays_inside(call, scope));
    by_value.map(|tx| tx.hash).chain(by_log.map(|log| log.tx_hash)).chain(by_call.map(|call| call.tx_hash)).collect()
}

/// All transfers to us in a block. `receipts` holds at least those of [`hits`].
pub fn transfers(view: View<'_>, receipts: &[Receipt], scope: Scope<'_>) -> Result<(Vec<Transfer>, Ignored), MatchError> {
    let View { block, logs, calls } = view;
    let mut ignored = Ignored::default();
    let mut found = Vec::new();
    for tx_hash in hits(view, scope) {
        let receipt = receipts.iter().find(|receipt| receipt.tx_hash == tx_hash).ok_or(MatchError::NoReceipt { tx_hash })?;
        if receipt.block != block.header.block {
            return Err(MatchError::ReceiptElsewhere { tx_hash, found: receipt.block, wanted: block.header.block });
        }
        let ordered = ordered_logs(receipt)?;
        confirm_logs(block, logs, tx_hash, &ordered)?;
        if !receipt.succeeded {
            ignored.failed += 1;
            continue;
        }
        found.extend(native(block, tx_hash, scope));
        found.extend(inside(calls, tx_hash, scope));
        for (ordinal, log) in ordered.iter().enumerate() {
            let ordinal = u32::try_from(ordinal).expect("an answer is too small to hold 2^32 logs");
            if !is_mined(log) {
                ignored.unmined += 1;
                continue;
            }
            match read(log, scope) {
                Reading::Ours(transfer) => found.push(Transfer { position: Position::Log(ordinal), ..transfer }),
                Reading::NotOurs => {}
                Reading::Unlisted => ignored.unlisted += 1,
                Reading::Malformed => ignored.malformed += 1,
                Reading::Zero => ignored.zero += 1,
            }
        }
    }
    ignored.unmined += count(logs.iter().filter(|log| !is_mined(log)));
    Ok((found, ignored))
}

/// Whether a trace tells of each transaction of the block, and of no other: its top-level frames are the
/// block's transactions. Nodes are known to leave some out.
pub fn is_whole_trace(block: &Block, calls: &[Call]) -> bool {
    let traced: BTreeSet<B256> = calls.iter().filter(|call| call.path.is_empty()).map(|call| call.tx_hash).collect();
    let mined: BTreeSet<B256> = block.transactions.iter().map(|tx| tx.hash).collect();
    traced == mined && calls.iter().all(|call| mined.contains(&call.tx_hash))
}

/// The receipt's logs in the order of their index, each once. The order of the answer and gaps between
/// the indices mean nothing; two different logs with one index are a contradiction.
fn ordered_logs(receipt: &Receipt) -> Result<Vec<&Log>, MatchError> {
    let mut ordered: Vec<&Log> = receipt.logs.iter().collect();
    ordered.sort_by_key(|log| log.log_index);
    for pair in ordered.windows(2) {
        if pair[0].log_index == pair[1].log_index && pair[0] != pair[1] {
            return Err(MatchError::TwoLogs { tx_hash: receipt.tx_hash, log_index: pair[0].log_index });
        }
    }
    ordered.dedup();
    Ok(ordered)
}

/// The node's two views of the transaction must agree: each log that the block shows is in the receipt,
/// and the block's filter admits it.
fn confirm_logs(block: &Block, logs: &[Log], tx_hash: B256, ordered: &[&Log]) -> Result<(), MatchError> {
    for log in logs.iter().filter(|log| log.tx_hash == tx_hash && is_mined(log)) {
        if !ordered.contains(&log) {
            return Err(MatchError::LogNotInReceipt { tx_hash });
        }
        let bloom = &block.header.logs_bloom;
        if !bloom.is_zero() && !bloom.contains_raw_log(log.address, &log.topics) {
            return Err(MatchError::LogOutsideBloom { tx_hash });
        }
    }
    Ok(())
}

/// The transaction's own value, if it pays us. Calldata may be anything.
fn native(block: &Block, tx_hash: B256, scope: Scope<'_>) -> Option<Transfer> {
    let tx = block.transactions.iter().find(|tx| tx.hash == tx_hash)?;
    let recipient = tx.to?;
    (scope.watched.contains(recipient) && !tx.value.is_zero()).then(|| Transfer {
        tx_hash,
        position: Position::TOP,
        asset: Asset::Native,
        sender: tx.from,
        recipient,
        amount: tx.value,
        internal: scope.watched.contains(tx.from),
    })
}

/// A frame inside a transaction that carries value to us, if nothing above it failed.
fn pays_inside(call: &Call, scope: Scope<'_>) -> bool {
    let moves = match call.kind {
        CallKind::Call | CallKind::Create | CallKind::SelfDestruct => !call.value.is_zero(),
        CallKind::Other => false,
    };
    moves && !call.path.is_empty() && call.to.is_some_and(|to| scope.watched.contains(to))
}

/// What the inside of a transaction pays us. A failed frame voids all below it, which do not say so.
fn inside<'a>(calls: &'a [Call], tx_hash: B256, scope: Scope<'a>) -> impl Iterator<Item = Transfer> + 'a {
    let of_tx = move || calls.iter().filter(move |call| call.tx_hash == tx_hash);
    let failed: Vec<&[u32]> = of_tx().filter(|call| call.failed).map(|call| call.path.as_slice()).collect();
    of_tx().filter(move |call| pays_inside(call, scope) && !failed.iter().any(|above| call.path.starts_with(above))).filter_map(
        move |call| {
            let recipient = call.to?;
            Some(Transfer {
                tx_hash,
                position: Position::Call(call.path.clone()),
                asset: Asset::Native,
                sender: call.from,
                recipient,
                amount: call.value,
                internal: scope.watched.contains(call.from),
            })
        },
    )
}

/// What a log of a successful transaction is to us.
enum Reading {
    /// The position is filled in by the caller, who knows the order.
    Ours(Transfer),
    NotOurs,
    Unlisted,
    Malformed,
    Zero,
}

fn read(log: &Log, scope: Scope<'_>) -> Reading {
    if log.topics.first() != Some(&TRANSFER_TOPIC) {
        return Reading::NotOurs;
    }
    let listed = scope.tokens.contains(&log.address);
    let (Some(sender), Some(recipient)) = (log.topics.get(1).and_then(account), log.topics.get(2).and_then(account)) else {
        return if listed { Reading::Malformed } else { Reading::NotOurs };
    };
    if !scope.watched.contains(recipient) {
        return Reading::NotOurs;
    }
    if !listed {
        return Reading::Unlisted;
    }
    if log.topics.len() != 3 || log.data.len() != 32 {
        return Reading::Malformed;
    }
    let amount = U256::from_be_slice(&log.data);
    if amount.is_zero() {
        return Reading::Zero;
    }
    Reading::Ours(Transfer {
        tx_hash: log.tx_hash,
        position: Position::TOP,
        asset: Asset::Token(log.address),
        sender,
        recipient,
        amount,
        internal: scope.watched.contains(sender),
    })
}

/// A log that a reorg took away, or that is in no block yet, is no event.
fn is_mined(log: &Log) -> bool {
    !log.removed && log.block_hash.is_some()
}

/// An address in a topic has twelve leading zero bytes.
fn account(topic: &B256) -> Option<Address> {
    let (padding, address) = topic.split_at(12);
    padding.iter().all(|byte| *byte == 0).then(|| Address::from_slice(address))
}

/// Whether a topic names an address of ours, also where its padding is dirty: such a log is looked at
/// and counted, never taken.
fn pays_us(topic: &B256, scope: Scope<'_>) -> bool {
    scope.watched.contains(Address::from_slice(&topic[12..]))
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    items.fold(0, |sum, _| sum + 1)
}

#[cfg(test)]
mod tests;
