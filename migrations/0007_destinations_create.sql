-- One deposit address per payment, watched for ever.

create table derived_destinations (
    id uuid not null default gen_random_uuid(),
    legacy_object_id text,
    payment_ref_kind ref_kind not null,
    payment_id uuid,
    payment_external_ref text,
    derived_address_id uuid not null,
    address evm_address not null,
    chain_id chain_id not null,
    -- Only transfers in blocks above this one count towards the payment.
    birth_block bigint not null,
    status derived_destination_status not null default 'active',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint derived_destinations_pkey primary key (id),
    constraint derived_destinations_payment_id_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint derived_destinations_payment_id_key unique (payment_id),
    constraint derived_destinations_derived_address_id_fkey foreign key (derived_address_id)
        references trezor_derived_addresses (id) on delete restrict,
    constraint derived_destinations_derived_address_id_key unique (derived_address_id),
    constraint derived_destinations_birth_block_positive check (birth_block >= 0),
    constraint derived_destinations_payment_ref check (
        case payment_ref_kind
            when 'entity' then payment_id is not null and payment_external_ref is null
            when 'template' then payment_id is null and payment_external_ref is not null
        end
    )
);
create unique index derived_destinations_legacy_object_id_key on derived_destinations (legacy_object_id)
    where legacy_object_id is not null;
create unique index derived_destinations_address_key on derived_destinations (address);
create index derived_destinations_status_idx on derived_destinations (status, created_at) where status <> 'swept';

grant insert (id, payment_ref_kind, payment_id, payment_external_ref, derived_address_id, address, chain_id, birth_block)
    on derived_destinations to amanat_app;
grant update (status, updated_at) on derived_destinations to amanat_app;
