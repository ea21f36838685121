-- The life of a payment after it was created: what it may cost, money ordered out of it, disputes, and an
-- end for what never came.

create type payout_kind as enum ('release', 'refund');
create type payout_state as enum ('ordered', 'planned', 'settled', 'withdrawn');
create type dispute_state as enum ('open', 'resolved');
create type dispute_resolution as enum ('refund', 'replacement', 'compensation', 'no_action');

-- Terms are fixed when a payment is created; a later change of a default does not reach it.
alter table payments
    -- How much less than due still counts as whole.
    add column tolerance_bps integer not null default 0,
    -- How long after expires_at a payment that nothing came for waits before it has failed.
    add column late_window_seconds integer not null default 86400,
    add column platform_fee_bps integer not null default 0,
    add column platform_fee_min_units base_units not null default 0,
    add column provider_fee_bps integer not null default 0,
    add column provider_fee_min_units base_units not null default 0,
    -- What went into escrow: what was due, or what was accepted in its place. Fees are of this.
    add column escrowed_units base_units not null default 0,
    add constraint payments_tolerance_bounds check (tolerance_bps between 0 and 1000),
    add constraint payments_late_window_bounds check (late_window_seconds between 0 and 7776000),
    add constraint payments_fee_bounds check (platform_fee_bps between 0 and 5000 and provider_fee_bps between 0 and 5000);
update payments set escrowed_units = due_units where escrow_state is not null;
grant insert (
    tolerance_bps, late_window_seconds, platform_fee_bps, platform_fee_min_units, provider_fee_bps, provider_fee_min_units
), update (escrowed_units) on payments to amanat_app;

-- Beside confirmation thresholds, the history holds the defaults of these terms.
alter table config_setting_history add constraint config_setting_history_payment_bounds check (
    key !~ '^payment_default(:|$)'
    or (
        new_value = trunc(new_value)
        and case key
            when 'payment_default:tolerance_bps' then new_value between 0 and 1000
            when 'payment_default:late_window_seconds' then new_value between 0 and 7776000
            when 'payment_default:platform_fee_bps' then new_value between 0 and 5000
            when 'payment_default:provider_fee_bps' then new_value between 0 and 5000
            -- In millionths of a whole token, whichever token it is.
            when 'payment_default:platform_fee_min_millionths' then new_value between 0 and 1000000000000
            when 'payment_default:provider_fee_min_millionths' then new_value between 0 and 1000000000000
            else false
        end
    )
);

-- A payment that money stands in the books for has not failed and is not cancelled.
create function payments_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.status in ('failed', 'cancelled') and new.status is distinct from old.status and exists (
        select from ledger_accounts a join ledger_balances b on b.account_id = a.id
        where a.payment_id = new.id and b.balance > 0
    ) then
        raise exception using errcode = 'check_violation', constraint = 'payments_end_is_empty',
            message = 'a payment that holds money can neither fail nor be cancelled';
    end if;
    return new;
end
$$;
create trigger payments_guard before update on payments for each row execute function payments_guard();
alter table payments enable always trigger payments_guard;

create table disputes (
    id uuid not null,
    legacy_object_id text,
    payment_id uuid not null,
    state dispute_state not null default 'open',
    opened_by text not null,
    reason text not null,
    -- What the resolver decided last. A resolution whose payout is withdrawn opens the dispute again.
    resolution dispute_resolution,
    resolved_by text,
    note text,
    opened_at timestamptz not null default now(),
    resolved_at timestamptz,
    constraint disputes_pkey primary key (id),
    constraint disputes_payment_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint disputes_reason_given check (length(reason) between 1 and 2000),
    constraint disputes_note_form check (length(note) between 1 and 2000),
    constraint disputes_resolved_whole check (
        state = 'open' or (resolution is not null and resolved_by is not null and resolved_at is not null)
    )
);
create unique index disputes_one_open_key on disputes (payment_id) where state = 'open';
create unique index disputes_legacy_object_id_key on disputes (legacy_object_id) where legacy_object_id is not null;
create index disputes_payment_idx on disputes (payment_id, opened_at);
create index disputes_open_idx on disputes (opened_at, id) where state = 'open';

-- An intent as a payout names it.
alter table intents add constraint intents_payout_key unique (id, payment_id, chain_id, asset, amount, to_address);
drop index intents_one_live_release_key;

-- Money ordered out of a payment: reserved when the row is made, given back when it is withdrawn.
create table payment_payouts (
    id uuid not null,
    payment_id uuid not null,
    kind payout_kind not null,
    state payout_state not null default 'ordered',
    chain_id chain_id not null,
    asset evm_address not null,
    asset_decimals smallint not null,
    -- The claim that it draws from, and where the money goes back to.
    source ledger_account_kind not null,
    -- What leaves the claim; what is not fees goes to the recipient.
    gross_units base_units not null,
    platform_fee_units base_units not null,
    provider_fee_units base_units not null,
    net_units base_units not null,
    to_address evm_address not null,
    requested_by text not null,
    dispute_id uuid,
    intent_id uuid,
    -- The entry that set the money aside.
    reservation_key text not null,
    created_at timestamptz not null default now(),
    closed_at timestamptz,
    constraint payment_payouts_pkey primary key (id),
    constraint payment_payouts_payment_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint payment_payouts_dispute_fkey foreign key (dispute_id) references disputes (id) on delete restrict,
    constraint payment_payouts_reservation_key unique (reservation_key),
    constraint payment_payouts_intent_key unique (intent_id),
    -- The intent pays exactly what was ordered, to whom it was ordered, for this payment.
    constraint payment_payouts_intent_fkey foreign key (intent_id, payment_id, chain_id, asset, net_units, to_address)
        references intents (id, payment_id, chain_id, asset, amount, to_address) on delete restrict,
    constraint payment_payouts_parts check (gross_units = net_units::numeric + platform_fee_units::numeric + provider_fee_units::numeric),
    constraint payment_payouts_net_positive check (net_units > 0),
    constraint payment_payouts_source_of_kind check (
        case kind
            when 'release' then source in ('held', 'disputed')
            when 'refund' then source in ('received', 'held', 'disputed', 'suspense')
        end
    ),
    constraint payment_payouts_refund_is_free check (kind = 'release' or (platform_fee_units = 0 and provider_fee_units = 0)),
    constraint payment_payouts_intent_when_planned check (state in ('ordered', 'withdrawn') or intent_id is not null),
    constraint payment_payouts_closed check ((state in ('settled', 'withdrawn')) = (closed_at is not null))
);
create index payment_payouts_payment_idx on payment_payouts (payment_id, created_at);
create index payment_payouts_ordered_idx on payment_payouts (chain_id, id) where state = 'ordered';

