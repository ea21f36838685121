-- Money on its way out: the intent, who approved it, the signed bytes, and the sweep it made.

create table intents (
    id uuid not null,
    kind intent_kind not null,
    state intent_state not null default 'planned',
    revision integer not null default 1,
    chain_id chain_id not null,
    from_address_id uuid not null,
    from_address evm_address not null,
    to_address evm_address not null,
    asset evm_address not null,
    amount base_units not null,
    nonce bigint not null,
    gas_limit bigint not null,
    max_fee_per_gas base_units not null,
    max_priority_fee_per_gas base_units not null,
    payment_id uuid,
    destination_id uuid,
    -- What an approval binds to: the hash of everything above that reaches the chain.
    digest hash32 not null,
    approvals_required smallint not null,
    requested_by text not null,
    station text,
    state_version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint intents_pkey primary key (id),
    constraint intents_from_address_fkey foreign key (from_address_id) references trezor_derived_addresses (id) on delete restrict,
    constraint intents_payment_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint intents_destination_fkey foreign key (destination_id) references derived_destinations (id) on delete restrict,
    constraint intents_nonce_bounds check (nonce >= 0),
    constraint intents_gas_limit_bounds check (gas_limit between 21000 and 30000000),
    constraint intents_fee_caps_positive check (max_fee_per_gas > 0 and max_priority_fee_per_gas <= max_fee_per_gas),
    constraint intents_amount_positive check (kind = 'cancel' or amount > 0),
    constraint intents_approvals_required_bounds check (approvals_required between 1 and 20),
    constraint intents_release_has_payment check (kind not in ('release', 'refund') or payment_id is not null),
    constraint intents_sweep_has_destination check (kind not in ('sweep', 'fuel') or destination_id is not null)
);
-- A nonce is taken from the moment its intent is stored, and freed only by a void, which is possible
-- only while no signature can exist.
create unique index intents_nonce_key on intents (chain_id, from_address, nonce) where state <> 'void';
create unique index intents_one_live_release_key on intents (payment_id)
    where kind in ('release', 'refund') and state not in ('void', 'reverted');
create unique index intents_one_live_per_destination_key on intents (destination_id, kind, asset)
    where kind in ('sweep', 'fuel') and state not in ('void', 'reverted', 'settled');
create index intents_open_idx on intents (state, created_at) where state not in ('settled', 'void', 'reverted');

create table intent_approvals (
    id bigint generated always as identity,
    intent_id uuid not null,
    revision integer not null,
    digest hash32 not null,
    officer_id uuid not null,
    api_token_id uuid,
    created_at timestamptz not null default now(),
    constraint intent_approvals_pkey primary key (id),
    constraint intent_approvals_intent_fkey foreign key (intent_id) references intents (id) on delete restrict,
    constraint intent_approvals_officer_fkey foreign key (officer_id) references users (id) on delete restrict,
    constraint intent_approvals_token_fkey foreign key (api_token_id) references api_tokens (id) on delete restrict,
    constraint intent_approvals_once_per_officer_key unique (intent_id, revision, officer_id)
);
create trigger intent_approvals_no_update before update on intent_approvals for each statement execute function forbid_change();
create trigger intent_approvals_no_delete before delete on intent_approvals for each statement execute function forbid_change();
create trigger intent_approvals_no_truncate before truncate on intent_approvals for each statement execute function forbid_change();
alter table intent_approvals enable always trigger intent_approvals_no_update;
alter table intent_approvals enable always trigger intent_approvals_no_delete;
alter table intent_approvals enable always trigger intent_approvals_no_truncate;

