//! SQL of `config_settings` and `config_setting_history`.

use alloy::primitives::B256;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    Change, ChangeNote, Gate, History, LOWERING_DELAY, Lowering, NewChange, Outcome, SKEW_MAX, SettingsError, Threshold, ThresholdKey,
    lowering,
};
use crate::db::DbError;
use crate::event::{self, Event};
use crate::officer::Caller;
use crate::officer::proposal::{self, NewProposal, Subject};
use crate::units::{ChainId, Confirmations, ProposalId};

/// How many rows of a gate are read, newest first: people write them, a few a year.
const ROWS_MAX: i64 = 10_000;

/// The base of a chain's credit gate in force by the database's clock. `None` before the first row.
pub async fn find_threshold(connection: &mut PgConnection, chain: ChainId) -> Result<Option<Threshold>, DbError> {
    let row = sqlx::query!(
        r#"
        select id, new_value::bigint as "value!" from config_setting_history
        where key = $1
          and effective_at <= greatest(now(), (select max(h.created_at) from config_setting_history h where h.key = $1))
        order by id desc limit 1
        "#,
        ThresholdKey::base(Gate::Credit, chain).to_string()
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(Threshold { history_id: row.id, value: blocks_from_sql(row.value)? })).transpose()
}

/// As [`find_threshold`]; the daemon has written a first row for every chain it watches.
pub async fn get_threshold(connection: &mut PgConnection, chain: ChainId) -> Result<Threshold, DbError> {
    find_threshold(connection, chain).await?.ok_or_else(|| unset(Gate::Credit, chain))
}

/// A gate without a row, which the daemon never leaves.
pub fn unset(gate: Gate, chain: ChainId) -> DbError {
    DbError::Corrupt {
        column: "config_setting_history.key",
        found: format!("no row {}", ThresholdKey::base(gate, chain)),
        wanted: "a threshold for every watched chain",
    }
}

/// All changes of a gate, with the database's clock. Empty before the first.
pub async fn get_history(connection: &mut PgConnection, gate: Gate, chain: ChainId) -> Result<History, DbError> {
    let rows = sqlx::query!(
        r#"
        select id, key, old_value::bigint as old_value, new_value::bigint as "new_value!", changed_by, reason, effective_at, created_at
        from config_setting_history
        where split_part(key, ':', 1) || ':' || split_part(key, ':', 2) = $1
        order by id desc limit $2
        "#,
        ThresholdKey::base(gate, chain).to_string(),
        ROWS_MAX
    )
    .fetch_all(&mut *connection)
    .await?;
    let read_at = sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(connection).await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in rows {
        let key: ThresholdKey = row.key.parse().map_err(|_| DbError::Corrupt {
            column: "config_setting_history.key",
            found: row.key.clone(),
            wanted: "the key of a threshold",
        })?;
        let off = key.tier.is_some();
        changes.push(Change {
            id: row.id,
            key,
            old_blocks: row.old_value.filter(|old| *old != 0).map(blocks_from_sql).transpose()?,
            blocks: if off && row.new_value == 0 { None } else { Some(blocks_from_sql(row.new_value)?) },
            effective_at: row.effective_at,
            created_at: row.created_at,
            changed_by: row.changed_by,
            reason: row.reason,
        });
    }
    Ok(History::new(gate, chain, changes, read_at))
}

/// As [`get_history`], and no row of the gate is added before the caller's transaction ends.
pub async fn lock_history(connection: &mut PgConnection, gate: Gate, chain: ChainId) -> Result<History, DbError> {
    sqlx::query_scalar!("select key from config_settings where key = $1 for share", ThresholdKey::base(gate, chain).to_string())
        .fetch_optional(&mut *connection)
        .await?;
    get_history(connection, gate, chain).await
}

