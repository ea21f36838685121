//! Typed ids, so that a payment's id never stands where an intent's is asked for.

use std::fmt;

use uuid::Uuid;

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

macro_rules! serial_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

uuid_id! {
    /// A row of `payments`.
    PaymentId,
    /// A row of `intents`.
    IntentId,
    /// A row of `users`.
    UserId,
    /// A row of `trezor_accounts`.
    TrezorAccountId,
    /// A row of `api_tokens`.
    ApiTokenId,
}

serial_id! {
    /// A row of `transfers`: one transfer, whichever block it is in.
    TransferId,
    /// A row of `funds_ledger_entries`.
    LedgerEntryId,
    /// A row of `ledger_accounts`.
    LedgerAccountId,
    /// A row of `change_proposals`.
    ProposalId,
    /// A row of `outflow_policies`.
    PolicyId,
}