-- The machine of an intent, held here too: whoever writes as the daemon cannot approve without approvals
-- or bring a finished intent back. Once a station has had it, a signature may exist, and it cannot be void.
create function intents_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.state is not distinct from old.state then
        return new;
    end if;
    if (old.state::text || ' > ' || new.state::text) not in (
        'planned > approved', 'planned > void', 'approved > signing', 'approved > void', 'signing > approved', 'signing > signed',
        'signed > broadcast', 'signed > uncertain', 'signed > mined', 'broadcast > mined', 'uncertain > broadcast',
        'uncertain > mined', 'mined > broadcast', 'mined > settled', 'mined > reverted'
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_transition',
            message = format('an intent does not go from %s to %s', old.state, new.state);
    end if;
    if new.state = 'void' and new.station is not null then
        raise exception using errcode = 'check_violation', constraint = 'intents_void_unsigned',
            message = 'a station has had this intent; a signature may exist';
    end if;
    if old.state = 'planned' and new.state = 'approved' and new.approvals_required > (
        select count(distinct officer_id) from intent_approvals a
        where a.intent_id = new.id and a.revision = new.revision and a.digest = new.digest
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_approved_by_officers',
            message = 'an intent is approved by as many officers as it requires';
    end if;
    return new;
end
$$;
create trigger intents_guard before update on intents for each row execute function intents_guard();
alter table intents enable always trigger intents_guard;

-- The signed bytes, committed before they are first sent; sent again as often as needed, never rebuilt.
create table outbound_transactions (
    id bigint generated always as identity,
    intent_id uuid not null,
    chain_id chain_id not null,
    from_address evm_address not null,
    nonce bigint not null,
    tx_hash hash32 not null,
    raw bytea not null,
    signed_at timestamptz not null default now(),
    first_sent_at timestamptz,
    last_sent_at timestamptz,
    send_attempts integer not null default 0,
    last_send_outcome text,
    block_number bigint,
    block_hash hash32,
    succeeded boolean,
    fee_paid base_units,
    settled_at timestamptz,
    constraint outbound_transactions_pkey primary key (id),
    constraint outbound_transactions_intent_fkey foreign key (intent_id) references intents (id) on delete restrict,
    constraint outbound_transactions_hash_key unique (chain_id, tx_hash),
    -- One signed transaction per nonce. Replacements will name the one they replace.
    constraint outbound_transactions_nonce_key unique (chain_id, from_address, nonce),
    constraint outbound_transactions_intent_key unique (intent_id),
    constraint outbound_transactions_raw_size check (octet_length(raw) between 80 and 131072),
    constraint outbound_transactions_mined_whole check (
        (block_number is null) = (block_hash is null) and (block_number is null) = (succeeded is null)
        and (block_number is null) = (fee_paid is null)
    )
);
create index outbound_transactions_open_idx on outbound_transactions (chain_id, id) where settled_at is null;
create index outbound_transactions_block_idx on outbound_transactions (chain_id, block_number) where settled_at is not null;

create function outbound_transactions_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if old.settled_at is not null and new.settled_at is distinct from old.settled_at then
        raise exception using errcode = 'check_violation', constraint = 'outbound_transactions_settled_once',
            message = 'a settled transaction stays settled';
    end if;
    return new;
end
$$;
create trigger outbound_transactions_guard before update on outbound_transactions
    for each row execute function outbound_transactions_guard();
alter table outbound_transactions enable always trigger outbound_transactions_guard;

create table derived_destination_sweeps (
    id uuid not null default gen_random_uuid(),
    legacy_object_id text,
    destination_id uuid not null,
    intent_id uuid not null,
    chain_id chain_id not null,
    tx_hash hash32 not null,
    asset evm_address not null,
    amount_units base_units not null,
    swept_at timestamptz not null default now(),
    constraint derived_destination_sweeps_pkey primary key (id),
    constraint derived_destination_sweeps_destination_fkey foreign key (destination_id) references derived_destinations (id) on delete restrict,
    constraint derived_destination_sweeps_intent_fkey foreign key (intent_id) references intents (id) on delete restrict,
    constraint derived_destination_sweeps_intent_key unique (intent_id)
);
create unique index derived_destination_sweeps_legacy_object_id_key on derived_destination_sweeps (legacy_object_id)
    where legacy_object_id is not null;
create trigger derived_destination_sweeps_no_update before update on derived_destination_sweeps
    for each statement execute function forbid_change();
create trigger derived_destination_sweeps_no_delete before delete on derived_destination_sweeps
    for each statement execute function forbid_change();
create trigger derived_destination_sweeps_no_truncate before truncate on derived_destination_sweeps
    for each statement execute function forbid_change();
alter table derived_destination_sweeps enable always trigger derived_destination_sweeps_no_update;
alter table derived_destination_sweeps enable always trigger derived_destination_sweeps_no_delete;
alter table derived_destination_sweeps enable always trigger derived_destination_sweeps_no_truncate;

grant insert (
    id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, max_fee_per_gas,
    max_priority_fee_per_gas, payment_id, destination_id, digest, approvals_required, requested_by
) on intents to amanat_app;
grant update (state, station, state_version, updated_at) on intents to amanat_app;
grant insert (intent_id, revision, digest, officer_id, api_token_id) on intent_approvals to amanat_app;
grant insert (intent_id, chain_id, from_address, nonce, tx_hash, raw) on outbound_transactions to amanat_app;
grant update (
    first_sent_at, last_sent_at, send_attempts, last_send_outcome, block_number, block_hash, succeeded, fee_paid, settled_at
) on outbound_transactions to amanat_app;
grant insert (destination_id, intent_id, chain_id, tx_hash, asset, amount_units) on derived_destination_sweeps to amanat_app;
