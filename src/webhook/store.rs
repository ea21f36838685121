//! SQL of `webhook_endpoints`, `webhook_secrets`, `webhook_deliveries`, `webhook_attempts` and `webhook_cursor`.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::signature::SigningSecret;
use super::{DeliveryState, Disabled, Endpoint, EventPattern, Totals, WebhookError};
use crate::db::codec::count_from_sql;
use crate::db::{DbError, expect_one};

// === endpoints ===

pub async fn insert_endpoint(connection: &mut PgConnection, endpoint: &Endpoint, secret: &SigningSecret) -> Result<(), DbError> {
    let events: Vec<String> = endpoint.events.iter().map(EventPattern::to_string).collect();
    sqlx::query!(
        "insert into webhook_endpoints (id, url, description, events, created_by, created_at) values ($1, $2, $3, $4, $5, $6)",
        endpoint.id,
        endpoint.url,
        endpoint.description,
        &events,
        endpoint.created_by,
        endpoint.created_at
    )
    .execute(&mut *connection)
    .await?;
    insert_secret(connection, endpoint.id, secret, endpoint.created_at).await
}

async fn insert_secret(connection: &mut PgConnection, endpoint: Uuid, secret: &SigningSecret, now: OffsetDateTime) -> Result<(), DbError> {
    sqlx::query!(
        "insert into webhook_secrets (endpoint_id, secret, created_at, expires_at) values ($1, $2, $3, null)",
        endpoint,
        secret.as_bytes(),
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Signs with a new secret from now on, and with those before it until `old_until`.
pub async fn rotate_secret(
    connection: &mut PgConnection,
    endpoint: Uuid,
    secret: &SigningSecret,
    now: OffsetDateTime,
    old_until: OffsetDateTime,
) -> Result<(), WebhookError> {
    let rows =
        sqlx::query!("update webhook_secrets set expires_at = $2 where endpoint_id = $1 and expires_at is null", endpoint, old_until)
            .execute(&mut *connection)
            .await
            .map_err(DbError::from)?
            .rows_affected();
    if rows == 0 {
        return Err(WebhookError::Unknown(endpoint));
    }
    Ok(insert_secret(connection, endpoint, secret, now).await?)
}

/// The newest secret of an endpoint.
pub async fn get_secret(connection: &mut PgConnection, endpoint: Uuid) -> Result<SigningSecret, WebhookError> {
    let secret = sqlx::query_scalar!("select secret from webhook_secrets where endpoint_id = $1 and expires_at is null", endpoint)
        .fetch_optional(connection)
        .await
        .map_err(DbError::from)?;
    secret.map(SigningSecret::new).ok_or(WebhookError::Unknown(endpoint))
}

/// The secrets that sign at `now`, newest first.
pub(super) async fn list_secrets(
    connection: &mut PgConnection,
    endpoint: Uuid,
    now: OffsetDateTime,
) -> Result<Vec<SigningSecret>, DbError> {
    let rows = sqlx::query_scalar!(
        "select secret from webhook_secrets where endpoint_id = $1 and (expires_at is null or expires_at > $2) order by id desc limit 5",
        endpoint,
        now
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(SigningSecret::new).collect())
}

struct EndpointRow {
    id: Uuid,
    url: String,
    description: String,
    events: Vec<String>,
    created_by: String,
    created_at: OffsetDateTime,
    disabled_at: Option<OffsetDateTime>,
    disabled_reason: Option<String>,
}

impl TryFrom<EndpointRow> for Endpoint {
    type Error = DbError;

    fn try_from(row: EndpointRow) -> Result<Self, Self::Error> {
        let events = row.events.iter().map(|text| text.parse()).collect::<Result<_, WebhookError>>().map_err(|_| DbError::Corrupt {
            column: "webhook_endpoints.events",
            found: row.events.join(" "),
            wanted: "kinds of events",
        })?;
        let disabled = row.disabled_at.zip(row.disabled_reason).map(|(at, reason)| Disabled { at, reason });
        Ok(Self {
            id: row.id,
            url: row.url,
            description: row.description,
            events,
            created_by: row.created_by,
            created_at: row.created_at,
            disabled,
        })
    }
}

/// All endpoints, oldest first.
pub async fn list_endpoints(connection: &mut PgConnection) -> Result<Vec<Endpoint>, DbError> {
    let rows = sqlx::query_as!(
        EndpointRow,
        "select id, url, description, events, created_by, created_at, disabled_at, disabled_reason
         from webhook_endpoints order by created_at, id limit 1000"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Endpoint::try_from).collect()
}

pub async fn get_endpoint(connection: &mut PgConnection, id: Uuid) -> Result<Endpoint, WebhookError> {
    let row = sqlx::query_as!(
        EndpointRow,
        "select id, url, description, events, created_by, created_at, disabled_at, disabled_reason from webhook_endpoints where id = $1",
        id
    )
    .fetch_optional(connection)
    .await
    .map_err(DbError::from)?;
    Ok(row.ok_or(WebhookError::Unknown(id))?.try_into()?)
}

/// What is due for the endpoint waits from now on.
pub async fn disable(connection: &mut PgConnection, id: Uuid, reason: &str, now: OffsetDateTime) -> Result<(), WebhookError> {
    let rows = sqlx::query!(
        "update webhook_endpoints set disabled_at = $2, disabled_reason = $3 where id = $1 and disabled_at is null",
        id,
        now,
        reason
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from)?
    .rows_affected();
    if rows == 1 {
        return Ok(());
    }
    Err(WebhookError::Disabled(get_endpoint(connection, id).await?.id))
}

/// What waited is tried again at once.
pub async fn enable(connection: &mut PgConnection, id: Uuid, now: OffsetDateTime) -> Result<(), WebhookError> {
    let rows = sqlx::query!(
        "update webhook_endpoints set disabled_at = null, disabled_reason = null where id = $1 and disabled_at is not null",
        id
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from)?
    .rows_affected();
    if rows == 0 {
        return Err(WebhookError::Enabled(get_endpoint(connection, id).await?.id));
    }
    sqlx::query!("update webhook_deliveries set next_attempt_at = $2 where endpoint_id = $1 and state = 'pending'", id, now)
        .execute(connection)
        .await
        .map_err(DbError::from)?;
    Ok(())
}

// === handing on ===

/// Makes deliveries of the events after the cursor, at most `limit`, and moves the cursor. Gives how many events
/// there were.
///
/// A database that was restored into another cluster counts transactions anew; then every event is looked at
/// once more, and those that were handed on are handed on no second time.
pub(super) async fn hand_on(
    connection: &mut PgConnection,
    endpoints: &[Endpoint],
    now: OffsetDateTime,
    limit: i64,
) -> Result<usize, DbError> {
    let cursor = sqlx::query!(
        r#"
        select case when written_by > pg_snapshot_xmax(pg_current_snapshot()) then '0' else written_by::text end as "written_by!",
               case when written_by > pg_snapshot_xmax(pg_current_snapshot()) then 0 else event_id end as "event_id!"
        from webhook_cursor for update
        "#
    )
    .fetch_one(&mut *connection)
    .await?;
    let events = sqlx::query!(
        r#"
        select id, written_by::text as "written_by!", kind, created_at from events
        where (written_by, id) > ($1::text::xid8, $2) and written_by < pg_snapshot_xmin(pg_current_snapshot())
        order by written_by, id limit $3
        "#,
        cursor.written_by,
        cursor.event_id,
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(last) = events.last() else { return Ok(0) };
    let (mut to, mut which) = (Vec::new(), Vec::new());
    for event in &events {
        for endpoint in endpoints {
            if endpoint.created_at <= event.created_at && endpoint.events.iter().any(|pattern| pattern.covers(&event.kind)) {
                to.push(endpoint.id);
                which.push(event.id);
            }
        }
    }
    if !to.is_empty() {
        // Behind an earlier one of the payment that waits for its next attempt, there is nothing to try sooner.
        sqlx::query!(
            r#"
            insert into webhook_deliveries (endpoint_id, event_id, payment_id, payment_version, next_attempt_at, created_at)
            select n.endpoint_id, n.event_id, p.id, p.state_version,
                   greatest($3, (select max(b.next_attempt_at) from webhook_deliveries b
                                 where b.endpoint_id = n.endpoint_id and b.payment_id = p.id and b.state = 'pending')),
                   $3
            from unnest($1::uuid[], $2::bigint[]) with ordinality n (endpoint_id, event_id, place)
            join events e on e.id = n.event_id
            left join payments p on p.id = e.payment_id
            order by n.place
            on conflict (endpoint_id, event_id) do nothing
            "#,
            &to,
            &which,
            now
        )
        .execute(&mut *connection)
        .await?;
    }
    let rows = sqlx::query!("update webhook_cursor set written_by = $1::text::xid8, event_id = $2", last.written_by, last.id)
        .execute(connection)
        .await?
        .rows_affected();
    expect_one(rows, "the cursor of webhooks")?;
    Ok(events.len())
}

// === deliveries ===

/// A delivery whose time has come, with all that its letter says.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub id: i64,
    pub endpoint_id: Uuid,
    pub url: String,
    pub attempts: i32,
    pub payment_id: Option<Uuid>,
    pub payment_version: Option<i64>,
    pub event_id: i64,
    pub kind: String,
    pub intent_id: Option<Uuid>,
    pub chain_id: Option<i64>,
    pub detail: serde_json::Value,
    pub happened_at: OffsetDateTime,
}

/// What is due, at most `each` for an endpoint, none of those that rest, and of a payment only the oldest.
pub(super) async fn list_due(connection: &mut PgConnection, now: OffsetDateTime, resting: &[Uuid], each: i64) -> Result<Vec<Due>, DbError> {
    let rows = sqlx::query_as!(
        Due,
        r#"
        select d.id, d.endpoint_id, e.url, d.attempts, d.payment_id, d.payment_version, d.event_id, v.kind, v.intent_id,
               v.chain_id as "chain_id: i64", v.detail, v.created_at as happened_at
        from webhook_endpoints e
        cross join lateral (
            select * from webhook_deliveries d
            where d.endpoint_id = e.id and d.state = 'pending' and d.next_attempt_at <= $1
              and not exists (
                  select from webhook_deliveries b
                  where b.endpoint_id = d.endpoint_id and b.payment_id = d.payment_id and b.event_id < d.event_id and b.state = 'pending'
              )
            order by d.next_attempt_at, d.id limit $3
        ) d
        join events v on v.id = d.event_id
        where e.disabled_at is null and e.id <> all ($2::uuid[])
        order by d.next_attempt_at, d.id
        "#,
        now,
        resting,
        each
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// One attempt, for the log.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub attempted_at: OffsetDateTime,
    pub took_ms: i32,
    pub status: Option<i16>,
    pub outcome: String,
    pub answer: String,
}

pub(super) async fn insert_attempt(connection: &mut PgConnection, delivery: i64, attempt: &Attempt) -> Result<(), DbError> {
    sqlx::query!(
        "insert into webhook_attempts (delivery_id, attempted_at, took_ms, status, outcome, answer) values ($1, $2, $3, $4, $5, $6)",
        delivery,
        attempt.attempted_at,
        attempt.took_ms,
        attempt.status,
        attempt.outcome,
        attempt.answer
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a delivery. What came after it in its payment is due now.
pub(super) async fn finish(connection: &mut PgConnection, due: &Due, state: DeliveryState, now: OffsetDateTime) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update webhook_deliveries set state = $3, attempts = attempts + 1, finished_at = $4 where id = $1 and state = 'pending' and attempts = $2",
        due.id,
        due.attempts,
        state as DeliveryState,
        now
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    expect_one(rows, "a delivery that ends")?;
    set_later_ones(connection, due, now).await
}

/// Puts a delivery off, and with it what comes after it in its payment.
pub(super) async fn put_off(connection: &mut PgConnection, due: &Due, at: OffsetDateTime) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update webhook_deliveries set attempts = attempts + 1, next_attempt_at = $3 where id = $1 and state = 'pending' and attempts = $2",
        due.id,
        due.attempts,
        at
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    expect_one(rows, "a delivery that is put off")?;
    set_later_ones(connection, due, at).await
}

async fn set_later_ones(connection: &mut PgConnection, due: &Due, at: OffsetDateTime) -> Result<(), DbError> {
    sqlx::query!(
        "update webhook_deliveries set next_attempt_at = $4
         where endpoint_id = $1 and payment_id = $2 and event_id > $3 and state = 'pending'",
        due.endpoint_id,
        due.payment_id,
        due.event_id,
        at
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Sends a delivery again, with all its attempts before it.
pub async fn redeliver(connection: &mut PgConnection, delivery: i64, now: OffsetDateTime) -> Result<(), WebhookError> {
    let rows = sqlx::query!(
        "update webhook_deliveries set state = 'pending', attempts = 0, finished_at = null, next_attempt_at = $2 where id = $1",
        delivery,
        now
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?
    .rows_affected();
    if rows == 1 { Ok(()) } else { Err(WebhookError::UnknownDelivery(delivery)) }
}

/// Sends again what an endpoint was to get of a stretch of time; all of it, or what is dead. Gives how many.
pub async fn redeliver_range(
    connection: &mut PgConnection,
    endpoint: Uuid,
    since: OffsetDateTime,
    until: OffsetDateTime,
    dead_only: bool,
    now: OffsetDateTime,
) -> Result<u64, WebhookError> {
    get_endpoint(connection, endpoint).await?;
    let rows = sqlx::query!(
        "update webhook_deliveries set state = 'pending', attempts = 0, finished_at = null, next_attempt_at = $5
         where endpoint_id = $1 and created_at >= $2 and created_at < $3 and (state = 'dead' or not $4)",
        endpoint,
        since,
        until,
        dead_only,
        now
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?
    .rows_affected();
    Ok(rows)
}

/// A delivery as people see it.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    pub id: i64,
    pub endpoint_id: Uuid,
    pub event_id: i64,
    pub kind: String,
    pub payment_id: Option<Uuid>,
    pub state: DeliveryState,
    pub attempts: i32,
    pub next_attempt_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
    /// How the last attempt ended.
    pub last_outcome: Option<String>,
}

/// Deliveries before an id, newest first; of one endpoint and in one state, if they are named.
pub async fn list_deliveries(
    connection: &mut PgConnection,
    endpoint: Option<Uuid>,
    state: Option<DeliveryState>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<DeliveryRow>, DbError> {
    let rows = sqlx::query_as!(
        DeliveryRow,
        r#"
        select d.id, d.endpoint_id, d.event_id, v.kind, d.payment_id, d.state as "state: DeliveryState", d.attempts, d.next_attempt_at,
               d.created_at, d.finished_at,
               (select a.outcome from webhook_attempts a where a.delivery_id = d.id order by a.id desc limit 1) as last_outcome
        from webhook_deliveries d join events v on v.id = d.event_id
        where ($1::uuid is null or d.endpoint_id = $1) and ($2::webhook_delivery_state is null or d.state = $2)
          and ($3::bigint is null or d.id < $3)
        order by d.id desc limit $4
        "#,
        endpoint,
        state as Option<DeliveryState>,
        before,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Every attempt of a delivery, oldest first.
pub async fn list_attempts(connection: &mut PgConnection, delivery: i64) -> Result<Vec<Attempt>, DbError> {
    let rows = sqlx::query_as!(
        Attempt,
        "select attempted_at, took_ms, status, outcome, answer from webhook_attempts where delivery_id = $1 order by id limit 1000",
        delivery
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// What waits, and what is in trouble.
pub async fn totals(connection: &mut PgConnection) -> Result<Totals, DbError> {
    let row = sqlx::query!(
        r#"
        select (select count(*) from webhook_deliveries where state = 'pending') as "pending!",
               (select min(created_at) from webhook_deliveries where state = 'pending') as oldest,
               (select count(*) from webhook_deliveries where state = 'dead') as "dead!",
               (select count(*) from webhook_endpoints where disabled_at is not null) as "disabled!"
        "#
    )
    .fetch_one(connection)
    .await?;
    Ok(Totals {
        pending: count_from_sql("count", row.pending)?,
        oldest: row.oldest,
        dead: count_from_sql("count", row.dead)?,
        disabled_endpoints: count_from_sql("count", row.disabled)?,
    })
}
