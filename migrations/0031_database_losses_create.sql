-- A database that is not the one it was: a failover to a replica, a restore. What is found is a row here, and while one
-- is open nothing leaves any chain.

-- One row for each installation of the daemon, written every second; its file beside the daemon holds the same number
-- and token. A database whose row is older than the file has lost what was acknowledged in between.
create table high_water_marks (
    installation uuid not null,
    number bigint not null,
    token uuid not null,
    written_at timestamptz not null,
    constraint high_water_marks_pkey primary key (installation),
    constraint high_water_marks_number_positive check (number > 0)
);

create table database_losses (
    id bigint generated always as identity,
    found_at timestamptz not null,
    -- The daemon that found it.
    found_by text not null,
    cause text not null,
    detail text not null,
    -- By chain: the block up to which it had been read, and must be again.
    read_again jsonb not null,
    reconciled_at timestamptz,
    reconciled_by text,
    reconciled_reason text,
    constraint database_losses_pkey primary key (id),
    constraint database_losses_cause_known check (cause in ('failover', 'set_back', 'other_system')),
    constraint database_losses_reconciled_whole check (
        (reconciled_at is null) = (reconciled_by is null) and (reconciled_at is null) = (reconciled_reason is null)
    ),
    constraint database_losses_reason_given check (reconciled_reason is null or length(btrim(reconciled_reason)) between 1 and 500)
);
create index database_losses_open_idx on database_losses (id) where reconciled_at is null;

create function database_losses_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if old.reconciled_at is not null then
        raise exception using errcode = 'check_violation', constraint = 'database_losses_reconciled_for_good',
            message = 'a loss that was reconciled stays as it is';
    end if;
    return new;
end
$$;
create trigger database_losses_guard before update on database_losses
    for each row execute function database_losses_guard();
alter table database_losses enable always trigger database_losses_guard;

-- A chain is not resumed while a loss is open, whoever asks.
create function chain_cursors_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if old.outflow_halted_at is not null and new.outflow_halted_at is null
       and exists (select from database_losses where reconciled_at is null) then
        raise exception using errcode = 'check_violation', constraint = 'chain_cursors_frozen_by_a_loss',
            message = 'the database lost something that nobody has reconciled; nothing may leave';
    end if;
    return new;
end
$$;
create trigger chain_cursors_guard before update on chain_cursors
    for each row execute function chain_cursors_guard();
alter table chain_cursors enable always trigger chain_cursors_guard;

-- Transactions that were mined and failed are counted; there are few of them, however many intents there are.
create index intents_reverted_idx on intents (chain_id) where state = 'reverted';

grant insert (installation, number, token, written_at) on high_water_marks to amanat_app;
grant update (number, token, written_at) on high_water_marks to amanat_app;
grant insert (found_at, found_by, cause, detail, read_again) on database_losses to amanat_app;
grant update (reconciled_at, reconciled_by, reconciled_reason) on database_losses to amanat_app;
