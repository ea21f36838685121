//! Before the daemon does anything: is this the schema we know, are its guards on, and are we too weak
//! to switch them off? Any "no" is a refusal to start.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::DbError;
use super::migrator::MIGRATOR;

#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("role {role} is a superuser; connect as amanat_app, which cannot change the ledger")]
    Superuser { role: String },
    #[error("role {role} owns the tables or may become their owner; connect as amanat_app")]
    Owner { role: String },
    #[error("role {role} may set session_replication_role, which switches ordinary triggers off; revoke that right")]
    ReplicationRole { role: String },
    #[error("role {role} may {right} on {table}; run migrations/bootstrap.sql and `amanatd migrate` again, or revoke it")]
    TooStrong { role: String, right: String, table: String },
    #[error("trigger {trigger} on {table} is {found}; it must be enabled always")]
    Trigger { table: String, trigger: String, found: &'static str },
    #[error("function {function} differs from the one in this binary's migrations")]
    Function { function: String },
    #[error("migration {version} is not applied; run `amanatd migrate`")]
    NotMigrated { version: i64 },
    #[error("the database holds migration {version}, which this binary does not know; run a newer amanatd")]
    UnknownMigration { version: i64 },
    #[error("migration {version} was applied from another text than this binary carries")]
    ChangedMigration { version: i64 },
}

/// Tables whose rows must not change once written, each with three guards.
const APPEND_ONLY: [&str; 6] =
    ["config_setting_history", "derived_destination_sweeps", "events", "funds_ledger_entries", "intent_approvals", "payment_quotes"];

/// Triggers that keep the balances, and those that hold the machines of what has a state.
const STATE_TRIGGERS: [(&str, &str); 5] = [
    ("ledger_accounts", "ledger_accounts_open_balance"),
    ("funds_ledger_entries", "funds_ledger_entries_apply"),
    ("intents", "intents_guard"),
    ("outbound_transactions", "outbound_transactions_guard"),
    ("transfer_verdicts", "transfer_verdicts_guard"),
];

const GUARD_FUNCTIONS: [&str; 6] = [
    "forbid_change",
    "ledger_accounts_open_balance",
    "funds_ledger_entries_apply",
    "intents_guard",
    "outbound_transactions_guard",
    "transfer_verdicts_guard",
];

pub async fn self_test(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    check_role(connection).await?;
    check_migrations(connection).await?;
    check_rights(connection).await?;
    check_triggers(connection).await?;
    check_functions(connection).await
}

async fn check_role(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    let role = sqlx::query!(
        r#"
        select
            current_user::text as "name!",
            rolsuper as "superuser!",
            has_parameter_privilege('session_replication_role', 'SET') as "replication!",
            coalesce((select pg_has_role(current_user, o.oid, 'member') from pg_roles o where o.rolname = 'amanat_owner'), false) as "owner!"
        from pg_roles where rolname = current_user
        "#
    )
    .fetch_one(connection)
    .await
    .map_err(DbError::from)?;
    if role.superuser {
        return Err(SelfTestError::Superuser { role: role.name });
    }
    if role.owner {
        return Err(SelfTestError::Owner { role: role.name });
    }
    if role.replication {
        return Err(SelfTestError::ReplicationRole { role: role.name });
    }
    Ok(())
}

