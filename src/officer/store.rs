//! SQL of `users` and `api_tokens`.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Caller, OfficerError, Scope, TokenSecret, UserRole};
use crate::db::DbError;
use crate::event::{self, Event};
use crate::units::{ApiTokenId, UserId};

pub async fn insert_user(
    connection: &mut PgConnection,
    id: UserId,
    email: Option<&str>,
    display_name: &str,
    role: UserRole,
) -> Result<(), OfficerError> {
    let outcome = sqlx::query!(
        "insert into users (id, email, display_name, role) values ($1, $2, $3, $4)",
        id.0,
        email,
        display_name,
        role as UserRole
    )
    .execute(connection)
    .await
    .map_err(DbError::from);
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.constraint() == Some("users_email_key") => Err(OfficerError::EmailTaken(email.unwrap_or_default().to_owned())),
        Err(error) => Err(error.into()),
    }
}

pub async fn find_role(connection: &mut PgConnection, user: UserId) -> Result<Option<UserRole>, DbError> {
    let role = sqlx::query_scalar!(r#"select role as "role: UserRole" from users where id = $1 and status = 'active'"#, user.0)
        .fetch_optional(connection)
        .await?;
    Ok(role)
}

/// What a new token is: its name, what it may do, whose it is, until when.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub id: ApiTokenId,
    pub name: String,
    pub scopes: Vec<Scope>,
    pub user: Option<UserId>,
    pub expires_at: Option<OffsetDateTime>,
}

pub async fn insert_token(connection: &mut PgConnection, token: &NewToken, secret: &TokenSecret) -> Result<(), OfficerError> {
    if let Some(user) = token.user {
        let role = find_role(connection, user).await?.ok_or(OfficerError::UnknownUser(user))?;
        if token.scopes.contains(&Scope::IntentsApprove) && !role.is_officer() {
            return Err(OfficerError::NotAnOfficer { user, role });
        }
        if token.scopes.contains(&Scope::DisputesResolve) && !role.is_resolver() {
            return Err(OfficerError::NotAResolver { user, role });
        }
    } else if token.scopes.contains(&Scope::DisputesResolve) {
        return Err(OfficerError::ResolverWithoutUser);
    } else if token.scopes.contains(&Scope::IntentsApprove) {
        return Err(OfficerError::ApproverWithoutUser);
    }
    let scopes: Vec<String> = token.scopes.iter().map(Scope::to_string).collect();
    let hash = secret.sha256();
    let outcome = sqlx::query!(
        "insert into api_tokens (id, name, secret_sha256, scopes, user_id, expires_at) values ($1, $2, $3::bytea, $4, $5, $6)",
        token.id.0,
        token.name,
        hash.as_slice(),
        &scopes,
        token.user.map(|user| user.0),
        token.expires_at
    )
    .execute(connection)
    .await
    .map_err(DbError::from);
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.constraint() == Some("api_tokens_name_key") => Err(OfficerError::TokenNameTaken(token.name.clone())),
        Err(error) => Err(error.into()),
    }
}

/// The bearer of a token, if the token is live at `now`.
pub async fn find_caller(connection: &mut PgConnection, hash: [u8; 32], now: OffsetDateTime) -> Result<Option<Caller>, DbError> {
    let row = sqlx::query!(
        r#"
        select t.id, t.name, t.scopes, u.id as "user_id?", u.role as "role?: UserRole"
        from api_tokens t
        left join users u on u.id = t.user_id
        where (t.secret_sha256 = $1::bytea or (t.old_secret_sha256 = $1::bytea and t.old_secret_until > $2))
          and t.revoked_at is null
          and (t.expires_at is null or t.expires_at > $2)
          and (u.id is null or u.status = 'active')
        "#,
        hash.as_slice(),
        now
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let scopes = row.scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, _>>().map_err(|_| DbError::Corrupt {
        column: "api_tokens.scopes",
        found: row.scopes.join(" "),
        wanted: "known scopes",
    })?;
    let user = row.user_id.zip(row.role).map(|(id, role)| (UserId(id), role));
    Ok(Some(Caller { token_id: ApiTokenId(row.id), token_name: row.name, scopes, user }))
}

/// Notes that a token was used, at most once a minute per token.
pub async fn touch_token(connection: &mut PgConnection, token: ApiTokenId, now: OffsetDateTime) -> Result<(), DbError> {
    sqlx::query!(
        "update api_tokens set last_used_at = $2::timestamptz where id = $1 and (last_used_at is null or last_used_at < $2::timestamptz - interval '1 minute')",
        token.0,
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How a live token's secret is replaced.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Until then the secret before serves too; at or before now, it ends at once.
    pub old_until: OffsetDateTime,
    /// When the token expires from now on; as before without it.
    pub expires_at: Option<OffsetDateTime>,
}

/// Gives a live token another secret. It stays the same token: what was done under its idempotency keys is not done again
/// with the new secret.
pub async fn rotate_token(connection: &mut PgConnection, name: &str, secret: &TokenSecret, rotation: Rotation) -> Result<(), OfficerError> {
    let hash = secret.sha256();
    let id = sqlx::query_scalar!(
        "update api_tokens
         set old_secret_sha256 = secret_sha256, old_secret_until = $3, secret_sha256 = $2::bytea, expires_at = coalesce($4, expires_at)
         where name = $1 and revoked_at is null and (expires_at is null or expires_at > now()) returning id",
        name,
        hash.as_slice(),
        rotation.old_until,
        rotation.expires_at
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let id = id.ok_or_else(|| OfficerError::UnknownToken(name.to_owned()))?;
    let detail = serde_json::json!({ "token": id, "name": name, "old_secret_until": rotation.old_until.to_string() });
    event::store::append(connection, &Event { kind: "token.rotated", payment: None, intent: None, chain: None, detail }).await?;
    Ok(())
}

pub async fn revoke_token(connection: &mut PgConnection, name: &str) -> Result<(), OfficerError> {
    let rows = sqlx::query!("update api_tokens set revoked_at = now() where name = $1 and revoked_at is null", name)
        .execute(connection)
        .await
        .map_err(DbError::from)?
        .rows_affected();
    if rows == 1 { Ok(()) } else { Err(OfficerError::UnknownToken(name.to_owned())) }
}

/// One token as an administrator lists it; the secret is not among it.
#[derive(Debug)]
pub struct TokenRow {
    pub name: String,
    pub scopes: Vec<String>,
    pub user_id: Option<uuid::Uuid>,
    pub expires_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
    pub last_used_at: Option<OffsetDateTime>,
}

pub async fn list_tokens(connection: &mut PgConnection) -> Result<Vec<TokenRow>, DbError> {
    let rows = sqlx::query_as!(
        TokenRow,
        "select name, scopes, user_id, expires_at, revoked_at, last_used_at from api_tokens order by created_at limit 1000"
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