-- Orders take only legal steps, and what is closed stays closed.
create function payment_payouts_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.state is distinct from old.state and (old.state::text || ' > ' || new.state::text) not in (
        'ordered > planned', 'ordered > withdrawn', 'planned > settled', 'planned > withdrawn'
    ) then
        raise exception using errcode = 'check_violation', constraint = 'payment_payouts_transition',
            message = format('a payout does not go from %s to %s', old.state, new.state);
    end if;
    if old.intent_id is not null and new.intent_id is distinct from old.intent_id then
        raise exception using errcode = 'check_violation', constraint = 'payment_payouts_one_intent',
            message = 'a payout has one intent';
    end if;
    return new;
end
$$;
create trigger payment_payouts_guard before update on payment_payouts for each row execute function payment_payouts_guard();
alter table payment_payouts enable always trigger payment_payouts_guard;

-- Releases there are become payouts, under the reservations that they have.
insert into payment_payouts (
    id, payment_id, kind, state, chain_id, asset, asset_decimals, source, gross_units, platform_fee_units, provider_fee_units, net_units,
    to_address, requested_by, intent_id, reservation_key, created_at, closed_at
)
select i.id, i.payment_id, i.kind::text::payout_kind,
       case when i.state in ('void', 'reverted') then 'withdrawn' when i.state = 'settled' then 'settled' else 'planned' end::payout_state,
       i.chain_id, i.asset, p.token_decimals, 'held', i.amount, 0, 0, i.amount, i.to_address, i.requested_by, i.id,
       'intent:' || i.id || ':reserve', i.created_at, case when i.state in ('void', 'reverted', 'settled') then i.updated_at end
from intents i join payments p on p.id = i.payment_id
where i.kind in ('release', 'refund');

-- A release that was asked for and not planned is reserved now.
insert into payment_payouts (
    id, payment_id, kind, chain_id, asset, asset_decimals, source, gross_units, platform_fee_units, provider_fee_units, net_units,
    to_address, requested_by, reservation_key
)
select p.id, p.id, 'release', p.chain_id, p.token_contract, p.token_decimals, 'held', p.due_units, 0, 0, p.due_units,
       p.seller_address, coalesce(p.release_requested_by, 'daemon'), 'payout:' || p.id || ':reserve'
from payments p
where p.escrow_state = 'releasable';
insert into ledger_accounts (kind, chain_id, asset, payment_id)
select 'payable', chain_id, asset, payment_id from payment_payouts where state = 'ordered'
on conflict on constraint ledger_accounts_key do nothing;
insert into funds_ledger_entries (
    entry_type, payment_ref_kind, payment_id, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals,
    idempotency_key, memo
)
select 'hold', 'entity', o.payment_id, o.chain_id, o.asset, h.id, y.id, o.gross_units, o.asset_decimals, o.reservation_key,
       'reserved for a release that was asked for'
from payment_payouts o
join ledger_accounts h on h.kind = 'held' and h.payment_id = o.payment_id and h.chain_id = o.chain_id and h.asset = o.asset
join ledger_accounts y on y.kind = 'payable' and y.payment_id = o.payment_id and y.chain_id = o.chain_id and y.asset = o.asset
where o.state = 'ordered';

-- Disputes are opened by the marketplace and ended by a person whose role it is.
alter table api_tokens
    drop constraint api_tokens_scopes_known,
    add constraint api_tokens_scopes_known check (
        cardinality(scopes) > 0
        and scopes <@ array[
            'payments:read', 'payments:write', 'intents:read', 'intents:approve', 'signing', 'ledger:read', 'events:read',
            'webhooks:write', 'disputes:resolve'
        ]
    ),
    add constraint api_tokens_resolver_is_a_person check (not ('disputes:resolve' = any (scopes)) or user_id is not null);

grant insert (id, legacy_object_id, payment_id, opened_by, reason), update (state, resolution, resolved_by, note, resolved_at)
    on disputes to amanat_app;
grant insert (
    id, payment_id, kind, chain_id, asset, asset_decimals, source, gross_units, platform_fee_units, provider_fee_units, net_units,
    to_address, requested_by, dispute_id, reservation_key
), update (state, intent_id, closed_at) on payment_payouts to amanat_app;

-- What never came is found by its time, and ends.
create index payments_lapsing_idx on payments (chain_id, expires_at) where status in ('pending', 'processing');
