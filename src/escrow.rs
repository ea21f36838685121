//! Escrow: what is decided about a payment's money between its credit and the transaction that takes it out.
//!
//! Money leaves a payment only through a payout, which is an order: so many units out of one claim, to one
//! recipient. It is reserved in the transaction that stores the order, so that no two orders can have the same
//! money, and several orders can follow one another. `intent` plans an order's transaction, `settle` ends it. A
//! dispute freezes what is held until a resolver ends it. Each command is one unit of work under the payment's
//! row lock: a refused one leaves nothing, and whoever gave it notes the refusal apart.

mod accept;
pub mod adjust;
mod dispute;
mod late;
mod order;
pub mod store;
mod worker;

pub use accept::{Acceptance, QuarantineExit, accept, cancel, leave_quarantine};
pub use adjust::{Adjustment, Suspended};
pub use dispute::{Verdict, freeze, resolve};
pub use late::{Market, replace_quote};
pub use order::{RefundOrder, planned, refund, release, restate, settled, withdraw, withdraw_ordered};
pub use worker::{Lapser, lapse};

use alloy::primitives::{Address, U256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::chains::RecipientError;
use crate::db::DbError;
use crate::deposit::DestinationStatus;
use crate::ledger::{AccountKey, AccountKind, LedgerError};
use crate::officer::OfficerError;
use crate::payment::{Fees, PaymentError, PaymentState};
use crate::quote::Refusal;
use crate::screen::Hold;
use crate::units::{AssetId, Disposition, IntentId, LedgerEntryId, PaymentId, ProposalId, TokenAmount};

/// `payout_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "payout_kind", rename_all = "lowercase")]
pub enum PayoutKind {
    /// To the seller.
    Release,
    /// Back to the buyer, at an address that the buyer states.
    Refund,
}

impl PayoutKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Refund => "refund",
        }
    }
}

/// `payout_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "payout_state", rename_all = "lowercase")]
pub enum PayoutState {
    /// Reserved; its transaction is not planned yet.
    Ordered,
    /// Its intent exists.
    Planned,
    /// Final on the chain.
    Settled,
    /// Given up, or the chain refused it. The money is where it came from.
    Withdrawn,
}

impl PayoutState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Planned => "planned",
            Self::Settled => "settled",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// The claim that a payout draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Counted, and not whole yet.
    Received,
    Held,
    Disputed,
    /// Too much, too late, twice, of another kind.
    Suspense,
}

impl Source {
    pub const ALL: [Self; 4] = [Self::Received, Self::Held, Self::Disputed, Self::Suspense];

    pub const fn kind(self) -> AccountKind {
        match self {
            Self::Received => AccountKind::Received,
            Self::Held => AccountKind::Held,
            Self::Disputed => AccountKind::Disputed,
            Self::Suspense => AccountKind::Suspense,
        }
    }

    pub const fn name(self) -> &'static str {
        self.kind().name()
    }

    pub const fn account(self, payment: PaymentId) -> AccountKey {
        match self {
            Self::Received => AccountKey::Received(payment),
            Self::Held => AccountKey::Held(payment),
            Self::Disputed => AccountKey::Disputed(payment),
            Self::Suspense => AccountKey::Suspense(Some(payment)),
        }
    }

    /// Whether it draws from the payment's escrow.
    pub const fn is_escrow(self) -> bool {
        match self {
            Self::Held | Self::Disputed => true,
            Self::Received | Self::Suspense => false,
        }
    }
}

/// A row of `payment_payouts`.
#[derive(Clone, Debug)]
pub struct Payout {
    pub id: Uuid,
    pub payment: PaymentId,
    pub kind: PayoutKind,
    pub state: PayoutState,
    pub source: Source,
    /// What leaves the claim.
    pub gross: TokenAmount,
    pub decimals: u8,
    pub fees: Fees,
    pub to: Address,
    pub requested_by: String,
    /// The dispute that it resolves.
    pub dispute: Option<Uuid>,
    pub intent: Option<IntentId>,
    /// Under which the reservation stands in the ledger.
    pub reservation_key: String,
    pub created_at: OffsetDateTime,
}

impl Payout {
    /// What the recipient gets.
    pub fn net(&self) -> TokenAmount {
        TokenAmount::new(self.gross.asset, self.gross.units.saturating_sub(self.fees.total()))
    }
}

/// `dispute_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "dispute_state", rename_all = "lowercase")]
pub enum DisputeState {
    Open,
    Resolved,
}

impl DisputeState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resolved => "resolved",
        }
    }
}

/// `dispute_resolution`, the marketplace's four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "dispute_resolution", rename_all = "snake_case")]
pub enum Resolution {
    Refund,
    Replacement,
    Compensation,
    NoAction,
}

impl Resolution {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refund => "refund",
            Self::Replacement => "replacement",
            Self::Compensation => "compensation",
            Self::NoAction => "no_action",
        }
    }
}

/// A row of `disputes`. Its history is in the payment's events.
#[derive(Clone, Debug)]
pub struct Dispute {
    pub id: Uuid,
    pub payment: PaymentId,
    pub state: DisputeState,
    pub opened_by: String,
    pub reason: String,
    pub resolution: Option<Resolution>,
    pub resolved_by: Option<String>,
    pub note: Option<String>,
    pub opened_at: OffsetDateTime,
    pub resolved_at: Option<OffsetDateTime>,
}

