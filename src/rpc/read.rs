//! From the text of a node's result to a value, or to the fault that it is. Pure.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, U256};

use super::answer::{Block, FeeEstimate, Log, RangeLog, RawBlock, RawLog, RawReceipt, Receipt};
use super::bulk::{LogQuery, Span};
use super::error::Fault;
use super::hex::{Account, Data, Fixed, Quantity};
use super::json::{Wire, read_list, read_whole, wire};
use super::sift;
use crate::units::{BlockNumber, BlockRef};

wire! {
    pub(super) struct HashOnly {
        pub(super) hash: Fixed<32> = "hash",
    }

    struct Sender {
        hash: Fixed<32> = "hash",
        from: Account = "from",
    }

    struct FeeHistory {
        base_fee_per_gas: Vec<Quantity> = "baseFeePerGas",
        reward: Option<Vec<Vec<Quantity>>> = "reward",
    }
}

pub(super) fn read_json<T: Wire>(text: &str) -> Result<T, Fault> {
    Ok(read_whole(text)?)
}

/// Reads what must be there: `null` means that the node does not have it.
pub(super) fn read_present<R: Wire, T>(what: &str, text: &str, read: impl FnOnce(R) -> Result<T, Fault>) -> Result<T, Fault> {
    match read_json::<Option<R>>(text)? {
        Some(raw) => read(raw),
        None => Err(Fault::NotFound { what: what.to_owned() }),
    }
}

/// A block that was asked for by its hash, with its transactions.
pub(super) fn read_block(text: &str, hash: B256, verify: bool) -> Result<Block, Fault> {
    let block = read_present(&format!("block {hash}"), text, |raw: RawBlock| raw.read(verify))?;
    same_hash(hash, block.header.block)?;
    Ok(block)
}

/// The logs of one block that were asked for, and no others.
pub(super) fn read_logs(text: &str, hash: B256, contracts: &[Address], topic: B256) -> Result<Vec<Log>, Fault> {
    let mut logs = Vec::new();
    let present = read_list(text, |reader| {
        let log = RawLog::from_wire(reader)?.read()?;
        if log.block_hash.is_some_and(|found| found != hash) {
            return Err(Fault::malformed(format!("a log of another block than {hash}")));
        }
        if !contracts.contains(&log.address) || log.topics.first() != Some(&topic) {
            return Err(Fault::malformed(format!("a log in block {hash} that was not asked for")));
        }
        logs.push(log);
        Ok(())
    })?;
    if !present {
        return Err(Fault::NotFound { what: format!("logs of block {hash}") });
    }
    logs.sort_by_key(|log| log.log_index);
    Ok(logs)
}

/// The logs of interest in a range, by height and index, and every height that has a log at all.
pub(super) fn read_range(text: &str, span: Span, query: LogQuery<'_>, present: &mut BTreeSet<BlockNumber>) -> Result<Vec<RangeLog>, Fault> {
    let mut outside = None;
    let mut last = None;
    let (_, mut logs) = sift::read_logs_where(text, |number, recipient| {
        // Logs come by height, so most are of the block of the one before.
        if last != Some(number) {
            last = Some(number);
            present.insert(number);
            if !(span.from..=span.to).contains(&number) {
                outside = Some(number);
            }
        }
        recipient.is_some_and(|recipient| (query.wanted)(*recipient))
    })?;
    if let Some(number) = outside {
        return Err(Fault::malformed(format!("a log of block {number}, outside of {} to {}", span.from, span.to)));
    }
    if logs.iter().any(|found| !query.contracts.contains(&found.log.address) || found.log.topics.first() != Some(&query.topic)) {
        return Err(Fault::malformed("a log in a range that was not asked for"));
    }
    logs.sort_by_key(|found| (found.number, found.log.log_index));
    Ok(logs)
}

/// The receipt of a transaction, where the node has one.
pub(super) fn read_receipt(text: &str, tx_hash: B256) -> Result<Option<Receipt>, Fault> {
    read_json::<Option<RawReceipt>>(text)?.map(|raw| raw.read(tx_hash)).transpose()
}

pub(super) fn read_wei(text: &str) -> Result<u128, Fault> {
    read_json::<Quantity>(text)?.to_u128().ok_or_else(|| Fault::malformed("a price above 2^128 - 1"))
}

pub(super) fn read_fee_history(text: &str) -> Result<FeeEstimate, Fault> {
    let history: FeeHistory = read_json(text)?;
    let wei = |quantity: &Quantity| quantity.to_u128().ok_or_else(|| Fault::malformed("a price above 2^128 - 1"));
    let base_fee = wei(history.base_fee_per_gas.last().ok_or_else(|| Fault::malformed("a fee history without fees"))?)?;
    let mut rewards = history.reward.iter().flatten().filter_map(|block| block.first()).map(wei).collect::<Result<Vec<_>, _>>()?;
    rewards.sort_unstable();
    let priority = rewards.get(rewards.len() / 2).copied().unwrap_or(0);
    Ok(FeeEstimate { base_fee, priority })
}

/// One word returned by a contract. No code at the address returns nothing, which is not zero.
pub(super) fn read_word(text: &str, contract: Address) -> Result<U256, Fault> {
    let data = read_json::<Data>(text)?.0;
    match data.len() {
        32 => Ok(U256::from_be_slice(&data)),
        0 => Err(Fault::NotFound { what: format!("a token at {contract}") }),
        length => Err(Fault::malformed(format!("{length} bytes where contract {contract} should return one word"))),
    }
}

/// A bool returned by a contract.
pub(super) fn read_flag(text: &str, contract: Address) -> Result<bool, Fault> {
    let data = read_json::<Data>(text)?.0;
    if data.is_empty() {
        return Err(Fault::NotFound { what: format!("a contract at {contract}") });
    }
    match U256::try_from_be_slice(&data).filter(|_| data.len() == 32) {
        Some(word) if word.is_zero() => Ok(false),
        Some(word) if word == U256::ONE => Ok(true),
        Some(_) | None => Err(Fault::malformed(format!("something else than true or false from contract {contract}"))),
    }
}

/// Who signed a transaction, where the node knows it.
pub(super) fn read_sender(text: &str, tx_hash: B256) -> Result<Option<Address>, Fault> {
    match read_json::<Option<Sender>>(text)? {
        Some(found) if found.hash.0 != tx_hash => Err(Fault::malformed(format!("another transaction than {tx_hash}"))),
        found => Ok(found.map(|found| found.from.0)),
    }
}

pub(super) fn read_decimals(text: &str, contract: Address) -> Result<u8, Fault> {
    let word = read_word(text, contract)?;
    u8::try_from(word).map_err(|_| Fault::malformed(format!("contract {contract} names {word} decimals")))
}

pub(super) fn same_hash(asked: B256, found: BlockRef) -> Result<(), Fault> {
    if found.hash == asked { Ok(()) } else { Err(Fault::malformed(format!("{found} instead of block {asked}"))) }
}

pub(super) fn same_number(asked: BlockNumber, found: BlockRef) -> Result<(), Fault> {
    if found.number == asked { Ok(()) } else { Err(Fault::malformed(format!("{found} instead of block {asked}"))) }
}
