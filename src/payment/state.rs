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
    /// Money was ordered out of escrow and reserved; its transaction is not planned yet.
    Releasable,
    /// A transaction that takes money out of escrow is on its way.
    Releasing,
    /// A part has gone out, the rest is held.
    Partial,
    /// All of it has gone out, and the seller has at least a part.
    Released,
    /// All of it went back to the buyer.
    Refunded,
    /// Given up by the marketplace before anything came.
    Cancelled,
    /// Nothing came in time.
    Failed,
    /// A pair that came with an import and that this machine never reaches. It stays as it is.
    Imported(PaymentStatus, Option<EscrowState>),
}

/// How the escrow of a payment stands, by the books and the orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of it is held or disputed.
    Whole,
    /// Part has gone out, the rest is held or disputed.
    Rest,
    /// At least one order waits to be planned, none is on its way.
    Ordered,
    /// At least one order is on its way.
    Moving,
    /// Nothing is left, and the seller got at least a part.
    GoneToSeller,
    /// Nothing is left, and all of it went back.
    GoneToBuyer,
}

/// What the standing is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether anything is held or disputed.
    pub holds: bool,
    /// Whether an order waits to be planned.
    pub ordered: bool,
    /// Whether a planned order is not settled yet.
    pub moving: bool,
    /// Whether a release has settled.
    pub released: bool,
    /// Whether a refund out of escrow has settled.
    pub refunded: bool,
}

impl Figures {
    /// `None` for an escrow of which nothing is there and nothing has gone out.
    pub const fn standing(self) -> Option<Standing> {
        match self {
            Self { moving: true, .. } => Some(Standing::Moving),
            Self { ordered: true, .. } => Some(Standing::Ordered),
            Self { holds: true, released: false, refunded: false, .. } => Some(Standing::Whole),
            Self { holds: true, .. } => Some(Standing::Rest),
            Self { released: true, .. } => Some(Standing::GoneToSeller),
            Self { refunded: true, .. } => Some(Standing::GoneToBuyer),
            Self { .. } => None,
        }
    }
}

/// What moves a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentEvent {
    /// A transfer to its address is in the chain.
    TransferSeen,
    /// Every transfer seen left the chain again and nothing was credited.
    TransfersGone,
    /// The whole amount, or what was accepted in its place, is credited and held.
    Funded,
    /// A credited transfer was reorged away and the hold with it.
    CreditReversed,
    /// Money in escrow was ordered out, planned, given back, or has left.
    Escrow(Standing),
    /// The marketplace gives up a payment for which nothing came.
    Cancelled,
    /// Its time and its late window are over, and nothing is there.
    Lapsed,
    /// Its time and its late window are over, and all that came went back.
    RefundedWhole,
}