/// Why a command was refused, or failed.
#[derive(Debug, thiserror::Error)]
pub enum EscrowError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("payment {payment} is {state}; {what}")]
    State { payment: PaymentId, state: PaymentState, what: &'static str },
    #[error("{asked} units asked for, and {there} are {} for payment {payment}", .source_of.name())]
    NotEnough { payment: PaymentId, source_of: Source, asked: U256, there: U256 },
    #[error("the fees of this part are {fees} of its {units} units; nothing would be left for the seller, release more at once")]
    OnlyFees { units: U256, fees: U256 },
    #[error("payment {payment} is disputed; only a resolver's decision on dispute {dispute} moves its money")]
    Disputed { payment: PaymentId, dispute: Uuid },
    #[error("the recipient {to} cannot be paid")]
    Recipient { to: Address, source: RecipientError },
    #[error("{0} is one of our own addresses")]
    OwnAddress(Address),
    #[error("asset {0} is not in the chain book")]
    Unlisted(AssetId),
    #[error("with all that there is, payment {payment} has {there} of {due} units; accept less than is due in so many words, or wait")]
    StillShort { payment: PaymentId, there: U256, due: U256 },
    #[error(
        "{there} units came late for payment {payment}, and {required} are required by what was agreed and by a fresh quote; quote it anew and ask for the rest, refund, or accept less than is due in so many words"
    )]
    WorthLess { payment: PaymentId, there: U256, required: U256 },
    #[error(
        "what came late for payment {payment} cannot be valued, there is no fresh quote; try again later, refund, or accept it in so many words: {refusal}"
    )]
    NoFreshQuote { payment: PaymentId, refusal: Box<Refusal> },
    #[error("nothing waits to be accepted for payment {0}")]
    NothingToAccept(PaymentId),
    #[error("no dispute {0}")]
    UnknownDispute(Uuid),
    #[error("dispute {0} is resolved")]
    Resolved(Uuid),
    #[error("{asked} units of the disputed {there} cannot be split off; name more than nothing and less than all")]
    Split { asked: U256, there: U256 },
    #[error("no payout {0}")]
    UnknownPayout(Uuid),
    #[error("payout {payout} is {}; only one that is not planned yet can be taken back, and then `intent void` can", .state.name())]
    PayoutState { payout: Uuid, state: PayoutState },
    #[error("the address of payment {payment} is {}, not quarantined", .status.name())]
    NotQuarantined { payment: PaymentId, status: DestinationStatus },
    #[error("{what} must have 1 to {max} characters")]
    Length { what: &'static str, max: usize },
    #[error(transparent)]
    Officer(#[from] OfficerError),
    #[error("entry {0} is no credit that came for nobody and waits to be decided about (`amanatd adjust list`)")]
    NotSuspended(LedgerEntryId),
    #[error("the money of entry {0} is only credited; it waits for the release gate")]
    OnlyCredited(LedgerEntryId),
    #[error("the money of entry {entry} is held: {hold}")]
    Screened { entry: LedgerEntryId, hold: Hold },
    #[error("{0} is no address of ours")]
    ForeignAddress(Address),
    #[error("units = {0:?}: give a whole number of base units, more than zero")]
    Units(String),
    #[error("{asked} units asked for, and {account} holds {there}")]
    AccountShort { account: &'static str, asked: U256, there: U256 },
    #[error("proposal {0} cannot be read as an adjustment; it was written by another version")]
    Adjustment(ProposalId),
    #[error("the books hold nothing for payment {0}, and nothing has gone out; its row was changed outside this daemon")]
    Empty(PaymentId),
}

impl EscrowError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Payment(error) => error.disposition(),
            Self::Ledger(error) => error.disposition(),
            Self::State { .. }
            | Self::NotEnough { .. }
            | Self::OnlyFees { .. }
            | Self::Disputed { .. }
            | Self::Recipient { .. }
            | Self::OwnAddress(_)
            | Self::Unlisted(_)
            | Self::StillShort { .. }
            | Self::WorthLess { .. }
            | Self::NoFreshQuote { .. }
            | Self::NothingToAccept(_)
            | Self::UnknownDispute(_)
            | Self::Resolved(_)
            | Self::Split { .. }
            | Self::UnknownPayout(_)
            | Self::PayoutState { .. }
            | Self::NotQuarantined { .. }
            | Self::Officer(_)
            | Self::NotSuspended(_)
            | Self::OnlyCredited(_)
            | Self::Screened { .. }
            | Self::ForeignAddress(_)
            | Self::Units(_)
            | Self::AccountShort { .. }
            | Self::Length { .. } => Disposition::Skip,
            Self::Adjustment(_) | Self::Empty(_) => Disposition::Officer,
        }
    }
}

/// The longest text that a person gives as a reason or a note.
const TEXT_CHARS_MAX: usize = 2_000;

fn check_text(what: &'static str, text: &str) -> Result<(), EscrowError> {
    let fits = (1..=TEXT_CHARS_MAX).contains(&text.chars().count());
    if fits { Ok(()) } else { Err(EscrowError::Length { what, max: TEXT_CHARS_MAX }) }
}
