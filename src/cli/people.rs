//! `user` and `token`.

use clap::Subcommand;
use time::Duration;
use uuid::Uuid;

use super::console::{say, table};
use super::database;
use crate::config::Config;
use crate::console;
use crate::daemon::now;
use crate::db::Database;
use crate::officer::store::{NewToken, Rotation};
use crate::officer::{self, OfficerError, Scope, TokenSecret, UserRole};
use crate::units::{ApiTokenId, UserId};

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a person and print the id. Admins and guards are custody officers.
    Create {
        /// The name records show.
        #[arg(long)]
        name: String,
        /// admin, buyer, seller, resolver or guard.
        #[arg(long)]
        role: UserRole,
        #[arg(long)]
        email: Option<String>,
    },
    /// Print a link with which an officer enrols a passkey for the console: once, within 15 minutes. Give it to
    /// them in person or by a way that nobody else reads. Links made before end.
    Invite {
        #[arg(long, value_name = "USER_ID")]
        user: UserId,
    },
    /// Revoke all of a person's passkeys and end their sessions and links: a key was lost, or somebody left.
    LockOut {
        #[arg(long, value_name = "USER_ID")]
        user: UserId,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token. Its secret is printed once, on standard output, and kept nowhere.
    Create {
        #[arg(long)]
        name: String,
        /// payments:read, payments:write, intents:read, intents:approve, signing, ledger:read, events:read,
        /// webhooks:write; repeatable.
        #[arg(long = "scope", required = true)]
        scopes: Vec<Scope>,
        /// The person whose token it is; needed for intents:approve.
        #[arg(long, value_name = "USER_ID")]
        user: Option<UserId>,
        /// Days until it expires; without it, it lives until revoked.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
        expires: Option<u16>,
    },
    /// Give a live token another secret, printed once. The token stays the same, with its idempotency keys and the
    /// intents that its station has; the secret before serves until its time is over.
    Rotate {
        #[arg(long)]
        name: String,
        /// For how long the secret before serves too; 0 if it leaked.
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u16).range(0..=720))]
        keep_old_hours: u16,
        /// Days from now until it expires; as before without it.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
        expires: Option<u16>,
    },
    /// List tokens; never their secrets.
    List,
    /// End a token at once.
    Revoke {
        #[arg(long)]
        name: String,
    },
}

pub(super) async fn run_user(command: UserCommand, config: &Config) -> anyhow::Result<()> {
    let (name, role, email) = match command {
        UserCommand::Create { name, role, email } => (name, role, email),
        UserCommand::Invite { user } => return invite(user, config).await,
        UserCommand::LockOut { user } => {
            let revoked = console::identity::lock_out(&database::open(config).await?, user, now()).await?;
            say(format!(
                "{revoked} passkeys are revoked and all sessions of {user} are ended; tokens of theirs live on (`amanatd token list`)"
            ));
            return Ok(());
        }
    };
    if !(1..=200).contains(&name.chars().count()) {
        anyhow::bail!("--name must have 1 to 200 characters");
    }
    if email.as_ref().is_some_and(|email| email.split('@').filter(|part| !part.is_empty()).count() != 2) {
        anyhow::bail!("--email is not of the form name@host");
    }
    let db = database::open(config).await?;
    let id = UserId(Uuid::now_v7());
    db.unit(move |connection| Box::pin(async move { officer::store::insert_user(connection, id, email.as_deref(), &name, role).await }))
        .await?;
    say(id.to_string());
    Ok(())
}

async fn invite(user: UserId, config: &Config) -> anyhow::Result<()> {
    let Some(options) = &config.console else {
        anyhow::bail!("there is no console: set console.origin in the configuration first");
    };
    say(console::identity::invite(&database::open(config).await?, options.origin(), user, now()).await?);
    Ok(())
}

pub(super) async fn run_token(command: TokenCommand, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    match command {
        TokenCommand::Create { name, scopes, user, expires } => {
            if !(1..=100).contains(&name.chars().count()) {
                anyhow::bail!("--name must have 1 to 100 characters");
            }
            let expires_at = expires.map(|days| now() + Duration::days(i64::from(days)));
            create(&db, NewToken { id: ApiTokenId(Uuid::now_v7()), name, scopes, user, expires_at }).await
        }
        TokenCommand::Rotate { name, keep_old_hours, expires } => {
            let now = now();
            let rotation = Rotation {
                old_until: now + Duration::hours(i64::from(keep_old_hours)),
                expires_at: expires.map(|days| now + Duration::days(i64::from(days))),
            };
            let secret = new_secret()?;
            let secret = db
                .unit(move |connection| {
                    Box::pin(async move {
                        officer::store::rotate_token(connection, &name, &secret, rotation).await?;
                        Ok::<TokenSecret, OfficerError>(secret)
                    })
                })
                .await?;
            say(secret.expose());
            Ok(())
        }
        TokenCommand::List => list(&db).await,
        TokenCommand::Revoke { name } => {
            let named = name.clone();
            db.unit(move |connection| Box::pin(async move { officer::store::revoke_token(connection, &named).await })).await?;
            say(format!("token {name:?} is revoked"));
            Ok(())
        }
    }
}

fn new_secret() -> anyhow::Result<TokenSecret> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
    Ok(TokenSecret::from_random(random))
}

async fn create(db: &Database, token: NewToken) -> anyhow::Result<()> {
    let secret = new_secret()?;
    let secret = db
        .unit(move |connection| {
            Box::pin(async move {
                officer::store::insert_token(connection, &token, &secret).await?;
                Ok::<TokenSecret, OfficerError>(secret)
            })
        })
        .await?;
    say(secret.expose());
    Ok(())
}

async fn list(db: &Database) -> anyhow::Result<()> {
    let mut connection = db.connection().await?;
    let tokens = officer::store::list_tokens(&mut connection).await?;
    if tokens.is_empty() {
        say("there are no tokens; make one with `amanatd token create`");
        return Ok(());
    }
    let at = |time: Option<time::OffsetDateTime>| time.map_or_else(|| "-".to_owned(), |time| time.date().to_string());
    let rows: Vec<Vec<String>> = tokens
        .into_iter()
        .map(|token| {
            let user = token.user_id.map_or_else(|| "-".to_owned(), |user| user.to_string());
            vec![token.name, token.scopes.join(" "), user, at(token.expires_at), at(token.last_used_at), at(token.revoked_at)]
        })
        .collect();
    table(&["name", "scopes", "user", "expires", "last used", "revoked"], &rows, &[]);
    Ok(())
}
