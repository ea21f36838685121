//! Blocks to transfers: follows one chain from the stored tip, block by block, by hash; far behind the
//! head, and only below what reorgs touch, in ranges that find and reads by hash that decide.
//!
//! What is stored is an unbroken line of blocks. A block joins it only if its parent is the stored tip;
//! when the node's branch leaves the line, the line is walked back to the common ancestor and what lies
//! above is orphaned, never deleted, because an orphaned block may come back. Blocks, transfers and
//! cursor move in one commit. A backlog is drained, never jumped; an answer that is missing is an error
//! and never an empty block.
//!
//! The decisions are pure: `tip` (does this branch link?) and `matching` (what does this block pay us?).
//! Absent on purpose: money. What was seen becomes a credit in later rooms, after `confirm`.

mod catch_up;
pub mod matching;
mod rescan;
pub mod store;
pub mod tip;
mod transfer;
mod worker;

use crate::account::AccountError;
use crate::db::DbError;
use crate::rpc::RpcError;
use crate::units::{BlockNumber, BlockRef, ChainId, Disposition};

use matching::MatchError;

pub use rescan::{RescanReport, chunks};
pub use store::Cursor;
pub use transfer::{ParsePositionError, Position, Transfer};
pub use worker::{ScanOptions, Scanner};

/// What kept a tick from following the chain. Nothing of the round was stored.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the watched addresses cannot be brought up to date")]
    Watched(#[from] AccountError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("chain {chain}: the node's branch changed while it was read: {what}")]
    Moved { chain: ChainId, what: String },
    #[error("chain {chain}: {block}: the node's answers contradict each other")]
    Contradiction {
        chain: ChainId,
        block: BlockRef,
        #[source]
        source: Box<matching::MatchError>,
    },
    #[error("chain {chain}: a transfer would be in two canonical blocks; the node contradicts what it said before")]
    TwoBlocks { chain: ChainId },
    #[error("chain {chain}: {block} has timestamp {timestamp}, which is no date")]
    Timestamp { chain: ChainId, block: BlockRef, timestamp: u64 },
    #[error(
        "chain {chain}: the node's head is {by} blocks below the stored tip {tip}, more than the reorg window: the wrong node, or a reset chain"
    )]
    FarBehind { chain: ChainId, tip: BlockRef, by: u64 },
    #[error("chain {chain} cannot be scanned again there: {what}")]
    RescanRefused { chain: ChainId, what: String },
    #[error(
        "chain {chain}: the node's branch at {head} has no block in common with the stored line down to {searched_to}; outflow on this chain is halted"
    )]
    TooDeep { chain: ChainId, head: BlockRef, searched_to: BlockNumber },
}

impl ScanError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Watched(error) => error.disposition(),
            Self::Rpc(error) => error.disposition(),
            Self::Moved { .. } | Self::Contradiction { .. } | Self::TwoBlocks { .. } | Self::Timestamp { .. } => Disposition::Retry,
            Self::FarBehind { .. } | Self::TooDeep { .. } | Self::RescanRefused { .. } => Disposition::Officer,
        }
    }
}
