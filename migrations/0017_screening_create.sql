-- Whom money comes from: what each screener said of a credited transfer, what follows from it, and which of
-- our addresses and of the sellers' a token's issuer has frozen.

create type screening_outcome as enum ('not_screened', 'clear', 'hit', 'unavailable');
create type screener_kind as enum ('list', 'oracle', 'provider');
create type screening_decision as enum ('cleared', 'confirmed');

-- What a chain is screened by, from a moment on. The newest row is in force; one without a screener asks
-- for nothing.
create table screening_policies (
    id bigint generated always as identity,
    chain_id chain_id not null,
    -- The sanctions list: SHA-256 of its file, and how many addresses it names.
    list_sha256 hash32,
    list_entries integer,
    oracle evm_address,
    -- Name of the provider and the score from which on it is a hit.
    provider text,
    required boolean not null generated always as (list_sha256 is not null or oracle is not null or provider is not null) stored,
    created_at timestamptz not null default now(),
    constraint screening_policies_pkey primary key (id),
    constraint screening_policies_list_whole check ((list_sha256 is null) = (list_entries is null) and list_entries > 0)
);
create index screening_policies_chain_idx on screening_policies (chain_id, id);
create trigger screening_policies_no_update before update on screening_policies for each statement execute function forbid_change();
create trigger screening_policies_no_delete before delete on screening_policies for each statement execute function forbid_change();
create trigger screening_policies_no_truncate before truncate on screening_policies for each statement execute function forbid_change();
alter table screening_policies enable always trigger screening_policies_no_update;
alter table screening_policies enable always trigger screening_policies_no_delete;
alter table screening_policies enable always trigger screening_policies_no_truncate;

-- One answer of one screener about one sighting, with what it rests on.
create table screening_verdicts (
    id bigint generated always as identity,
    observation_id bigint not null,
    policy_id bigint not null,
    screener screener_kind not null,
    outcome screening_outcome not null,
    evidence jsonb not null,
    screened_at timestamptz not null,
    constraint screening_verdicts_pkey primary key (id),
    constraint screening_verdicts_observation_fkey foreign key (observation_id) references transfer_observations (id) on delete restrict,
    constraint screening_verdicts_policy_fkey foreign key (policy_id) references screening_policies (id) on delete restrict,
    constraint screening_verdicts_outcome_known check (outcome <> 'not_screened')
);
create index screening_verdicts_observation_idx on screening_verdicts (observation_id, screener, id);
create trigger screening_verdicts_no_update before update on screening_verdicts for each statement execute function forbid_change();
create trigger screening_verdicts_no_delete before delete on screening_verdicts for each statement execute function forbid_change();
create trigger screening_verdicts_no_truncate before truncate on screening_verdicts for each statement execute function forbid_change();
alter table screening_verdicts enable always trigger screening_verdicts_no_update;
alter table screening_verdicts enable always trigger screening_verdicts_no_delete;
alter table screening_verdicts enable always trigger screening_verdicts_no_truncate;

-- Where a credited transfer stands. The row is made with the credit, so that there is no moment in which
-- money counts and nobody knows that it was not screened.
create table transfer_screenings (
    observation_id bigint not null,
    chain_id chain_id not null,
    derived_address_id uuid not null,
    -- By which policy it was screened last; null while it never was.
    policy_id bigint,
    outcome screening_outcome,
    -- Who signed the transaction.
    origin evm_address,
    -- screener:address, for good: a list that no longer names an address frees nothing.
    hits text[] not null default '{}',
    -- unavailable:screener, for those without an answer.
    missing text[] not null default '{}',
    -- The amount is so small that what is missing does not hold it.
    waived boolean not null default false,
    -- What a resolver has cleared of the two above.
    cleared text[] not null default '{}',
    passes boolean not null generated always as (hits <@ cleared and (waived or missing <@ cleared)) stored,
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
    constraint transfer_screenings_pkey primary key (observation_id),
    constraint transfer_screenings_observation_fkey foreign key (observation_id) references transfer_observations (id) on delete restrict,
    constraint transfer_screenings_policy_fkey foreign key (policy_id) references screening_policies (id) on delete restrict,
    constraint transfer_screenings_address_fkey foreign key (derived_address_id) references trezor_derived_addresses (id) on delete restrict,
    constraint transfer_screenings_decided_by_fkey foreign key (decided_by) references users (id) on delete restrict,
    constraint transfer_screenings_screened_whole check ((policy_id is null) = (outcome is null)),
    constraint transfer_screenings_outcome_follows check (
        case
            when outcome is null then cardinality(hits) = 0 and cardinality(missing) = 0
            when cardinality(hits) > 0 then outcome = 'hit'
            when cardinality(missing) > 0 then outcome = 'unavailable'
            else outcome in ('clear', 'not_screened')
        end
    ),
    constraint transfer_screenings_decision_whole check (
        (decision is null) = (decided_by is null) and (decision is null) = (decided_at is null)
        and (decision is null) = (decision_reason is null) and (decision is not null or cardinality(cleared) = 0)
    ),
    constraint transfer_screenings_reason_form check (length(trim(decision_reason)) between 1 and 500),
    constraint transfer_screenings_attempts_positive check (attempts >= 0 and state_version > 0)
);
create index transfer_screenings_address_idx on transfer_screenings (derived_address_id, chain_id);
create index transfer_screenings_new_idx on transfer_screenings (chain_id, observation_id) where policy_id is null;
create index transfer_screenings_policy_idx on transfer_screenings (chain_id, policy_id, observation_id);
create index transfer_screenings_retry_idx on transfer_screenings (chain_id, next_at) where next_at is not null;
create index transfer_screenings_held_idx on transfer_screenings (chain_id, observation_id) where not passes;

