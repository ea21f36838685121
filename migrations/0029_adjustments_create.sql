-- What two officers decide about money outside of a payment's life: whose it is that came for nobody, and what was lost.

alter type proposal_subject add value 'adjustment';

create type adjustment_act as enum ('attribute', 'own', 'lost', 'cover');

create table ledger_adjustments (
    proposal_id bigint not null,
    act adjustment_act not null,
    -- The credit that came for nobody. Once: no two decisions move the same money.
    entry_id bigint,
    created_at timestamptz not null default now(),
    constraint ledger_adjustments_pkey primary key (proposal_id),
    constraint ledger_adjustments_entry_key unique (entry_id),
    constraint ledger_adjustments_proposal_fkey foreign key (proposal_id) references change_proposals (id) on delete restrict,
    constraint ledger_adjustments_entry_fkey foreign key (entry_id) references funds_ledger_entries (id) on delete restrict,
    constraint ledger_adjustments_entry_of_act check ((act in ('attribute', 'own')) = (entry_id is not null))
);
create trigger ledger_adjustments_no_update before update on ledger_adjustments for each statement execute function forbid_change();
create trigger ledger_adjustments_no_delete before delete on ledger_adjustments for each statement execute function forbid_change();
create trigger ledger_adjustments_no_truncate before truncate on ledger_adjustments for each statement execute function forbid_change();
alter table ledger_adjustments enable always trigger ledger_adjustments_no_update;
alter table ledger_adjustments enable always trigger ledger_adjustments_no_delete;
alter table ledger_adjustments enable always trigger ledger_adjustments_no_truncate;

create function ledger_adjustments_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not exists (
        select from change_proposals p join change_decisions d on d.proposal_id = p.id
        where p.id = new.proposal_id and p.subject = 'adjustment' and d.confirmed
          and p.body::jsonb ->> 'act' = new.act::text
          and (p.body::jsonb ->> 'entry')::bigint is not distinct from new.entry_id
    ) then
        raise exception using errcode = 'check_violation', constraint = 'ledger_adjustments_confirmed',
            message = 'an adjustment is what one officer proposed and another confirmed';
    end if;
    return new;
end
$$;
create trigger ledger_adjustments_guard before insert on ledger_adjustments
    for each row execute function ledger_adjustments_guard();
alter table ledger_adjustments enable always trigger ledger_adjustments_guard;

-- Applies the entries of one statement to the balances. They are summed up by account and sorted, so that
-- balances are locked in account order and two postings cannot deadlock on them; an account that would fall
-- below zero fails the whole statement, and so does one that is not there or is of another asset.
--
-- What leaves for a recipient is what was ordered: an entry of a release or a refund is taken only while a payout of
-- that payment, for exactly that amount, is planned.
--
-- Money that came for nobody, and losses, move by what two officers decided: the entry's key names their proposal.
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
    adjusting bigint;
    applied bigint;
begin
    select 2 * count(*), count(reverses_entry_id), count(*) filter (where entry_type in ('release', 'refund')),
           count(*) filter (where entry_type = 'adjustment')
    into legs, reversing, leaving, adjusting from posted;
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
    if adjusting > 0 and exists (
        select from posted p
        join ledger_accounts d on d.id = p.debit_account_id
        join ledger_accounts c on c.id = p.credit_account_id
        where p.entry_type = 'adjustment' and p.legacy_object_id is null
          and ((d.kind = 'suspense' and d.payment_id is null) or 'shortfall' in (d.kind, c.kind))
          and not exists (
              select from ledger_adjustments a
              where a.proposal_id = substring(p.idempotency_key from '^adjustment:([0-9]{1,18})$')::bigint
          )
    ) then
        raise exception using errcode = 'check_violation', constraint = 'funds_ledger_entries_adjustment_decided',
            message = 'money that came for nobody, and losses, move only by what two officers decided';
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

grant insert (proposal_id, act, entry_id) on ledger_adjustments to amanat_app;
