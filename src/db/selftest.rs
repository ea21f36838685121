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
    #[error("this server is a replica in recovery, which takes no writes; point at the primary, or promote it")]
    Replica,
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
    #[error("constraint {constraint} on {table} is missing, was changed, or does not hold for old rows")]
    Constraint { table: String, constraint: String },
    #[error("index {index} on {table} is missing, or does not keep its rows unique")]
    Index { table: String, index: String },
    #[error("migration {version} is not applied; run `amanatd migrate`")]
    NotMigrated { version: i64 },
    #[error("the database holds migration {version}, which this binary does not know; run a newer amanatd")]
    UnknownMigration { version: i64 },
    #[error("migration {version} was applied from another text than this binary carries")]
    ChangedMigration { version: i64 },
}

/// Tables whose rows must not change once written, each with three guards.
const APPEND_ONLY: &[&str] = &[
    "change_decisions",
    "change_proposals",
    "config_setting_history",
    "derived_destination_sweeps",
    "events",
    "funds_ledger_entries",
    "intent_approvals",
    "ledger_accounts",
    "ledger_adjustments",
    "ledger_seal_signatures",
    "ledger_seals",
    "outflow_destinations",
    "nonce_baselines",
    "outflow_policies",
    "payment_quotes",
    "recipient_verdicts",
    "screening_policies",
    "screening_verdicts",
    "webhook_attempts",
];

/// Tables whose rows change and never go: what others refer to.
const KEPT: [&str; 1] = ["payments"];

/// Constraints that the ledger rests on, as the server writes them.
const CONSTRAINTS: [(&str, &str, &str); 4] = [
    (
        "ledger_balances",
        "ledger_balances_no_overdraft",
        "CHECK (((balance >= (0)::numeric) AND (balance < '115792089237316195423570985008687907853269984665640564039457584007913129639936'::numeric)))",
    ),
    ("funds_ledger_entries", "funds_ledger_entries_amount_positive", "CHECK (((amount_units)::numeric > (0)::numeric))"),
    ("funds_ledger_entries", "funds_ledger_entries_accounts_differ", "CHECK ((debit_account_id <> credit_account_id))"),
    (
        "funds_ledger_entries",
        "funds_ledger_entries_reversal_names_entry",
        "CHECK (((entry_type = 'reversal'::funds_ledger_entry_type) = (reverses_entry_id IS NOT NULL)))",
    ),
];

/// Indexes that let something happen once: what is in them, in the order of their columns.
const UNIQUE: [(&str, &str, &str); 8] = [
    ("funds_ledger_entries", "funds_ledger_entries_idempotency_key", "idempotency_key"),
    ("funds_ledger_entries", "funds_ledger_entries_reversed_once_key", "reverses_entry_id"),
    ("ledger_accounts", "ledger_accounts_key", "kind, holder, chain_id, asset"),
    ("transfers", "transfers_economic_key", "chain_id, tx_hash, \"position\""),
    ("transfer_observations", "transfer_observations_one_canonical_key", "transfer_id"),
    ("transfer_verdicts", "transfer_verdicts_one_live_key", "transfer_id, gate"),
    ("outbound_transactions", "outbound_transactions_hash_key", "chain_id, tx_hash"),
    ("intent_approvals", "intent_approvals_once_per_officer_key", "intent_id, revision, officer_id"),
];

