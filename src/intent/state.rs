//! The machine of an intent.

use std::fmt;

/// `intent_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "intent_state", rename_all = "lowercase")]
pub enum IntentState {
    /// Stored, amount reserved, nonce taken.
    Planned,
    /// Enough officers approved its digest.
    Approved,
    /// A station has it; a signature may exist.
    Signing,
    /// The signed bytes are stored.
    Signed,
    /// A node accepted the bytes.
    Broadcast,
    /// The bytes went out and nobody knows what became of them.
    Uncertain,
    /// In a block that is not deep enough yet.
    Mined,
    /// Final, and in the ledger.
    Settled,
    /// Final, but the chain refused the transfer: only gas was paid.
    Reverted,
    /// Given up while no signature could exist.
    Void,
    /// Another transaction of ours used its nonce and is final: nothing of it happened.
    Replaced,
}

/// What moves an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentEvent {
    Approved,
    Claimed,
    /// The device refused, and no signature can exist.
    Declined,
    Signed,
    Accepted,
    SendUnclear,
    Included,
    /// The block that included it left the chain.
    Dropped,
    Settled,
    Reverted,
    Voided,
    /// Its approvals expired before a station had it.
    Lapsed,
    /// It is to be signed once more, with higher fees. What was signed before may still be mined.
    FeesRaised,
    /// Another transaction at its nonce settled.
    Outrun,
}

impl IntentState {
    pub const ALL: [Self; 11] = [
        Self::Planned,
        Self::Approved,
        Self::Signing,
        Self::Signed,
        Self::Broadcast,
        Self::Uncertain,
        Self::Mined,
        Self::Settled,
        Self::Reverted,
        Self::Void,
        Self::Replaced,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Approved => "approved",
            Self::Signing => "signing",
            Self::Signed => "signed",
            Self::Broadcast => "broadcast",
            Self::Uncertain => "uncertain",
            Self::Mined => "mined",
            Self::Settled => "settled",
            Self::Reverted => "reverted",
            Self::Void => "void",
            Self::Replaced => "replaced",
        }
    }

    /// The whole machine. From `Signing` on a signature may exist; what has one and is planned again, because its
    /// fees are to rise, is kept from `Void` by what is stored with it.
    pub fn apply(self, event: IntentEvent) -> Result<Self, Illegal> {
        use IntentEvent as E;
        match event {
            E::Approved => match self {
                Self::Planned => Ok(Self::Approved),
                Self::Approved
                | Self::Signing
                | Self::Signed
                | Self::Broadcast
                | Self::Uncertain
                | Self::Mined
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
            // The same fields signed again give the same bytes, so a station that lost its answer may ask again.
            E::Claimed => match self {
                Self::Approved | Self::Signing => Ok(Self::Signing),
                Self::Planned
                | Self::Signed
                | Self::Broadcast
                | Self::Uncertain
                | Self::Mined
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
            E::Declined => match self {
                Self::Signing => Ok(Self::Approved),
                Self::Planned
                | Self::Approved
                | Self::Signed
                | Self::Broadcast
                | Self::Uncertain
                | Self::Mined
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
            E::Signed => match self {
                Self::Signing => Ok(Self::Signed),
                Self::Planned
                | Self::Approved
                | Self::Signed
                | Self::Broadcast
                | Self::Uncertain
                | Self::Mined
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
            E::Accepted => match self {
                Self::Signed | Self::Broadcast | Self::Uncertain => Ok(Self::Broadcast),
                Self::Planned
                | Self::Approved
                | Self::Signing
                | Self::Mined
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
            // What a node accepted once stays broadcast, whatever a later attempt says.
            E::SendUnclear => match self {
                Self::Signed | Self::Uncertain => Ok(Self::Uncertain),
                Self::Broadcast => Ok(Self::Broadcast),
                Self::Planned
                | Self::Approved
                | Self::Signing
                | Self::Mined
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
            // What was signed before its fees were raised may be mined while officers and device are at it. That
            // there is such a transaction is the sender's to know, and the database's to check.
            E::Included => match self {
                Self::Planned | Self::Approved | Self::Signing | Self::Signed | Self::Broadcast | Self::Uncertain | Self::Mined => {
                    Ok(Self::Mined)
                }
                Self::Settled | Self::Reverted | Self::Void | Self::Replaced => Err(Illegal { state: self, event }),
            },
            E::Dropped | E::Settled | E::Reverted => match self {
                Self::Mined => Ok(match event {
                    E::Settled => Self::Settled,
                    E::Reverted => Self::Reverted,
                    _ => Self::Broadcast,
                }),
                Self::Planned
                | Self::Approved
                | Self::Signing
                | Self::Signed
                | Self::Broadcast
                | Self::Uncertain
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
            E::Lapsed => match self {
                Self::Planned | Self::Approved => Ok(Self::Planned),
                Self::Signing
                | Self::Signed
                | Self::Broadcast
                | Self::Uncertain
                | Self::Mined
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
            // Not while a station has it: two revisions would be signed at once.
            E::FeesRaised => match self {
                Self::Planned | Self::Approved | Self::Signed | Self::Broadcast | Self::Uncertain => Ok(Self::Planned),
                Self::Signing | Self::Mined | Self::Settled | Self::Reverted | Self::Void | Self::Replaced => {
                    Err(Illegal { state: self, event })
                }
            },
            E::Outrun => match self {
                Self::Planned | Self::Approved | Self::Signing | Self::Signed | Self::Broadcast | Self::Uncertain => Ok(Self::Replaced),
                Self::Mined | Self::Settled | Self::Reverted | Self::Void | Self::Replaced => Err(Illegal { state: self, event }),
            },
            E::Voided => match self {
                Self::Planned | Self::Approved => Ok(Self::Void),
                Self::Signing
                | Self::Signed
                | Self::Broadcast
                | Self::Uncertain
                | Self::Mined
                | Self::Settled
                | Self::Reverted
                | Self::Void
                | Self::Replaced => Err(Illegal { state: self, event }),
            },
        }
    }
}

impl fmt::Display for IntentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event that cannot happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible while the intent is {state}")]
pub struct Illegal {
    pub state: IntentState,
    pub event: IntentEvent,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [IntentEvent; 14] = [
        IntentEvent::Approved,
        IntentEvent::Claimed,
        IntentEvent::Declined,
        IntentEvent::Signed,
        IntentEvent::Accepted,
        IntentEvent::SendUnclear,
        IntentEvent::Included,
        IntentEvent::Dropped,
        IntentEvent::Settled,
        IntentEvent::Reverted,
        IntentEvent::Voided,
        IntentEvent::Lapsed,
        IntentEvent::FeesRaised,
        IntentEvent::Outrun,
    ];

    #[test]
    fn every_state_and_event() {
        let mut table = String::new();
        for state in IntentState::ALL {
            for event in EVENTS {
                let outcome = state.apply(event).map_or_else(|_| "-".to_owned(), |next| next.to_string());
                table.push_str(&format!("{:<10} {:<12} {outcome}\n", state.to_string(), format!("{event:?}")));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn n3_nothing_that_may_be_signed_becomes_void() {
        for state in IntentState::ALL {
            let voidable = state.apply(IntentEvent::Voided).is_ok();
            assert_eq!(voidable, matches!(state, IntentState::Planned | IntentState::Approved), "{state}");
        }
    }
}
