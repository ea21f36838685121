//! The machine of a payment: status and escrow state together, so that no illegal pair can be written.

use std::fmt;

/// `payment_status`, the marketplace's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "payment_status", rename_all = "lowercase")]
pub enum PaymentStatus {
    Pending,
    Processing,
    Confirmed,
    Completed,
    Failed,
    Cancelled,
    Refunded,
}

impl PaymentStatus {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Confirmed => "confirmed",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
        }
    }
}

/// `escrow_state`, the marketplace's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "escrow_state", rename_all = "lowercase")]
pub enum EscrowState {
    Funded,
    Releasable,
    Released,
    Refunded,
    Releasing,
    Failed,
    Cancelled,
    Partial,
}

impl EscrowState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Funded => "funded",
            Self::Releasable => "releasable",
            Self::Released => "released",
            Self::Refunded => "refunded",
            Self::Releasing => "releasing",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Partial => "partial",
        }
    }
}

/// Where a payment is. Each state is one pair of `status` and `escrow_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentState {
    /// Nothing seen.
    Pending,
    /// Something seen or credited, not yet the whole amount. Never a reason to deliver.
    Processing,
    /// The whole amount is confirmed and held.
    Funded,
    /// The marketplace asked for the release.
    Releasable,
    /// The release is planned and its amount reserved.
    Releasing,
    /// The seller has the money.
    Released,
}

/// What moves a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentEvent {
    /// A transfer to its address is in the chain.
    TransferSeen,
    /// Every transfer seen left the chain again and nothing was credited.
    TransfersGone,
    /// The whole amount is credited and held.
    Funded,
    /// A credited transfer was reorged away and the hold with it.
    CreditReversed,
    /// The marketplace asks for the release.
    ReleaseRequested,
    /// The release intent exists and its amount is reserved.
    ReleasePlanned,
    /// The release will not happen: it failed on the chain, or was given up before anybody signed. The
    /// amount is held again.
    ReleaseWithdrawn,
    /// The release is final on the chain.
    ReleaseSettled,
}

impl PaymentState {
    pub const ALL: [Self; 6] = [Self::Pending, Self::Processing, Self::Funded, Self::Releasable, Self::Releasing, Self::Released];

    pub const fn status(self) -> PaymentStatus {
        match self {
            Self::Pending => PaymentStatus::Pending,
            Self::Processing => PaymentStatus::Processing,
            Self::Funded | Self::Releasable | Self::Releasing => PaymentStatus::Confirmed,
            Self::Released => PaymentStatus::Completed,
        }
    }

    pub const fn escrow(self) -> Option<EscrowState> {
        match self {
            Self::Pending | Self::Processing => None,
            Self::Funded => Some(EscrowState::Funded),
            Self::Releasable => Some(EscrowState::Releasable),
            Self::Releasing => Some(EscrowState::Releasing),
            Self::Released => Some(EscrowState::Released),
        }
    }

    /// Reads the pair back; `None` for a pair this daemon never writes.
    pub fn from_pair(status: PaymentStatus, escrow: Option<EscrowState>) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.status() == status && state.escrow() == escrow)
    }

    /// The whole machine.
    pub fn apply(self, event: PaymentEvent) -> Result<Self, Illegal> {
        use PaymentEvent as E;
        match (self, event) {
            (Self::Pending | Self::Processing, E::TransferSeen) => Ok(Self::Processing),
            (Self::Pending | Self::Processing, E::TransfersGone) => Ok(Self::Pending),
            (Self::Pending | Self::Processing, E::Funded) => Ok(Self::Funded),
            // A later transfer does not move a payment that is whole: its money goes to suspense.
            (Self::Funded | Self::Releasable | Self::Releasing | Self::Released, E::TransferSeen) => Ok(self),
            (Self::Funded | Self::Releasable | Self::Processing, E::CreditReversed) => Ok(Self::Processing),
            (Self::Funded, E::ReleaseRequested) => Ok(Self::Releasable),
            (Self::Releasable, E::ReleasePlanned) => Ok(Self::Releasing),
            (Self::Releasing, E::ReleaseWithdrawn) => Ok(Self::Funded),
            (Self::Releasing, E::ReleaseSettled) => Ok(Self::Released),
            (Self::Pending | Self::Processing, E::ReleaseRequested | E::ReleasePlanned | E::ReleaseWithdrawn | E::ReleaseSettled)
            | (Self::Pending, E::CreditReversed)
            | (Self::Funded, E::TransfersGone | E::Funded | E::ReleasePlanned | E::ReleaseWithdrawn | E::ReleaseSettled)
            | (Self::Releasable, E::TransfersGone | E::Funded | E::ReleaseRequested | E::ReleaseWithdrawn | E::ReleaseSettled)
            | (Self::Releasing, E::TransfersGone | E::Funded | E::CreditReversed | E::ReleaseRequested | E::ReleasePlanned)
            | (
                Self::Released,
                E::TransfersGone
                | E::Funded
                | E::CreditReversed
                | E::ReleaseRequested
                | E::ReleasePlanned
                | E::ReleaseWithdrawn
                | E::ReleaseSettled,
            ) => Err(Illegal { state: self, event }),
        }
    }
}

impl fmt::Display for PaymentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Funded => "confirmed/funded",
            Self::Releasable => "confirmed/releasable",
            Self::Releasing => "confirmed/releasing",
            Self::Released => "completed/released",
        })
    }
}

/// An event that cannot happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible while the payment is {state}")]
pub struct Illegal {
    pub state: PaymentState,
    pub event: PaymentEvent,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [PaymentEvent; 8] = [
        PaymentEvent::TransferSeen,
        PaymentEvent::TransfersGone,
        PaymentEvent::Funded,
        PaymentEvent::CreditReversed,
        PaymentEvent::ReleaseRequested,
        PaymentEvent::ReleasePlanned,
        PaymentEvent::ReleaseWithdrawn,
        PaymentEvent::ReleaseSettled,
    ];

    #[test]
    fn every_state_and_event() {
        let mut table = String::new();
        for state in PaymentState::ALL {
            for event in EVENTS {
                let outcome = state.apply(event).map_or_else(|_| "-".to_owned(), |next| next.to_string());
                table.push_str(&format!("{:<21} {:<17} {outcome}\n", state.to_string(), format!("{event:?}")));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn pairs_read_back_and_strangers_do_not() {
        for state in PaymentState::ALL {
            assert_eq!(PaymentState::from_pair(state.status(), state.escrow()), Some(state));
        }
        assert_eq!(PaymentState::from_pair(PaymentStatus::Pending, Some(EscrowState::Released)), None);
    }
}
