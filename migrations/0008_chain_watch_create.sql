-- What was seen on the chains: an unbroken line of blocks, transfers to and from our addresses, and
-- the verdict that one of them is confirmed.

create table chain_blocks (
    chain_id chain_id not null,
    number bigint not null,
    hash hash32 not null,
    parent_hash hash32 not null,
    block_time timestamptz not null,
    state observation_state not null default 'canonical',
    -- The threshold in force when the block was first stored; a later rise counts too, a later fall does not.
    threshold_history_id bigint not null,
    first_seen_at timestamptz not null default now(),
    orphaned_at timestamptz,
    constraint chain_blocks_pkey primary key (chain_id, number, hash),
    constraint chain_blocks_number_positive check (number >= 0),
    constraint chain_blocks_threshold_fkey foreign key (threshold_history_id) references config_setting_history (id) on delete restrict,
    constraint chain_blocks_orphaned_with_time check ((state = 'orphaned') = (orphaned_at is not null))
);
create unique index chain_blocks_canonical_key on chain_blocks (chain_id, number) where state = 'canonical';

create table chain_cursors (
    chain_id chain_id not null,
    start_number bigint not null,
    number bigint not null,
    hash hash32 not null,
    updated_at timestamptz not null default now(),
    outflow_halted_at timestamptz,
    outflow_halted_reason text,
    constraint chain_cursors_pkey primary key (chain_id),
    constraint chain_cursors_block_fkey foreign key (chain_id, number, hash) references chain_blocks (chain_id, number, hash) on delete restrict,
    constraint chain_cursors_above_start check (number >= start_number),
    constraint chain_cursors_halt_has_reason check ((outflow_halted_at is null) = (outflow_halted_reason is null))
);

-- The economic key: one row per transfer, whichever block carries it. The position is that of the
-- log inside its receipt (log:0), or the path of the call (call: is the transaction itself), because
-- the index of a log inside its block changes when the transaction is included again.
create table transfers (
    id bigint generated always as identity,
    chain_id chain_id not null,
    tx_hash hash32 not null,
    position text not null,
    created_at timestamptz not null default now(),
    constraint transfers_pkey primary key (id),
    constraint transfers_economic_key unique (chain_id, tx_hash, position),
    constraint transfers_position_form check (position ~ '^(log:[0-9]{1,9}|call:([0-9]{1,9}(\.[0-9]{1,9})*)?)$')
);

-- One row per block in which a transfer was seen. A reorg orphans the row and never removes it; the
-- same row becomes canonical again if its block does.
create table transfer_observations (
    id bigint generated always as identity,
    transfer_id bigint not null,
    chain_id chain_id not null,
    block_number bigint not null,
    block_hash hash32 not null,
    asset evm_address not null,
    sender evm_address not null,
    recipient evm_address not null,
    amount base_units not null,
    derived_address_id uuid not null,
    -- Sent by one of our own addresses: booked by its settlement, never credited as a deposit.
    internal boolean not null,
    state observation_state not null default 'canonical',
    orphaned_at timestamptz,
    created_at timestamptz not null default now(),
    constraint transfer_observations_pkey primary key (id),
    constraint transfer_observations_transfer_fkey foreign key (transfer_id) references transfers (id) on delete restrict,
    constraint transfer_observations_block_fkey foreign key (chain_id, block_number, block_hash)
        references chain_blocks (chain_id, number, hash) on delete restrict,
    constraint transfer_observations_address_fkey foreign key (derived_address_id) references trezor_derived_addresses (id) on delete restrict,
    constraint transfer_observations_key unique (chain_id, block_number, transfer_id, block_hash),
    constraint transfer_observations_amount_positive check (amount > 0),
    constraint transfer_observations_orphaned_with_time check ((state = 'orphaned') = (orphaned_at is not null))
);
create unique index transfer_observations_one_canonical_key on transfer_observations (transfer_id) where state = 'canonical';
create index transfer_observations_address_idx on transfer_observations (derived_address_id, id);
create index transfer_observations_orphaned_idx on transfer_observations (chain_id, id) where state = 'orphaned';

-- The verdict "confirmed" and everything needed to replay why.
create table transfer_verdicts (
    id bigint generated always as identity,
    transfer_id bigint not null,
    observation_id bigint not null,
    chain_id chain_id not null,
    block_number bigint not null,
    block_hash hash32 not null,
    head_number bigint not null,
    head_hash hash32 not null,
    depth bigint not null,
    threshold integer not null,
    threshold_seen_history_id bigint not null,
    threshold_now_history_id bigint not null,
    confirmed_at timestamptz not null default now(),
    revoked_at timestamptz,
    constraint transfer_verdicts_pkey primary key (id),
    constraint transfer_verdicts_transfer_fkey foreign key (transfer_id) references transfers (id) on delete restrict,
    constraint transfer_verdicts_observation_fkey foreign key (observation_id) references transfer_observations (id) on delete restrict,
    constraint transfer_verdicts_seen_fkey foreign key (threshold_seen_history_id) references config_setting_history (id) on delete restrict,
    constraint transfer_verdicts_now_fkey foreign key (threshold_now_history_id) references config_setting_history (id) on delete restrict,
    constraint transfer_verdicts_depth_is_distance check (depth = head_number - block_number + 1),
    constraint transfer_verdicts_depth_reached check (depth >= threshold and threshold between 1 and 10000)
);
-- Exactly once: one live verdict per transfer, however many blocks carried it.
create unique index transfer_verdicts_one_live_key on transfer_verdicts (transfer_id) where revoked_at is null;
create index transfer_verdicts_observation_idx on transfer_verdicts (observation_id) where revoked_at is null;
create index transfer_verdicts_chain_idx on transfer_verdicts (chain_id, id) where revoked_at is null;
create index chain_blocks_orphaned_idx on chain_blocks (chain_id, number) where state = 'orphaned';

-- A verdict that was taken back stays taken back; the transfer gets another one.
create function transfer_verdicts_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at then
        raise exception using errcode = 'check_violation', constraint = 'transfer_verdicts_revoked_for_good',
            message = 'a revoked verdict stays revoked';
    end if;
    return new;
end
$$;
create trigger transfer_verdicts_guard before update on transfer_verdicts
    for each row execute function transfer_verdicts_guard();
alter table transfer_verdicts enable always trigger transfer_verdicts_guard;

grant insert (chain_id, number, hash, parent_hash, block_time, threshold_history_id) on chain_blocks to amanat_app;
grant update (state, orphaned_at) on chain_blocks to amanat_app;
grant insert (chain_id, start_number, number, hash) on chain_cursors to amanat_app;
grant update (number, hash, updated_at, outflow_halted_at, outflow_halted_reason) on chain_cursors to amanat_app;
grant insert (chain_id, tx_hash, position) on transfers to amanat_app;
grant insert (
    transfer_id, chain_id, block_number, block_hash, asset, sender, recipient, amount, derived_address_id, internal
) on transfer_observations to amanat_app;
grant update (state, orphaned_at) on transfer_observations to amanat_app;
grant insert (
    transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth, threshold,
    threshold_seen_history_id, threshold_now_history_id
) on transfer_verdicts to amanat_app;
grant update (revoked_at) on transfer_verdicts to amanat_app;
