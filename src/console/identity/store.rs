//! SQL of `user_passkeys`, `user_invitations`, `user_sessions` and `user_refresh_tokens`.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;
use webauthn_rs::prelude::Passkey;

use super::Person;
use super::passkey::{counter_of, key_id, public_point};
use crate::db::{DbError, expect_one};
use crate::officer::UserRole;
use crate::units::UserId;

// === people and invitations ===

/// Somebody who is active.
pub async fn find_person(connection: &mut PgConnection, user: UserId) -> Result<Option<Person>, DbError> {
    let row =
        sqlx::query!(r#"select role as "role: UserRole", display_name, email from users where id = $1 and status = 'active'"#, user.0)
            .fetch_optional(connection)
            .await?;
    Ok(row.map(|row| Person { id: user, role: row.role, name: row.display_name.unwrap_or_else(|| "officer".to_owned()), email: row.email }))
}

pub(super) async fn insert_invitation(
    connection: &mut PgConnection,
    hash: [u8; 32],
    user: UserId,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "insert into user_invitations (token_sha256, user_id, created_at, expires_at) values ($1::bytea, $2, $3, $4)",
        hash.as_slice(),
        user.0,
        now,
        expires_at
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whose link it is, while it can be used.
pub(in crate::console) async fn find_invitation(
    connection: &mut PgConnection,
    hash: [u8; 32],
    now: OffsetDateTime,
) -> Result<Option<UserId>, DbError> {
    let user = sqlx::query_scalar!(
        "select user_id from user_invitations where token_sha256 = $1::bytea and used_at is null and expires_at > $2",
        hash.as_slice(),
        now
    )
    .fetch_optional(connection)
    .await?;
    Ok(user.map(UserId))
}

/// Uses a link; `false` if it was used, ended or too old. Of two at the same instant one waits here and gets `false`.
pub(in crate::console) async fn use_invitation(
    connection: &mut PgConnection,
    hash: [u8; 32],
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let rows = sqlx::query!(
        "update user_invitations set used_at = $2::timestamptz
         where token_sha256 = $1::bytea and used_at is null and expires_at > $2::timestamptz",
        hash.as_slice(),
        now
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

pub(super) async fn end_invitations(connection: &mut PgConnection, user: UserId, now: OffsetDateTime) -> Result<(), DbError> {
    sqlx::query!("update user_invitations set used_at = $2 where user_id = $1 and used_at is null", user.0, now)
        .execute(connection)
        .await?;
    Ok(())
}

// === passkeys ===

fn passkey_from_sql(credential: serde_json::Value) -> Result<Passkey, DbError> {
    serde_json::from_value(credential).map_err(|error| DbError::Corrupt {
        column: "user_passkeys.credential",
        found: error.to_string(),
        wanted: "a passkey as it was stored",
    })
}

fn passkey_to_sql(passkey: &Passkey) -> Result<serde_json::Value, DbError> {
    serde_json::to_value(passkey).map_err(|error| DbError::Corrupt {
        column: "user_passkeys.credential",
        found: error.to_string(),
        wanted: "a passkey that can be written",
    })
}

pub(in crate::console) async fn insert_passkey(
    connection: &mut PgConnection,
    user: UserId,
    passkey: &Passkey,
    name: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "insert into user_passkeys (credential_id, user_id, public_key, counter, device_name, credential) values ($1, $2, $3, $4, $5, $6)",
        key_id(passkey.cred_id()),
        user.0,
        public_point(passkey),
        i64::from(counter_of(passkey)),
        name,
        passkey_to_sql(passkey)?
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A person's passkeys that were enrolled here and not revoked.
pub(in crate::console) async fn list_passkeys(connection: &mut PgConnection, user: UserId) -> Result<Vec<Passkey>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select credential as "credential!" from user_passkeys
        where user_id = $1 and revoked_at is null and credential is not null order by created_at, credential_id limit 50
        "#,
        user.0
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(passkey_from_sql).collect()
}

/// One passkey of a person, its row locked: two answers of one key are judged one after the other.
pub(in crate::console) async fn lock_passkey(
    connection: &mut PgConnection,
    user: UserId,
    credential: &str,
) -> Result<Option<Passkey>, DbError> {
    let row = sqlx::query_scalar!(
        r#"
        select credential as "credential!" from user_passkeys
        where credential_id = $2 and user_id = $1 and revoked_at is null and credential is not null for update
        "#,
        user.0,
        credential
    )
    .fetch_optional(connection)
    .await?;
    row.map(passkey_from_sql).transpose()
}

/// What a passkey became by being used.
pub(in crate::console) async fn set_used(connection: &mut PgConnection, passkey: &Passkey, now: OffsetDateTime) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update user_passkeys set credential = $2, counter = $3, last_used_at = $4 where credential_id = $1 and revoked_at is null",
        key_id(passkey.cred_id()),
        passkey_to_sql(passkey)?,
        i64::from(counter_of(passkey)),
        now
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a passkey that was used")
}

pub(super) async fn revoke_passkeys(connection: &mut PgConnection, user: UserId, now: OffsetDateTime) -> Result<u64, DbError> {
    let rows = sqlx::query!("update user_passkeys set revoked_at = $2 where user_id = $1 and revoked_at is null", user.0, now)
        .execute(connection)
        .await?
        .rows_affected();
    Ok(rows)
}

// === sessions ===

/// A session as it begins.
#[derive(Debug)]
pub(in crate::console) struct NewSession {
    pub id: Uuid,
    pub user: UserId,
    pub access_sha256: [u8; 32],
    pub access_expires_at: OffsetDateTime,
    pub csrf_token: String,
    pub created_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    pub begun_from: String,
    pub begun_with: String,
}

pub(in crate::console) async fn insert_session(connection: &mut PgConnection, session: &NewSession) -> Result<(), DbError> {
    sqlx::query!(
        "insert into user_sessions (id, user_id, access_sha256, access_expires_at, csrf_token, created_at, expires_at, begun_from, begun_with)
         values ($1, $2, $3::bytea, $4, $5, $6, $7, $8, $9)",
        session.id,
        session.user.0,
        session.access_sha256.as_slice(),
        session.access_expires_at,
        session.csrf_token,
        session.created_at,
        session.expires_at,
        session.begun_from,
        session.begun_with
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Who has a session.
#[derive(Clone, Debug)]
pub(in crate::console) struct Holder {
    pub session: Uuid,
    pub user: UserId,
    pub role: UserRole,
    pub name: String,
    pub csrf_token: String,
}

/// Who presents this access cookie: somebody active, in a session that goes on.
pub(in crate::console) async fn find_holder(
    connection: &mut PgConnection,
    access_sha256: [u8; 32],
    now: OffsetDateTime,
) -> Result<Option<Holder>, DbError> {
    let row = sqlx::query!(
        r#"
        select s.id, s.user_id, s.csrf_token, u.role as "role: UserRole", u.display_name
        from user_sessions s join users u on u.id = s.user_id
        where s.access_sha256 = $1::bytea and s.ended_at is null and s.access_expires_at > $2 and s.expires_at > $2 and u.status = 'active'
        "#,
        access_sha256.as_slice(),
        now
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Holder {
        session: row.id,
        user: UserId(row.user_id),
        role: row.role,
        name: row.display_name.unwrap_or_else(|| "officer".to_owned()),
        csrf_token: row.csrf_token,
    }))
}

pub(in crate::console) async fn insert_refresh(
    connection: &mut PgConnection,
    hash: [u8; 32],
    user: UserId,
    session: Uuid,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "insert into user_refresh_tokens (token, user_id, session_id, expires_at) values ($1, $2, $3, $4)",
        alloy::hex::encode(hash),
        user.0,
        session,
        expires_at
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A refresh token and the session it belongs to.
#[derive(Debug)]
pub(in crate::console) struct Refresh {
    pub user: UserId,
    pub session: Uuid,
    pub role: UserRole,
    pub used_at: Option<OffsetDateTime>,
    pub expires_at: OffsetDateTime,
    pub session_expires_at: OffsetDateTime,
}

/// A refresh token of a session that has not ended, of somebody active; its row locked.
pub(in crate::console) async fn lock_refresh(connection: &mut PgConnection, hash: [u8; 32]) -> Result<Option<Refresh>, DbError> {
    let row = sqlx::query!(
        r#"
        select r.user_id, r.used_at, r.expires_at as "expires_at!", s.id, s.expires_at as session_expires_at, u.role as "role: UserRole"
        from user_refresh_tokens r join user_sessions s on s.id = r.session_id join users u on u.id = r.user_id
        where r.token = $1 and r.expires_at is not null and s.ended_at is null and u.status = 'active'
        for update of r
        "#,
        alloy::hex::encode(hash)
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Refresh {
        user: UserId(row.user_id),
        session: row.id,
        role: row.role,
        used_at: row.used_at,
        expires_at: row.expires_at,
        session_expires_at: row.session_expires_at,
    }))
}

pub(in crate::console) async fn use_refresh(connection: &mut PgConnection, hash: [u8; 32], now: OffsetDateTime) -> Result<(), DbError> {
    let rows =
        sqlx::query!("update user_refresh_tokens set used_at = $2 where token = $1 and used_at is null", alloy::hex::encode(hash), now)
            .execute(connection)
            .await?
            .rows_affected();
    expect_one(rows, "a refresh token")
}

/// Gives a session another access cookie.
pub(in crate::console) async fn set_access(
    connection: &mut PgConnection,
    session: Uuid,
    access_sha256: [u8; 32],
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update user_sessions set access_sha256 = $2::bytea, access_expires_at = $3 where id = $1 and ended_at is null",
        session,
        access_sha256.as_slice(),
        expires_at
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a session that goes on")
}

pub(in crate::console) async fn end_session(
    connection: &mut PgConnection,
    session: Uuid,
    now: OffsetDateTime,
    reason: &str,
) -> Result<(), DbError> {
    sqlx::query!("update user_sessions set ended_at = $2, ended_reason = $3 where id = $1 and ended_at is null", session, now, reason)
        .execute(connection)
        .await?;
    Ok(())
}

/// A session that goes on, as its officer sees it.
#[derive(Debug)]
pub(in crate::console) struct SessionRow {
    pub id: Uuid,
    pub created_at: OffsetDateTime,
    pub access_expires_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    pub begun_from: Option<String>,
    pub begun_with: Option<String>,
}

/// Sessions of a person that can still be gone on with, newest first.
pub(in crate::console) async fn list_sessions(
    connection: &mut PgConnection,
    user: UserId,
    now: OffsetDateTime,
) -> Result<Vec<SessionRow>, DbError> {
    let rows = sqlx::query_as!(
        SessionRow,
        "select id, created_at, access_expires_at, expires_at, begun_from, begun_with from user_sessions s
         where user_id = $1 and ended_at is null and expires_at > $2
           and exists (select from user_refresh_tokens r where r.session_id = s.id and r.used_at is null and r.expires_at > $2)
         order by created_at desc, id limit 100",
        user.0,
        now
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Ends one session of a person; `false` if it is not theirs, or over.
pub(in crate::console) async fn end_session_of(
    connection: &mut PgConnection,
    (user, session): (UserId, Uuid),
    now: OffsetDateTime,
    reason: &str,
) -> Result<bool, DbError> {
    let rows = sqlx::query!(
        "update user_sessions set ended_at = $3, ended_reason = $4 where id = $2 and user_id = $1 and ended_at is null",
        user.0,
        session,
        now,
        reason
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// A passkey as its officer sees it.
#[derive(Debug)]
pub(in crate::console) struct PasskeyRow {
    pub name: Option<String>,
    pub created_at: OffsetDateTime,
    pub last_used_at: Option<OffsetDateTime>,
}

pub(in crate::console) async fn list_passkey_rows(connection: &mut PgConnection, user: UserId) -> Result<Vec<PasskeyRow>, DbError> {
    let rows = sqlx::query_as!(
        PasskeyRow,
        r#"
        select device_name as name, created_at, last_used_at from user_passkeys
        where user_id = $1 and revoked_at is null and credential is not null order by created_at, credential_id limit 50
        "#,
        user.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Ends every session of a person.
pub(in crate::console) async fn end_sessions(
    connection: &mut PgConnection,
    user: UserId,
    now: OffsetDateTime,
    reason: &str,
) -> Result<(), DbError> {
    sqlx::query!("update user_sessions set ended_at = $2, ended_reason = $3 where user_id = $1 and ended_at is null", user.0, now, reason)
        .execute(connection)
        .await?;
    Ok(())
}
