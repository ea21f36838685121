-- Acts that take two officers, the policies and destinations that come of them, and approvals that end.

create type proposal_subject as enum ('policy', 'destination', 'threshold');

-- What one officer proposes. The text is what both decide about; its hash is what a confirmation names.
create table change_proposals (
    id bigint generated always as identity,
    subject proposal_subject not null,
    body text not null,
    digest hash32 not null,
    -- Not before this; at once when absent.
    effective_at timestamptz,
    proposed_by uuid not null,
    api_token_id uuid,
    reason text not null,
    created_at timestamptz not null default now(),
    constraint change_proposals_pkey primary key (id),
    constraint change_proposals_proposed_by_fkey foreign key (proposed_by) references users (id) on delete restrict,
    constraint change_proposals_token_fkey foreign key (api_token_id) references api_tokens (id) on delete restrict,
    constraint change_proposals_body_size check (octet_length(body) between 2 and 400000),
    constraint change_proposals_digest_of_body check (digest = sha256(convert_to(body, 'UTF8'))),
    constraint change_proposals_reason_given check (length(reason) between 1 and 500)
);

-- What another one decides: once, and for good. Withdrawing takes any officer.
create table change_decisions (
    proposal_id bigint not null,
    confirmed boolean not null,
    digest hash32 not null,
    decided_by uuid not null,
    api_token_id uuid,
    reason text,
    created_at timestamptz not null default now(),
    constraint change_decisions_pkey primary key (proposal_id),
    constraint change_decisions_proposal_fkey foreign key (proposal_id) references change_proposals (id) on delete restrict,
    constraint change_decisions_decided_by_fkey foreign key (decided_by) references users (id) on delete restrict,
    constraint change_decisions_token_fkey foreign key (api_token_id) references api_tokens (id) on delete restrict,
    constraint change_decisions_reason_given check (reason is null or length(reason) between 1 and 500)
);

-- The newest row that has taken effect is in force. An intent keeps the one it was planned under.
create table outflow_policies (
    id bigint generated always as identity,
    proposal_id bigint not null,
    body text not null,
    digest hash32 not null,
    effective_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    constraint outflow_policies_pkey primary key (id),
    constraint outflow_policies_proposal_key unique (proposal_id),
    constraint outflow_policies_proposal_fkey foreign key (proposal_id) references change_proposals (id) on delete restrict,
    constraint outflow_policies_not_backdated check (effective_at >= created_at)
);

-- The newest row of an address says whether money may go there; its cooling began with it.
create table outflow_destinations (
    id bigint generated always as identity,
    chain_id chain_id not null,
    address evm_address not null,
    label text not null,
    allowed boolean not null,
    proposal_id bigint,
    changed_by uuid not null,
    reason text not null,
    created_at timestamptz not null default now(),
    constraint outflow_destinations_pkey primary key (id),
    constraint outflow_destinations_proposal_key unique (proposal_id),
    constraint outflow_destinations_proposal_fkey foreign key (proposal_id) references change_proposals (id) on delete restrict,
    constraint outflow_destinations_changed_by_fkey foreign key (changed_by) references users (id) on delete restrict,
    constraint outflow_destinations_label_form check (length(label) between 1 and 100),
    constraint outflow_destinations_reason_given check (length(reason) between 1 and 500),
    -- Listing takes two officers; taking off the list takes one and acts at once.
    constraint outflow_destinations_listing_takes_two check (allowed = (proposal_id is not null))
);
create index outflow_destinations_newest_idx on outflow_destinations (chain_id, address, id desc);

-- Outflows that are due and may not leave, for people to see. An open one is closed once it is planned.
create table policy_refusals (
    id bigint generated always as identity,
    kind intent_kind not null,
    payment_id uuid not null,
    chain_id chain_id not null,
    asset evm_address not null,
    amount base_units not null,
    to_address evm_address not null,
    policy_id bigint not null,
    reasons text not null,
    first_seen_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    closed_at timestamptz,
    constraint policy_refusals_pkey primary key (id),
    constraint policy_refusals_payment_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint policy_refusals_policy_fkey foreign key (policy_id) references outflow_policies (id) on delete restrict
);
-- A payment can have several orders.
create unique index policy_refusals_one_open_key on policy_refusals (kind, payment_id, asset, amount, to_address) where closed_at is null;

