-- The marketplace's enums, value for value, and the words this daemon adds.

alter default privileges in schema public grant select on tables to amanat_app, amanat_readonly;
alter default privileges in schema public grant usage on sequences to amanat_app;
alter default privileges revoke execute on functions from public;

create type user_role as enum ('admin', 'buyer', 'seller', 'resolver', 'guard');
create type auth_provider as enum ('email', 'google', 'telegram');
create type user_status as enum ('active', 'suspended', 'deleted');
create type offer_currency as enum ('USD', 'EUR', 'IRR', 'USDT', 'USDC', 'TRY');
create type payment_provider as enum ('request.network', 'amn.scanner', 'shkeeper', 'other');
create type payment_status as enum
    ('pending', 'processing', 'confirmed', 'completed', 'failed', 'cancelled', 'refunded');
create type escrow_state as enum
    ('funded', 'releasable', 'released', 'refunded', 'releasing', 'failed', 'cancelled', 'partial');
create type derived_destination_status as enum ('active', 'swept', 'sweeping', 'quarantined');
create type ref_kind as enum ('entity', 'template');

-- The marketplace's eight, then ours. A reversal names the entry it reverses.
create type funds_ledger_entry_type as enum (
    'payment_detected', 'provider_fee', 'platform_fee', 'hold', 'release', 'refund', 'dispute_hold',
    'adjustment', 'sweep', 'network_fee', 'reversal'
);

create type ledger_account_kind as enum (
    -- debit-normal: where the money is, and what was lost
    'custody', 'network_fee', 'shortfall',
    -- credit-normal: whose it is
    'received', 'held', 'disputed', 'payable', 'suspense', 'platform_fee', 'provider_fee', 'operator'
);

create type payment_exception_kind as enum (
    'partial', 'over', 'late', 'duplicate', 'wrong_token', 'wrong_chain', 'reorged', 'held', 'frozen'
);
create type derived_address_purpose as enum ('deposit', 'gas', 'treasury');
create type observation_state as enum ('canonical', 'orphaned');
create type intent_kind as enum ('sweep', 'release', 'refund', 'fuel', 'cancel');
create type intent_state as enum (
    'planned', 'approved', 'signing', 'signed', 'broadcast', 'uncertain', 'mined', 'settled', 'reverted', 'void'
);

-- A uint256, exactly. The upper bound also refuses NaN and Infinity, which compare as larger than
-- every number; the scale test refuses 1.5 (and 2.0) where numeric(78,0) would round.
create domain base_units as numeric
    constraint base_units_is_uint256 check (
        value >= 0
        and value < 115792089237316195423570985008687907853269984665640564039457584007913129639936
        and scale(value) = 0
    );

create domain evm_address as bytea constraint evm_address_is_20_bytes check (octet_length(value) = 20);
create domain hash32 as bytea constraint hash32_is_32_bytes check (octet_length(value) = 32);
create domain chain_id as bigint constraint chain_id_is_positive check (value > 0);

-- Behind every append-only table.
create function forbid_change() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = 'restrict_violation',
        message = format('%s on %I is refused: the table is append-only', tg_op, tg_table_name),
        hint = 'Correct a ledger entry by appending its reversal.';
end
$$;
