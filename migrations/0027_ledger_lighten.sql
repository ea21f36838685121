-- Posting with fewer and nearer steps for each row, and no money out of a payment without an order.
--
-- The table of entries is rewritten once for its generated column: about a minute for ten million rows.

-- Entries of a payment are found by the payment's accounts, whose indexes every entry has anyway. What names a
-- payment and touches none of its accounts (gas, sweeps and what reverses them) keeps an index, and is rare.
drop index funds_ledger_entries_payment_idx;
create index funds_ledger_entries_payment_idx on funds_ledger_entries (payment_id, id)
    where payment_id is not null and entry_type in ('sweep', 'network_fee', 'reversal');

create function ledger_entries_of(payment uuid) returns setof bigint
    language sql stable
as $$
    select e.id from ledger_accounts a join funds_ledger_entries e on e.debit_account_id = a.id
    where a.payment_id = payment and e.payment_id = payment
    union
    select e.id from ledger_accounts a join funds_ledger_entries e on e.credit_account_id = a.id
    where a.payment_id = payment and e.payment_id = payment
    union
    select e.id from funds_ledger_entries e
    where e.payment_id = payment and e.entry_type in ('sweep', 'network_fee', 'reversal')
$$;

grant execute on function ledger_entries_of(uuid) to amanat_app, amanat_readonly;

-- The same amount as before, by a product for the decimals that most tokens have: a power and a quotient cost more
-- than all checks of a row.
alter table funds_ledger_entries drop column amount;
alter table funds_ledger_entries add column amount numeric(38, 18) generated always as (
    case asset_decimals
        when 6 then case when amount_units < 100000000000000000000000000 then amount_units * 0.000001 end
        when 18 then
            case when amount_units < 100000000000000000000000000000000000000 then amount_units * 0.000000000000000001 end
        else
            case
                when asset_decimals <= 18 and amount_units < 100000000000000000000 * power(10::numeric, asset_decimals)
                then amount_units::numeric(96, 18) / power(10::numeric, asset_decimals)
            end
    end
) stored;

-- Whose it is tells accounts apart at once; chain and asset are the same for most. The id is in the index, so
-- that finding an account reads no row.
alter table ledger_accounts
    drop constraint ledger_accounts_key,
    add constraint ledger_accounts_key unique (kind, holder, chain_id, asset) include (id);

-- Applies the entries of one statement to the balances. They are summed up by account and sorted, so that
-- balances are locked in account order and two postings cannot deadlock on them; an account that would fall
-- below zero fails the whole statement, and so does one that is not there or is of another asset.
--
-- What leaves for a recipient is what was ordered: an entry of a release or a refund is taken only while a payout of
-- that payment, for exactly that amount, is planned.
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
    reversing bigint;
    leaving bigint;
    applied bigint;
begin
    select 2 * count(*), count(reverses_entry_id), count(*) filter (where entry_type in ('release', 'refund'))
    into legs, reversing, leaving from posted;
    -- A statement that found nothing to post: its accounts are opened first.
    if legs = 0 then
        return null;
    end if;
    if reversing > 0 and exists (
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
    -- What another system paid out before this ledger was begun has no order here, and says so by its id there.
    if leaving > 0 and exists (
        select from posted p
        where p.entry_type in ('release', 'refund') and p.legacy_object_id is null and not exists (
            select from payment_payouts y
            where y.payment_id = p.payment_id and y.kind = p.entry_type::text::payout_kind and y.state = 'planned'
              and y.chain_id = p.chain_id and y.asset = p.asset and y.net_units = p.amount_units
        )
    ) then
        raise exception using errcode = 'check_violation', constraint = 'funds_ledger_entries_payout_ordered',
            message = 'a release or a refund needs a planned payout of its payment, for the same amount';
    end if;

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

-- Nor is anything planned for a recipient that was not ordered: at the end of the transaction that stores the intent,
-- a payout names it.
create function intents_payout() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.kind in ('release', 'refund') and not exists (
        select from payment_payouts y where y.intent_id = new.id and y.kind = new.kind::text::payout_kind and y.payment_id = new.payment_id
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_payout_ordered',
            message = 'an intent of a release or a refund pays a payout that was ordered';
    end if;
    return null;
end
$$;
create constraint trigger intents_payout after insert on intents deferrable initially deferred
    for each row execute function intents_payout();
alter table intents enable always trigger intents_payout;
