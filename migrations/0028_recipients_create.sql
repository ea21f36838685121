-- To whom money would go: screened before anything is planned for them, as those are whom it comes from.

create table recipient_screenings (
    id bigint generated always as identity,
    payment_id uuid not null,
    chain_id chain_id not null,
    address evm_address not null,
    -- By which policy it was screened last; null while it never was.
    policy_id bigint,
    outcome screening_outcome,
    -- screener:address, for good: a list that no longer names an address frees nothing.
    hits text[] not null default '{}',
    -- unavailable:screener, for those without an answer.
    missing text[] not null default '{}',
    -- What a resolver has cleared of the two above.
    cleared text[] not null default '{}',
    passes boolean not null generated always as (hits <@ cleared and missing <@ cleared) stored,
    attempts integer not null default 0,
    next_at timestamptz,
    -- Whether it was this that quarantined the destination.
    quarantined boolean not null default false,
    decision screening_decision,
    decided_by uuid,
    decided_at timestamptz,
    decision_reason text,
    state_version bigint not null default 1,
    created_at timestamptz not null default now(),
    constraint recipient_screenings_pkey primary key (id),
    constraint recipient_screenings_once_key unique (payment_id, chain_id, address),
    constraint recipient_screenings_payment_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint recipient_screenings_policy_fkey foreign key (policy_id) references screening_policies (id) on delete restrict,
    constraint recipient_screenings_decided_by_fkey foreign key (decided_by) references users (id) on delete restrict,
    constraint recipient_screenings_screened_whole check ((policy_id is null) = (outcome is null)),
    constraint recipient_screenings_outcome_follows check (
        case
            when outcome is null then cardinality(hits) = 0 and cardinality(missing) = 0
            when cardinality(hits) > 0 then outcome = 'hit'
            when cardinality(missing) > 0 then outcome = 'unavailable'
            else outcome in ('clear', 'not_screened')
        end
    ),
    constraint recipient_screenings_decision_whole check (
        (decision is null) = (decided_by is null) and (decision is null) = (decided_at is null)
        and (decision is null) = (decision_reason is null) and (decision is not null or cardinality(cleared) = 0)
    ),
    constraint recipient_screenings_reason_form check (length(trim(decision_reason)) between 1 and 500),
    constraint recipient_screenings_attempts_positive check (attempts >= 0 and state_version > 0)
);
create index recipient_screenings_policy_idx on recipient_screenings (chain_id, policy_id, id);
create index recipient_screenings_retry_idx on recipient_screenings (chain_id, next_at) where next_at is not null;
create index recipient_screenings_held_idx on recipient_screenings (id) where not passes;

-- One answer of one screener about one recipient, with what it rests on.
create table recipient_verdicts (
    id bigint generated always as identity,
    recipient_id bigint not null,
    policy_id bigint not null,
    screener screener_kind not null,
    outcome screening_outcome not null,
    evidence jsonb not null,
    screened_at timestamptz not null,
    constraint recipient_verdicts_pkey primary key (id),
    constraint recipient_verdicts_recipient_fkey foreign key (recipient_id) references recipient_screenings (id) on delete restrict,
    constraint recipient_verdicts_policy_fkey foreign key (policy_id) references screening_policies (id) on delete restrict,
    constraint recipient_verdicts_outcome_known check (outcome <> 'not_screened')
);
create index recipient_verdicts_recipient_idx on recipient_verdicts (recipient_id, id);
create trigger recipient_verdicts_no_update before update on recipient_verdicts for each statement execute function forbid_change();
create trigger recipient_verdicts_no_delete before delete on recipient_verdicts for each statement execute function forbid_change();
create trigger recipient_verdicts_no_truncate before truncate on recipient_verdicts for each statement execute function forbid_change();
alter table recipient_verdicts enable always trigger recipient_verdicts_no_update;
alter table recipient_verdicts enable always trigger recipient_verdicts_no_delete;
alter table recipient_verdicts enable always trigger recipient_verdicts_no_truncate;

-- Only a resolver frees: whoever writes as the daemon can neither drop a hit nor clear one on its own.
create function recipient_screenings_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if row(new.payment_id, new.chain_id, new.address) is distinct from row(old.payment_id, old.chain_id, old.address)
        or not old.hits <@ new.hits or not old.cleared <@ new.cleared
    then
        raise exception using errcode = 'check_violation', constraint = 'recipient_screenings_hits_stay',
            message = 'a hit stays, and so does what a resolver has cleared';
    end if;
    if row(new.cleared, new.decision, new.decided_by, new.decided_at, new.decision_reason)
        is distinct from row(old.cleared, old.decision, old.decided_by, old.decided_at, old.decision_reason)
    then
        if not new.cleared <@ (old.cleared || old.hits || old.missing) then
            raise exception using errcode = 'check_violation', constraint = 'recipient_screenings_cleared_is_known',
                message = 'only what is there can be cleared';
        end if;
        perform from users where id = new.decided_by and role = 'resolver' and status = 'active';
        if not found then
            raise exception using errcode = 'check_violation', constraint = 'recipient_screenings_resolver_decides',
                message = 'only an active resolver decides about a held recipient';
        end if;
    end if;
    return new;
end
$$;
create trigger recipient_screenings_guard before update on recipient_screenings
    for each row execute function recipient_screenings_guard();
alter table recipient_screenings enable always trigger recipient_screenings_guard;

-- With the order comes the row that waits to be screened, whoever writes the order.
create function payment_payouts_screen() returns trigger
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into recipient_screenings (payment_id, chain_id, address) values (new.payment_id, new.chain_id, new.to_address)
    on conflict (payment_id, chain_id, address) do nothing;
    return null;
end
$$;
create trigger payment_payouts_screen after insert on payment_payouts for each row execute function payment_payouts_screen();
alter table payment_payouts enable always trigger payment_payouts_screen;

-- Orders that are under way are screened too.
insert into recipient_screenings (payment_id, chain_id, address)
select payment_id, chain_id, to_address from payment_payouts where state in ('ordered', 'planned')
on conflict (payment_id, chain_id, address) do nothing;

-- Nothing is planned for a recipient that was not ordered, and nothing for one whom screening holds: at the end of the
-- transaction that stores the intent, a payout names it.
create or replace function intents_payout() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.kind not in ('release', 'refund') then
        return null;
    end if;
    if not exists (
        select from payment_payouts y where y.intent_id = new.id and y.kind = new.kind::text::payout_kind and y.payment_id = new.payment_id
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_payout_ordered',
            message = 'an intent of a release or a refund pays a payout that was ordered';
    end if;
    if exists (
        select from recipient_screenings s
        where s.payment_id = new.payment_id and s.chain_id = new.chain_id and s.address = new.to_address and not s.passes
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_recipient_passes',
            message = 'screening holds this recipient; only a resolver frees it';
    end if;
    return null;
end
$$;

grant update (
    policy_id, outcome, hits, missing, cleared, attempts, next_at, quarantined, decision, decided_by, decided_at, decision_reason,
    state_version
) on recipient_screenings to amanat_app;
grant insert (recipient_id, policy_id, screener, outcome, evidence, screened_at) on recipient_verdicts to amanat_app;
