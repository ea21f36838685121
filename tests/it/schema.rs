//! The schema's own promises, asked of a real server: exact amounts, references that cannot lie, rows
//! that nobody changes, and a daemon that refuses to start where one of these is switched off.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{U256, keccak256};
use amanatd::db::codec::{units_from_sql, units_to_sql};
use amanatd::db::{self, SelfTestError};
use amanatd::devkit::postgres::{APP, MIGRATOR, PostgresOptions, PrivatePostgres, SUPERUSER};
use amanatd::devkit::schema::{self, FreshDatabase};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn superuser(base: &FreshDatabase) -> PgConnection {
    connect(&base.url(SUPERUSER)).await
}

/// Runs statements and takes them back. The constraint that refused them, or else the SQLSTATE.
async fn attempt(connection: &mut PgConnection, statements: &str) -> Result<(), String> {
    let mut transaction = connection.begin().await.unwrap();
    let outcome = transaction.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await;
    transaction.rollback().await.unwrap();
    match outcome {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) => Err(match error.constraint() {
            Some(name) => name.to_owned(),
            None => error.code().unwrap().into_owned(),
        }),
        Err(error) => panic!("{statements}: {error}"),
    }
}

async fn run(connection: &mut PgConnection, statements: &str) {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

// === amounts ===

#[tokio::test]
async fn l9_base_units_take_a_uint256_and_nothing_else() {
    let base = FreshDatabase::create().unwrap();
    let mut connection = superuser(&base).await;
    let two_256 = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
    let many_digits = "9".repeat(10_000);
    let bad = ["1.5", "2.0", "0.0", "0.4", "1e-19", "NaN", "Infinity", "-Infinity", "-1", "-0.5", two_256, "1e78", "1e1000", &many_digits];
    for text in bad {
        let refused = attempt(&mut connection, &format!("select '{text}'::numeric::base_units")).await;
        assert_eq!(refused.as_ref().map_err(String::as_str), Err("base_units_is_uint256"), "{text:.20}");
        let stored = format!("create temp table t (units base_units); insert into t values ('{text}')");
        assert!(attempt(&mut connection, &stored).await.is_err(), "{text:.20}");
    }
    for text in ["one", "", "0x10", "1,0", "１"] {
        assert_eq!(
            attempt(&mut connection, &format!("select '{text}'::base_units")).await.as_ref().map_err(String::as_str),
            Err("22P02"),
            "{text}"
        );
    }
    let powers = (0..256).map(|bit| U256::from(1) << bit);
    let edges = powers
        .flat_map(|power| [power - U256::from(1), power, power + U256::from(1)])
        .chain([U256::MAX, U256::from(10).pow(U256::from(77))]);
    assert_exact(&mut connection, edges.collect()).await;
    // The rest of the range, by a walk that is the same in every run.
    let mut walk = keccak256("l9");
    for _ in 0..10 {
        let step = std::iter::repeat_with(|| {
            walk = keccak256(walk);
            U256::from_be_bytes(walk.0) >> usize::from(walk.0[0])
        });
        assert_exact(&mut connection, step.take(10_000).collect()).await;
    }
}

/// The same digits come back.
async fn assert_exact(connection: &mut PgConnection, values: Vec<U256>) {
    let texts: Vec<String> = values.iter().map(U256::to_string).collect();
    let sql =
        "select array_agg(value::numeric::base_units::text order by place) from unnest($1::text[]) with ordinality as v (value, place)";
    let back: Vec<String> = sqlx::query_scalar(sql).bind(&texts).fetch_one(connection).await.unwrap();
    assert_eq!(back.len(), texts.len());
    assert!(back == texts, "{:?}", back.iter().zip(&texts).find(|(back, text)| back != text));
}

/// Through the codec of the stores: written as text, kept as numeric(78,0) and as base_units, read back.
#[tokio::test]
async fn l9_the_codec_is_exact_or_refuses() {
    let base = FreshDatabase::create().unwrap();
    let mut connection = superuser(&base).await;
    run(&mut connection, "create temp table kept (place bigint, wide numeric(78, 0), units base_units)").await;
    let two = U256::from(2);
    let power = |exponent: u64| two.pow(U256::from(exponent));
    let one = U256::from(1);
    let edges = [
        U256::ZERO,
        one,
        power(64),
        power(96) - one,
        power(96),
        power(96) + one,
        power(128),
        U256::from(10).pow(U256::from(77)),
        U256::MAX,
    ];
    let mut walk = keccak256("l9 codec");
    let mut values: Vec<U256> = edges.to_vec();
    let mut compared = 0_u64;
    for round in 0..20 {
        if round > 0 {
            values = std::iter::repeat_with(|| {
                walk = keccak256(walk);
                U256::from_be_bytes(walk.0) >> usize::from(walk.0[31])
            })
            .take(52_632)
            .collect();
        }
        let texts: Vec<String> = values.iter().map(|value| units_to_sql(*value)).collect();
        let sql =
            "insert into kept select place, value::numeric, value::numeric from unnest($1::text[]) with ordinality as v (value, place)";
        sqlx::query(sql).bind(&texts).execute(&mut connection).await.unwrap();
        let back: (Vec<String>, Vec<String>) =
            sqlx::query_as("select array_agg(wide::text order by place), array_agg(units::text order by place) from kept")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        for ((value, wide), units) in values.iter().zip(&back.0).zip(&back.1) {
            assert_eq!((units_from_sql(wide).unwrap(), units_from_sql(units).unwrap()), (*value, *value));
            compared += 1;
        }
        run(&mut connection, "truncate kept").await;
    }
    println!("U256, through the codec and back: {compared} values, mismatches 0");
    assert!(compared > 1_000_000);
    // What a numeric may hold and a uint256 not, and what is no number: refused on the way in and on the way out.
    let two_256 = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
    for bad in
        ["NaN", "Infinity", "-Infinity", "1.5", "2.0", "-1", "-0", "1e3", " 1", "1 ", "", "0x1", "01", "1_000", two_256, &"9".repeat(200)]
    {
        let error = units_from_sql(bad).expect_err(bad);
        assert!(matches!(error, db::DbError::Corrupt { .. }), "{bad}: {error:?}");
    }
    for bad in ["NaN", "Infinity", "1.5", "-1", two_256] {
        let insert = format!("insert into kept (units) values ('{bad}'::numeric)");
        assert_eq!(attempt(&mut connection, &insert).await.as_ref().map_err(String::as_str), Err("base_units_is_uint256"), "{bad}");
    }
}

#[tokio::test]
async fn l9_the_marketplaces_amount_is_exact_or_null() {
    let base = FreshDatabase::create().unwrap();
    let mut connection = superuser(&base).await;
    let max = U256::MAX.to_string();
    let nines = |count: usize| "9".repeat(count);
    let one_and_zeros = |count: usize| format!("1{}", "0".repeat(count));
    let cases: [(String, u8, Option<String>); 14] = [
        ("1".into(), 18, Some("0.000000000000000001".into())),
        ("1".into(), 6, Some("0.000001000000000000".into())),
        ("1".into(), 0, Some("1.000000000000000000".into())),
        ("123456789".into(), 6, Some("123.456789000000000000".into())),
        ("79228162514264337593543950336".into(), 18, Some("79228162514.264337593543950336".into())),
        // The last that numeric(38,18) holds, and the first that it does not.
        (nines(38), 18, Some(format!("{}.{}", nines(20), nines(18)))),
        (one_and_zeros(38), 18, None),
        (nines(26), 6, Some(format!("{}.999999000000000000", nines(20)))),
        (one_and_zeros(26), 6, None),
        (nines(20), 0, Some(format!("{}.000000000000000000", nines(20)))),
        (one_and_zeros(20), 0, None),
        (max.clone(), 18, None),
        (max.clone(), 6, None),
        (max, 0, None),
    ];
    for (place, (units, decimals, amount)) in cases.into_iter().enumerate() {
        // An asset for each, so that balances do not add up.
        let asset = format!("\\x{:040x}", place + 1);
        let sql = format!(
            "insert into ledger_accounts (kind, chain_id, asset, address) values ('custody', 1, '{asset}', '{asset}');
             insert into ledger_accounts (kind, chain_id, asset) values ('operator', 1, '{asset}');
             insert into funds_ledger_entries (entry_type, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals,
                 idempotency_key, memo)
             select 'adjustment', 1, '{asset}', min(id), max(id), {units}, {decimals}, 'case-{place}', 'test'
             from ledger_accounts where asset = '{asset}'"
        );
        run(&mut connection, &sql).await;
        let found: Option<String> = sqlx::query_scalar("select amount::text from funds_ledger_entries where idempotency_key = $1")
            .bind(format!("case-{place}"))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(found, amount, "{units} with {decimals} decimals");
    }
    let forged = "insert into funds_ledger_entries (amount) values (1)";
    assert_eq!(
        attempt(&mut connection, forged).await.as_ref().map_err(String::as_str),
        Err("428C9"),
        "the amount is computed, never given"
    );
}

// === references ===

const PAYMENT: &str = "00000000-0000-0000-0000-000000000001";

/// A payment, an account with two addresses, ledger accounts with one entry, a history row.
async fn furnish(base: &FreshDatabase) {
    let address = |byte: &str| format!("'\\x{}'", byte.repeat(20));
    let (one, two) = (address("11"), address("22"));
    let xpub = crate::watching::XPUB;
    let sql = format!(
        "insert into payments (id, amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at)
             values ('{PAYMENT}', 1, 'USDC', 1, {one}, 'USDC', 6, 1000000, {two}, now());
         insert into trezor_accounts (id, label, account_index, path, xpub, fingerprint)
             values ('{PAYMENT}', 'test', 0, 'm/44''/60''/0''', '{xpub}', '\\x01020304');
         insert into trezor_derived_addresses (id, account_id, branch, address_index, address, purpose)
             values ('{PAYMENT}', '{PAYMENT}', 0, 0, {one}, 'deposit');
         insert into ledger_accounts (kind, chain_id, asset, address) values ('custody', 1, {one}, {one});
         insert into ledger_accounts (kind, chain_id, asset) values ('operator', 1, {one});
         insert into funds_ledger_entries (entry_type, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals,
             idempotency_key, memo) values ('adjustment', 1, {one}, 1, 2, 100, 6, 'first', 'test');
         insert into config_settings (key, value) values ('confirmation_threshold:1', 3);
         insert into config_setting_history (key, new_value, changed_by, reason) values ('confirmation_threshold:1', 3, 'test', 'test');"
    );
    run(&mut superuser(base).await, &sql).await;
    // A copy belongs to whoever made it; on a host the owner of the tables owns the database.
    run(&mut superuser(base).await, &format!("alter database {} owner to amanat_owner", base.name)).await;
}

#[tokio::test]
async fn a_reference_is_to_one_thing_or_to_none() {
    let base = FreshDatabase::create().unwrap();
    furnish(&base).await;
    let mut connection = superuser(&base).await;
    let address = format!("'\\x{}'", "11".repeat(20));
    // Table, constraint, insert; {kind}, {id} and {external} are the triple.
    let payments = |name: &str| {
        format!(
            "insert into payments (amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at, \
             {name}_ref_kind, {name}_id, {name}_external_ref) values (1, 'USDC', 1, {address}, 'USDC', 6, 1, {address}, now(), {{kind}}, {{id}}, {{external}})"
        )
    };
    let triples = [
        ("payments_purchase_request_ref", payments("purchase_request"), true),
        ("payments_seller_offer_ref", payments("seller_offer"), true),
        (
            "derived_destinations_payment_ref",
            format!(
                "insert into derived_destinations (derived_address_id, address, chain_id, birth_block, payment_ref_kind, payment_id, \
                 payment_external_ref) values ('{PAYMENT}', {address}, 1, 0, {{kind}}, {{id}}, {{external}})"
            ),
            false,
        ),
        (
            "funds_ledger_entries_payment_ref",
            format!(
                "insert into funds_ledger_entries (entry_type, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals, \
                 idempotency_key, memo, payment_ref_kind, payment_id, payment_external_ref) \
                 values ('adjustment', 1, {address}, 1, 2, 1, 6, 'next', 'test', {{kind}}, {{id}}, {{external}})"
            ),
            true,
        ),
    ];
    let mut tried = 0;
    for (constraint, insert, may_be_none) in triples {
        for kind in ["null", "'entity'", "'template'"] {
            for id in ["null".to_owned(), format!("'{PAYMENT}'")] {
                for external in ["null", "'template-7'"] {
                    let sql = insert.replace("{kind}", kind).replace("{id}", &id).replace("{external}", external);
                    let outcome = attempt(&mut connection, &sql).await;
                    let whole = match (kind, id.as_str(), external) {
                        ("null", "null", "null") => may_be_none,
                        ("'entity'", id, "null") => id != "null",
                        ("'template'", "null", external) => external != "null",
                        _ => false,
                    };
                    // A destination without a kind is refused by its column.
                    let refused = if kind == "null" && !may_be_none { "23502" } else { constraint };
                    let expected = if whole { Ok(()) } else { Err(refused.to_owned()) };
                    assert_eq!(outcome, expected, "{constraint}: {kind}, {id}, {external}");
                    tried += 1;
                }
            }
        }
    }
    assert_eq!(tried, 48);
}

#[tokio::test]
async fn a_legacy_id_is_unique_where_there_is_one() {
    let base = FreshDatabase::create().unwrap();
    let mut connection = superuser(&base).await;
    let columns = "select table_name::text from information_schema.columns where table_schema = 'public' \
         and column_name = 'legacy_object_id' and table_name <> 'id_map' order by 1";
    let tables: Vec<String> = sqlx::query_scalar(columns).fetch_all(&mut connection).await.unwrap();
    assert_eq!(
        tables,
        [
            "config_settings",
            "derived_destination_sweeps",
            "derived_destinations",
            "disputes",
            "funds_ledger_entries",
            "payments",
            "trezor_accounts",
            "trezor_derived_addresses",
            "users"
        ]
    );
    for table in &tables {
        let definition: String = sqlx::query_scalar("select indexdef from pg_indexes where schemaname = 'public' and indexname = $1")
            .bind(format!("{table}_legacy_object_id_key"))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let expected = format!(
            "CREATE UNIQUE INDEX {table}_legacy_object_id_key ON public.{table} USING btree (legacy_object_id) WHERE (legacy_object_id IS NOT NULL)"
        );
        assert_eq!(definition, expected);
    }
    let user = |legacy: &str| format!("insert into users (role, legacy_object_id) values ('buyer', {legacy});");
    assert_eq!(attempt(&mut connection, &(user("null") + &user("null") + &user("'a'") + &user("'b'"))).await, Ok(()));
    assert_eq!(
        attempt(&mut connection, &(user("'a'") + &user("'a'"))).await.as_ref().map_err(String::as_str),
        Err("users_legacy_object_id_key")
    );
    let bridge = |legacy: &str, id: u8| format!("insert into id_map values ('users', '{legacy}', '{PAYMENT}'::uuid, now() + '{id} s');");
    assert_eq!(
        attempt(&mut connection, &(bridge("a", 0) + &bridge("b", 1))).await.as_ref().map_err(String::as_str),
        Err("id_map_new_id_key")
    );
}

#[tokio::test]
async fn the_marketplaces_enums_are_here_value_for_value() {
    let base = FreshDatabase::create().unwrap();
    let mut connection = superuser(&base).await;
    let rows = "select t.typname::text, string_agg(e.enumlabel, ', ' order by e.enumsortorder) \
         from pg_type t join pg_enum e on e.enumtypid = t.oid group by 1";
    let found: BTreeMap<String, String> = sqlx::query_as(rows).fetch_all(&mut connection).await.unwrap().into_iter().collect();
    let expected = [
        ("user_role", "admin, buyer, seller, resolver, guard"),
        ("auth_provider", "email, google, telegram"),
        ("user_status", "active, suspended, deleted"),
        ("offer_currency", "USD, EUR, IRR, USDT, USDC, TRY"),
        ("payment_provider", "request.network, amn.scanner, shkeeper, other"),
        ("payment_status", "pending, processing, confirmed, completed, failed, cancelled, refunded"),
        ("escrow_state", "funded, releasable, released, refunded, releasing, failed, cancelled, partial"),
        ("derived_destination_status", "active, swept, sweeping, quarantined"),
        ("ref_kind", "entity, template"),
    ];
    for (name, values) in expected {
        assert_eq!(found.get(name).map(String::as_str), Some(values), "{name}");
    }
    // Eight are the marketplace's; what this daemon adds comes after them.
    let theirs = "payment_detected, provider_fee, platform_fee, hold, release, refund, dispute_hold, adjustment";
    assert_eq!(found["funds_ledger_entry_type"], format!("{theirs}, sweep, network_fee, reversal"));
}

#[tokio::test]
async fn l4_a_parent_takes_no_money_with_it() {
    let base = FreshDatabase::create().unwrap();
    let mut connection = superuser(&base).await;
    let rows = "select conrelid::regclass::text, confdeltype::text, confupdtype::text from pg_constraint \
         where contype = 'f' and connamespace = 'public'::regnamespace";
    let keys: Vec<(String, String, String)> = sqlx::query_as(rows).fetch_all(&mut connection).await.unwrap();
    assert!(keys.len() > 30, "{}", keys.len());
    for (table, on_delete, on_update) in keys {
        let sessions = ["user_passkeys", "user_refresh_tokens"].contains(&table.as_str());
        assert_eq!(on_delete, if sessions { "c" } else { "r" }, "{table}");
        assert_eq!(on_update, "a", "{table}");
    }
}

// === append-only ===

/// What an attempt ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// 42501: the role has no right to it.
    Denied,
    /// The trigger refuses it.
    Blocked,
    /// It goes through: the owner and the superuser can only be detected, not stopped.
    Allowed,
}

