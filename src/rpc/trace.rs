//! What happened inside the transactions of a block, in the two forms in which nodes tell it: flat rows
//! (`trace_block`: erigon, reth, Nethermind, Besu, anvil) and nested frames (`debug_traceBlockByHash`
//! with `callTracer`: geth and its relatives). Pure. What of it moves value is decided by `scan`.

use alloy::primitives::{Address, B256, U256};

use super::error::Fault;
use super::hex::{Account, Fixed, Quantity};
use super::json::{Flaw, Reader, Wire, wire};
use super::read::read_present;
use crate::units::BlockRef;

/// One frame of a transaction's execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub tx_hash: B256,
    /// Where in the tree of calls: `[0, 2]` is the third call made by the first. Empty is the
    /// transaction itself.
    pub path: Vec<u32>,
    pub kind: CallKind,
    pub from: Address,
    /// `None` where nothing came to be: a creation that failed.
    pub to: Option<Address>,
    /// Wei.
    pub value: U256,
    /// It was undone, and with it every frame below, which do not say so themselves.
    pub failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Moves its value to the callee.
    Call,
    /// Moves its value to the new contract.
    Create,
    /// Moves all that the contract has to its heir.
    SelfDestruct,
    /// Runs foreign code in the caller's place, or may change nothing: no value moves, whatever it says.
    Other,
}

wire! {
    struct RawRow {
        kind: Word = "type",
        action: RawAction = "action",
        result: Option<RawResult> = "result",
        error: Option<Word> = "error",
        trace_address: Vec<Step> = "traceAddress",
        // Rewards belong to no transaction.
        transaction_hash: Option<Fixed<32>> = "transactionHash",
        block_hash: Fixed<32> = "blockHash",
    }

    struct RawAction {
        call_type: Option<Word> = "callType",
        from: Option<Account> = "from",
        to: Option<Account> = "to",
        value: Option<Quantity> = "value",
        // Of a contract that ends.
        address: Option<Account> = "address",
        refund_address: Option<Account> = "refundAddress",
        balance: Option<Quantity> = "balance",
    }

    struct RawResult {
        address: Option<Account> = "address",
    }

    struct RawTraced {
        tx_hash: Fixed<32> = "txHash",
        result: Option<RawFrame> = "result",
        error: Option<Word> = "error",
    }

    // The reader's own bound on depth holds for frames too: the text was gone through once, as part of
    // its envelope, before it is read here.
    struct RawFrame {
        kind: Word = "type",
        from: Account = "from",
        to: Option<Account> = "to",
        value: Option<Quantity> = "value",
        error: Option<Word> = "error",
        calls: Option<Vec<RawFrame>> = "calls",
    }
}

/// A word that is no hexadecimal.
#[cfg_attr(test, derive(serde::Deserialize))]
struct Word(String);

impl Wire for Word {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        reader.string("a word").map(|word| Self(word.into_owned()))
    }
}

/// A step of a path, which is a number in JSON too.
#[cfg_attr(test, derive(serde::Deserialize))]
struct Step(u32);

impl Wire for Step {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        reader.raw()?.parse().map(Self).map_err(|_| Flaw::Unlike("a step of a path"))
    }
}

// === flat rows ===

/// The answer to `trace_block`, which is asked by number, so each row must name the block that is meant.
pub(super) fn read_rows(text: &str, block: BlockRef) -> Result<Vec<Call>, Fault> {
    let rows = read_present(&format!("traces of {block}"), text, Ok::<Vec<RawRow>, Fault>)?;
    let mut calls = Vec::with_capacity(rows.len());
    for row in rows {
        if row.block_hash.0 != block.hash {
            return Err(Fault::malformed(format!("a trace of block {} instead of {block}", row.block_hash.0)));
        }
        let Some(tx_hash) = row.transaction_hash.map(B256::from) else { continue };
        let action = row.action;
        let missing = || Fault::malformed(format!("a {} trace in {block} that lacks a field", row.kind.0));
        let (kind, from, to, value) = match row.kind.0.as_str() {
            "call" => {
                let kind = match action.call_type.as_ref().map(|word| word.0.as_str()) {
                    Some("call") => CallKind::Call,
                    Some(_) | None => CallKind::Other,
                };
                (kind, action.from, action.to, action.value)
            }
            "create" => (CallKind::Create, action.from, row.result.and_then(|result| result.address), action.value),
            "suicide" | "selfdestruct" => (CallKind::SelfDestruct, action.address, action.refund_address, action.balance),
            _ => continue,
        };
        calls.push(Call {
            tx_hash,
            path: row.trace_address.into_iter().map(|step| step.0).collect(),
            kind,
            from: from.ok_or_else(missing)?.0,
            to: to.map(|account| account.0),
            value: value.map_or(U256::ZERO, |value| value.0),
            failed: row.error.is_some(),
        });
    }
    Ok(calls)
}

// === nested frames ===