impl PaymentState {
    /// The states that this daemon writes.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Processing,
        Self::Funded,
        Self::Releasable,
        Self::Releasing,
        Self::Partial,
        Self::Released,
        Self::Refunded,
        Self::Cancelled,
        Self::Failed,
    ];

    pub const fn status(self) -> PaymentStatus {
        match self {
            Self::Pending => PaymentStatus::Pending,
            Self::Processing => PaymentStatus::Processing,
            Self::Funded | Self::Releasable | Self::Releasing | Self::Partial => PaymentStatus::Confirmed,
            Self::Released => PaymentStatus::Completed,
            Self::Refunded => PaymentStatus::Refunded,
            Self::Cancelled => PaymentStatus::Cancelled,
            Self::Failed => PaymentStatus::Failed,
            Self::Imported(status, _) => status,
        }
    }

    pub const fn escrow(self) -> Option<EscrowState> {
        match self {
            Self::Pending | Self::Processing | Self::Cancelled | Self::Failed => None,
            Self::Funded => Some(EscrowState::Funded),
            Self::Releasable => Some(EscrowState::Releasable),
            Self::Releasing => Some(EscrowState::Releasing),
            Self::Partial => Some(EscrowState::Partial),
            Self::Released => Some(EscrowState::Released),
            Self::Refunded => Some(EscrowState::Refunded),
            Self::Imported(_, escrow) => escrow,
        }
    }

    /// The state that a stored pair means. A pair that this daemon never writes came with an import.
    pub fn from_pair(status: PaymentStatus, escrow: Option<EscrowState>) -> Self {
        let known = Self::ALL.into_iter().find(|state| state.status() == status && state.escrow() == escrow);
        known.unwrap_or(Self::Imported(status, escrow))
    }

    /// Whether the whole amount is in escrow or on its way out of it.
    pub const fn is_in_escrow(self) -> bool {
        match self {
            Self::Funded | Self::Releasable | Self::Releasing | Self::Partial => true,
            Self::Pending | Self::Processing | Self::Released | Self::Refunded | Self::Cancelled | Self::Failed | Self::Imported(..) => {
                false
            }
        }
    }

    /// Whether money may still make it whole.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Pending | Self::Processing => true,
            Self::Funded
            | Self::Releasable
            | Self::Releasing
            | Self::Partial
            | Self::Released
            | Self::Refunded
            | Self::Cancelled
            | Self::Failed
            | Self::Imported(..) => false,
        }
    }

    /// The whole machine.
    pub fn apply(self, event: PaymentEvent) -> Result<Self, Illegal> {
        use PaymentEvent as E;
        let illegal = Err(Illegal { state: self, event });
        match event {
            E::TransferSeen => match self {
                Self::Pending | Self::Processing => Ok(Self::Processing),
                // A later transfer does not move a payment that is whole or over: its money goes to suspense.
                Self::Funded
                | Self::Releasable
                | Self::Releasing
                | Self::Partial
                | Self::Released
                | Self::Refunded
                | Self::Cancelled
                | Self::Failed
                | Self::Imported(..) => Ok(self),
            },
            E::TransfersGone => match self {
                Self::Pending | Self::Processing => Ok(Self::Pending),
                Self::Funded
                | Self::Releasable
                | Self::Releasing
                | Self::Partial
                | Self::Released
                | Self::Refunded
                | Self::Cancelled
                | Self::Failed
                | Self::Imported(..) => illegal,
            },
            // What comes too late for a payment that has failed can still be accepted by a person.
            E::Funded => match self {
                Self::Pending | Self::Processing | Self::Failed => Ok(Self::Funded),
                Self::Funded
                | Self::Releasable
                | Self::Releasing
                | Self::Partial
                | Self::Released
                | Self::Refunded
                | Self::Cancelled
                | Self::Imported(..) => illegal,
            },
            E::CreditReversed => match self {
                Self::Processing | Self::Funded | Self::Releasable => Ok(Self::Processing),
                Self::Pending
                | Self::Releasing
                | Self::Partial
                | Self::Released
                | Self::Refunded
                | Self::Cancelled
                | Self::Failed
                | Self::Imported(..) => illegal,
            },
            E::Escrow(standing) => self.in_escrow(standing).ok_or(Illegal { state: self, event }),
            E::Cancelled => match self {
                Self::Pending => Ok(Self::Cancelled),
                Self::Processing
                | Self::Funded
                | Self::Releasable
                | Self::Releasing
                | Self::Partial
                | Self::Released
                | Self::Refunded
                | Self::Cancelled
                | Self::Failed
                | Self::Imported(..) => illegal,
            },
            E::Lapsed | E::RefundedWhole => match self {
                Self::Pending | Self::Processing => Ok(if event == E::Lapsed { Self::Failed } else { Self::Refunded }),
                Self::Funded
                | Self::Releasable
                | Self::Releasing
                | Self::Partial
                | Self::Released
                | Self::Refunded
                | Self::Cancelled
                | Self::Failed
                | Self::Imported(..) => illegal,
            },
        }
    }

    /// Where a standing of the escrow leads. Money is ordered, then planned, then gone; until it is gone, it
    /// can come back.
    fn in_escrow(self, standing: Standing) -> Option<Self> {
        match (self, standing) {
            (Self::Funded | Self::Releasable | Self::Releasing, Standing::Whole) => Some(Self::Funded),
            (Self::Releasable | Self::Releasing | Self::Partial, Standing::Rest) => Some(Self::Partial),
            (Self::Funded | Self::Releasable | Self::Releasing | Self::Partial, Standing::Ordered) => Some(Self::Releasable),
            (Self::Releasable | Self::Releasing, Standing::Moving) => Some(Self::Releasing),
            (Self::Releasing, Standing::GoneToSeller) => Some(Self::Released),
            (Self::Releasing, Standing::GoneToBuyer) => Some(Self::Refunded),
            (Self::Partial, Standing::Whole)
            | (Self::Funded, Standing::Rest)
            | (Self::Funded | Self::Partial, Standing::Moving)
            | (Self::Funded | Self::Releasable | Self::Partial, Standing::GoneToSeller | Standing::GoneToBuyer)
            | (
                Self::Pending | Self::Processing | Self::Released | Self::Refunded | Self::Cancelled | Self::Failed | Self::Imported(..),
                Standing::Whole | Standing::Rest | Standing::Ordered | Standing::Moving | Standing::GoneToSeller | Standing::GoneToBuyer,
            ) => None,
        }
    }
}

