//! SQL of online verification: slices of rows that break a promise. It writes nothing.
//!
//! Numbers are compared in the database: a value that we could not even read is a violation too.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::db::DbError;

/// A slice that was looked at: what is wrong in it, and the place to go on after. `None`: that was the last.
#[derive(Debug)]
pub(super) struct Slice<P> {
    pub wrong: Vec<String>,
    pub next: Option<P>,
}

/// Assets whose two sides differ (L1).
pub(super) async fn list_unequal_sides(connection: &mut PgConnection) -> Result<Vec<String>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select format('chain %s, asset 0x%s: debit accounts hold %s, credit accounts %s', s.chain_id, encode(s.asset, 'hex'), s.debit, s.credit) as "what!"
        from (
            select a.chain_id, a.asset,
                   coalesce(sum(b.balance) filter (where a.kind in ('custody', 'network_fee', 'shortfall')), 0) as debit,
                   coalesce(sum(b.balance) filter (where a.kind not in ('custody', 'network_fee', 'shortfall')), 0) as credit
            from ledger_accounts a join ledger_balances b on b.account_id = a.id
            group by a.chain_id, a.asset
        ) s
        where s.debit is distinct from s.credit
        order by 1 limit 20
        "#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Balances outside 0 to 2^256 - 1 (L3). NaN is larger than any number.
pub(super) async fn list_overdrawn(connection: &mut PgConnection) -> Result<Vec<String>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select format('account %s holds %s', account_id, balance) as "what!"
        from ledger_balances
        where not (balance >= 0 and balance < 115792089237316195423570985008687907853269984665640564039457584007913129639936)
        order by 1 limit 20
        "#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Accounts after an id whose balance is not the sum of their entries, or whose version is not their number
/// (L2). A slice ends where its accounts have as many entries as `work`; an account of more than a million
/// is left to the whole recompute, and to L1.
pub(super) async fn list_drifting(connection: &mut PgConnection, after: i64, accounts: i64, work: i64) -> Result<Slice<i64>, DbError> {
    let rows = sqlx::query!(
        r#"
        with page as (
            select a.id, a.chain_id, a.asset, a.kind in ('custody', 'network_fee', 'shortfall') as debit_normal,
                   b.balance, b.version, b.chain_id as b_chain_id, b.asset as b_asset, b.debit_normal as b_debit_normal,
                   (sum(greatest(coalesce(b.version, 0), 0)) over (order by a.id))::bigint - greatest(coalesce(b.version, 0), 0) as before
            from (select * from ledger_accounts where id > $1 order by id limit $2) a left join ledger_balances b on b.account_id = a.id
        ),
        slice as (
            select *, version > 1000000 and version <= (select coalesce(max(id), 0) from funds_ledger_entries) as huge
            from page where before < $3
        )
        select s.id as "id!",
               not s.huge and (
                   s.balance is distinct from case when s.debit_normal then d.units - c.units else c.units - d.units end
                   or s.version is distinct from d.entries + c.entries
                   or s.b_chain_id is distinct from s.chain_id or s.b_asset is distinct from s.asset
                   or s.b_debit_normal is distinct from s.debit_normal
               ) as "wrong!"
        from slice s
        cross join lateral (
            select coalesce(sum(amount_units::numeric), 0) as units, count(*) as entries from funds_ledger_entries
            where debit_account_id = s.id and not s.huge
        ) d
        cross join lateral (
            select coalesce(sum(amount_units::numeric), 0) as units, count(*) as entries from funds_ledger_entries
            where credit_account_id = s.id and not s.huge
        ) c
        order by s.id
        "#,
        after,
        accounts,
        work
    )
    .fetch_all(connection)
    .await?;
    let wrong = rows.iter().filter(|row| row.wrong).map(|row| format!("account {}: balance or version is not that of its entries", row.id));
    Ok(Slice { wrong: wrong.take(20).collect(), next: rows.last().map(|row| row.id) })
}

