//! Payments: what is due, to whom, until when; and how far each one has come.
//!
//! Three axes: `status` (where the money is on its way in), `escrow_state` (whose it is), and
//! exceptions (what needs a person). The pair of the first two is one machine in [`state`]. What it may cost
//! and how exact it must be is agreed when it is created ([`terms`]).
//! What is due in another currency than the token is a quote's to say.

mod draft;
pub mod state;
pub mod store;
pub mod terms;

pub use draft::{FeeDraft, FieldError, NewPayment, PaymentDraft, PricedDraft, Provider, RefTriple};
pub use state::{EscrowState, Figures, Illegal, PaymentEvent, PaymentState, PaymentStatus, Standing};
pub use terms::{FeeRate, Fees, Part, Terms};

use alloy::primitives::{Address, U256};
use time::OffsetDateTime;

use crate::db::DbError;
pub use crate::units::Currency;
use crate::units::{Disposition, PaymentId, TokenAmount};

/// A row of `payments`.
#[derive(Clone, Debug)]
pub struct Payment {
    pub id: PaymentId,
    pub state: PaymentState,
    pub state_version: i64,
    /// The amount due, in base units of the token that is to arrive.
    pub due: TokenAmount,
    pub token_symbol: String,
    pub token_decimals: u8,
    pub currency: Currency,
    pub seller_address: Address,
    pub provider: Provider,
    pub terms: Terms,
    /// What went into escrow, in the asset that is due: what was due, or what was accepted in its place. Zero
    /// until then.
    pub escrowed_units: U256,
    pub expires_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
}

/// What is out of the ordinary with a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "payment_exception_kind", rename_all = "snake_case")]
pub enum ExceptionKind {
    Partial,
    Over,
    Late,
    Duplicate,
    WrongToken,
    WrongChain,
    Reorged,
    Held,
    Frozen,
}

impl ExceptionKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Over => "over",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::WrongToken => "wrong_token",
            Self::WrongChain => "wrong_chain",
            Self::Reorged => "reorged",
            Self::Held => "held",
            Self::Frozen => "frozen",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("no payment {0}")]
    Unknown(PaymentId),
    #[error("payment {payment}")]
    Illegal { payment: PaymentId, source: Illegal },
}

impl PaymentError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Unknown(_) | Self::Illegal { .. } => Disposition::Skip,
        }
    }
}