async fn check_migrations(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    // Asked first, so that an empty database is "run migrate" and not a failed statement.
    let prepared = sqlx::query_scalar!(r#"select to_regclass('public._sqlx_migrations') is not null as "prepared!""#)
        .fetch_one(&mut *connection)
        .await
        .map_err(DbError::from)?;
    let mut applied: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    if prepared {
        // The table belongs to the migrator and exists only after the first run, so this one statement
        // is checked when it runs and not when it is compiled.
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as("select version, checksum from _sqlx_migrations where success order by version")
            .fetch_all(connection)
            .await
            .map_err(DbError::from)?;
        applied.extend(rows);
    }
    for migration in MIGRATOR.iter() {
        match applied.remove(&migration.version) {
            None => return Err(SelfTestError::NotMigrated { version: migration.version }),
            Some(checksum) if checksum != migration.checksum.as_ref() => {
                return Err(SelfTestError::ChangedMigration { version: migration.version });
            }
            Some(_) => {}
        }
    }
    match applied.into_keys().next() {
        Some(version) => Err(SelfTestError::UnknownMigration { version }),
        None => Ok(()),
    }
}

/// No table may lose rows, the append-only ones may not change, and balances are the database's own.
async fn check_rights(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    let append_only: Vec<String> = APPEND_ONLY.iter().map(|table| (*table).to_owned()).collect();
    let excess = sqlx::query!(
        r#"
        select current_user::text as "role!", c.relname::text as "table!", r.name as "right!"
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        cross join (values ('insert'), ('update'), ('delete'), ('truncate')) as r(name)
        where n.nspname = 'public' and c.relkind in ('r', 'p')
          and (has_table_privilege(current_user, c.oid, r.name)
               or (r.name in ('insert', 'update') and has_any_column_privilege(current_user, c.oid, r.name)))
          and (r.name in ('delete', 'truncate')
               or (r.name = 'update' and c.relname = any ($1::text[]))
               or c.relname in ('ledger_balances', '_sqlx_migrations'))
        order by 2, 3 limit 1
        "#,
        &append_only
    )
    .fetch_optional(connection)
    .await
    .map_err(DbError::from)?;
    match excess {
        Some(excess) => Err(SelfTestError::TooStrong { role: excess.role, right: excess.right, table: excess.table }),
        None => Ok(()),
    }
}

async fn check_triggers(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    let guards = APPEND_ONLY.iter().flat_map(|table| ["update", "delete", "truncate"].map(|op| (*table, format!("{table}_no_{op}"))));
    let wanted: Vec<(&str, String)> = guards.chain(STATE_TRIGGERS.iter().map(|(table, trigger)| (*table, (*trigger).to_owned()))).collect();
    let found: BTreeMap<(String, String), i8> = sqlx::query!(
        r#"
        select c.relname::text as "table!", t.tgname::text as "trigger!", t.tgenabled as "enabled!"
        from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'public' and not t.tgisinternal
        "#
    )
    .fetch_all(connection)
    .await
    .map_err(DbError::from)?
    .into_iter()
    .map(|row| ((row.table, row.trigger), row.enabled))
    .collect();
    for (table, trigger) in wanted {
        let state = found.get(&(table.to_owned(), trigger.clone())).copied();
        let found = match state.map(i8::cast_unsigned) {
            Some(b'A') => continue,
            Some(b'D') => "disabled",
            Some(_) => "not enabled always",
            None => "missing",
        };
        return Err(SelfTestError::Trigger { table: table.to_owned(), trigger, found });
    }
    Ok(())
}

async fn check_functions(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    let names: Vec<String> = GUARD_FUNCTIONS.iter().map(|name| (*name).to_owned()).collect();
    let sources: BTreeMap<String, String> = sqlx::query!(
        r#"
        select p.proname::text as "name!", p.prosrc as "source!"
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'public' and p.proname = any ($1::text[])
        "#,
        &names
    )
    .fetch_all(connection)
    .await
    .map_err(DbError::from)?
    .into_iter()
    .map(|row| (row.name, row.source))
    .collect();
    for function in GUARD_FUNCTIONS {
        // The newest migration that defines the function must contain the body the database runs.
        let defines = |text: &str| {
            text.contains(&format!("create function {function}()")) || text.contains(&format!("create or replace function {function}()"))
        };
        let newest = MIGRATOR.iter().rfind(|migration| defines(migration.sql.as_str()));
        let same = match (sources.get(function), newest) {
            (Some(source), Some(migration)) => migration.sql.as_str().contains(source.as_str()),
            (None, _) | (_, None) => false,
        };
        if !same {
            return Err(SelfTestError::Function { function: function.to_owned() });
        }
    }
    Ok(())
}
