//! `webhook`: who is told of events, what was delivered, sending again.

use clap::Subcommand;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::console::{say, table};
use super::database;
use super::threshold::second;
use crate::config::Config;
use crate::daemon::now;
use crate::db::Database;
use crate::webhook::{self, DeliveryState, Endpoint, EventPattern, SECRET_BYTES, SigningSecret, WebhookError};

#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Add an endpoint. Its id and its signing secret are printed on standard output.
    Add {
        /// Where events are posted to: https, and an address of the public internet.
        #[arg(long)]
        url: String,
        /// payment.funded, payment.* or *; repeatable.
        #[arg(long = "event", value_name = "KIND", default_value = "payment.*")]
        events: Vec<EventPattern>,
        /// What it is, for people.
        #[arg(long, default_value = "")]
        description: String,
        /// Who adds it.
        #[arg(long)]
        by: String,
    },
    /// List endpoints; never their secrets.
    List,
    /// Sign with a new secret, which is printed; the one before signs too for a while.
    Rotate {
        /// The endpoint.
        id: Uuid,
        /// For how long the old secret signs too; 0 if it leaked.
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(0..=720))]
        keep_old_hours: u32,
    },
    /// Send an endpoint nothing until it is enabled; what happens meanwhile waits.
    Disable {
        /// The endpoint.
        id: Uuid,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Send again, beginning with what waits.
    Enable {
        /// The endpoint.
        id: Uuid,
    },
    /// Deliveries, newest first.
    Deliveries {
        /// One endpoint; all without it.
        #[arg(long, value_name = "ID")]
        endpoint: Option<Uuid>,
        /// pending, delivered or dead; all without it.
        #[arg(long)]
        state: Option<DeliveryState>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Every attempt of one delivery, with the beginning of each answer.
    Attempts {
        /// The delivery.
        delivery: i64,
    },
    /// Send one delivery again, or all that an endpoint was to get in a stretch of time.
    Redeliver {
        /// One delivery.
        #[arg(required_unless_present = "endpoint", conflicts_with = "endpoint")]
        delivery: Option<i64>,
        /// All of an endpoint since a time.
        #[arg(long, value_name = "ID", requires = "since")]
        endpoint: Option<Uuid>,
        /// Such as 2027-03-01T00:00:00Z.
        #[arg(long, value_name = "RFC3339", value_parser = instant)]
        since: Option<OffsetDateTime>,
        /// Now, without it.
        #[arg(long, value_name = "RFC3339", value_parser = instant)]
        until: Option<OffsetDateTime>,
        /// Only what was given up.
        #[arg(long)]
        dead: bool,
    },
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "not of the form 2027-03-01T00:00:00Z (or with an offset such as +03:30)".to_owned())
}

pub(super) async fn run(command: WebhookCommand, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    match command {
        WebhookCommand::Add { url, events, description, by } => {
            let url = config.webhook_guard.read(&url).map_err(|error| anyhow::anyhow!("--url: {error}"))?;
            if description.chars().count() > 200 {
                anyhow::bail!("--description may have 200 characters");
            }
            let (id, created_at) = (Uuid::now_v7(), now());
            let endpoint = Endpoint { id, url: url.into(), description, events, created_by: by, created_at, disabled: None };
            add(&db, endpoint).await
        }
        WebhookCommand::List => list(&db).await,
        WebhookCommand::Rotate { id, keep_old_hours } => {
            let (secret, at) = (new_secret()?, now());
            let until = at + Duration::hours(i64::from(keep_old_hours));
            let signing = secret.clone();
            db.unit(move |connection| Box::pin(async move { webhook::store::rotate_secret(connection, id, &signing, at, until).await }))
                .await?;
            say(secret.expose());
            Ok(())
        }
        WebhookCommand::Disable { id, reason } => {
            if !(1..=200).contains(&reason.chars().count()) {
                anyhow::bail!("--reason must have 1 to 200 characters");
            }
            let at = now();
            db.unit(move |connection| Box::pin(async move { webhook::store::disable(connection, id, &reason, at).await })).await?;
            say(format!("endpoint {id} is disabled; what happens from now on waits for it"));
            Ok(())
        }
        WebhookCommand::Enable { id } => {
            let at = now();
            db.unit(move |connection| Box::pin(async move { webhook::store::enable(connection, id, at).await })).await?;
            say(format!("endpoint {id} is enabled; what waited is sent now"));
            Ok(())
        }
        WebhookCommand::Deliveries { endpoint, state, limit } => deliveries(&db, endpoint, state, limit).await,
        WebhookCommand::Attempts { delivery } => attempts(&db, delivery).await,
        WebhookCommand::Redeliver { delivery, endpoint, since, until, dead } => {
            redeliver(&db, delivery, endpoint.zip(since), until.unwrap_or_else(now), dead).await
        }
    }
}