/// Number in the list of attempts, its statements, and the outcome for app, owner and superuser.
type Attempt = (&'static str, String, [Cell; 3]);

fn attempts(table: &str, parent: &str, text: &str, insert: &str, key: &str) -> Vec<Attempt> {
    use Cell::{Allowed, Blocked, Denied};
    let guarded = [Denied, Blocked, Blocked];
    let open = [Denied, Allowed, Allowed];
    let id = format!("insert into {table} (id, {}", insert.strip_prefix('(').unwrap());
    vec![
        ("A1 update", format!("update {table} set {text} = 'forged'"), guarded),
        ("A1 update of nothing", format!("update {table} set {text} = 'forged' where false"), guarded),
        ("A2 delete", format!("delete from {table}"), guarded),
        ("A3 truncate", format!("truncate {table} cascade"), guarded),
        (
            "A4 merge",
            format!("merge into {table} t using (values (1)) as v (n) on t.id = v.n when matched then update set {text} = 'forged'"),
            guarded,
        ),
        ("A4 merge delete", format!("merge into {table} t using (values (1)) as v (n) on t.id = v.n when matched then delete"), guarded),
        ("A5 upsert", format!("insert into {table} {insert} on conflict ({key}) do update set {text} = 'forged'"), guarded),
        // ENABLE ALWAYS: a superuser who plays a replica is still refused.
        (
            "A6 replica",
            format!("set local session_replication_role = replica; update {table} set {text} = 'forged'"),
            [Denied, Denied, Blocked],
        ),
        (
            "A7 disable trigger",
            format!("alter table {table} disable trigger {table}_no_update; update {table} set {text} = 'forged'"),
            open,
        ),
        ("A7 disable all", format!("alter table {table} disable trigger user; delete from {table} where false"), open),
        ("A8 drop trigger", format!("drop trigger {table}_no_update on {table}; update {table} set {text} = 'forged'"), open),
        (
            "A9 replace function",
            format!(
                "create or replace function forbid_change() returns trigger language plpgsql as 'begin return null; end'; \
                 update {table} set {text} = 'forged'"
            ),
            open,
        ),
        ("A10 rewrite", format!("alter table {table} alter column {text} type text using 'forged'"), open),
        ("A11 drop table", format!("drop table {table} cascade"), open),
        ("A12 chosen id", id.replacen(") values (", ") overriding system value values (-7, ", 1), open),
        (
            "A13 edit the catalog",
            format!("update pg_trigger set tgenabled = 'D' where tgrelid = '{table}'::regclass"),
            [Denied, Denied, Allowed],
        ),
        ("A14 delete a parent", format!("delete from {parent}"), guarded),
        // The account's balance and the guards stay where an ordinary foreign key would be skipped.
        (
            "A14 replica",
            format!("set local session_replication_role = replica; delete from {parent}"),
            if parent == "config_settings" { [Denied, Denied, Allowed] } else { [Denied, Denied, Blocked] },
        ),
        ("A15 lock rows", format!("select from {table} for update"), open),
        ("a new column", format!("alter table {table} add column more text"), open),
        ("a rule", format!("create rule quiet as on insert to {table} do instead nothing"), open),
        ("another owner", format!("alter table {table} owner to current_user"), open),
    ]
}

#[tokio::test]
async fn l4_nobody_changes_a_row_at_run_time() {
    let base = FreshDatabase::create().unwrap();
    furnish(&base).await;
    let asset = format!("'\\x{}'", "11".repeat(20));
    let entry = format!(
        "(entry_type, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals, idempotency_key, memo) \
         values ('adjustment', 1, {asset}, 1, 2, 1, 6, 'second', 'test')"
    );
    let change = "(key, new_value, changed_by, reason) values ('confirmation_threshold:1', 5, 'test', 'test')";
    let tables = [
        ("funds_ledger_entries", attempts("funds_ledger_entries", "ledger_accounts", "memo", &entry, "idempotency_key")),
        ("config_setting_history", attempts("config_setting_history", "config_settings", "reason", change, "id")),
    ];
    let mut app = connect(&base.url(APP)).await;
    let mut owner = connect(&base.url(MIGRATOR)).await;
    run(&mut owner, "set role amanat_owner").await;
    let mut superuser = superuser(&base).await;
    let mut cells = 0;
    // A1 to A15 of the ledger itself, each as each role.
    let mut numbered = BTreeSet::new();
    for (table, attempts) in tables {
        let rows = format!("select md5(string_agg(t::text, ';' order by id)) from {table} t");
        let before: String = sqlx::query_scalar(AssertSqlSafe(rows.clone())).fetch_one(&mut superuser).await.unwrap();
        for (what, statements, expected) in attempts {
            for (role, expected) in ["app", "owner", "superuser"].into_iter().zip(expected) {
                let connection = match role {
                    "app" => &mut app,
                    "owner" => &mut owner,
                    _ => &mut superuser,
                };
                let found = match attempt(connection, &statements).await.as_ref().map_err(String::as_str) {
                    Ok(()) => Cell::Allowed,
                    Err("42501") => Cell::Denied,
                    // By a guard of the table, or by the key that refers to it.
                    Err("23001" | "config_setting_history_key_fkey") => Cell::Blocked,
                    Err(other) => panic!("{what} on {table} as {role}: {other}"),
                };
                assert_eq!(found, expected, "{what} on {table} as {role}");
                cells += 1;
                if table == "funds_ledger_entries" {
                    let number = what.split_whitespace().next().unwrap_or_default();
                    numbered.extend(number.strip_prefix('A').map(|number| (number.to_owned(), role)));
                }
            }
        }
        let after: String = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut superuser).await.unwrap();
        assert_eq!(before, after);
    }
    println!("append-only: {} of 45 cells of the bypass matrix as expected, {cells} with all their variants", numbered.len());
    assert_eq!((numbered.len(), cells), (45, 132));
    // What the app is for, it may do.
    assert_eq!(attempt(&mut app, &format!("insert into funds_ledger_entries {entry}")).await, Ok(()));
    assert_eq!(attempt(&mut app, &format!("insert into config_setting_history {change}")).await, Ok(()));
    assert_eq!(attempt(&mut app, "select setval('funds_ledger_entries_id_seq', 1)").await.as_ref().map_err(String::as_str), Err("42501"));
}