/// Payments after an id whose claims are not what the entries that name them say (L6).
pub(super) async fn list_unconserved(connection: &mut PgConnection, after: Uuid, limit: i64) -> Result<Slice<Uuid>, DbError> {
    let rows = sqlx::query!(
        r#"
        with slice as (
            select id from payments where id > $1 order by id limit $2
        ),
        -- what is there for a payment
        claims as (
            select a.payment_id, a.chain_id, a.asset, sum(b.balance) as units
            from slice s join ledger_accounts a on a.payment_id = s.id join ledger_balances b on b.account_id = a.id
            group by 1, 2, 3
        ),
        -- what came in for it and did not go out, by the entries that name it
        flows as (
            select e.payment_id, e.chain_id, e.asset,
                   sum(case when c.payment_id = e.payment_id then e.amount_units::numeric else 0 end
                       - case when d.payment_id = e.payment_id then e.amount_units::numeric else 0 end) as units
            from slice s
            cross join lateral ledger_entries_of(s.id) as o (id)
            join funds_ledger_entries e on e.id = o.id
            join ledger_accounts d on d.id = e.debit_account_id
            join ledger_accounts c on c.id = e.credit_account_id
            group by 1, 2, 3
        )
        select s.id as "id!",
               exists (
                   select from claims c full join flows f
                        on f.payment_id = c.payment_id and f.chain_id = c.chain_id and f.asset = c.asset
                   where coalesce(c.payment_id, f.payment_id) = s.id and coalesce(c.units, 0) is distinct from coalesce(f.units, 0)
               ) as "wrong!"
        from slice s order by s.id
        "#,
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    let wrong = rows.iter().filter(|row| row.wrong).map(|row| format!("payment {}: its claims are not what its entries say", row.id));
    let full = i64::try_from(rows.len()).is_ok_and(|found| found == limit);
    Ok(Slice { wrong: wrong.take(20).collect(), next: rows.last().filter(|_| full).map(|row| row.id) })
}

/// Reversals of entries after an id that do not mirror them, or that are not the only one (L7).
pub(super) async fn list_unmirrored(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Slice<i64>, DbError> {
    let rows = sqlx::query!(
        r#"
        with slice as (
            select * from funds_ledger_entries where reverses_entry_id > $1 order by reverses_entry_id, id limit $2
        )
        select s.reverses_entry_id as "of!", s.id as "id!",
               (r.id is null or r.entry_type = 'reversal' or s.entry_type <> 'reversal'
                or s.debit_account_id is distinct from r.credit_account_id or s.credit_account_id is distinct from r.debit_account_id
                or s.amount_units is distinct from r.amount_units
                or exists (select from funds_ledger_entries o where o.reverses_entry_id = s.reverses_entry_id and o.id <> s.id)) as "wrong!"
        from slice s left join funds_ledger_entries r on r.id = s.reverses_entry_id
        order by s.reverses_entry_id, s.id
        "#,
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    let wrong =
        rows.iter().filter(|row| row.wrong).map(|row| format!("entry {}: no mirror of entry {}, or not its only one", row.id, row.of));
    let full = i64::try_from(rows.len()).is_ok_and(|found| found == limit);
    Ok(Slice { wrong: wrong.take(20).collect(), next: rows.last().filter(|_| full).map(|row| row.of) })
}

/// Transfers after an id that are credited more than once (W1).
pub(super) async fn list_credited_twice(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Slice<i64>, DbError> {
    let rows = sqlx::query!(
        r#"
        with slice as (
            select id from transfers where id > $1 order by id limit $2
        )
        select s.id as "id!",
               (select count(*) from transfer_verdicts v
                join funds_ledger_entries e on e.idempotency_key = 'verdict:' || v.id || ':credit'
                where v.transfer_id = s.id and v.gate = 'credit'
                  and not exists (select from funds_ledger_entries r where r.reverses_entry_id = e.id)) > 1 as "wrong!"
        from slice s order by s.id
        "#,
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    let wrong = rows.iter().filter(|row| row.wrong).map(|row| format!("transfer {}: credited more than once", row.id));
    let full = i64::try_from(rows.len()).is_ok_and(|found| found == limit);
    Ok(Slice { wrong: wrong.take(20).collect(), next: rows.last().filter(|_| full).map(|row| row.id) })
}

/// What is wrong with signed transactions after an id: a nonce that has two of which neither replaces the other
/// (S1), and what settled otherwise than it was approved (S5).
#[derive(Debug)]
pub(super) struct OutboundSlice {
    pub nonces: Vec<String>,
    pub settlements: Vec<String>,
    pub next: Option<i64>,
}

pub(super) async fn list_outbound_faults(connection: &mut PgConnection, after: i64, limit: i64) -> Result<OutboundSlice, DbError> {
    let rows = sqlx::query!(
        r#"
        with slice as (
            select * from outbound_transactions where id > $1 order by id limit $2
        )
        select s.id as "id!", s.intent_id as "intent!",
               (
                   -- one at a nonce replaces none, every other one replaces one of them, and one is mined
                   exists (
                       select from outbound_transactions o
                       where o.chain_id = s.chain_id and o.from_address = s.from_address and o.nonce = s.nonce and o.id <> s.id
                         and (o.replaces is null and s.replaces is null
                              or o.replaces is not distinct from s.replaces
                              or o.settled_at is not null and o.block_number is not null
                                 and s.settled_at is not null and s.block_number is not null)
                   )
                   or s.replaces is not null and not exists (
                       select from outbound_transactions o join intents oi on oi.id = o.intent_id
                       where o.id = s.replaces and o.chain_id = s.chain_id and o.from_address = s.from_address and o.nonce = s.nonce
                         and (oi.id = i.id or i.cancels = oi.id or oi.cancels = i.id)
                   )
               ) as "nonce_taken!",
               (
                   -- what moved is what was approved, once; what was replaced moved nothing
                   coalesce(m.units, 0) > i.amount::numeric or m.entries > 1 or m.other_asset
                   or ((s.settled_at is null or s.succeeded is not true) and m.entries > 0)
                   or (i.kind = 'cancel' and m.entries > 0)
                   or (s.settled_at is not null and s.succeeded is true and i.kind <> 'cancel' and coalesce(m.units, 0) <> i.amount::numeric)
                   or (s.settled_at is not null and s.succeeded is true and exists (
                       select from outbound_transactions o
                       where o.intent_id = s.intent_id and o.id <> s.id and o.settled_at is not null and o.succeeded
                   ))
               ) as "settled_otherwise!"
        from slice s
        join intents i on i.id = s.intent_id
        cross join lateral (
            select sum(e.amount_units::numeric) as units, count(*) as entries,
                   coalesce(bool_or(e.asset <> i.asset or e.chain_id <> i.chain_id), false) as other_asset
            from funds_ledger_entries e
            where e.idempotency_key in ('outbound:' || s.id || ':move', 'tx:0x' || encode(s.tx_hash, 'hex') || ':move')
              and not exists (select from funds_ledger_entries r where r.reverses_entry_id = e.id)
        ) m
        order by s.id
        "#,
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    let nonces =
        rows.iter().filter(|row| row.nonce_taken).map(|row| format!("transaction {}: its nonce has another one, not linked to it", row.id));
    let settlements = rows
        .iter()
        .filter(|row| row.settled_otherwise)
        .map(|row| format!("intent {}: transaction {} settled otherwise than approved", row.intent, row.id));
    let full = i64::try_from(rows.len()).is_ok_and(|found| found == limit);
    Ok(OutboundSlice {
        nonces: nonces.take(20).collect(),
        settlements: settlements.take(20).collect(),
        next: rows.last().filter(|_| full).map(|row| row.id),
    })
}

/// Chains that can have their outflow halted: those that were scanned.
pub(super) async fn list_scanned_chains(connection: &mut PgConnection) -> Result<Vec<i64>, DbError> {
    let rows = sqlx::query_scalar!(r#"select chain_id as "chain!: i64" from chain_cursors order by 1"#).fetch_all(connection).await?;
    Ok(rows)
}
