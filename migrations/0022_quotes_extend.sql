-- Quotes that prove themselves: everything a settle amount depends on, its evidence, and the chain of quotes
-- of a payment, of which the last one is live. And what the price oracle remembers from round to round.

create type quote_kind as enum ('priced', 'identity', 'imported');
create type quote_policy as enum ('seller_whole', 'two_sided', 'none');
create type quote_peg_state as enum ('n/a', 'par', 'below_peg', 'above_peg');

alter table payment_quotes
    add column id uuid not null default gen_random_uuid(),
    -- What a requote replaces. A row is never changed, so the live one is the one that nothing replaces.
    add column supersedes_id uuid,
    -- Rows from before have the marketplace's fields and no more.
    add column kind quote_kind not null default 'imported',
    add column amount numeric(38, 18),
    add column currency offer_currency,
    add column token_decimals smallint,
    add column effective_price_usd numeric(38, 18),
    add column peg_usd numeric(38, 18),
    add column policy quote_policy,
    add column band_bps integer,
    add column halt_bps integer,
    add column premium_bps integer,
    add column machine_state text,
    add column peg_state quote_peg_state,
    add column step smallint,
    add column settle_units base_units,
    -- What must come: the settle amount, or for late money the larger of it and what was agreed before.
    add column required_units base_units,
    add column quoted_at timestamptz,
    add column inclusion_grace_s integer,
    add column settings_head bigint,
    add column evidence jsonb;

alter table payment_quotes
    drop constraint payment_quotes_pkey,
    add constraint payment_quotes_pkey primary key (id),
    add constraint payment_quotes_of_payment_key unique (id, payment_id),
    add constraint payment_quotes_superseded_once unique (supersedes_id),
    add constraint payment_quotes_supersedes_fkey foreign key (supersedes_id, payment_id)
        references payment_quotes (id, payment_id) on delete restrict,
    add constraint payment_quotes_supersedes_another check (supersedes_id <> id),
    add constraint payment_quotes_complete check (
        kind = 'imported'
        or (
            amount is not null and currency is not null and token_decimals is not null and effective_price_usd is not null
            and premium_bps is not null and machine_state is not null and peg_state is not null and step is not null
            and settle_units is not null and required_units is not null and quoted_at is not null and inclusion_grace_s is not null
        )
    ),
    add constraint payment_quotes_evidence_of_priced check ((kind = 'priced') = (evidence is not null)),
    add constraint payment_quotes_settings_of_priced check ((kind = 'priced') = (settings_head is not null)),
    add constraint payment_quotes_peg_rule_whole check (
        (peg_usd is null) = (policy is null) and (peg_usd is null) = (band_bps is null) and (peg_usd is null) = (halt_bps is null)
    ),
    add constraint payment_quotes_amount_positive check (amount > 0 and amount < 100000000000000000000),
    add constraint payment_quotes_effective_positive check (effective_price_usd > 0 and effective_price_usd < 100000000000000000000),
    add constraint payment_quotes_peg_positive check (peg_usd > 0 and peg_usd < 100000000000000000000),
    add constraint payment_quotes_step_bounds check (step between 0 and token_decimals and token_decimals <= 18),
    add constraint payment_quotes_premium_bounds check (premium_bps between 0 and 500),
    add constraint payment_quotes_machine_known check (machine_state in ('par', 'adjusted')),
    add constraint payment_quotes_grace_bounds check (inclusion_grace_s between 0 and 3600),
    add constraint payment_quotes_lives check (expires_at > quoted_at),
    -- The whole steps that are just enough, by multiplication alone, which is exact in numeric.
    add constraint payment_quotes_settle_is_enough check (
        settle_amount * effective_price_usd * 10000 >= amount * fx_rate * (10000 + premium_bps)
    ),
    add constraint payment_quotes_settle_is_least check (
        (settle_amount * power(10::numeric, step::integer) - 1) * effective_price_usd * 10000
            < amount * fx_rate * (10000 + premium_bps) * power(10::numeric, step::integer)
    ),
    add constraint payment_quotes_settle_is_whole_steps check (scale(trim_scale(settle_amount)) <= step),
    add constraint payment_quotes_units_are_settle check (
        settle_units::numeric = trim_scale(settle_amount * power(10::numeric, token_decimals::integer))
    ),
    add constraint payment_quotes_required_is_enough check (required_units::numeric >= settle_units::numeric),
    add constraint payment_quotes_identity_is_plain check (
        kind <> 'identity'
        or (fx_rate = 1 and token_price_usd = 1 and effective_price_usd = 1 and depeg_adjustment_bps = 0 and premium_bps = 0
            and peg_state = 'n/a' and peg_usd is null and settle_amount = amount)
    );