#[tokio::test]
async fn l2_only_the_database_writes_balances() {
    let base = FreshDatabase::create().unwrap();
    furnish(&base).await;
    let mut app = connect(&base.url(APP)).await;
    for statement in [
        "update ledger_balances set balance = 1000",
        "insert into ledger_balances (account_id, balance) values (2, 5)",
        "delete from ledger_balances",
        "truncate ledger_balances",
        "select from ledger_balances for update",
        "update ledger_accounts set kind = 'shortfall'",
        "insert into ledger_accounts (id, kind, chain_id, asset) overriding system value values (-1, 'operator', 1, '\\x00')",
    ] {
        assert_eq!(attempt(&mut app, statement).await.as_ref().map_err(String::as_str), Err("42501"), "{statement}");
    }
    let mut superuser = superuser(&base).await;
    for (statement, refused) in [
        ("update ledger_balances set balance = -1", "ledger_balances_no_overdraft"),
        ("update ledger_balances set balance = 'NaN'", "ledger_balances_no_overdraft"),
        ("update ledger_balances set balance = 2::numeric ^ 256", "ledger_balances_no_overdraft"),
    ] {
        assert_eq!(attempt(&mut superuser, statement).await.as_ref().map_err(String::as_str), Err(refused), "{statement}");
    }
}