impl fmt::Display for PaymentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status().name())?;
        match self.escrow() {
            Some(escrow) => write!(f, "/{}", escrow.name()),
            None => Ok(()),
        }
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

    const STANDINGS: [Standing; 6] =
        [Standing::Whole, Standing::Rest, Standing::Ordered, Standing::Moving, Standing::GoneToSeller, Standing::GoneToBuyer];

    fn events() -> Vec<PaymentEvent> {
        let plain = [
            PaymentEvent::TransferSeen,
            PaymentEvent::TransfersGone,
            PaymentEvent::Funded,
            PaymentEvent::CreditReversed,
            PaymentEvent::Cancelled,
            PaymentEvent::Lapsed,
            PaymentEvent::RefundedWhole,
        ];
        plain.into_iter().chain(STANDINGS.map(PaymentEvent::Escrow)).collect()
    }

    #[test]
    fn every_state_and_event() {
        let mut table = String::new();
        let imported = PaymentState::Imported(PaymentStatus::Cancelled, Some(EscrowState::Cancelled));
        for state in PaymentState::ALL.into_iter().chain([imported]) {
            for event in events() {
                let outcome = state.apply(event).map_or_else(|_| "-".to_owned(), |next| next.to_string());
                table.push_str(&format!("{:<21} {:<20} {outcome}\n", state.to_string(), format!("{event:?}")));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn every_standing_of_an_escrow() {
        let mut table = String::from("holds ordered moving released refunded\n");
        for bits in 0..32_u8 {
            let bit = |place: u8| bits & (1 << place) != 0;
            let figures = Figures { holds: bit(4), ordered: bit(3), moving: bit(2), released: bit(1), refunded: bit(0) };
            let shown = |set: bool| if set { "yes" } else { "." };
            let columns = [figures.holds, figures.ordered, figures.moving, figures.released, figures.refunded].map(shown);
            let outcome = figures.standing().map_or("-".to_owned(), |standing| format!("{standing:?}"));
            let [holds, ordered, moving, released, refunded] = columns;
            table.push_str(&format!("{holds:<5} {ordered:<7} {moving:<6} {released:<8} {refunded:<8} {outcome}\n"));
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn every_pair_reads_back() {
        const STATUSES: [PaymentStatus; 7] = [
            PaymentStatus::Pending,
            PaymentStatus::Processing,
            PaymentStatus::Confirmed,
            PaymentStatus::Completed,
            PaymentStatus::Failed,
            PaymentStatus::Cancelled,
            PaymentStatus::Refunded,
        ];
        const ESCROWS: [Option<EscrowState>; 9] = [
            None,
            Some(EscrowState::Funded),
            Some(EscrowState::Releasable),
            Some(EscrowState::Released),
            Some(EscrowState::Refunded),
            Some(EscrowState::Releasing),
            Some(EscrowState::Failed),
            Some(EscrowState::Cancelled),
            Some(EscrowState::Partial),
        ];
        for status in STATUSES {
            for escrow in ESCROWS {
                let state = PaymentState::from_pair(status, escrow);
                assert_eq!((state.status(), state.escrow()), (status, escrow));
                let own = PaymentState::ALL.contains(&state);
                assert_eq!(own, !matches!(state, PaymentState::Imported(..)), "{state}");
                if !own {
                    let moved = events().into_iter().filter(|event| state.apply(*event).is_ok_and(|next| next != state)).count();
                    assert_eq!(moved, 0, "{state} came with an import and stays");
                }
            }
        }
    }

    #[test]
    fn l6_what_holds_money_neither_fails_nor_is_cancelled() {
        for state in PaymentState::ALL.into_iter().filter(|state| state.is_in_escrow()) {
            for event in [PaymentEvent::Cancelled, PaymentEvent::Lapsed, PaymentEvent::RefundedWhole] {
                assert!(state.apply(event).is_err(), "{state}: {event:?}");
            }
        }
    }
}
