//! The chain itself: blocks by hash, a line of canonical ones, and what moved in each of them.
//!
//! It is also the reference: [`Model::moved_in`] says what a block paid to whom, out of what was put into
//! it and not out of what a node says.

use std::collections::HashMap;
use std::sync::Arc;

use alloy::consensus::{Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, proofs};
use alloy::primitives::{Address, B256, Bloom, Bytes, Log, LogData, U256, keccak256, logs_bloom};
use amanatd::scan::Position;
use amanatd::scan::matching::TRANSFER_TOPIC;
use amanatd::units::{Asset, BlockNumber, BlockRef};
use serde_json::Value;

use super::answer::Window;

pub(crate) const PAYER: Address = Address::repeat_byte(0x77);
pub(crate) const CHAIN_ID: u64 = 31_337;
pub(super) const GAS: u64 = 21_000;

/// One payment, in a transaction of its own. The same `tx` is the same transaction, in whichever block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pay {
    pub(crate) tx: u64,
    /// `None`: the chain's own coin.
    pub(crate) token: Option<Address>,
    pub(crate) to: Address,
    pub(crate) value: u64,
}

/// A transaction with everything it does. The same `number` is the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tx {
    pub(crate) number: u64,
    pub(crate) from: Address,
    /// `None` creates a contract.
    pub(crate) to: Option<Address>,
    pub(crate) value: U256,
    /// A failed transaction emits no log and moves nothing, whatever is written below.
    pub(crate) succeeded: bool,
    pub(crate) logs: Vec<Emitted>,
    /// What the top call calls.
    pub(crate) calls: Vec<Frame>,
}

/// A log, and whether the contract did what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Emitted {
    pub(crate) contract: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
    /// Sender, recipient, units.
    pub(crate) moves: Option<(Address, Address, U256)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Call,
    /// These three carry no value of their own.
    CallCode,
    DelegateCall,
    StaticCall,
    Create,
    SelfDestruct,
}

/// A call inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) value: U256,
    /// Takes everything below it back.
    pub(crate) failed: bool,
    pub(crate) calls: Vec<Frame>,
}

/// Value that changed hands in a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moved {
    pub(crate) tx_hash: B256,
    pub(crate) position: Position,
    pub(crate) asset: Asset,
    pub(crate) sender: Address,
    pub(crate) recipient: Address,
    pub(crate) amount: U256,
}

#[derive(Clone, Debug)]
pub(crate) struct ModelBlock {
    pub(crate) header: Header,
    pub(crate) hash: B256,
    pub(crate) txs: Vec<Tx>,
}

/// Blocks by hash, and the line of canonical ones from genesis on.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    chain_id: u64,
    blocks: HashMap<B256, Arc<ModelBlock>>,
    /// Where a transaction was ever included.
    included: HashMap<B256, Vec<B256>>,
    line: Vec<B256>,
    salt: u64,
}

// === transactions ===

impl Pay {
    pub(crate) fn tx_hash(&self) -> B256 {
        hash_of(self.tx)
    }
}

impl From<Pay> for Tx {
    fn from(pay: Pay) -> Self {
        let value = U256::from(pay.value);
        match pay.token {
            None => Self { value, ..Self::calling(pay.tx, pay.to) },
            Some(token) => Self { logs: vec![Emitted::transfer(token, PAYER, pay.to, value)], ..Self::calling(pay.tx, token) },
        }
    }
}

impl Tx {
    /// A call that does nothing yet.
    pub(crate) fn calling(number: u64, to: Address) -> Self {
        Self { number, from: PAYER, to: Some(to), value: U256::ZERO, succeeded: true, logs: vec![], calls: vec![] }
    }

    pub(crate) fn hash(&self) -> B256 {
        hash_of(self.number)
    }

    /// The logs that are on the chain.
    pub(crate) fn mined_logs(&self) -> &[Emitted] {
        if self.succeeded { &self.logs } else { &[] }
    }