fn new_secret() -> anyhow::Result<SigningSecret> {
    let mut random = vec![0_u8; SECRET_BYTES];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
    Ok(SigningSecret::new(random))
}

async fn add(db: &Database, endpoint: Endpoint) -> anyhow::Result<()> {
    let (id, secret) = (endpoint.id, new_secret()?);
    let signing = secret.clone();
    db.unit::<_, WebhookError, _>(move |connection| {
        Box::pin(async move { Ok(webhook::store::insert_endpoint(connection, &endpoint, &signing).await?) })
    })
    .await?;
    say(format!("{id} {}", secret.expose()));
    Ok(())
}

async fn list(db: &Database) -> anyhow::Result<()> {
    let endpoints = webhook::store::list_endpoints(&mut *db.connection().await?).await?;
    if endpoints.is_empty() {
        say("there are no endpoints; add one with `amanatd webhook add`");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = endpoints
        .into_iter()
        .map(|endpoint| {
            let events: Vec<&str> = endpoint.events.iter().map(EventPattern::as_str).collect();
            let state = endpoint
                .disabled
                .map_or_else(|| "enabled".to_owned(), |disabled| format!("disabled {}: {}", second(disabled.at), disabled.reason));
            vec![endpoint.id.to_string(), endpoint.url, events.join(" "), state, endpoint.created_by, endpoint.description]
        })
        .collect();
    table(&["endpoint", "url", "events", "state", "by", "description"], &rows, &[]);
    Ok(())
}

async fn deliveries(db: &Database, endpoint: Option<Uuid>, state: Option<DeliveryState>, limit: i64) -> anyhow::Result<()> {
    let found = webhook::store::list_deliveries(&mut *db.connection().await?, endpoint, state, None, limit).await?;
    if found.is_empty() {
        say("there are no such deliveries");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found
        .into_iter()
        .map(|row| {
            let next = if row.state == DeliveryState::Pending { second(row.next_attempt_at) } else { "-".to_owned() };
            vec![
                row.id.to_string(),
                row.kind,
                row.payment_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                row.state.name().to_owned(),
                row.attempts.to_string(),
                next,
                row.last_outcome.unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    table(&["delivery", "event", "payment", "state", "attempts", "next attempt", "last outcome"], &rows, &[0, 4]);
    Ok(())
}

async fn attempts(db: &Database, delivery: i64) -> anyhow::Result<()> {
    let found = webhook::store::list_attempts(&mut *db.connection().await?, delivery).await?;
    if found.is_empty() {
        say("nothing was tried yet");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found
        .into_iter()
        .map(|attempt| vec![second(attempt.attempted_at), attempt.took_ms.to_string(), attempt.outcome, attempt.answer])
        .collect();
    table(&["at", "ms", "outcome", "answer"], &rows, &[1]);
    Ok(())
}

async fn redeliver(
    db: &Database,
    delivery: Option<i64>,
    range: Option<(Uuid, OffsetDateTime)>,
    until: OffsetDateTime,
    dead: bool,
) -> anyhow::Result<()> {
    let at = now();
    let count = match (delivery, range) {
        (Some(id), _) => {
            db.unit(move |connection| Box::pin(async move { webhook::store::redeliver(connection, id, at).await })).await?;
            1
        }
        (None, Some((endpoint, since))) => {
            if until <= since {
                anyhow::bail!("--until must be later than --since");
            }
            db.unit(move |connection| {
                Box::pin(async move { webhook::store::redeliver_range(connection, endpoint, since, until, dead, at).await })
            })
            .await?
        }
        (None, None) => anyhow::bail!("name a delivery, or --endpoint and --since"),
    };
    say(format!("{count} deliveries are sent again"));
    Ok(())
}
