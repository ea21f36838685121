-- What the chain holds and the books do not explain, per address and asset, found at a confirmed block. A
-- finding is for a person: nothing is credited or booked for it.

create table reconcile_findings (
    id bigint generated always as identity,
    chain_id chain_id not null,
    address evm_address not null,
    asset evm_address not null,
    -- The sides as they differed last, at this block; closing leaves them as they were.
    ledger_units base_units not null,
    chain_units base_units not null,
    -- In the chain and not in the ledger by then, less what the ledger holds of later blocks.
    pending_units numeric not null,
    block_number bigint not null,
    block_hash hash32 not null,
    first_seen_at timestamptz not null,
    last_seen_at timestamptz not null,
    closed_at timestamptz,
    resolution text,
    constraint reconcile_findings_pkey primary key (id),
    constraint reconcile_findings_pending_whole check (
        pending_units = trunc(pending_units)
        and abs(pending_units) < 57896044618658097711785492504343953926634992332820282019728792003956564819968
    ),
    constraint reconcile_findings_differ check (chain_units::numeric <> ledger_units::numeric + pending_units),
    constraint reconcile_findings_block_positive check (block_number >= 0),
    constraint reconcile_findings_seen_in_order check (last_seen_at >= first_seen_at and closed_at >= first_seen_at),
    constraint reconcile_findings_closed_with_resolution check ((closed_at is null) = (resolution is null)),
    constraint reconcile_findings_resolution_known check (resolution in ('explained'))
);
create unique index reconcile_findings_one_open_key on reconcile_findings (chain_id, address, asset) where closed_at is null;

-- Pages of the addresses that are compared.
create index derived_destinations_unswept_idx on derived_destinations (chain_id, id) where status <> 'swept';
create index ledger_accounts_custody_idx on ledger_accounts (chain_id, address) where kind = 'custody';

grant insert (
    chain_id, address, asset, ledger_units, chain_units, pending_units, block_number, block_hash, first_seen_at, last_seen_at
) on reconcile_findings to amanat_app;
grant update (
    ledger_units, chain_units, pending_units, block_number, block_hash, last_seen_at, closed_at, resolution
) on reconcile_findings to amanat_app;
