//! Words everybody uses: chains, assets, amounts, blocks, ids.
//!
//! Pure and sync. A raw number or string from outside becomes one of these types at the door and
//! stays one. Absent on purpose: floating point, rounding without a name, block numbers that add.

mod amount;
mod asset;
mod block;
mod id;
mod work;

pub use amount::{AmountError, ParseAmountError, TokenAmount, format_units, group_thousands, parse_base_units, parse_units};
pub use asset::{Asset, AssetId, ChainId, ParseAssetError, parse_address};
pub use block::{BlockNumber, BlockRef, Confirmations, ConfirmationsError, Depth, depth_of};
pub use id::{ApiTokenId, IntentId, LedgerAccountId, LedgerEntryId, PaymentId, PolicyId, ProposalId, TransferId, TrezorAccountId, UserId};
pub use work::{Disposition, Outcomes, Progress};
