//! What a node shows, in our words: only the fields that money depends on, each checked on the way in.
//!
//! Pure. A header comes in whole, because its hash is computed and compared; transactions come in lean,
//! because a block holds hundreds of them and their type does not matter here.

use alloy::consensus::Header as HashedHeader;
use alloy::primitives::{Address, B256, Bloom, BloomInput, Bytes, U256};

use super::error::Fault;
use super::hex::{Account, Data, Fixed, Quantity};
use super::json::{Flaw, Reader, Wire, once, wire};
use crate::units::{BlockNumber, BlockRef};

/// A block without its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub block: BlockRef,
    pub parent_hash: B256,
    /// Seconds since 1970 by the block's producer. Several blocks may share one; it may also go back.
    pub timestamp: u64,
    pub base_fee: Option<u128>,
    pub logs_bloom: Bloom,
}

impl Header {
    /// Whether the header proves that no log of these contracts with this topic is in the block.
    ///
    /// A filter of zeros proves nothing: some chains never fill it.
    pub fn excludes(&self, contracts: &[Address], topic: B256) -> bool {
        let may_hold = |bytes: &[u8]| self.logs_bloom.contains_input(BloomInput::Raw(bytes));
        if self.logs_bloom.is_zero() {
            return false;
        }
        !may_hold(topic.as_slice()) || !contracts.iter().any(|contract| may_hold(contract.as_slice()))
    }
}

/// A block with its transactions, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub header: Header,
    pub transactions: Vec<Transaction>,
}

/// The top level of a transaction. `to` is `None` where it creates a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub hash: B256,
    pub from: Address,
    pub to: Option<Address>,
    pub value: U256,
}

/// A log. Its index counts within the block, so it changes when the transaction is included again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `None` for a log that is in no block yet.
    pub block_hash: Option<B256>,
    pub tx_hash: B256,
    pub log_index: u64,
    pub address: Address,
    pub topics: Vec<B256>,
    pub data: Bytes,
    /// The node says that a reorg took this log away.
    pub removed: bool,
}

/// A log out of the answer for many blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeLog {
    /// Of the log's block, as the node says; the block's hash is in the log.
    pub number: BlockNumber,
    pub log: Log,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub tx_hash: B256,
    /// Status 1. A failed transaction used its nonce and paid its fee, and moved nothing else.
    pub succeeded: bool,
    pub block: BlockRef,
    pub tx_index: u64,
    pub gas_used: u64,
    /// Wei per unit of gas. Absent on nodes from before EIP-1559; absence is not zero.
    pub effective_gas_price: Option<u128>,
    /// What an OP-stack chain charges on top for its parent chain, in wei.
    pub l1_fee: Option<U256>,
    pub logs: Vec<Log>,
}

impl Receipt {
    /// Whether two endpoints say the same of what money rests on. Fees are left out: some nodes do not
    /// give them.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.tx_hash == other.tx_hash && self.succeeded == other.succeeded && self.block == other.block && self.logs == other.logs
    }
}

/// What a unit of gas costs now, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeEstimate {
    /// The base fee of the next block.
    pub base_fee: u128,
    /// What the producer is usually given on top.
    pub priority: u128,
}

// === as the node writes them ===