#[tokio::test]
async fn w3_a_threshold_has_bounds_in_the_table_too() {
    let base = FreshDatabase::create().unwrap();
    furnish(&base).await;
    let mut app = connect(&base.url(APP)).await;
    let change = |value: &str| {
        format!(
            "insert into config_setting_history (key, new_value, changed_by, reason) values ('confirmation_threshold:1', {value}, 'x', 'x')"
        )
    };
    for value in ["0", "-1", "10001", "1.5", "'NaN'", "'Infinity'"] {
        let refused = attempt(&mut app, &change(value)).await.unwrap_err();
        assert!(refused.starts_with("config_setting_history_"), "{value}: {refused}");
    }
    for value in ["1", "10000"] {
        assert_eq!(attempt(&mut app, &change(value)).await, Ok(()));
    }
}

// === the start-up self-test ===

async fn self_test(url: &str) -> Result<(), SelfTestError> {
    let mut connection = connect(url).await;
    db::self_test(&mut connection).await
}

const APPEND_ONLY: [&str; 12] = [
    "config_setting_history",
    "derived_destination_sweeps",
    "events",
    "funds_ledger_entries",
    "intent_approvals",
    "ledger_accounts",
    "ledger_seal_signatures",
    "ledger_seals",
    "payment_quotes",
    "screening_policies",
    "screening_verdicts",
    "webhook_attempts",
];