-- Append-only.
create trigger change_proposals_no_update before update on change_proposals for each statement execute function forbid_change();
create trigger change_proposals_no_delete before delete on change_proposals for each statement execute function forbid_change();
create trigger change_proposals_no_truncate before truncate on change_proposals for each statement execute function forbid_change();
alter table change_proposals enable always trigger change_proposals_no_update;
alter table change_proposals enable always trigger change_proposals_no_delete;
alter table change_proposals enable always trigger change_proposals_no_truncate;
create trigger change_decisions_no_update before update on change_decisions for each statement execute function forbid_change();
create trigger change_decisions_no_delete before delete on change_decisions for each statement execute function forbid_change();
create trigger change_decisions_no_truncate before truncate on change_decisions for each statement execute function forbid_change();
alter table change_decisions enable always trigger change_decisions_no_update;
alter table change_decisions enable always trigger change_decisions_no_delete;
alter table change_decisions enable always trigger change_decisions_no_truncate;
create trigger outflow_policies_no_update before update on outflow_policies for each statement execute function forbid_change();
create trigger outflow_policies_no_delete before delete on outflow_policies for each statement execute function forbid_change();
create trigger outflow_policies_no_truncate before truncate on outflow_policies for each statement execute function forbid_change();
alter table outflow_policies enable always trigger outflow_policies_no_update;
alter table outflow_policies enable always trigger outflow_policies_no_delete;
alter table outflow_policies enable always trigger outflow_policies_no_truncate;
create trigger outflow_destinations_no_update before update on outflow_destinations for each statement execute function forbid_change();
create trigger outflow_destinations_no_delete before delete on outflow_destinations for each statement execute function forbid_change();
create trigger outflow_destinations_no_truncate before truncate on outflow_destinations
    for each statement execute function forbid_change();
alter table outflow_destinations enable always trigger outflow_destinations_no_update;
alter table outflow_destinations enable always trigger outflow_destinations_no_delete;
alter table outflow_destinations enable always trigger outflow_destinations_no_truncate;

-- Two officers: who proposes does not confirm, both are officers when they act, the confirmation names what
-- was proposed, and a proposal that nobody confirmed in seven days is dead.
create function change_proposals_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not exists (select from users where id = new.proposed_by and status = 'active' and role in ('admin', 'guard')) then
        raise exception using errcode = 'check_violation', constraint = 'change_proposals_by_officer',
            message = 'only an officer proposes';
    end if;
    return new;
end
$$;
create trigger change_proposals_guard before insert on change_proposals for each row execute function change_proposals_guard();
alter table change_proposals enable always trigger change_proposals_guard;

create function change_decisions_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
declare
    proposed change_proposals%rowtype;
begin
    select * into proposed from change_proposals where id = new.proposal_id;
    if not found then
        -- The foreign key refuses it.
        return new;
    end if;
    if not exists (select from users where id = new.decided_by and status = 'active' and role in ('admin', 'guard')) then
        raise exception using errcode = 'check_violation', constraint = 'change_decisions_by_officer',
            message = 'only an officer decides';
    end if;
    if new.confirmed and new.decided_by = proposed.proposed_by then
        raise exception using errcode = 'check_violation', constraint = 'change_decisions_by_another',
            message = 'who proposes does not confirm';
    end if;
    if new.confirmed and not exists (
        select from users where id = proposed.proposed_by and status = 'active' and role in ('admin', 'guard')
    ) then
        raise exception using errcode = 'check_violation', constraint = 'change_decisions_proposer_is_officer',
            message = 'who proposed this is no officer any more';
    end if;
    if new.digest is distinct from proposed.digest then
        raise exception using errcode = 'check_violation', constraint = 'change_decisions_of_what_was_proposed',
            message = 'a decision names the text that was proposed';
    end if;
    if new.confirmed and proposed.created_at <= now() - interval '7 days' then
        raise exception using errcode = 'check_violation', constraint = 'change_decisions_in_time',
            message = 'a proposal that nobody confirmed in seven days is dead';
    end if;
    return new;
end
$$;
create trigger change_decisions_guard before insert on change_decisions for each row execute function change_decisions_guard();
alter table change_decisions enable always trigger change_decisions_guard;

create function outflow_policies_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not exists (
        select from change_proposals p join change_decisions d on d.proposal_id = p.id
        where p.id = new.proposal_id and p.subject = 'policy' and d.confirmed and p.body = new.body and p.digest = new.digest
          and new.effective_at >= coalesce(p.effective_at, new.effective_at)
    ) then
        raise exception using errcode = 'check_violation', constraint = 'outflow_policies_confirmed',
            message = 'a policy is what one officer proposed and another confirmed';
    end if;
    return new;