wire! {
    pub(super) struct RawHeader {
        hash: Fixed<32> = "hash",
        parent_hash: Fixed<32> = "parentHash",
        ommers_hash: Fixed<32> = "sha3Uncles",
        miner: Account = "miner",
        state_root: Fixed<32> = "stateRoot",
        transactions_root: Fixed<32> = "transactionsRoot",
        receipts_root: Fixed<32> = "receiptsRoot",
        logs_bloom: Fixed<256> = "logsBloom",
        difficulty: Quantity = "difficulty",
        number: Quantity = "number",
        gas_limit: Quantity = "gasLimit",
        gas_used: Quantity = "gasUsed",
        timestamp: Quantity = "timestamp",
        extra_data: Data = "extraData",
        mix_hash: Fixed<32> = "mixHash",
        nonce: Fixed<8> = "nonce",
        base_fee_per_gas: Option<Quantity> = "baseFeePerGas",
        withdrawals_root: Option<Fixed<32>> = "withdrawalsRoot",
        blob_gas_used: Option<Quantity> = "blobGasUsed",
        excess_blob_gas: Option<Quantity> = "excessBlobGas",
        parent_beacon_block_root: Option<Fixed<32>> = "parentBeaconBlockRoot",
        requests_hash: Option<Fixed<32>> = "requestsHash",
        block_access_list_hash: Option<Fixed<32>> = "blockAccessListHash",
        slot_number: Option<Quantity> = "slotNumber",
    }

    pub(super) struct RawTransaction {
        hash: Fixed<32> = "hash",
        from: Account = "from",
        to: Option<Account> = "to",
        value: Quantity = "value",
        block_hash: Option<Fixed<32>> = "blockHash",
        transaction_index: Option<Quantity> = "transactionIndex",
    }

    pub(super) struct RawLog {
        block_hash: Option<Fixed<32>> = "blockHash",
        transaction_hash: Fixed<32> = "transactionHash",
        log_index: Option<Quantity> = "logIndex",
        address: Account = "address",
        topics: Vec<Fixed<32>> = "topics",
        data: Data = "data",
        #[cfg_attr(test, serde(default))]
        removed: bool = "removed",
    }

    pub(super) struct RawReceipt {
        transaction_hash: Fixed<32> = "transactionHash",
        status: Quantity = "status",
        block_hash: Fixed<32> = "blockHash",
        block_number: Quantity = "blockNumber",
        transaction_index: Quantity = "transactionIndex",
        gas_used: Quantity = "gasUsed",
        effective_gas_price: Option<Quantity> = "effectiveGasPrice",
        l1_fee: Option<Quantity> = "l1Fee",
        logs: Vec<RawLog> = "logs",
    }
}

/// The fields of a header, and the transactions among them.
pub(super) struct RawBlock {
    pub(super) header: RawHeader,
    pub(super) transactions: Vec<RawTransaction>,
}

impl Wire for RawBlock {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        const NAME: &str = "transactions";
        let mut transactions = None;
        let header = RawHeader::read_with(reader, |name, reader| match name {
            NAME => once(&mut transactions, NAME, reader),
            _ => reader.skip(),
        })?;
        Ok(Self { header, transactions: transactions.ok_or(Flaw::Missing(NAME))? })
    }
}

/// A log of a range, where the block's number is needed too.
pub(super) struct RawRangeLog {
    pub(super) log: RawLog,
    pub(super) block_number: Quantity,
}

impl Wire for RawRangeLog {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        const NAME: &str = "blockNumber";
        let mut block_number = None;
        let log = RawLog::read_with(reader, |name, reader| match name {
            NAME => once(&mut block_number, NAME, reader),
            _ => reader.skip(),
        })?;
        Ok(Self { log, block_number: block_number.ok_or(Flaw::Missing(NAME))? })
    }
}

impl RawHeader {
    /// Checks the header; `verify` says whether its hash must be the hash of its fields.
    pub(super) fn read(self, verify: bool) -> Result<Header, Fault> {
        let BlockNumber(number) = height("number", self.number)?;
        let header = Header {
            block: BlockRef { number: BlockNumber(number), hash: self.hash.0 },
            parent_hash: self.parent_hash.0,
            timestamp: small("timestamp", self.timestamp)?,
            base_fee: self.base_fee_per_gas.map(|fee| medium("baseFeePerGas", fee)).transpose()?,
            logs_bloom: Bloom::from(self.logs_bloom.0),
        };
        if verify {
            let computed = self.hashed(number)?.hash_slow();
            if computed != header.block.hash {
                return Err(Fault::malformed(format!(
                    "{} whose fields hash to {computed}; if this chain's headers have fields that this version does not know, \
                     set verify_header_hash = false for it",
                    header.block
                )));
            }
        }
        Ok(header)
    }

