-- Posting in batches, as fast as the disk and the indexes allow. What row-level foreign keys checked one
-- entry at a time, the posting trigger checks once for each statement; and since no trigger of ours is
-- switched off by session_replication_role, it checks that there too, where a foreign key does not.

-- A balance knows its asset and its side, so that posting finds all it needs in one row.
alter table ledger_balances add column chain_id chain_id, add column asset evm_address, add column debit_normal boolean;
update ledger_balances b set chain_id = a.chain_id, asset = a.asset, debit_normal = a.debit_normal
from ledger_accounts a where a.id = b.account_id;
alter table ledger_balances
    alter column chain_id set not null,
    alter column asset set not null,
    alter column debit_normal set not null,
    -- Room beside each balance for its next version.
    set (fillfactor = 70);

create or replace function ledger_accounts_open_balance() returns trigger
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into ledger_balances (account_id, chain_id, asset, debit_normal) select id, chain_id, asset, debit_normal from opened;
    return null;
end
$$;

-- What entries refer to stays for ever: an account does not change, and no payment goes.
create trigger ledger_accounts_no_update before update on ledger_accounts for each statement execute function forbid_change();
create trigger ledger_accounts_no_delete before delete on ledger_accounts for each statement execute function forbid_change();
create trigger ledger_accounts_no_truncate before truncate on ledger_accounts for each statement execute function forbid_change();
alter table ledger_accounts enable always trigger ledger_accounts_no_update;
alter table ledger_accounts enable always trigger ledger_accounts_no_delete;
alter table ledger_accounts enable always trigger ledger_accounts_no_truncate;
create trigger payments_no_delete before delete on payments for each statement execute function forbid_change();
create trigger payments_no_truncate before truncate on payments for each statement execute function forbid_change();
alter table payments enable always trigger payments_no_delete;
alter table payments enable always trigger payments_no_truncate;

alter table funds_ledger_entries
    drop constraint funds_ledger_entries_payment_id_fkey,
    drop constraint funds_ledger_entries_debit_fkey,
    drop constraint funds_ledger_entries_credit_fkey,
    -- Most entries reverse nothing, and need no row in this index.
    drop constraint funds_ledger_entries_reversed_once_key,
    -- Keys grow (they begin with what they are about and its number), and are compared byte by byte, so that new
    -- ones meet in few pages of the index, however many there are.
    alter column idempotency_key type text collate "C";
create unique index funds_ledger_entries_reversed_once_key on funds_ledger_entries (reverses_entry_id)
    where reverses_entry_id is not null;
-- An account is found by its kind, its asset and whose it is: an address, a payment, or nobody. Only one of them
-- is ever given, and they differ in length.
alter table ledger_accounts
    -- Only the foreign keys needed it.
    drop constraint ledger_accounts_asset_key,
    drop constraint ledger_accounts_key,
    add column holder bytea not null generated always as (coalesce(address::bytea, uuid_send(payment_id), ''::bytea)) stored,
    add constraint ledger_accounts_key unique (kind, chain_id, asset, holder);
-- A period of the ledger. Rows come in the order of time, so a block range index does.
create index funds_ledger_entries_created_idx on funds_ledger_entries using brin (created_at) with (pages_per_range = 32);

-- Applies the entries of one statement to the balances. They are summed up by account and sorted, so that
-- balances are locked in account order and two postings cannot deadlock on them; an account that would fall
-- below zero fails the whole statement, and so does one that is not there or is of another asset.
--
-- The server plans these statements at a connection's first posting and keeps the plans. With the other
-- ways switched off, accounts and balances are found by their key, in the order of the sort, however many
-- entries the first posting had.
create or replace function funds_ledger_entries_apply() returns trigger
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_hashagg = off
    set enable_bitmapscan = off
as $$
declare
    legs bigint;
    applied bigint;
begin
    if exists (select from posted where reverses_entry_id is not null) and exists (
        select from posted p join funds_ledger_entries r on r.id = p.reverses_entry_id
        where p.debit_account_id is distinct from r.credit_account_id
           or p.credit_account_id is distinct from r.debit_account_id
           or p.amount_units is distinct from r.amount_units
           or r.entry_type = 'reversal'
    ) then
        raise exception using errcode = 'check_violation', constraint = 'funds_ledger_entries_reversal_mirrors',
            message = 'a reversal must swap the accounts of the entry it reverses, for the same amount, and cannot reverse a reversal';
    end if;
    if exists (
        select from posted p where p.payment_id is not null and not exists (select from payments q where q.id = p.payment_id)
    ) then
        raise exception using errcode = 'foreign_key_violation', constraint = 'funds_ledger_entries_payment_id_fkey',
            message = 'an entry names a payment that is not there';
    end if;

    select 2 * count(*) into legs from posted;
    with written as (
        update ledger_balances b
        set balance = b.balance + case when b.debit_normal then m.net else -m.net end,
            version = b.version + m.entries,
            updated_at = now()
        from (
            select account_id, chain_id, asset, sum(net) as net, count(*) as entries
            from (
                select debit_account_id as account_id, chain_id, asset, amount_units::numeric as net from posted
                union all
                select credit_account_id, chain_id, asset, -(amount_units::numeric) from posted
            ) leg
            group by account_id, chain_id, asset
        ) m
        where b.account_id = m.account_id and b.chain_id = m.chain_id and b.asset = m.asset
        returning m.entries
    )
    select sum(entries) into applied from written;
    if applied is distinct from legs then
        raise exception using errcode = 'foreign_key_violation', constraint = 'funds_ledger_entries_account_fkey',
            message = 'an entry names an account that is not there, or one of another asset';
    end if;
    return null;
end
$$;
