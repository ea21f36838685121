//! The nouns of the ledger: accounts by what they mean, and entries between two of them.

use alloy::primitives::Address;

use crate::units::{LedgerEntryId, PaymentId, TokenAmount};

/// `funds_ledger_entry_type`: the marketplace's eight and our three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "funds_ledger_entry_type", rename_all = "snake_case")]
pub enum EntryType {
    PaymentDetected,
    ProviderFee,
    PlatformFee,
    Hold,
    Release,
    Refund,
    DisputeHold,
    Adjustment,
    Sweep,
    NetworkFee,
    Reversal,
}

impl EntryType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::PaymentDetected => "payment_detected",
            Self::ProviderFee => "provider_fee",
            Self::PlatformFee => "platform_fee",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Refund => "refund",
            Self::DisputeHold => "dispute_hold",
            Self::Adjustment => "adjustment",
            Self::Sweep => "sweep",
            Self::NetworkFee => "network_fee",
            Self::Reversal => "reversal",
        }
    }
}

/// `ledger_account_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(type_name = "ledger_account_kind", rename_all = "snake_case")]
pub enum AccountKind {
    Custody,
    NetworkFee,
    Shortfall,
    Received,
    Held,
    Disputed,
    Payable,
    Suspense,
    PlatformFee,
    ProviderFee,
    Operator,
}

impl AccountKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Custody => "custody",
            Self::NetworkFee => "network_fee",
            Self::Shortfall => "shortfall",
            Self::Received => "received",
            Self::Held => "held",
            Self::Disputed => "disputed",
            Self::Payable => "payable",
            Self::Suspense => "suspense",
            Self::PlatformFee => "platform_fee",
            Self::ProviderFee => "provider_fee",
            Self::Operator => "operator",
        }
    }

    /// Debit-normal accounts say where money is or was lost; the others say whose it is.
    pub const fn is_debit_normal(self) -> bool {
        match self {
            Self::Custody | Self::NetworkFee | Self::Shortfall => true,
            Self::Received
            | Self::Held
            | Self::Disputed
            | Self::Payable
            | Self::Suspense
            | Self::PlatformFee
            | Self::ProviderFee
            | Self::Operator => false,
        }
    }
}

/// An account of one asset, named by what it means. The asset is the entry's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountKey {
    /// The money at one address.
    Custody(Address),
    /// Gas paid.
    NetworkFee,
    /// Lost to a reorg after it was paid out.
    Shortfall,
    /// Arrived for a payment that is not whole yet.
    Received(PaymentId),
    /// Held in escrow for a payment.
    Held(PaymentId),
    /// Frozen by a dispute.
    Disputed(PaymentId),
    /// Reserved for an outflow of a payment.
    Payable(PaymentId),
    /// Unclear whose: wrong token, late, too much; of a payment or of nobody.
    Suspense(Option<PaymentId>),
    PlatformFee,
    ProviderFee,
    /// The operator's own float.
    Operator,
}

impl AccountKey {
    pub const fn kind(self) -> AccountKind {
        match self {
            Self::Custody(_) => AccountKind::Custody,
            Self::NetworkFee => AccountKind::NetworkFee,
            Self::Shortfall => AccountKind::Shortfall,
            Self::Received(_) => AccountKind::Received,
            Self::Held(_) => AccountKind::Held,
            Self::Disputed(_) => AccountKind::Disputed,
            Self::Payable(_) => AccountKind::Payable,
            Self::Suspense(_) => AccountKind::Suspense,
            Self::PlatformFee => AccountKind::PlatformFee,
            Self::ProviderFee => AccountKind::ProviderFee,
            Self::Operator => AccountKind::Operator,
        }
    }

    pub const fn address(self) -> Option<Address> {
        match self {
            Self::Custody(address) => Some(address),
            Self::NetworkFee
            | Self::Shortfall
            | Self::Received(_)
            | Self::Held(_)
            | Self::Disputed(_)
            | Self::Payable(_)
            | Self::Suspense(_)
            | Self::PlatformFee
            | Self::ProviderFee
            | Self::Operator => None,
        }
    }

    /// Whose or where it is, in the bytes by which the database finds it: an address, a payment, or nothing.
    pub fn holder(self) -> Vec<u8> {
        match (self.address(), self.payment()) {
            (Some(address), _) => address.to_vec(),
            (None, Some(payment)) => payment.0.as_bytes().to_vec(),
            (None, None) => Vec::new(),
        }
    }

    pub const fn payment(self) -> Option<PaymentId> {
        match self {
            Self::Received(payment) | Self::Held(payment) | Self::Disputed(payment) | Self::Payable(payment) => Some(payment),
            Self::Suspense(payment) => payment,
            Self::Custody(_) | Self::NetworkFee | Self::Shortfall | Self::PlatformFee | Self::ProviderFee | Self::Operator => None,
        }
    }
}

/// One movement, not yet posted. The store gives it its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub entry_type: EntryType,
    pub payment: Option<PaymentId>,
    pub amount: TokenAmount,
    pub decimals: u8,
    pub debit: AccountKey,
    pub credit: AccountKey,
    /// The entry this one reverses; only for reversals.
    pub reverses: Option<LedgerEntryId>,
    /// Unique for ever: what was posted is never posted again.
    pub key: String,
    /// For the auditor: why.
    pub memo: String,
}