    fn hashed(self, number: u64) -> Result<HashedHeader, Fault> {
        Ok(HashedHeader {
            parent_hash: self.parent_hash.0,
            ommers_hash: self.ommers_hash.0,
            beneficiary: self.miner.0,
            state_root: self.state_root.0,
            transactions_root: self.transactions_root.0,
            receipts_root: self.receipts_root.0,
            logs_bloom: Bloom::from(self.logs_bloom.0),
            difficulty: self.difficulty.0,
            number,
            gas_limit: small("gasLimit", self.gas_limit)?,
            gas_used: small("gasUsed", self.gas_used)?,
            timestamp: small("timestamp", self.timestamp)?,
            extra_data: self.extra_data.0,
            mix_hash: self.mix_hash.0,
            nonce: self.nonce.0,
            base_fee_per_gas: self.base_fee_per_gas.map(|fee| small("baseFeePerGas", fee)).transpose()?,
            withdrawals_root: self.withdrawals_root.map(B256::from),
            blob_gas_used: self.blob_gas_used.map(|gas| small("blobGasUsed", gas)).transpose()?,
            excess_blob_gas: self.excess_blob_gas.map(|gas| small("excessBlobGas", gas)).transpose()?,
            parent_beacon_block_root: self.parent_beacon_block_root.map(B256::from),
            requests_hash: self.requests_hash.map(B256::from),
            block_access_list_hash: self.block_access_list_hash.map(B256::from),
            slot_number: self.slot_number.map(|slot| small("slotNumber", slot)).transpose()?,
        })
    }
}

impl RawBlock {
    pub(super) fn read(self, verify: bool) -> Result<Block, Fault> {
        let header = self.header.read(verify)?;
        let mut transactions = Vec::with_capacity(self.transactions.len());
        for (position, raw) in self.transactions.into_iter().enumerate() {
            if raw.block_hash.is_some_and(|hash| hash.0 != header.block.hash) {
                return Err(Fault::malformed(format!("{} with transaction {} of another block", header.block, raw.hash.0)));
            }
            if let Some(index) = raw.transaction_index
                && index.0 != U256::from(position)
            {
                return Err(Fault::malformed(format!(
                    "{} with transaction {} at {position}, which says {}",
                    header.block, raw.hash.0, index.0
                )));
            }
            let to = raw.to.map(|account| account.0);
            transactions.push(Transaction { hash: raw.hash.0, from: raw.from.0, to, value: raw.value.0 });
        }
        Ok(Block { header, transactions })
    }
}

impl RawLog {
    pub(super) fn read(self) -> Result<Log, Fault> {
        let block_hash = self.block_hash.map(B256::from);
        // A log in no block has no index; it is kept so that the caller can count and refuse it.
        let log_index = match (self.log_index, block_hash) {
            (Some(index), _) => small("logIndex", index)?,
            (None, None) => 0,
            (None, Some(_)) => return Err(Fault::malformed("a log in a block, without its index")),
        };
        Ok(Log {
            block_hash,
            tx_hash: self.transaction_hash.0,
            log_index,
            address: self.address.0,
            topics: self.topics.into_iter().map(B256::from).collect(),
            data: self.data.0,
            removed: self.removed,
        })
    }
}

impl RawRangeLog {
    pub(super) fn read(self) -> Result<RangeLog, Fault> {
        Ok(RangeLog { number: height("blockNumber", self.block_number)?, log: self.log.read()? })
    }
}

impl RawReceipt {
    /// Checks one of a whole block's receipts.
    pub(super) fn read_any(self) -> Result<Receipt, Fault> {
        let asked = self.transaction_hash.0;
        self.read(asked)
    }

    /// Checks the receipt; it must be of the transaction that was asked for.
    pub(super) fn read(self, asked: B256) -> Result<Receipt, Fault> {
        if self.transaction_hash.0 != asked {
            return Err(Fault::malformed(format!("the receipt of {} instead of {asked}", self.transaction_hash.0)));
        }
        let succeeded = match self.status.to_u64() {
            Some(0) => false,
            Some(1) => true,
            Some(_) | None => return Err(Fault::malformed(format!("a receipt with status {}", self.status.0))),
        };
        let number = small("blockNumber", self.block_number)?;
        let mut logs = self.logs.into_iter().map(RawLog::read).collect::<Result<Vec<_>, _>>()?;
        // Their order in the answer means nothing, and endpoints are compared.
        logs.sort_by_key(|log| log.log_index);
        let block = BlockRef { number: BlockNumber(number), hash: self.block_hash.0 };
        // A log that is left out here is a deposit that is lost, so a doubtful one spoils the receipt.
        if logs.iter().any(|log| log.tx_hash != asked || log.block_hash != Some(block.hash) || log.removed) {
            return Err(Fault::malformed(format!("the receipt of {asked} with a log of another transaction or block")));
        }
        Ok(Receipt {
            tx_hash: asked,
            succeeded,
            block,
            tx_index: small("transactionIndex", self.transaction_index)?,
            gas_used: small("gasUsed", self.gas_used)?,
            effective_gas_price: self.effective_gas_price.map(|price| medium("effectiveGasPrice", price)).transpose()?,
            l1_fee: self.l1_fee.map(|fee| fee.0),
            logs,
        })
    }
}