    /// What changed hands, in the chain's own coin and in tokens.
    pub(crate) fn moved(&self) -> Vec<Moved> {
        if !self.succeeded {
            return vec![];
        }
        let mut moved = Vec::new();
        let mut push = |position, asset, sender, recipient, amount: U256| {
            if !amount.is_zero() {
                moved.push(Moved { tx_hash: self.hash(), position, asset, sender, recipient, amount });
            }
        };
        if let Some(to) = self.to {
            push(Position::TOP, Asset::Native, self.from, to, self.value);
        }
        walk(&self.calls, &mut Vec::new(), &mut |path, frame| {
            if frame.carries_value() {
                push(Position::Call(path.to_vec()), Asset::Native, frame.from, frame.to, frame.value);
            }
        });
        for (ordinal, log) in (0..).zip(&self.logs) {
            if let Some((from, to, amount)) = log.moves {
                push(Position::Log(ordinal), Asset::Token(log.contract), from, to, amount);
            }
        }
        moved
    }
}

impl Emitted {
    pub(crate) fn transfer(contract: Address, from: Address, to: Address, amount: U256) -> Self {
        let topics = vec![TRANSFER_TOPIC, from.into_word(), to.into_word()];
        Self { contract, topics, data: B256::from(amount).into(), moves: Some((from, to, amount)) }
    }

    /// As ERC-721 emits it: the number is a topic.
    pub(crate) fn four_topics(contract: Address, to: Address, amount: U256) -> Self {
        let topics = vec![TRANSFER_TOPIC, PAYER.into_word(), to.into_word(), B256::from(amount)];
        Self { contract, topics, data: Bytes::new(), moves: None }
    }

    /// An address in a topic with more than 20 bytes.
    pub(crate) fn dirty_topic(contract: Address, to: Address, amount: U256) -> Self {
        let mut dirty = to.into_word();
        dirty[0] = 1;
        Self { topics: vec![TRANSFER_TOPIC, PAYER.into_word(), dirty], moves: None, ..Self::transfer(contract, PAYER, to, amount) }
    }

    pub(crate) fn short_data(contract: Address, to: Address, amount: U256) -> Self {
        Self { data: B256::from(amount)[1..].to_vec().into(), moves: None, ..Self::transfer(contract, PAYER, to, amount) }
    }
}

impl Frame {
    pub(crate) fn call(from: Address, to: Address, value: u64) -> Self {
        Self { kind: FrameKind::Call, from, to, value: U256::from(value), failed: false, calls: vec![] }
    }

    fn carries_value(&self) -> bool {
        matches!(self.kind, FrameKind::Call | FrameKind::Create | FrameKind::SelfDestruct)
    }
}

fn hash_of(number: u64) -> B256 {
    keccak256(number.to_be_bytes())
}

/// Every frame that was not taken back, with its path.
fn walk(frames: &[Frame], path: &mut Vec<u32>, visit: &mut impl FnMut(&[u32], &Frame)) {
    for (step, frame) in (0..).zip(frames) {
        if frame.failed {
            continue;
        }
        path.push(step);
        visit(path, frame);
        walk(&frame.calls, path, visit);
        path.pop();
    }
}

// === the chain ===

impl Default for Model {
    fn default() -> Self {
        Self::of_chain(CHAIN_ID)
    }
}

impl Model {
    /// A chain of one block.
    pub(crate) fn of_chain(chain_id: u64) -> Self {
        let mut model = Self { chain_id, blocks: HashMap::new(), included: HashMap::new(), line: vec![], salt: 0 };
        model.mine(vec![]);
        model
    }

    pub(crate) fn chain_id(&self) -> u64 {
        self.chain_id
    }

    pub(crate) fn head(&self) -> BlockRef {
        BlockRef { number: BlockNumber(self.line.len() as u64 - 1), hash: *self.line.last().unwrap() }
    }

    pub(crate) fn line(&self) -> Vec<B256> {
        self.line.clone()
    }

    /// Puts a line back that was canonical before.
    pub(crate) fn set_line(&mut self, line: Vec<B256>) {
        self.line = line;
    }

    pub(crate) fn mine(&mut self, pays: Vec<Pay>) -> BlockRef {
        self.mine_txs(pays.into_iter().map(Tx::from).collect())
    }

