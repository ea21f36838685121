-- Accounts of the officers' Trezor, by public key only, and every address ever issued from them.

create table trezor_accounts (
    id uuid not null default gen_random_uuid(),
    legacy_object_id text,
    user_id uuid,
    label text not null,
    account_index smallint not null,
    path text not null,
    xpub text not null,
    fingerprint bytea not null,
    device_id text,
    device_model text,
    next_deposit_index integer not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint trezor_accounts_pkey primary key (id),
    constraint trezor_accounts_user_id_fkey foreign key (user_id) references users (id) on delete restrict,
    constraint trezor_accounts_xpub_key unique (xpub),
    constraint trezor_accounts_label_key unique (label),
    constraint trezor_accounts_label_form check (length(label) between 1 and 100),
    -- No private key enters, whatever the code above does.
    constraint trezor_accounts_xpub_is_public check (xpub ~ '^xpub[1-9A-HJ-NP-Za-km-z]{107}$'),
    constraint trezor_accounts_fingerprint_is_4_bytes check (octet_length(fingerprint) = 4),
    -- The device signs for account <= 100 and index <= 1,000,000 and refuses everything beyond.
    constraint trezor_accounts_account_index_signable check (account_index between 0 and 100),
    constraint trezor_accounts_path_form check (path = format('m/44''/60''/%s''', account_index)),
    constraint trezor_accounts_next_index_signable check (next_deposit_index between 0 and 1000001)
);
create unique index trezor_accounts_legacy_object_id_key on trezor_accounts (legacy_object_id) where legacy_object_id is not null;

create table trezor_derived_addresses (
    id uuid not null default gen_random_uuid(),
    legacy_object_id text,
    account_id uuid not null,
    branch smallint not null,
    address_index integer not null,
    address evm_address not null,
    purpose derived_address_purpose not null,
    created_at timestamptz not null default now(),
    constraint trezor_derived_addresses_pkey primary key (id),
    constraint trezor_derived_addresses_account_id_fkey foreign key (account_id) references trezor_accounts (id) on delete restrict,
    -- One index, one address, in both directions: an index is never handed out twice.
    constraint trezor_derived_addresses_index_key unique (account_id, branch, address_index),
    constraint trezor_derived_addresses_address_key unique (address),
    constraint trezor_derived_addresses_index_signable check (address_index between 0 and 1000000),
    -- Branch 0 collects deposits; branch 1 holds the operator's own addresses.
    constraint trezor_derived_addresses_branch_purpose check ((branch = 0 and purpose = 'deposit') or (branch = 1 and purpose <> 'deposit'))
);
create unique index trezor_derived_addresses_legacy_object_id_key on trezor_derived_addresses (legacy_object_id)
    where legacy_object_id is not null;

create index trezor_derived_addresses_created_idx on trezor_derived_addresses (created_at);

grant insert (id, user_id, label, account_index, path, xpub, fingerprint, device_id, device_model) on trezor_accounts to amanat_app;
grant update (next_deposit_index, label, updated_at) on trezor_accounts to amanat_app;
grant insert (id, account_id, branch, address_index, address, purpose) on trezor_derived_addresses to amanat_app;