#[tokio::test]
async fn y9_only_a_weak_role_may_serve() {
    let base = FreshDatabase::create().unwrap();
    self_test(&base.url(APP)).await.unwrap();
    let error = self_test(&base.url(SUPERUSER)).await.unwrap_err();
    assert!(matches!(&error, SelfTestError::Superuser { role } if role == SUPERUSER), "{error:?}");
    let error = self_test(&base.url(MIGRATOR)).await.unwrap_err();
    assert!(matches!(&error, SelfTestError::Owner { role } if role == MIGRATOR), "{error:?}");

    // Roles belong to the cluster, so what strengthens one is done in a cluster of its own.
    let cluster = PrivatePostgres::start(PostgresOptions::default()).unwrap();
    cluster.create_database("amanat").unwrap();
    schema::install(&cluster, "amanat").unwrap();
    let url = cluster.url(APP, "amanat");
    self_test(&url).await.unwrap();
    let strengthen = [
        (
            "grant set on parameter session_replication_role to amanat_app",
            "revoke set on parameter session_replication_role from amanat_app",
        ),
        ("grant amanat_owner to amanat_app", "revoke amanat_owner from amanat_app"),
        ("alter role amanat_app superuser", "alter role amanat_app nosuperuser"),
    ];
    for (place, (stronger, weaker)) in strengthen.into_iter().enumerate() {
        cluster.sql("amanat", stronger).unwrap();
        let error = self_test(&url).await.unwrap_err();
        let named = match (place, &error) {
            (0, SelfTestError::ReplicationRole { role }) | (1, SelfTestError::Owner { role }) | (2, SelfTestError::Superuser { role }) => {
                role == APP
            }
            _ => false,
        };
        assert!(named, "{stronger}: {error:?}");
        cluster.sql("amanat", weaker).unwrap();
        self_test(&url).await.unwrap();
    }
}

