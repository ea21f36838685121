//! A node's answers without a node, for the benches: the text of a result in, our words out, with every
//! check that [`Node`](super::Node) makes.

use std::ops::Range;

use alloy::primitives::{Address, B256};

use super::{Block, Fault, Log, RangeLog, Receipt};
use super::{envelope, read, sift};

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

/// The result of `eth_getLogs` for many blocks: how many logs there are, and those to a wanted recipient.
pub fn logs_where(text: &str, want: impl Fn(&Address) -> bool) -> Result<(usize, Vec<RangeLog>), Fault> {
    sift::read_logs_where(text, |_, recipient| recipient.is_some_and(&want))
}

/// The texts of the results in the answer to a batch, none of which may be an error.
pub fn batch(body: &[u8], ids: Range<u64>) -> Result<Vec<&str>, Fault> {
    let answers = envelope::read_batch(body, ids).map_err(|fault| Fault::malformed(fault.to_string()))?;
    let refused = |error: envelope::ErrorObject| Fault::Refused { code: error.code, message: error.message };
    answers.into_iter().map(|answer| answer.map_err(refused)).collect()
}