/// Writes one change: a history row, and for one that counts at once the value beside it.
pub async fn set(connection: &mut PgConnection, change: &NewChange) -> Result<Change, SettingsError> {
    change.note.check()?;
    let NewChange { key, blocks, effective_at, note } = change;
    // A gate's base is locked first, so that its changes, and verdicts under them, follow each other.
    lock_base(connection, *key, *blocks).await?;
    let history = get_history(connection, key.gate, key.chain).await?;
    let now = history.present(OffsetDateTime::UNIX_EPOCH);
    let effective_at = match effective_at {
        Some(asked) if now - *asked > SKEW_MAX => return Err(SettingsError::Past { asked: *asked, now }),
        Some(asked) if *asked > now => Some(*asked),
        Some(_) | None => None,
    };
    let old = history.in_force(key, effective_at.unwrap_or(now)).cloned();
    if blocks.is_none() {
        if key.tier.is_none() {
            return Err(SettingsError::BaseOff(*key));
        }
        if old.as_ref().is_none_or(|old| old.blocks.is_none()) {
            return Err(SettingsError::NoTier(*key));
        }
    }
    let value = blocks.map_or(0, |blocks| i64::from(blocks.get()));
    let copy = if effective_at.is_none() { value } else { old.as_ref().and_then(|old| old.blocks).map_or(0, |old| i64::from(old.get())) };
    sqlx::query!(
        "insert into config_settings (key, value, description) values ($1, $2::bigint::numeric, $3)
         on conflict (key) do update set value = excluded.value, updated_at = now()",
        key.to_string(),
        copy,
        describe(key)
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let old_blocks = old.and_then(|old| old.blocks);
    insert(connection, *key, old_blocks, *blocks, effective_at, note).await
}

/// Writes a change that lowers nothing; one that does is refused as [`SettingsError::Lowers`] and leaves nothing.
pub async fn raise(connection: &mut PgConnection, change: &NewChange) -> Result<Change, SettingsError> {
    change.note.check()?;
    lock_base(connection, change.key, change.blocks).await?;
    let history = get_history(connection, change.key.gate, change.key.chain).await?;
    // What cannot be changed at all is said first.
    let lowered = lowering::lowers(&history, change, history.present(OffsetDateTime::UNIX_EPOCH));
    let set = set(connection, change).await?;
    match lowered {
        Some(from) => Err(SettingsError::Lowers { key: change.key, from, to: change.blocks }),
        None => Ok(set),
    }
}

/// What an officer asks for: done at once if it lowers nothing, else proposed to another officer.
pub async fn change(connection: &mut PgConnection, change: &NewChange, caller: &Caller) -> Result<Outcome, SettingsError> {
    change.note.check()?;
    let history = get_history(connection, change.key.gate, change.key.chain).await?;
    let now = history.present(OffsetDateTime::UNIX_EPOCH);
    if lowering::lowers(&history, change, now).is_none() {
        return Ok(Outcome::Set(set(connection, change).await?));
    }
    if change.blocks.is_none() && change.key.tier.is_none() {
        return Err(SettingsError::BaseOff(change.key));
    }
    if let Some(asked) = change.effective_at.filter(|asked| now - *asked > SKEW_MAX) {
        return Err(SettingsError::Past { asked, now });
    }
    let body = Lowering { key: change.key, blocks: change.blocks }.canonical();
    let reason = change.note.reason.clone();
    let new = NewProposal { subject: Subject::Threshold, body, effective_at: change.effective_at, reason };
    Ok(Outcome::Proposed(Box::new(proposal::store::propose(connection, &new, caller).await?)))
}

/// Another officer confirms a lowering; it takes effect [`LOWERING_DELAY`] from now, or later if it was dated so.
pub async fn confirm(connection: &mut PgConnection, id: ProposalId, digest: B256, caller: &Caller) -> Result<Change, SettingsError> {
    let proposal = proposal::store::confirm(connection, id, Subject::Threshold, digest, caller).await?;
    let lowering = Lowering::from_canonical(&proposal.body).ok_or(SettingsError::Proposal(id))?;
    let earliest = proposal::store::clock(connection).await.map_err(SettingsError::Db)? + LOWERING_DELAY;
    let note = ChangeNote {
        changed_by: format!("user:{}, confirmed by {}", proposal.proposed_by, caller.name()),
        user: Some(proposal.proposed_by),
        reason: proposal.reason.clone(),
    };
    let effective_at = Some(proposal.effective_at.map_or(earliest, |asked| asked.max(earliest)));
    let change = set(connection, &NewChange { key: lowering.key, blocks: lowering.blocks, effective_at, note }).await?;
    let detail = serde_json::json!({
        "key": change.key.to_string(), "proposal": id, "history": change.id, "old": change.old_blocks.map(Confirmations::get),
        "new": change.blocks.map(Confirmations::get), "effective_at": change.effective_at.unix_timestamp(),
    });
    tracing::warn!(key = %change.key, proposal = %id, by = %caller.name(), row = change.id, "a lower threshold was confirmed");
    let event = Event { kind: "settings.threshold_lowered", payment: None, intent: None, chain: Some(change.key.chain), detail };
    event::store::append(connection, &event).await?;
    Ok(change)
}

async fn lock_base(connection: &mut PgConnection, key: ThresholdKey, blocks: Option<Confirmations>) -> Result<(), SettingsError> {
    let base = ThresholdKey::base(key.gate, key.chain);
    if let (None, Some(blocks)) = (key.tier, blocks) {
        // Nobody else's first row of this base can come between.
        sqlx::query!(
            "insert into config_settings (key, value, description) values ($1, $2::bigint::numeric, $3) on conflict (key) do nothing",
            base.to_string(),
            i64::from(blocks.get()),
            describe(&base)
        )
        .execute(&mut *connection)
        .await
        .map_err(DbError::from)?;
    }
    let found = sqlx::query_scalar!("select key from config_settings where key = $1 for update", base.to_string())
        .fetch_optional(connection)
        .await
        .map_err(DbError::from)?;
    if found.is_some() { Ok(()) } else { Err(SettingsError::NoBase(base)) }
}

async fn insert(
    connection: &mut PgConnection,
    key: ThresholdKey,
    old_blocks: Option<Confirmations>,
    blocks: Option<Confirmations>,
    effective_at: Option<OffsetDateTime>,
    note: &ChangeNote,
) -> Result<Change, SettingsError> {
    let row = sqlx::query!(
        r#"
        insert into config_setting_history (key, old_value, new_value, changed_by, changed_by_user_id, reason, effective_at)
        values ($1, $2::bigint::numeric, $3::bigint::numeric, $4, $5, $6, coalesce($7, now()))
        returning id, effective_at, created_at
        "#,
        key.to_string(),
        old_blocks.map(|old| i64::from(old.get())),
        blocks.map_or(0, |blocks| i64::from(blocks.get())),
        note.changed_by,
        note.user.map(|user| user.0),
        note.reason,
        effective_at
    )
    .fetch_one(connection)
    .await
    .map_err(DbError::from)?;
    Ok(Change {
        id: row.id,
        key,
        old_blocks,
        blocks,
        effective_at: row.effective_at,
        created_at: row.created_at,
        changed_by: note.changed_by.clone(),
        reason: note.reason.clone(),
    })
}

fn describe(key: &ThresholdKey) -> &'static str {
    match (key.gate, key.tier) {
        (Gate::Credit, None) => "blocks until a transfer is credited",
        (Gate::Release, None) => "blocks until credited money may leave",
        (Gate::Credit, Some(_)) => "blocks until a transfer of at least so many units is credited; 0: off",
        (Gate::Release, Some(_)) => "blocks until credited money of at least so many units may leave; 0: off",
    }
}

fn blocks_from_sql(value: i64) -> Result<Confirmations, DbError> {
    Confirmations::new(value).map_err(|_| DbError::Corrupt {
        column: "config_setting_history.new_value",
        found: value.to_string(),
        wanted: "a threshold from 1 to 10000",
    })
}
