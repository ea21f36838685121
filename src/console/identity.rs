//! Who is at the console: passkeys, the links that enrol one, sessions.
//!
//! There is no password, no code by mail and no recovery question. A person gets in with a passkey that
//! verified them, and gets a passkey with a link that somebody with access to the host made. What a session
//! may do is asked of the database at every request, so that a role taken away is gone at once.

pub(super) mod ceremony;
pub(super) mod passkey;
pub(super) mod session;
pub mod store;

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use super::ConsoleError;
use crate::db::Database;
use crate::event::{self, Event};
use crate::officer::UserRole;
use crate::units::UserId;

/// For how long a link enrols.
pub const INVITATION_LIVES: Duration = Duration::minutes(15);

/// 32 random bytes as text, shown or set once; the database keeps its hash.
#[derive(Clone)]
pub(super) struct Secret(SecretString);

impl Secret {
    pub(super) fn new() -> Result<Self, ConsoleError> {
        Ok(Self(SecretString::from(alloy::hex::encode(random::<32>()?))))
    }

    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.expose().as_bytes()).into()
    }

    /// What somebody presents, if it can be one of ours at all.
    pub(super) fn presented(text: &str) -> Option<Self> {
        let whole = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        whole.then(|| Self(SecretString::from(text.to_owned())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], ConsoleError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| ConsoleError::Randomness(error.to_string()))?;
    Ok(bytes)
}

/// A link that enrols one passkey for an officer. Links made before it end.
pub async fn invite(db: &Database, origin: &str, user: UserId, now: OffsetDateTime) -> Result<String, ConsoleError> {
    let secret = Secret::new()?;
    let hash = secret.sha256();
    db.unit(move |connection| {
        Box::pin(async move {
            let person = store::find_person(connection, user).await?.ok_or(ConsoleError::UnknownUser(user))?;
            if !person.role.is_officer() {
                return Err(ConsoleError::NotAnOfficer { user, role: person.role });
            }
            store::end_invitations(connection, user, now).await?;
            store::insert_invitation(connection, hash, user, now, now + INVITATION_LIVES).await?;
            let detail = serde_json::json!({ "user": user, "name": person.name });
            event::store::append(connection, &of_nobody("user.invited", detail)).await?;
            Ok::<(), ConsoleError>(())
        })
    })
    .await?;
    // Behind the `#`, so that it reaches no server's log and no other page.
    Ok(format!("{origin}/console/enrol#{}", secret.expose()))
}

/// Ends all that lets a person in: passkeys, links, sessions. Gives back how many passkeys were revoked.
pub async fn lock_out(db: &Database, user: UserId, now: OffsetDateTime) -> Result<u64, ConsoleError> {
    db.unit(move |connection| {
        Box::pin(async move {
            store::find_person(connection, user).await?.ok_or(ConsoleError::UnknownUser(user))?;
            store::end_invitations(connection, user, now).await?;
            store::end_sessions(connection, user, now, "locked out").await?;
            let revoked = store::revoke_passkeys(connection, user, now).await?;
            event::store::append(connection, &of_nobody("user.locked_out", serde_json::json!({ "user": user, "passkeys": revoked })))
                .await?;
            Ok::<u64, ConsoleError>(revoked)
        })
    })
    .await
}

/// An event of no payment, intent or chain.
pub(super) fn of_nobody(kind: &'static str, detail: serde_json::Value) -> Event {
    Event { kind, payment: None, intent: None, chain: None, detail }
}

/// Somebody of `users` who is active.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: UserId,
    pub role: UserRole,
    pub name: String,
    pub email: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y7_a_secret_does_not_print_itself_and_only_whole_ones_are_looked_up() {
        let secret = Secret::new().unwrap();
        assert!(!format!("{secret:?}").contains(&secret.expose()[..8]));
        assert_eq!(Secret::presented(secret.expose()).map(|found| found.sha256()), Some(secret.sha256()));
        for bad in ["", &secret.expose()[..63], &format!("{}0", secret.expose()), &secret.expose().replace(|_: char| true, "G")] {
            assert!(Secret::presented(bad).is_none(), "{bad:?}");
        }
    }
}
