-- Payments, their quotes, and what went other than asked.

create table payments (
    id uuid not null default gen_random_uuid(),
    legacy_object_id text,
    buyer_id uuid,
    seller_id uuid,
    purchase_request_ref_kind ref_kind,
    purchase_request_id uuid,
    purchase_request_external_ref text,
    seller_offer_ref_kind ref_kind,
    seller_offer_id uuid,
    seller_offer_external_ref text,
    provider payment_provider not null default 'amn.scanner',
    status payment_status not null default 'pending',
    -- Null until the deposit is whole: before that there is nothing in escrow.
    escrow_state escrow_state,
    amount numeric(38, 18) not null,
    currency offer_currency not null,
    chain_id chain_id not null,
    token_contract evm_address not null,
    token_symbol text not null,
    token_decimals smallint not null,
    due_units base_units not null,
    seller_address evm_address not null,
    -- Who asked for the release; may not approve it too.
    release_requested_by text,
    expires_at timestamptz not null,
    state_version bigint not null default 1,
    metadata jsonb not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint payments_pkey primary key (id),
    constraint payments_buyer_id_fkey foreign key (buyer_id) references users (id) on delete restrict,
    constraint payments_seller_id_fkey foreign key (seller_id) references users (id) on delete restrict,
    -- The upper bound also refuses NaN.
    constraint payments_amount_positive check (amount > 0 and amount < 100000000000000000000),
    constraint payments_due_units_positive check (due_units > 0),
    constraint payments_token_decimals_bounds check (token_decimals between 0 and 18),
    constraint payments_state_version_positive check (state_version > 0),
    constraint payments_purchase_request_ref check (
        case purchase_request_ref_kind
            when 'entity' then purchase_request_id is not null and purchase_request_external_ref is null
            when 'template' then purchase_request_id is null and purchase_request_external_ref is not null
            else purchase_request_id is null and purchase_request_external_ref is null
        end
    ),
    constraint payments_seller_offer_ref check (
        case seller_offer_ref_kind
            when 'entity' then seller_offer_id is not null and seller_offer_external_ref is null
            when 'template' then seller_offer_id is null and seller_offer_external_ref is not null
            else seller_offer_id is null and seller_offer_external_ref is null
        end
    ),
    -- Money in escrow means that it was confirmed on the way in.
    constraint payments_escrow_needs_money check (escrow_state is null or status in ('confirmed', 'completed', 'refunded', 'failed', 'cancelled'))
);
create unique index payments_legacy_object_id_key on payments (legacy_object_id) where legacy_object_id is not null;
create index payments_created_idx on payments (created_at, id);
create index payments_open_status_idx on payments (status, created_at) where status in ('pending', 'processing');
create index payments_releasable_idx on payments (chain_id, id) where escrow_state = 'releasable';
create index payments_confirmed_idx on payments (chain_id, id) where status = 'confirmed';

create table payment_quotes (
    payment_id uuid not null,
    fx_rate numeric(38, 18) not null,
    token_price_usd numeric(38, 18) not null,
    depeg_adjustment_bps integer not null,
    settle_amount numeric(38, 18) not null,
    chain_id chain_id not null,
    token text not null,
    expires_at timestamptz not null,
    created_at timestamptz not null default now(),
    constraint payment_quotes_pkey primary key (payment_id),
    constraint payment_quotes_payment_id_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint payment_quotes_fx_rate_positive check (fx_rate > 0 and fx_rate < 100000000000000000000),
    constraint payment_quotes_token_price_positive check (token_price_usd > 0 and token_price_usd < 100000000000000000000),
    constraint payment_quotes_settle_amount_positive check (settle_amount > 0 and settle_amount < 100000000000000000000),
    constraint payment_quotes_depeg_bounds check (depeg_adjustment_bps between -10000 and 10000)
);
create trigger payment_quotes_no_update before update on payment_quotes for each statement execute function forbid_change();
create trigger payment_quotes_no_delete before delete on payment_quotes for each statement execute function forbid_change();
create trigger payment_quotes_no_truncate before truncate on payment_quotes for each statement execute function forbid_change();
alter table payment_quotes enable always trigger payment_quotes_no_update;
alter table payment_quotes enable always trigger payment_quotes_no_delete;
alter table payment_quotes enable always trigger payment_quotes_no_truncate;

-- A payment can be late and over at once, so each exception is a row.
create table payment_exceptions (
    id bigint generated always as identity,
    payment_id uuid not null,
    kind payment_exception_kind not null,
    detail text not null,
    opened_at timestamptz not null default now(),
    closed_at timestamptz,
    resolution text,
    constraint payment_exceptions_pkey primary key (id),
    constraint payment_exceptions_payment_id_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint payment_exceptions_closed_with_resolution check ((closed_at is null) = (resolution is null))
);
create unique index payment_exceptions_one_open_key on payment_exceptions (payment_id, kind) where closed_at is null;

grant insert (
    id, legacy_object_id, buyer_id, seller_id, purchase_request_ref_kind, purchase_request_id, purchase_request_external_ref,
    seller_offer_ref_kind, seller_offer_id, seller_offer_external_ref, provider, amount, currency, chain_id, token_contract,
    token_symbol, token_decimals, due_units, seller_address, expires_at, metadata
) on payments to amanat_app;
grant update (status, escrow_state, release_requested_by, state_version, metadata, updated_at) on payments to amanat_app;
grant insert (payment_id, kind, detail) on payment_exceptions to amanat_app;
grant update (closed_at, resolution) on payment_exceptions to amanat_app;
