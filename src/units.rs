//! Words everybody uses: chains, assets, amounts, blocks, ids.
//!
//! Pure and sync. A raw number or string from outside becomes one of these types at the door and
//! stays one. Absent on purpose: floating point, rounding without a name, block numbers that add.

mod amount;
mod asset;
mod block;
mod currency;
mod id;
mod price;
mod work;

pub use amount::{AmountError, ParseAmountError, TokenAmount, format_units, group_thousands, parse_base_units, parse_units};
pub use asset::{Asset, AssetId, ChainId, ParseAssetError, parse_address};
pub use block::{BlockNumber, BlockRef, Confirmations, ConfirmationsError, Depth, depth_of};
pub use currency::Currency;
pub use id::{ApiTokenId, IntentId, LedgerAccountId, LedgerEntryId, PaymentId, PolicyId, ProposalId, TransferId, TrezorAccountId, UserId};
pub use price::{BPS, Decimal18, MicroBps, Price, PriceError, Toward, UsdRate, mul_div, narrow, pow10, wide_div};
pub use work::{Disposition, Outcomes, Progress};
