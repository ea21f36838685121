//! A node's answers without a node, for the benches: the text of a result in, our words out, with every
//! check that [`Node`](super::Node) makes.

use alloy::primitives::{Address, B256};

use super::read;
use super::{Block, Fault, Log, Receipt};

/// The result of `eth_getBlockByHash` with transactions. The header's hash is computed and compared.
pub fn block(text: &str, hash: B256) -> Result<Block, Fault> {
    read::read_block(text, hash, true)
}

/// The result of `eth_getLogs` for one block.
pub fn logs(text: &str, block: B256, contracts: &[Address], topic: B256) -> Result<Vec<Log>, Fault> {
    read::read_logs(text, block, contracts, topic)
}

/// The result of `eth_getTransactionReceipt`.
pub fn receipt(text: &str, tx_hash: B256) -> Result<Option<Receipt>, Fault> {
    read::read_receipt(text, tx_hash)
}
