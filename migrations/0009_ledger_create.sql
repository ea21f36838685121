-- The ledger. A row moves one amount of one asset from one account to another, so it cannot be out
-- of balance. Balances are kept by the database itself and can never go below zero.

create table ledger_accounts (
    id bigint generated always as identity,
    kind ledger_account_kind not null,
    chain_id chain_id not null,
    asset evm_address not null,
    -- custody accounts: the address that holds the money
    address evm_address,
    -- claims of a payment
    payment_id uuid,
    debit_normal boolean not null generated always as (kind in ('custody', 'network_fee', 'shortfall')) stored,
    created_at timestamptz not null default now(),
    constraint ledger_accounts_pkey primary key (id),
    constraint ledger_accounts_payment_id_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint ledger_accounts_key unique nulls not distinct (kind, chain_id, asset, address, payment_id),
    -- Lets an entry prove that both its accounts hold the entry's own asset.
    constraint ledger_accounts_asset_key unique (id, chain_id, asset),
    constraint ledger_accounts_custody_has_address check ((kind = 'custody') = (address is not null)),
    constraint ledger_accounts_claim_has_payment check (
        case
            when kind in ('received', 'held', 'disputed', 'payable') then payment_id is not null
            when kind = 'suspense' then true
            else payment_id is null
        end
    )
);
create index ledger_accounts_payment_idx on ledger_accounts (payment_id) where payment_id is not null;

create table ledger_balances (
    account_id bigint not null,
    balance numeric(78, 0) not null default 0,
    -- The number of entries that touched the account.
    version bigint not null default 0,
    updated_at timestamptz not null default now(),
    constraint ledger_balances_pkey primary key (account_id),
    constraint ledger_balances_account_id_fkey foreign key (account_id) references ledger_accounts (id) on delete restrict,
    constraint ledger_balances_no_overdraft check (
        balance >= 0 and balance < 115792089237316195423570985008687907853269984665640564039457584007913129639936
    )
);

create table funds_ledger_entries (
    id bigint generated always as identity,
    legacy_object_id text,
    entry_type funds_ledger_entry_type not null,
    payment_ref_kind ref_kind,
    payment_id uuid,
    payment_external_ref text,
    chain_id chain_id not null,
    asset evm_address not null,
    debit_account_id bigint not null,
    credit_account_id bigint not null,
    amount_units base_units not null,
    -- The same amount as the marketplace reads it. Null only where it exceeds numeric(38,18).
    asset_decimals smallint not null,
    amount numeric(38, 18) generated always as (
        case
            when asset_decimals <= 18 and amount_units < 100000000000000000000 * power(10::numeric, asset_decimals)
            then amount_units::numeric(96, 18) / power(10::numeric, asset_decimals)
        end
    ) stored,
    reverses_entry_id bigint,
    idempotency_key text not null,
    memo text not null,
    created_at timestamptz not null default now(),
    constraint funds_ledger_entries_pkey primary key (id),
    constraint funds_ledger_entries_payment_id_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint funds_ledger_entries_debit_fkey foreign key (debit_account_id, chain_id, asset)
        references ledger_accounts (id, chain_id, asset) on delete restrict,
    constraint funds_ledger_entries_credit_fkey foreign key (credit_account_id, chain_id, asset)
        references ledger_accounts (id, chain_id, asset) on delete restrict,
    constraint funds_ledger_entries_reverses_fkey foreign key (reverses_entry_id) references funds_ledger_entries (id) on delete restrict,
    constraint funds_ledger_entries_reversed_once_key unique (reverses_entry_id),
    constraint funds_ledger_entries_idempotency_key unique (idempotency_key),
    constraint funds_ledger_entries_idempotency_key_form check (length(idempotency_key) between 3 and 160),
    constraint funds_ledger_entries_amount_positive check (amount_units > 0),
    constraint funds_ledger_entries_accounts_differ check (debit_account_id <> credit_account_id),
    constraint funds_ledger_entries_decimals_bounds check (asset_decimals between 0 and 18),
    constraint funds_ledger_entries_reversal_names_entry check ((entry_type = 'reversal') = (reverses_entry_id is not null)),
    constraint funds_ledger_entries_payment_ref check (
        case payment_ref_kind
            when 'entity' then payment_id is not null and payment_external_ref is null
            when 'template' then payment_id is null and payment_external_ref is not null
            else payment_id is null and payment_external_ref is null
        end
    )
);
create unique index funds_ledger_entries_legacy_object_id_key on funds_ledger_entries (legacy_object_id)
    where legacy_object_id is not null;