#[tokio::test]
async fn y9_an_excess_right_is_named() {
    let base = FreshDatabase::create().unwrap();
    let mut superuser = superuser(&base).await;
    let guarded = APPEND_ONLY.map(|table| (table, ["update", "delete", "truncate"].as_slice()));
    // Whoever may write a balance can make money.
    let balances = ("ledger_balances", ["insert", "update", "delete", "truncate"].as_slice());
    for (table, rights) in guarded.into_iter().chain([balances]) {
        for right in rights {
            run(&mut superuser, &format!("grant {right} on {table} to amanat_app")).await;
            let error = self_test(&base.url(APP)).await.unwrap_err();
            let named = matches!(&error, SelfTestError::TooStrong { role, right: found, table: on } if role == APP && found == right && on == table);
            assert!(named, "{right} on {table}: {error:?}");
            run(&mut superuser, &format!("revoke {right} on {table} from amanat_app")).await;
        }
    }
    for (grant, table) in [
        ("update (memo) on funds_ledger_entries to amanat_app", "funds_ledger_entries"),
        ("update (balance) on ledger_balances to amanat_app", "ledger_balances"),
        // By way of everybody.
        ("delete on events to public", "events"),
    ] {
        run(&mut superuser, &format!("grant {grant}")).await;
        let error = self_test(&base.url(APP)).await.unwrap_err();
        assert!(matches!(&error, SelfTestError::TooStrong { table: on, .. } if on == table), "{grant}: {error:?}");
        run(&mut superuser, &format!("revoke {}", grant.replace(" to ", " from "))).await;
    }
    self_test(&base.url(APP)).await.unwrap();
}