/// Triggers that keep the balances, those that hold the machines of what has a state, the one that has each
/// credit screened, and the knock that wakes whoever waits on a setting.
/// Each is named after the function that it calls.
const STATE_TRIGGERS: &[(&str, &str, i16)] = &[
    ("ledger_accounts", "ledger_accounts_open_balance", Guard::INSERT),
    ("funds_ledger_entries", "funds_ledger_entries_apply", Guard::INSERT),
    ("payments", "payments_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("payment_payouts", "payment_payouts_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("intents", "intents_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("outbound_transactions", "outbound_transactions_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("transfer_verdicts", "transfer_verdicts_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("transfer_verdicts", "transfer_verdicts_gate", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("transfer_verdicts", "transfer_verdicts_follow", Guard::INSERT | Guard::UPDATE | Guard::EACH_ROW),
    ("transfer_verdicts", "transfer_verdicts_screen", Guard::INSERT),
    ("transfer_screenings", "transfer_screenings_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("config_setting_history", "config_setting_history_notify", Guard::INSERT | Guard::EACH_ROW),
    ("payments", "payments_due_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("change_proposals", "change_proposals_guard", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("change_decisions", "change_decisions_guard", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("outflow_policies", "outflow_policies_guard", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("outflow_destinations", "outflow_destinations_guard", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("intents", "intents_policy", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("intent_approvals", "intent_approvals_guard", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("intents", "intents_payout", Guard::INSERT | Guard::EACH_ROW),
    ("ledger_adjustments", "ledger_adjustments_guard", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("recipient_screenings", "recipient_screenings_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("payment_payouts", "payment_payouts_screen", Guard::INSERT | Guard::EACH_ROW),
    ("nonce_baselines", "nonce_baselines_guard", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("outbound_transactions", "outbound_transactions_link", Guard::BEFORE | Guard::INSERT | Guard::EACH_ROW),
    ("database_losses", "database_losses_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
    ("chain_cursors", "chain_cursors_guard", Guard::BEFORE | Guard::UPDATE | Guard::EACH_ROW),
];

const GUARD_FUNCTIONS: &[&str] = &[
    "forbid_change",
    "ledger_accounts_open_balance",
    "funds_ledger_entries_apply",
    "payments_guard",
    "payment_payouts_guard",
    "intents_guard",
    "outbound_transactions_guard",
    "transfer_verdicts_guard",
    "transfer_verdicts_gate",
    "transfer_verdicts_follow",
    "transfer_verdicts_screen",
    "transfer_screenings_guard",
    "config_setting_history_notify",
    "payments_due_guard",
    "change_proposals_guard",
    "change_decisions_guard",
    "outflow_policies_guard",
    "outflow_destinations_guard",
    "intents_policy",
    "intent_approvals_guard",
    "outbound_transactions_link",
    "nonce_baselines_guard",
    "intents_payout",
    "ledger_adjustments_guard",
    "recipient_screenings_guard",
    "payment_payouts_screen",
    "database_losses_guard",
    "chain_cursors_guard",
];

pub async fn self_test(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    check_primary(connection).await?;
    check_role(connection).await?;
    check_migrations(connection).await?;
    check_rights(connection).await?;
    check_triggers(connection).await?;
    check_constraints(connection).await?;
    check_unique(connection).await?;
    check_functions(connection).await
}

async fn check_primary(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    let replica = sqlx::query_scalar!(r#"select pg_is_in_recovery() as "replica!""#).fetch_one(connection).await.map_err(DbError::from)?;
    if replica { Err(SelfTestError::Replica) } else { Ok(()) }
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

/// A trigger as it must be.
struct Guard {
    table: &'static str,
    trigger: String,
    function: &'static str,
    /// `pg_trigger.tgtype`: when, and on what.
    kind: i16,
}

impl Guard {
    const EACH_ROW: i16 = 1;
    const BEFORE: i16 = 2;
    const INSERT: i16 = 4;
    const DELETE: i16 = 8;
    const UPDATE: i16 = 16;
    const TRUNCATE: i16 = 32;

    /// Every guard.
    fn all() -> Vec<Self> {
        let acts = [("update", Self::UPDATE), ("delete", Self::DELETE), ("truncate", Self::TRUNCATE)];
        let mut guards = Vec::new();
        for &table in APPEND_ONLY {
            guards.extend(acts.map(|(act, bit)| Self {
                table,
                trigger: format!("{table}_no_{act}"),
                function: "forbid_change",
                kind: Self::BEFORE | bit,
            }));
        }
        for table in KEPT {
            guards.extend(acts[1..].iter().map(|(act, bit)| Self {
                table,
                trigger: format!("{table}_no_{act}"),
                function: "forbid_change",
                kind: Self::BEFORE | bit,
            }));
        }
        guards.extend(STATE_TRIGGERS.iter().map(|&(table, function, kind)| Self { table, trigger: function.to_owned(), function, kind }));
        guards
    }
}

async fn check_triggers(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    // A guard of the right name that has a condition, watches one column, or calls something else is none.
    let found: BTreeMap<(String, String), (i8, bool)> = sqlx::query!(
        r#"
        select c.relname::text as "table!", t.tgname::text as "trigger!", t.tgenabled as "enabled!", t.tgtype as "kind!",
               p.proname::text as "function!",
               t.tgqual is null and t.tgattr::text = '' and p.pronamespace = n.oid and p.pronargs = 0 as "plain!"
        from pg_trigger t
        join pg_class c on c.oid = t.tgrelid
        join pg_namespace n on n.oid = c.relnamespace
        join pg_proc p on p.oid = t.tgfoid
        where n.nspname = 'public' and not t.tgisinternal
        "#
    )
    .fetch_all(connection)
    .await
    .map_err(DbError::from)?
    .into_iter()
    .map(|row| {
        let as_made = Guard::all().iter().any(|guard| {
            row.plain
                && guard.table == row.table
                && guard.trigger == row.trigger
                && guard.function == row.function
                && guard.kind == row.kind
        });
        ((row.table, row.trigger), (row.enabled, as_made))
    })
    .collect();
    for guard in Guard::all() {
        let state = found.get(&(guard.table.to_owned(), guard.trigger.clone())).copied();
        let found = match state.map(|(enabled, as_made)| (enabled.cast_unsigned(), as_made)) {
            Some((b'A', true)) => continue,
            Some((b'A', false)) => "not the one of the migrations",
            Some((b'D', _)) => "disabled",
            Some(_) => "not enabled always",
            None => "missing",
        };
        return Err(SelfTestError::Trigger { table: guard.table.to_owned(), trigger: guard.trigger, found });
    }
    Ok(())
}

async fn check_constraints(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    let found: BTreeMap<(String, String), String> = sqlx::query!(
        r#"
        select c.conrelid::regclass::text as "table!", c.conname::text as "name!", pg_get_constraintdef(c.oid) as "definition!"
        from pg_constraint c
        where c.connamespace = 'public'::regnamespace and c.contype = 'c' and c.convalidated
        "#
    )
    .fetch_all(connection)
    .await
    .map_err(DbError::from)?
    .into_iter()
    .map(|row| ((row.table, row.name), row.definition))
    .collect();
    for (table, constraint, definition) in CONSTRAINTS {
        if found.get(&(table.to_owned(), constraint.to_owned())).is_none_or(|found| found != definition) {
            return Err(SelfTestError::Constraint { table: table.to_owned(), constraint: constraint.to_owned() });
        }
    }
    Ok(())
}

async fn check_unique(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    let found: BTreeMap<(String, String), String> = sqlx::query!(
        r#"
        select i.indrelid::regclass::text as "table!", c.relname::text as "name!",
               (select string_agg(pg_get_indexdef(i.indexrelid, place, true), ', ' order by place)
                from generate_series(1, i.indnkeyatts) place) as "columns!"
        from pg_index i join pg_class c on c.oid = i.indexrelid
        where c.relnamespace = 'public'::regnamespace and i.indisunique and i.indimmediate and i.indisvalid and i.indisready and i.indislive
        "#
    )
    .fetch_all(connection)
    .await
    .map_err(DbError::from)?
    .into_iter()
    .map(|row| ((row.table, row.name), row.columns))
    .collect();
    for (table, index, columns) in UNIQUE {
        if found.get(&(table.to_owned(), index.to_owned())).is_none_or(|found| found != columns) {
            return Err(SelfTestError::Index { table: table.to_owned(), index: index.to_owned() });
        }
    }
    Ok(())
}

/// What makes a function what it is: its body, whose rights it runs with, and where it looks names up.
#[derive(Debug, PartialEq, Eq)]
struct FunctionText {
    body: String,
    definer: bool,
    search_path: Option<String>,
}

impl FunctionText {
    /// As a migration defines it.
    fn read(sql: &str, function: &str) -> Option<Self> {
        let heads = [format!("create function {function}()"), format!("create or replace function {function}()")];
        let start = heads.iter().filter_map(|head| sql.rfind(head)).max()?;
        let mut parts = sql[start..].splitn(3, "$$");
        let (head, body) = (parts.next()?, parts.next()?);
        let search_path = head.split("set search_path = ").nth(1).and_then(|rest| rest.lines().next());
        Some(Self {
            body: body.to_owned(),
            definer: head.contains("security definer"),
            search_path: search_path.map(|path| path.trim().to_owned()),
        })
    }
}

async fn check_functions(connection: &mut PgConnection) -> Result<(), SelfTestError> {
    let names: Vec<String> = GUARD_FUNCTIONS.iter().map(|name| (*name).to_owned()).collect();
    let found: BTreeMap<String, FunctionText> = sqlx::query!(
        r#"
        select p.proname::text as "name!", p.prosrc as "body!", p.prosecdef as "definer!",
               (select substring(c from 13) from unnest(p.proconfig) as c where c like 'search_path=%') as search_path
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'public' and p.pronargs = 0 and p.proname = any ($1::text[])
        "#,
        &names
    )
    .fetch_all(connection)
    .await
    .map_err(DbError::from)?
    .into_iter()
    .map(|row| (row.name, FunctionText { body: row.body, definer: row.definer, search_path: row.search_path }))
    .collect();
    for &function in GUARD_FUNCTIONS {
        // The newest migration that defines the function says what the database must run.
        let wanted = MIGRATOR.iter().rev().find_map(|migration| FunctionText::read(migration.sql.as_str(), function));
        if wanted.is_none() || found.get(function) != wanted.as_ref() {
            return Err(SelfTestError::Function { function: function.to_owned() });
        }
    }
    Ok(())
}