/// The answer to `debug_traceBlockByHash` with `callTracer`.
pub(super) fn read_frames(text: &str, block: BlockRef) -> Result<Vec<Call>, Fault> {
    let traced = read_present(&format!("traces of {block}"), text, Ok::<Vec<RawTraced>, Fault>)?;
    let mut calls = Vec::new();
    for transaction in traced {
        let tx_hash = transaction.tx_hash.0;
        let Some(top) = transaction.result.filter(|_| transaction.error.is_none()) else {
            return Err(Fault::malformed(format!("no trace of transaction {tx_hash} in {block}")));
        };
        // A stack of our own: what is read was bounded by the JSON reader, and stays so.
        let mut open = vec![(Vec::new(), top)];
        while let Some((path, frame)) = open.pop() {
            for (step, below) in (0_u32..).zip(frame.calls.into_iter().flatten()) {
                let mut deeper: Vec<u32> = path.clone();
                deeper.push(step);
                open.push((deeper, below));
            }
            let kind = match frame.kind.0.as_str() {
                "CALL" => CallKind::Call,
                "CREATE" | "CREATE2" => CallKind::Create,
                "SELFDESTRUCT" => CallKind::SelfDestruct,
                _ => CallKind::Other,
            };
            calls.push(Call {
                tx_hash,
                path,
                kind,
                from: frame.from.0,
                to: frame.to.map(|account| account.0),
                value: frame.value.map_or(U256::ZERO, |value| value.0),
                failed: frame.error.is_some(),
            });
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{address, b256};
    use serde_json::json;

    use super::*;
    use crate::units::BlockNumber;

    const TX: B256 = b256!("00000000000000000000000000000000000000000000000000000000000000aa");
    const HASH: B256 = b256!("00000000000000000000000000000000000000000000000000000000000000bb");
    const ONE: Address = address!("1111111111111111111111111111111111111111");
    const TWO: Address = address!("2222222222222222222222222222222222222222");

    fn block() -> BlockRef {
        BlockRef { number: BlockNumber(7), hash: HASH }
    }

    fn call(path: &[u32], kind: CallKind, value: u64, failed: bool) -> Call {
        Call { tx_hash: TX, path: path.to_vec(), kind, from: ONE, to: Some(TWO), value: U256::from(value), failed }
    }

    #[test]
    fn xc12_both_forms_of_a_trace_say_the_same() {
        let row = |kind: &str, action: serde_json::Value, path: &[u32], error: Option<&str>| {
            json!({ "type": kind, "action": action, "result": null, "error": error, "subtraces": 0, "traceAddress": path,
                    "transactionHash": TX, "transactionPosition": 0, "blockHash": HASH, "blockNumber": 7 })
        };
        let rows = json!([
            row("call", json!({ "callType": "call", "from": ONE, "to": TWO, "value": "0x5", "gas": "0x1", "input": "0x" }), &[], None),
            row("call", json!({ "callType": "delegatecall", "from": ONE, "to": TWO, "value": "0x5" }), &[0], None),
            row("call", json!({ "callType": "call", "from": ONE, "to": TWO, "value": "0x7" }), &[1], Some("Reverted")),
            row("suicide", json!({ "address": ONE, "refundAddress": TWO, "balance": "0x9" }), &[1, 0], None),
            json!({ "type": "reward", "action": { "author": ONE, "value": "0x1", "rewardType": "block" }, "result": null,
                    "traceAddress": [], "blockHash": HASH, "blockNumber": 7 }),
        ]);
        let frames = json!([{ "txHash": TX, "result": { "type": "CALL", "from": ONE, "to": TWO, "value": "0x5", "gas": "0x1", "calls": [
            { "type": "DELEGATECALL", "from": ONE, "to": TWO, "value": "0x5" },
            { "type": "CALL", "from": ONE, "to": TWO, "value": "0x7", "error": "execution reverted", "calls": [
                { "type": "SELFDESTRUCT", "from": ONE, "to": TWO, "value": "0x9" },
            ] },
        ] } }]);
        let expected = vec![
            call(&[], CallKind::Call, 5, false),
            call(&[0], CallKind::Other, 5, false),
            call(&[1], CallKind::Call, 7, true),
            call(&[1, 0], CallKind::SelfDestruct, 9, false),
        ];
        assert_eq!(read_rows(&rows.to_string(), block()).unwrap(), expected);
        let mut nested = read_frames(&frames.to_string(), block()).unwrap();
        nested.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(nested, expected);
    }

    #[test]
    fn w2_a_trace_of_another_block_or_without_a_result_is_no_trace() {
        let alien = json!([{ "type": "call", "action": { "callType": "call", "from": ONE, "to": TWO, "value": "0x5" }, "result": null,
            "traceAddress": [], "transactionHash": TX, "blockHash": TX }]);
        assert!(read_rows(&alien.to_string(), block()).is_err());
        assert!(matches!(read_rows("null", block()), Err(Fault::NotFound { .. })));
        let failed = json!([{ "txHash": TX, "error": "insufficient funds for gas * price + value" }]);
        assert!(read_frames(&failed.to_string(), block()).is_err());
    }
}