create index funds_ledger_entries_debit_idx on funds_ledger_entries (debit_account_id, id);
create index funds_ledger_entries_credit_idx on funds_ledger_entries (credit_account_id, id);
create index funds_ledger_entries_payment_idx on funds_ledger_entries (payment_id, id) where payment_id is not null;

create trigger funds_ledger_entries_no_update before update on funds_ledger_entries
    for each statement execute function forbid_change();
create trigger funds_ledger_entries_no_delete before delete on funds_ledger_entries
    for each statement execute function forbid_change();
create trigger funds_ledger_entries_no_truncate before truncate on funds_ledger_entries
    for each statement execute function forbid_change();
alter table funds_ledger_entries enable always trigger funds_ledger_entries_no_update;
alter table funds_ledger_entries enable always trigger funds_ledger_entries_no_delete;
alter table funds_ledger_entries enable always trigger funds_ledger_entries_no_truncate;

-- Every account starts with a balance row of zero.
create function ledger_accounts_open_balance() returns trigger
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into ledger_balances (account_id) select id from opened;
    return null;
end
$$;
create trigger ledger_accounts_open_balance after insert on ledger_accounts
    referencing new table as opened for each statement execute function ledger_accounts_open_balance();
alter table ledger_accounts enable always trigger ledger_accounts_open_balance;

-- Applies the entries of one statement to the balances. Rows are locked in account order, so two
-- postings cannot deadlock on them; an account that would fall below zero fails the whole statement.
--
-- The server plans these statements at a connection's first posting and keeps the plans. Left alone, a
-- first posting of many entries makes plans that read every account and every balance, also for the
-- postings of one entry that follow. With these ways switched off, accounts are found by their key.
create function funds_ledger_entries_apply() returns trigger
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
    if exists (
        select from posted p join funds_ledger_entries r on r.id = p.reverses_entry_id
        where p.debit_account_id is distinct from r.credit_account_id
           or p.credit_account_id is distinct from r.debit_account_id
           or p.amount_units is distinct from r.amount_units
           or r.entry_type = 'reversal'
    ) then
        raise exception using errcode = 'check_violation', constraint = 'funds_ledger_entries_reversal_mirrors',
            message = 'a reversal must swap the accounts of the entry it reverses, for the same amount, and cannot reverse a reversal';
    end if;

    perform from ledger_balances
    where account_id in (select debit_account_id from posted union select credit_account_id from posted)
    order by account_id
    for update;

    update ledger_balances b
    set balance = b.balance + case when a.debit_normal then m.debited - m.credited else m.credited - m.debited end,
        version = b.version + m.entries,
        updated_at = now()
    from (
        select account_id, sum(debited) as debited, sum(credited) as credited, count(*) as entries
        from (
            select debit_account_id as account_id, amount_units::numeric as debited, 0::numeric as credited from posted
            union all
            select credit_account_id, 0, amount_units::numeric from posted
        ) legs
        group by account_id
    ) m
    join ledger_accounts a on a.id = m.account_id
    where b.account_id = m.account_id;
    return null;
end
$$;
create trigger funds_ledger_entries_apply after insert on funds_ledger_entries
    referencing new table as posted for each statement execute function funds_ledger_entries_apply();
alter table funds_ledger_entries enable always trigger funds_ledger_entries_apply;

-- How far the ledger has read a chain's verdicts. It moves in the transaction that posts.
create table ledger_cursors (
    chain_id chain_id not null,
    verdict_id bigint not null,
    updated_at timestamptz not null default now(),
    constraint ledger_cursors_pkey primary key (chain_id),
    constraint ledger_cursors_verdict_positive check (verdict_id >= 0)
);

-- Verdicts that could not be posted: they wait here, retried and in sight, and hold nobody else up.
create table ledger_unposted (
    verdict_id bigint not null,
    chain_id chain_id not null,
    reason text not null,
    failed_at timestamptz not null default now(),
    posted_at timestamptz,
    constraint ledger_unposted_pkey primary key (verdict_id),
    constraint ledger_unposted_verdict_fkey foreign key (verdict_id) references transfer_verdicts (id) on delete restrict
);
create index ledger_unposted_open_idx on ledger_unposted (chain_id, verdict_id) where posted_at is null;

grant insert (chain_id, verdict_id), update (verdict_id, updated_at) on ledger_cursors to amanat_app;
grant insert (verdict_id, chain_id, reason), update (reason, posted_at) on ledger_unposted to amanat_app;
grant insert (kind, chain_id, asset, address, payment_id) on ledger_accounts to amanat_app;
grant insert (
    entry_type, payment_ref_kind, payment_id, payment_external_ref, chain_id, asset, debit_account_id, credit_account_id,
    amount_units, asset_decimals, reverses_entry_id, idempotency_key, memo
) on funds_ledger_entries to amanat_app;
