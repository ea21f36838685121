//! SQL of `config_settings` and `config_setting_history`.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{ChangeNote, Threshold, threshold_key};
use crate::db::DbError;
use crate::units::{ChainId, Confirmations};

/// The threshold in force: the newest history row. `None` before the first one.
pub async fn find_threshold(connection: &mut PgConnection, chain: ChainId) -> Result<Option<Threshold>, DbError> {
    let row = sqlx::query!(
        r#"select id, new_value::bigint as "value!" from config_setting_history where key = $1 order by id desc limit 1"#,
        threshold_key(chain)
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| threshold(row.id, row.value)).transpose()
}

/// As [`find_threshold`]; the daemon has written a first row for every chain it watches.
pub async fn get_threshold(connection: &mut PgConnection, chain: ChainId) -> Result<Threshold, DbError> {
    find_threshold(connection, chain).await?.ok_or_else(|| DbError::Corrupt {
        column: "config_setting_history.key",
        found: format!("no row {}", threshold_key(chain)),
        wanted: "a threshold for every watched chain",
    })
}

/// The threshold a given history row set.
pub async fn get_threshold_row(connection: &mut PgConnection, history_id: i64) -> Result<Threshold, DbError> {
    let value = sqlx::query_scalar!(r#"select new_value::bigint as "value!" from config_setting_history where id = $1"#, history_id)
        .fetch_one(connection)
        .await?;
    threshold(history_id, value)
}

/// Sets a chain's threshold: one history row, and the current value beside it.
pub async fn set_threshold(
    connection: &mut PgConnection,
    chain: ChainId,
    value: Confirmations,
    note: &ChangeNote,
) -> Result<Threshold, DbError> {
    let key = threshold_key(chain);
    // The settings row is locked first, so two changes of one key follow each other.
    sqlx::query!(
        "insert into config_settings (key, value, description) values ($1, $2::bigint::numeric, 'blocks until a transfer is credited')
         on conflict (key) do update set updated_at = now()",
        key,
        i64::from(value.get())
    )
    .execute(&mut *connection)
    .await?;
    let old = find_threshold(connection, chain).await?;
    sqlx::query!("update config_settings set value = $2::bigint::numeric, updated_at = now() where key = $1", key, i64::from(value.get()))
        .execute(&mut *connection)
        .await?;
    let history_id = sqlx::query_scalar!(
        r#"
        insert into config_setting_history (key, old_value, new_value, changed_by, reason)
        values ($1, $2::bigint::numeric, $3::bigint::numeric, $4, $5)
        returning id
        "#,
        key,
        old.map(|threshold| i64::from(threshold.value.get())),
        i64::from(value.get()),
        note.changed_by,
        note.reason
    )
    .fetch_one(connection)
    .await?;
    Ok(Threshold { history_id, value })
}

/// One change, as auditors read it.
#[derive(Debug)]
pub struct ThresholdChange {
    pub id: i64,
    pub old_value: Option<i64>,
    pub new_value: i64,
    pub changed_by: String,
    pub reason: String,
    pub created_at: OffsetDateTime,
}

/// All changes of a chain's threshold, newest first.
pub async fn list_threshold_changes(connection: &mut PgConnection, chain: ChainId) -> Result<Vec<ThresholdChange>, DbError> {
    let rows = sqlx::query_as!(
        ThresholdChange,
        r#"
        select id, old_value::bigint as old_value, new_value::bigint as "new_value!", changed_by, reason, created_at
        from config_setting_history where key = $1 order by id desc limit 1000
        "#,
        threshold_key(chain)
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

fn threshold(history_id: i64, value: i64) -> Result<Threshold, DbError> {
    let value = Confirmations::new(value).map_err(|_| DbError::Corrupt {
        column: "config_setting_history.new_value",
        found: value.to_string(),
        wanted: "a threshold from 1 to 10000",
    })?;
    Ok(Threshold { history_id, value })
}