-- Only a resolver frees: whoever writes as the daemon can neither drop a hit nor clear one on its own.
create function transfer_screenings_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not old.hits <@ new.hits or not old.cleared <@ new.cleared then
        raise exception using errcode = 'check_violation', constraint = 'transfer_screenings_hits_stay',
            message = 'a hit stays, and so does what a resolver has cleared';
    end if;
    if row(new.cleared, new.decision, new.decided_by, new.decided_at, new.decision_reason)
        is distinct from row(old.cleared, old.decision, old.decided_by, old.decided_at, old.decision_reason)
    then
        if not new.cleared <@ (old.cleared || old.hits || old.missing) then
            raise exception using errcode = 'check_violation', constraint = 'transfer_screenings_cleared_is_known',
                message = 'only what is there can be cleared';
        end if;
        perform from users where id = new.decided_by and role = 'resolver' and status = 'active';
        if not found then
            raise exception using errcode = 'check_violation', constraint = 'transfer_screenings_resolver_decides',
                message = 'only an active resolver decides about a held transfer';
        end if;
    end if;
    return new;
end
$$;
create trigger transfer_screenings_guard before update on transfer_screenings
    for each row execute function transfer_screenings_guard();
alter table transfer_screenings enable always trigger transfer_screenings_guard;

-- With the credit comes the row that waits to be screened. Money that is credited again after a reorg keeps
-- its row.
create function transfer_verdicts_screen() returns trigger
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into transfer_screenings (observation_id, chain_id, derived_address_id)
    select o.id, o.chain_id, o.derived_address_id
    from added a join transfer_observations o on o.id = a.observation_id
    where a.gate = 'credit'
    on conflict (observation_id) do nothing;
    return null;
end
$$;
create trigger transfer_verdicts_screen after insert on transfer_verdicts
    referencing new table as added for each statement execute function transfer_verdicts_screen();
alter table transfer_verdicts enable always trigger transfer_verdicts_screen;

-- What was credited before there was anything to screen by.
insert into screening_policies (chain_id) select chain_id from chain_cursors order by chain_id;
insert into transfer_screenings (observation_id, chain_id, derived_address_id, policy_id, outcome)
select o.id, o.chain_id, o.derived_address_id, p.id, 'not_screened'
from transfer_observations o join screening_policies p on p.chain_id = o.chain_id
where o.gate_passed is not null;

-- An address that the issuer of a token has frozen: its transfers revert, or the money stays where it arrives.
create table token_freezes (
    id bigint generated always as identity,
    chain_id chain_id not null,
    contract evm_address not null,
    address evm_address not null,
    -- The block at which it was seen first.
    block_number bigint not null,
    block_hash hash32 not null,
    -- Whether it was this that quarantined the destination.
    quarantined boolean not null default false,
    first_seen_at timestamptz not null,
    closed_at timestamptz,
    constraint token_freezes_pkey primary key (id),
    constraint token_freezes_block_positive check (block_number >= 0),
    constraint token_freezes_closed_in_order check (closed_at >= first_seen_at)
);
create unique index token_freezes_one_open_key on token_freezes (chain_id, contract, address) where closed_at is null;

-- Pages of payments whose sellers are asked about.
create index payments_unfinished_idx on payments (chain_id, id) where status in ('pending', 'processing', 'confirmed');

grant insert (chain_id, list_sha256, list_entries, oracle, provider) on screening_policies to amanat_app;
grant insert (observation_id, policy_id, screener, outcome, evidence, screened_at) on screening_verdicts to amanat_app;
grant update (
    policy_id, outcome, origin, hits, missing, waived, cleared, attempts, next_at, quarantined, decision, decided_by, decided_at,
    decision_reason, state_version
) on transfer_screenings to amanat_app;
grant insert (chain_id, contract, address, block_number, block_hash, first_seen_at) on token_freezes to amanat_app;
grant update (quarantined, closed_at) on token_freezes to amanat_app;
