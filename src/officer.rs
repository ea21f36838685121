//! Who may and who did: people with a role, and bearer tokens with scopes.
//!
//! A token is 32 random bytes shown once; only its SHA-256 is kept. Passkeys and sessions of people
//! join when the console does.

pub mod proposal;
pub mod store;

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::units::{ApiTokenId, Disposition, UserId};

/// The marketplace's roles. Admins and guards are custody officers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "user_role", rename_all = "lowercase")]
pub enum UserRole {
    Admin,
    Buyer,
    Seller,
    Resolver,
    Guard,
}

impl UserRole {
    pub const fn is_officer(self) -> bool {
        match self {
            Self::Admin | Self::Guard => true,
            Self::Buyer | Self::Seller | Self::Resolver => false,
        }
    }

    /// Whether the role may end a dispute.
    pub const fn is_resolver(self) -> bool {
        match self {
            Self::Admin | Self::Resolver => true,
            Self::Buyer | Self::Seller | Self::Guard => false,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Buyer => "buyer",
            Self::Seller => "seller",
            Self::Resolver => "resolver",
            Self::Guard => "guard",
        }
    }
}

impl FromStr for UserRole {
    type Err = OfficerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Admin, Self::Buyer, Self::Seller, Self::Resolver, Self::Guard]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| OfficerError::Role(text.to_owned()))
    }
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    PaymentsRead,
    PaymentsWrite,
    IntentsRead,
    IntentsApprove,
    Signing,
    LedgerRead,
    /// The feed of events.
    EventsRead,
    /// Who is told of events, and what was delivered.
    WebhooksWrite,
    /// Ending disputes, and quarantine.
    DisputesResolve,
}

impl Scope {
    pub const ALL: [Self; 9] = [
        Self::PaymentsRead,
        Self::PaymentsWrite,
        Self::IntentsRead,
        Self::IntentsApprove,
        Self::Signing,
        Self::LedgerRead,
        Self::EventsRead,
        Self::WebhooksWrite,
        Self::DisputesResolve,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::PaymentsRead => "payments:read",
            Self::PaymentsWrite => "payments:write",
            Self::IntentsRead => "intents:read",
            Self::IntentsApprove => "intents:approve",
            Self::Signing => "signing",
            Self::LedgerRead => "ledger:read",
            Self::EventsRead => "events:read",
            Self::WebhooksWrite => "webhooks:write",
            Self::DisputesResolve => "disputes:resolve",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = OfficerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| OfficerError::Scope(text.to_owned()))
    }
}

/// Proof that a person may end disputes; made by [`Caller::resolver`] and by [`Resolver::stepped_up`] alone.
#[derive(Clone, Debug)]
pub struct Resolver {
    name: String,
}

impl Resolver {
    /// A person of that role whose passkey has just answered for the decision.
    pub fn stepped_up(user: UserId, role: UserRole) -> Option<Self> {
        role.is_resolver().then(|| Self { name: format!("user:{user}") })
    }

    /// As it stands in records.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A valid token's bearer.
#[derive(Clone, Debug)]
pub struct Caller {
    pub token_id: ApiTokenId,
    pub token_name: String,
    pub scopes: Vec<Scope>,
    pub user: Option<(UserId, UserRole)>,
}

impl Caller {
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// The caller as a resolver: a person of that role, with a token for it.
    pub fn resolver(&self) -> Option<Resolver> {
        let (user, role) = self.user?;
        (self.may(Scope::DisputesResolve) && role.is_resolver()).then(|| Resolver { name: format!("user:{user}") })
    }

    /// How the caller is named in records: the person if there is one, else the service's token.
    pub fn name(&self) -> String {
        match self.user {
            Some((user, _)) => format!("user:{user}"),
            None => format!("token:{}", self.token_id),
        }
    }
}

/// The secret of a new token, to be shown once.
#[derive(Debug)]
pub struct TokenSecret(SecretString);

const TOKEN_PREFIX: &str = "amanat_";

impl TokenSecret {
    /// A token over 32 bytes of the caller's randomness.
    pub fn from_random(random: [u8; 32]) -> Self {
        Self(SecretString::from(format!("{TOKEN_PREFIX}{}", alloy::hex::encode(random))))
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn sha256(&self) -> [u8; 32] {
        hash_of(self.expose())
    }
}

/// The hash under which a presented token would be stored; `None` if it cannot be one of ours.
///
/// The look-up goes by the hash, so how long it takes says nothing about the secret.
pub fn presented_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(TOKEN_PREFIX)?;
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| hash_of(text))
}

fn hash_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[derive(Debug, thiserror::Error)]
pub enum OfficerError {
    #[error("role {0:?} is none of admin, buyer, seller, resolver, guard")]
    Role(String),
    #[error(
        "scope {0:?} is none of payments:read, payments:write, intents:read, intents:approve, signing, ledger:read, events:read, webhooks:write, disputes:resolve"
    )]
    Scope(String),
    #[error("scope intents:approve needs an officer; name one with --user")]
    ApproverWithoutUser,
    #[error("user {user} has role {role} and may not approve; officers are admins and guards", role = role.name())]
    NotAnOfficer { user: UserId, role: UserRole },
    #[error("scope disputes:resolve needs a resolver; name one with --user")]
    ResolverWithoutUser,
    #[error("user {user} has role {role} and may not end disputes; resolvers and admins may", role = role.name())]
    NotAResolver { user: UserId, role: UserRole },
    #[error("no user {0}")]
    UnknownUser(UserId),
    #[error("a live token named {0:?} exists already; revoke it first or choose another name")]
    TokenNameTaken(String),
    #[error("a user with e-mail {0:?} exists already")]
    EmailTaken(String),
    #[error("no live token named {0:?}")]
    UnknownToken(String),
    #[error(transparent)]
    Proposal(#[from] proposal::ProposalError),
    #[error(transparent)]
    Db(#[from] crate::db::DbError),
}

impl OfficerError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Role(_)
            | Self::Scope(_)
            | Self::ApproverWithoutUser
            | Self::NotAnOfficer { .. }
            | Self::ResolverWithoutUser
            | Self::NotAResolver { .. }
            | Self::UnknownUser(_)
            | Self::TokenNameTaken(_)
            | Self::EmailTaken(_)
            | Self::UnknownToken(_)
            | Self::Proposal(_) => Disposition::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xa6_only_whole_tokens_are_looked_up() {
        let secret = TokenSecret::from_random([7; 32]);
        assert_eq!(presented_hash(secret.expose()), Some(secret.sha256()));
        for bad in [
            "",
            "amanat_",
            "amanat_00",
            &secret.expose()[..70],
            &secret.expose().replace("amanat_", "Amanat_"),
            &format!("{} ", secret.expose()),
        ] {
            assert_eq!(presented_hash(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn y7_a_secret_does_not_print_itself() {
        let secret = TokenSecret::from_random([7; 32]);
        assert!(!format!("{secret:?}").contains("0707"));
    }
}