fn small(field: &'static str, quantity: Quantity) -> Result<u64, Fault> {
    quantity.to_u64().ok_or_else(|| Fault::malformed(format!("{field} {} above 2^64 - 1", quantity.0)))
}

/// A block's number; databases hold no higher one.
pub(super) fn height(field: &'static str, quantity: Quantity) -> Result<BlockNumber, Fault> {
    let number = small(field, quantity)?;
    match i64::try_from(number) {
        Ok(_) => Ok(BlockNumber(number)),
        Err(_) => Err(Fault::malformed(format!("a block with number {number}, above 2^63 - 1"))),
    }
}

fn medium(field: &'static str, quantity: Quantity) -> Result<u128, Fault> {
    quantity.to_u128().ok_or_else(|| Fault::malformed(format!("{field} {} above 2^128 - 1", quantity.0)))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{address, b256};

    use super::*;
    use crate::rpc::json::read_whole;

    fn header_with(bloom: Bloom) -> Header {
        let block = BlockRef { number: BlockNumber(1), hash: B256::ZERO };
        Header { block, parent_hash: B256::ZERO, timestamp: 0, base_fee: None, logs_bloom: bloom }
    }

    #[test]
    fn w2_only_a_filled_filter_proves_that_a_block_holds_nothing_of_ours() {
        let token = address!("5FbDB2315678afecb367f032d93F642f64180aa3");
        let other = address!("e7f1725E7734CE288F8367e1Bb143E90bb3F0512");
        let topic = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
        let mut bloom = Bloom::ZERO;
        assert!(!header_with(bloom).excludes(&[token], topic), "an empty filter says nothing");
        bloom.accrue(BloomInput::Raw(other.as_slice()));
        bloom.accrue(BloomInput::Raw(topic.as_slice()));
        assert!(header_with(bloom).excludes(&[token], topic));
        assert!(!header_with(bloom).excludes(&[token, other], topic));
        bloom.accrue(BloomInput::Raw(token.as_slice()));
        assert!(!header_with(bloom).excludes(&[token], topic));
    }

    /// Headers of the chains we know, as their nodes write them: what a chain adds to a header is either
    /// in its hash, and then we must know it, or no part of the header.
    #[test]
    fn w2_the_headers_of_real_chains_hash_as_their_nodes_say() {
        #[derive(serde::Deserialize)]
        struct Sample<'a> {
            chain: String,
            #[serde(borrow)]
            header: &'a serde_json::value::RawValue,
        }
        let samples: Vec<Sample<'_>> = serde_json::from_str(include_str!("../../tests/data/headers.json")).unwrap();
        let mut chains = Vec::new();
        for Sample { chain, header } in samples {
            let text = header.get();
            let read = |text: &str| read_whole::<RawHeader>(text).unwrap().read(true);
            let good = read(text).unwrap_or_else(|fault| panic!("{chain}: {fault}"));
            chains.push((chain, good.block.number.0));
            // Each field that is hashed is really looked at: the next higher gas used gives another hash.
            let gas = format!("\"gasUsed\": \"{:#x}\"", read_whole::<RawHeader>(text).unwrap().gas_used.0);
            let other = format!("\"gasUsed\": \"{:#x}\"", read_whole::<RawHeader>(text).unwrap().gas_used.0 + U256::ONE);
            assert!(text.contains(&gas) && read(&text.replace(&gas, &other)).is_err());
        }
        let expected = [
            ("Ethereum", 21_925_176),
            ("BNB Smart Chain", 26_803),
            ("Polygon", 43_352_696),
            ("Polygon", 89_174_945),
            ("Base", 50_546_271),
            ("OP Mainnet", 151_534_589),
            ("Arbitrum One", 408_874_813),
        ];
        assert_eq!(chains, expected.map(|(chain, number)| (chain.to_owned(), number)));
    }
}