#[tokio::test]
async fn y9_a_guard_that_is_off_is_named() {
    let base = FreshDatabase::create().unwrap();
    let mut superuser = superuser(&base).await;
    let guards = APPEND_ONLY.iter().flat_map(|table| ["update", "delete", "truncate"].map(|op| (*table, format!("{table}_no_{op}"))));
    let posting = [
        ("ledger_accounts", "ledger_accounts_open_balance"),
        ("funds_ledger_entries", "funds_ledger_entries_apply"),
        ("intents", "intents_guard"),
        ("outbound_transactions", "outbound_transactions_guard"),
        ("transfer_verdicts", "transfer_verdicts_guard"),
        ("transfer_verdicts", "transfer_verdicts_gate"),
        ("transfer_verdicts", "transfer_verdicts_follow"),
        ("transfer_verdicts", "transfer_verdicts_screen"),
        ("transfer_screenings", "transfer_screenings_guard"),
        ("config_setting_history", "config_setting_history_notify"),
    ];
    // Payments change, and none goes: entries name them without a foreign key.
    let kept = ["delete", "truncate"].map(|op| ("payments", format!("payments_no_{op}")));
    let triggers: Vec<(&str, String)> = guards.chain(kept).chain(posting.map(|(table, trigger)| (table, trigger.to_owned()))).collect();
    assert_eq!(triggers.len(), 48);
    for (table, trigger) in &triggers {
        let definition: String = sqlx::query_scalar("select pg_get_triggerdef(oid) from pg_trigger where tgname = $1")
            .bind(trigger)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        let always = format!("alter table {table} enable always trigger {trigger}");
        let (quiet, drop) = (format!("create or replace {}", weakened(&definition)), format!("drop trigger {trigger} on {table}"));
        let restore = format!("{drop}; {definition}; {always}");
        let cases = [
            (format!("alter table {table} disable trigger {trigger}"), always.clone(), "disabled"),
            (format!("alter table {table} enable trigger {trigger}"), always.clone(), "not enabled always"),
            (format!("alter table {table} enable replica trigger {trigger}"), always.clone(), "not enabled always"),
            // The same name, and it never fires.
            (format!("{quiet}; {always}"), restore, "not the one of the migrations"),
            (drop.clone(), format!("{definition}; {always}"), "missing"),
        ];
        for (damage, mend, expected) in cases {
            run(&mut superuser, &damage).await;
            let error = self_test(&base.url(APP)).await.err();
            let named = matches!(&error, Some(SelfTestError::Trigger { table: on, trigger: name, found })
                if on == table && name == trigger && *found == expected);
            assert!(named, "{damage}: {error:?}");
            run(&mut superuser, &mend).await;
        }
    }
    self_test(&base.url(APP)).await.unwrap();
}

