-- Seals: blocks of entries under a Merkle root, each block chained to the one before it. A superuser can change
-- anything in here, but not what left the database: the heads in the journal and in a file, and the
-- signatures of officers. docs/ledger.md says how to compute all of it again with other tools.

create table ledger_seals (
    number bigint not null,
    previous_hash hash32 not null,
    -- The entries of the block in the order of their leaves. An entry is in one block for ever; ids are given
    -- before entries commit, so a later block may hold a lower id.
    entry_ids bigint[] not null,
    last_entry_id bigint not null,
    -- 32 bytes for each entry, so that the entry that was changed can be named.
    leaves bytea not null,
    root hash32 not null,
    -- Of this block and all before it.
    entries_total bigint not null,
    -- How many deposit addresses each account has issued: with its public key it gives back the address table.
    derivation text not null,
    sealed_at timestamptz not null,
    hash hash32 not null,
    constraint ledger_seals_pkey primary key (number),
    constraint ledger_seals_hash_key unique (hash),
    constraint ledger_seals_one_chain_key unique (previous_hash),
    constraint ledger_seals_number_positive check (number > 0),
    constraint ledger_seals_block_bounds check (cardinality(entry_ids) between 1 and 10000 and entries_total >= cardinality(entry_ids)),
    constraint ledger_seals_leaf_each check (octet_length(leaves) = 32 * cardinality(entry_ids))
);
create index ledger_seals_last_entry_idx on ledger_seals (last_entry_id);

create table ledger_seal_signatures (
    id bigint generated always as identity,
    seal_number bigint not null,
    account_id uuid not null,
    address evm_address not null,
    -- EIP-191: r, s and v of 27 or 28.
    signature bytea not null,
    signed_at timestamptz not null default now(),
    constraint ledger_seal_signatures_pkey primary key (id),
    constraint ledger_seal_signatures_seal_fkey foreign key (seal_number) references ledger_seals (number) on delete restrict,
    constraint ledger_seal_signatures_account_fkey foreign key (account_id) references trezor_accounts (id) on delete restrict,
    constraint ledger_seal_signatures_once_key unique (seal_number, address),
    constraint ledger_seal_signatures_length check (octet_length(signature) = 65)
);

create trigger ledger_seals_no_update before update on ledger_seals for each statement execute function forbid_change();
create trigger ledger_seals_no_delete before delete on ledger_seals for each statement execute function forbid_change();
create trigger ledger_seals_no_truncate before truncate on ledger_seals for each statement execute function forbid_change();
alter table ledger_seals enable always trigger ledger_seals_no_update;
alter table ledger_seals enable always trigger ledger_seals_no_delete;
alter table ledger_seals enable always trigger ledger_seals_no_truncate;
create trigger ledger_seal_signatures_no_update before update on ledger_seal_signatures
    for each statement execute function forbid_change();
create trigger ledger_seal_signatures_no_delete before delete on ledger_seal_signatures
    for each statement execute function forbid_change();
create trigger ledger_seal_signatures_no_truncate before truncate on ledger_seal_signatures
    for each statement execute function forbid_change();
alter table ledger_seal_signatures enable always trigger ledger_seal_signatures_no_update;
alter table ledger_seal_signatures enable always trigger ledger_seal_signatures_no_delete;
alter table ledger_seal_signatures enable always trigger ledger_seal_signatures_no_truncate;

grant insert (number, previous_hash, entry_ids, last_entry_id, leaves, root, entries_total, derivation, sealed_at, hash)
    on ledger_seals to amanat_app;
grant insert (seal_number, account_id, address, signature) on ledger_seal_signatures to amanat_app;