    pub(crate) fn mine_txs(&mut self, txs: Vec<Tx>) -> BlockRef {
        self.salt += 1;
        let number = self.line.len() as u64;
        let receipts: Vec<ReceiptEnvelope> = (1..).zip(&txs).map(|(place, tx)| receipt(tx, place)).collect();
        let mut header = Header {
            parent_hash: self.line.last().copied().unwrap_or_default(),
            number,
            timestamp: 1_800_000_000 + number,
            gas_limit: 30_000_000,
            gas_used: GAS * txs.len() as u64,
            base_fee_per_gas: Some(7),
            // What makes two blocks of one height differ.
            extra_data: [self.chain_id.to_be_bytes(), self.salt.to_be_bytes()].concat().into(),
            ..Header::default()
        };
        if !txs.is_empty() {
            header.receipts_root = proofs::calculate_receipt_root(&receipts);
        }
        for tx in &txs {
            header.logs_bloom.accrue_bloom(&bloom(tx));
        }
        let hash = header.hash_slow();
        for tx in &txs {
            self.included.entry(tx.hash()).or_default().push(hash);
        }
        self.blocks.insert(hash, Arc::new(ModelBlock { header, hash, txs }));
        self.line.push(hash);
        self.head()
    }

    pub(crate) fn mine_empty(&mut self, count: u64) {
        for _ in 0..count {
            self.mine(vec![]);
        }
    }

    /// Takes the newest blocks off the line. They stay known by their hash, as on a real node.
    pub(crate) fn cut(&mut self, depth: u64) {
        let kept = self.line.len() - usize::try_from(depth).unwrap();
        self.line.truncate(kept);
    }

    /// What the chain as it is now answers, kept for later.
    pub(crate) fn answers(&self) -> impl Fn(&str, &Value) -> Value + Send + use<> {
        let model = self.clone();
        move |method, params| Window::honest(&model).answer(method, params).unwrap()
    }

    /// The receipt that a transaction would have in one block.
    pub(crate) fn receipt_in(&self, block: B256, tx: u64) -> Value {
        Window::honest(self).receipt_of(&self.blocks[&block], hash_of(tx))
    }

    pub(crate) fn block(&self, hash: B256) -> Option<&Arc<ModelBlock>> {
        self.blocks.get(&hash)
    }

    /// The blocks that hold a transaction, canonical or not.
    pub(crate) fn blocks_with(&self, tx_hash: B256) -> &[B256] {
        self.included.get(&tx_hash).map_or(&[], Vec::as_slice)
    }

    /// What changed hands in a block.
    pub(crate) fn moved_in(&self, block: B256) -> Vec<Moved> {
        self.blocks[&block].txs.iter().flat_map(Tx::moved).collect()
    }

    /// What an address holds after a block. Nobody's balance is checked when it pays.
    pub(crate) fn balance(&self, block: B256, holder: Address, asset: Asset) -> U256 {
        let (mut paid, mut received) = (U256::ZERO, U256::ZERO);
        let mut at = Some(block);
        while let Some(block) = at.and_then(|hash| self.blocks.get(&hash)) {
            for moved in block.txs.iter().flat_map(Tx::moved).filter(|moved| moved.asset == asset) {
                paid += if moved.sender == holder { moved.amount } else { U256::ZERO };
                received += if moved.recipient == holder { moved.amount } else { U256::ZERO };
            }
            at = (block.header.number > 0).then_some(block.header.parent_hash);
        }
        received.saturating_sub(paid)
    }
}

pub(super) fn bloom(tx: &Tx) -> Bloom {
    let logs: Vec<Log> = tx.mined_logs().iter().map(raw_log).collect();
    logs_bloom(&logs)
}

fn raw_log(log: &Emitted) -> Log {
    Log { address: log.contract, data: LogData::new_unchecked(log.topics.clone(), log.data.clone()) }
}

/// The receipt as the block's root holds it; `place` counts from 1.
fn receipt(tx: &Tx, place: u64) -> ReceiptEnvelope {
    let logs: Vec<Log> = tx.mined_logs().iter().map(raw_log).collect();
    let receipt = Receipt { status: tx.succeeded.into(), cumulative_gas_used: GAS * place, logs };
    ReceiptEnvelope::Eip1559(ReceiptWithBloom { receipt, logs_bloom: bloom(tx) })
}