-- One first quote for each payment, and each quote is replaced at most once: so one is live.
create unique index payment_quotes_first_key on payment_quotes (payment_id) where supersedes_id is null;
create index payment_quotes_payment_idx on payment_quotes (payment_id, created_at);

grant insert (
    id, payment_id, supersedes_id, kind, amount, currency, chain_id, token, token_decimals, fx_rate, token_price_usd,
    effective_price_usd, peg_usd, policy, band_bps, halt_bps, premium_bps, depeg_adjustment_bps, machine_state, peg_state, step,
    settle_amount, settle_units, required_units, quoted_at, expires_at, inclusion_grace_s, settings_head, evidence
) on payment_quotes to amanat_app;

-- A requote changes what is due and until when. Nothing else does, and not once money is in escrow.
grant update (due_units, expires_at) on payments to amanat_app;
create function payments_due_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.due_units is distinct from old.due_units or new.expires_at is distinct from old.expires_at then
        if old.escrow_state is not null or old.status not in ('pending', 'processing') then
            raise exception using errcode = 'check_violation', constraint = 'payments_due_is_settled',
                message = 'what is due is settled once money is in escrow';
        end if;
        perform from payment_quotes q
        where q.payment_id = new.id and q.kind = 'priced' and q.required_units::numeric = new.due_units::numeric
          and q.expires_at + make_interval(secs => q.inclusion_grace_s) = new.expires_at
          and not exists (select from payment_quotes s where s.supersedes_id = q.id);
        if not found then
            raise exception using errcode = 'check_violation', constraint = 'payments_due_follows_quote',
                message = 'what is due is what the live quote says';
        end if;
    end if;
    return new;
end
$$;
create trigger payments_due_guard before update on payments for each row execute function payments_due_guard();
alter table payments enable always trigger payments_due_guard;

-- What the oracle remembers of a pair: the depeg machine, the last accepted price, one that waits.
create table oracle_states (
    pair text not null,
    depeg_state text not null default 'par',
    calm_since timestamptz,
    last_price_at timestamptz,
    accepted_price numeric(38, 18),
    accepted_at timestamptz,
    candidate_price numeric(38, 18),
    candidate_at timestamptz,
    updated_at timestamptz not null default now(),
    constraint oracle_states_pkey primary key (pair),
    constraint oracle_states_pair_form check (pair ~ '^[A-Za-z0-9.]{1,20}/USD$'),
    constraint oracle_states_state_known check (depeg_state in ('par', 'adjusted', 'halted')),
    constraint oracle_states_par_is_calm check (depeg_state <> 'par' or calm_since is null),
    constraint oracle_states_accepted_whole check ((accepted_price is null) = (accepted_at is null)),
    constraint oracle_states_candidate_whole check ((candidate_price is null) = (candidate_at is null)),
    constraint oracle_states_accepted_positive check (accepted_price > 0 and accepted_price < 100000000000000000000),
    constraint oracle_states_candidate_positive check (candidate_price > 0 and candidate_price < 100000000000000000000)
);
grant insert (pair, depeg_state, calm_since, last_price_at, accepted_price, accepted_at, candidate_price, candidate_at)
    on oracle_states to amanat_app;
grant update (depeg_state, calm_since, last_price_at, accepted_price, accepted_at, candidate_price, candidate_at, updated_at)
    on oracle_states to amanat_app;