/// A trigger's definition with a condition that is never met.
fn weakened(definition: &str) -> String {
    definition.replacen("CREATE TRIGGER", "trigger", 1).replace("EXECUTE FUNCTION", "WHEN (false) EXECUTE FUNCTION")
}

#[tokio::test]
async fn y9_a_guard_function_of_another_text_is_named() {
    let base = FreshDatabase::create().unwrap();
    let mut superuser = superuser(&base).await;
    let functions = [
        "forbid_change",
        "ledger_accounts_open_balance",
        "funds_ledger_entries_apply",
        "intents_guard",
        "outbound_transactions_guard",
        "transfer_verdicts_guard",
        "transfer_verdicts_gate",
        "transfer_verdicts_follow",
        "transfer_verdicts_screen",
        "transfer_screenings_guard",
        "config_setting_history_notify",
    ];
    let mut bodies = BTreeMap::new();
    for function in functions {
        let row = sqlx::query("select pg_get_functiondef(oid), prosrc from pg_proc where proname = $1")
            .bind(function)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        bodies.insert(function, (row.get::<String, _>(0), row.get::<String, _>(1)));
    }
    for function in functions {
        let (definition, body) = &bodies[function];
        let mut others: Vec<String> = vec!["begin return null; end".to_owned(), "begin return new; end".to_owned(), format!("{body} ")];
        // One guard's body is no guard in another's place.
        others.extend(functions.iter().filter(|other| **other != function).map(|other| bodies[other].1.clone()));
        for other in others {
            run(&mut superuser, &definition.replace(body.as_str(), &other)).await;
            let error = self_test(&base.url(APP)).await.err();
            assert!(
                matches!(&error, Some(SelfTestError::Function { function: name }) if name == function),
                "{function} as {other}: {error:?}"
            );
        }
        run(&mut superuser, definition).await;
        self_test(&base.url(APP)).await.unwrap();
    }
    // A body of the right text that runs with other rights is another function.
    for change in ["security invoker", "reset search_path", "set search_path = pg_temp, public"] {
        run(&mut superuser, &format!("alter function funds_ledger_entries_apply() {change}")).await;
        let error = self_test(&base.url(APP)).await.err();
        let named = matches!(&error, Some(SelfTestError::Function { function }) if function == "funds_ledger_entries_apply");
        assert!(named, "{change}: {error:?}");
        run(&mut superuser, &bodies["funds_ledger_entries_apply"].0).await;
    }
    self_test(&base.url(APP)).await.unwrap();
}

#[tokio::test]
async fn y9_another_schema_is_named_by_its_migration() {
    let base = FreshDatabase::create().unwrap();
    let mut superuser = superuser(&base).await;
    let newest: i64 = sqlx::query_scalar("select max(version) from _sqlx_migrations").fetch_one(&mut superuser).await.unwrap();
    for version in [1, newest] {
        let row = format!("_sqlx_migrations where version = {version}");
        run(&mut superuser, &format!("create table kept as select * from {row}; delete from {row}")).await;
        let error = self_test(&base.url(APP)).await.unwrap_err();
        assert!(matches!(error, SelfTestError::NotMigrated { version: found } if found == version), "{error:?}");
        run(&mut superuser, "insert into _sqlx_migrations select * from kept; drop table kept").await;

        run(&mut superuser, &format!("update _sqlx_migrations set success = false where version = {version}")).await;
        let error = self_test(&base.url(APP)).await.unwrap_err();
        assert!(matches!(error, SelfTestError::NotMigrated { version: found } if found == version), "{error:?}");
        run(&mut superuser, "update _sqlx_migrations set success = true").await;

        run(
            &mut superuser,
            &format!("create table kept as select * from {row}; update _sqlx_migrations set checksum = 'x' where version = {version}"),
        )
        .await;
        let error = self_test(&base.url(APP)).await.unwrap_err();
        assert!(matches!(error, SelfTestError::ChangedMigration { version: found } if found == version), "{error:?}");
        run(&mut superuser, &format!("delete from {row}; insert into _sqlx_migrations select * from kept; drop table kept")).await;
    }
    let unknown =
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'later', true, 'x', 0)";
    run(&mut superuser, unknown).await;
    let error = self_test(&base.url(APP)).await.unwrap_err();
    assert!(matches!(error, SelfTestError::UnknownMigration { version: 9999 }), "{error:?}");
    run(&mut superuser, "delete from _sqlx_migrations where version = 9999").await;
    self_test(&base.url(APP)).await.unwrap();
    run(&mut superuser, "drop table _sqlx_migrations").await;
    let error = self_test(&base.url(APP)).await.unwrap_err();
    assert!(matches!(error, SelfTestError::NotMigrated { version: 1 }), "{error:?}");
}
