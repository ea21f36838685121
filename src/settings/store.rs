//! SQL of `config_settings` and `config_setting_history`.

use alloy::primitives::B256;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    Change, ChangeNote, Gate, History, LOWERING_DELAY, Lowering, NewChange, NewNumber, NumberChange, Outcome, PaymentDefault,
    PaymentDefaults, SKEW_MAX, SettingsError, Threshold, ThresholdKey, lowering,
};
use crate::db::DbError;
use crate::db::codec::{chain_from_sql, count_from_sql};
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

/// How many changes ever lowered a threshold of a chain, or switched a tier off.
pub async fn count_lowerings(connection: &mut PgConnection) -> Result<Vec<(ChainId, u64)>, DbError> {
    let rows = sqlx::query!(
        r#"
        select split_part(key, ':', 2)::bigint as "chain_id!", count(*) filter (where new_value < old_value) as "count!"
        from config_setting_history
        where split_part(key, ':', 1) in ('confirmation_threshold', 'release_threshold')
        group by 1
        "#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((chain_from_sql(row.chain_id)?, count_from_sql("count", row.count)?))).collect()
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

/// The history of numbers whose keys begin with one of these words, oldest first.
pub async fn list_numbers(connection: &mut PgConnection, words: &[String]) -> Result<Vec<NumberChange>, DbError> {
    let rows = sqlx::query_as!(
        NumberChange,
        r#"
        select id as "id!", key as "key!", value as "value!", effective_at as "effective_at!", created_at as "created_at!",
               changed_by as "changed_by!", reason as "reason!"
        from (
            select id, key, new_value::bigint as value, effective_at, created_at, changed_by, reason from config_setting_history
            where split_part(key, ':', 1) = any ($1) order by id desc limit $2
        ) newest order by id
        "#,
        words,
        ROWS_MAX
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Writes one change of a number: a history row, and for one that counts at once the value beside it.
pub async fn set_number(connection: &mut PgConnection, change: &NewNumber) -> Result<NumberChange, SettingsError> {
    change.note.check()?;
    let NewNumber { key, value, effective_at, description, note } = change;
    let now = sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&mut *connection).await.map_err(DbError::from)?;
    let effective_at = match effective_at {
        Some(asked) if now - *asked > SKEW_MAX => return Err(SettingsError::Past { asked: *asked, now }),
        Some(asked) if *asked > now => Some(*asked),
        Some(_) | None => None,
    };
    // The row is locked by this, so that changes of one key follow each other.
    let old = sqlx::query_scalar!(
        r#"
        insert into config_settings as s (key, value, description) values ($1, $2::bigint::numeric, $3)
        on conflict (key) do update set value = case when $4 then excluded.value else s.value end, updated_at = now()
        returning (
            select h.new_value::bigint from config_setting_history h
            where h.key = $1 and h.effective_at <= now() order by h.id desc limit 1
        )
        "#,
        key,
        value,
        description,
        effective_at.is_none()
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let row = sqlx::query!(
        r#"
        insert into config_setting_history (key, old_value, new_value, changed_by, changed_by_user_id, reason, effective_at)
        values ($1, $2::bigint::numeric, $3::bigint::numeric, $4, $5, $6, coalesce($7, now()))
        returning id, effective_at, created_at
        "#,
        key,
        old,
        value,
        note.changed_by,
        note.user.map(|user| user.0),
        note.reason,
        effective_at
    )
    .fetch_one(connection)
    .await
    .map_err(DbError::from)?;
    Ok(NumberChange {
        id: row.id,
        key: key.clone(),
        value: *value,
        effective_at: row.effective_at,
        created_at: row.created_at,
        changed_by: note.changed_by.clone(),
        reason: note.reason.clone(),
    })
}

fn blocks_from_sql(value: i64) -> Result<Confirmations, DbError> {
    Confirmations::new(value).map_err(|_| DbError::Corrupt {
        column: "config_setting_history.new_value",
        found: value.to_string(),
        wanted: "a threshold from 1 to 10000",
    })
}

// === defaults of payments ===

/// The defaults in force by the database's clock.
pub async fn get_payment_defaults(connection: &mut PgConnection) -> Result<PaymentDefaults, DbError> {
    let rows = sqlx::query!(
        r#"
        select distinct on (key) key, new_value::bigint as "value!" from config_setting_history
        where key = any ($1::text[]) and effective_at <= now()
        order by key, id desc
        "#,
        &PaymentDefault::ALL.map(|which| which.to_string())
    )
    .fetch_all(connection)
    .await?;
    let mut defaults = PaymentDefaults::default();
    for row in rows {
        if let Some(which) = PaymentDefault::ALL.into_iter().find(|which| which.to_string() == row.key) {
            defaults = defaults.with(which, row.value);
        }
    }
    Ok(defaults)
}

/// Changes a default at once, for payments that are created from now on.
pub async fn set_payment_default(
    connection: &mut PgConnection,
    which: PaymentDefault,
    value: i64,
    note: &ChangeNote,
) -> Result<(), SettingsError> {
    note.check()?;
    if !(0..=which.largest()).contains(&value) {
        return Err(SettingsError::Bounds { which, value });
    }
    let old = get_payment_defaults(connection).await?.get(which);
    sqlx::query!(
        "insert into config_settings (key, value, description) values ($1, $2::bigint::numeric, 'default of a payment''s terms')
         on conflict (key) do update set value = excluded.value, updated_at = now()",
        which.to_string(),
        value
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from)?;
    sqlx::query!(
        "insert into config_setting_history (key, old_value, new_value, changed_by, changed_by_user_id, reason)
         values ($1, $2::bigint::numeric, $3::bigint::numeric, $4, $5, $6)",
        which.to_string(),
        old,
        value,
        note.changed_by,
        note.user.map(|user| user.0),
        note.reason
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?;
    Ok(())
}