end
$$;
create trigger outflow_policies_guard before insert on outflow_policies for each row execute function outflow_policies_guard();
alter table outflow_policies enable always trigger outflow_policies_guard;

create function outflow_destinations_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.allowed and not exists (
        select from change_proposals p join change_decisions d on d.proposal_id = p.id
        where p.id = new.proposal_id and p.subject = 'destination' and d.confirmed
          and (p.body::jsonb ->> 'chain')::bigint = new.chain_id
          and lower(p.body::jsonb ->> 'address') = '0x' || encode(new.address, 'hex')
          and p.body::jsonb ->> 'label' = new.label
    ) then
        raise exception using errcode = 'check_violation', constraint = 'outflow_destinations_confirmed',
            message = 'a destination is what one officer proposed and another confirmed';
    end if;
    if not exists (select from users where id = new.changed_by and status = 'active' and role in ('admin', 'guard')) then
        raise exception using errcode = 'check_violation', constraint = 'outflow_destinations_by_officer',
            message = 'only an officer changes the list of destinations';
    end if;
    return new;
end
$$;
create trigger outflow_destinations_guard before insert on outflow_destinations
    for each row execute function outflow_destinations_guard();
alter table outflow_destinations enable always trigger outflow_destinations_guard;

-- An intent is planned under the policy in force, and nothing is planned past it.
alter table intents
    add column policy_id bigint,
    add column approvals_expire_minutes integer not null default 1440,
    add constraint intents_policy_fkey foreign key (policy_id) references outflow_policies (id) on delete restrict,
    add constraint intents_approvals_expire_bounds check (approvals_expire_minutes between 5 and 43200);
-- What has left of an asset in a stretch of hours; and what is on its way, which is little.
create index intents_left_idx on intents (chain_id, asset, updated_at) where state = 'settled';

create function intents_policy() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.kind <> 'cancel' and new.policy_id is distinct from (
        select id from outflow_policies where effective_at <= now() order by id desc limit 1
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_under_the_policy_in_force',
            message = 'an intent is planned under the policy in force';
    end if;
    return new;
end
$$;
create trigger intents_policy before insert on intents for each row execute function intents_policy();
alter table intents enable always trigger intents_policy;

-- An approval counts until it expires. Those given before this migration count a day from now.
alter table intent_approvals add column expires_at timestamptz not null default now() + interval '24 hours';
alter table intent_approvals alter column expires_at drop default;
create index intent_approvals_expiry_idx on intent_approvals (intent_id, revision, expires_at);

create function intent_approvals_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
declare
    approved intents%rowtype;
begin
    select * into approved from intents where id = new.intent_id;
    if not found then
        -- The foreign key refuses it.
        new.expires_at := new.created_at;
        return new;
    end if;
    if approved.requested_by = 'user:' || new.officer_id then
        raise exception using errcode = 'check_violation', constraint = 'intent_approvals_not_by_requester',
            message = 'who asked for an intent does not approve it';
    end if;
    if approved.state <> 'planned' or approved.revision <> new.revision or approved.digest <> new.digest then
        raise exception using errcode = 'check_violation', constraint = 'intent_approvals_of_what_stands',
            message = 'an approval is of the present revision of a planned intent';
    end if;
    if not exists (select from users where id = new.officer_id and status = 'active' and role in ('admin', 'guard')) then
        raise exception using errcode = 'check_violation', constraint = 'intent_approvals_by_officer',
            message = 'only an officer approves';
    end if;
    new.expires_at := new.created_at + make_interval(mins => approved.approvals_expire_minutes);
    return new;
end
$$;
create trigger intent_approvals_guard before insert on intent_approvals for each row execute function intent_approvals_guard();
alter table intent_approvals enable always trigger intent_approvals_guard;

grant insert (subject, body, digest, effective_at, proposed_by, api_token_id, reason) on change_proposals to amanat_app;
grant insert (proposal_id, confirmed, digest, decided_by, api_token_id, reason) on change_decisions to amanat_app;
grant insert (proposal_id, body, digest, effective_at) on outflow_policies to amanat_app;
grant insert (chain_id, address, label, allowed, proposal_id, changed_by, reason) on outflow_destinations to amanat_app;
grant insert (kind, payment_id, chain_id, asset, amount, to_address, policy_id, reasons) on policy_refusals to amanat_app;
grant update (policy_id, reasons, last_seen_at, closed_at) on policy_refusals to amanat_app;
grant insert (policy_id, approvals_expire_minutes) on intents to amanat_app;
