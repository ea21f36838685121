-- Several signed transactions for one nonce: the same intent with higher fees, or a cancel that takes its
-- nonce. Any of them may be the one that is mined; one of them settles.

alter table intents
    -- The intent whose nonce this one takes.
    add column cancels uuid,
    -- The newest revision of which signed bytes are stored.
    add column signed_revision integer,
    -- Who asked for the present revision, where that is not who asked for the intent.
    add column revised_by text,
    add constraint intents_cancels_fkey foreign key (cancels) references intents (id) on delete restrict,
    add constraint intents_only_cancels_cancel check (cancels is null or kind = 'cancel'),
    add constraint intents_signed_revision_bounds check (signed_revision between 1 and revision);
update intents i set signed_revision = i.revision where exists (select from outbound_transactions t where t.intent_id = i.id);

drop index intents_nonce_key;
-- A cancel shares the nonce of what it cancels.
create unique index intents_nonce_key on intents (chain_id, from_address, nonce) where state <> 'void' and cancels is null;
create unique index intents_one_live_cancel_key on intents (cancels) where cancels is not null and state not in ('void', 'replaced');
create index intents_of_nonce_idx on intents (chain_id, from_address, nonce);
drop index intents_one_live_per_destination_key;
create unique index intents_one_live_per_destination_key on intents (destination_id, kind, asset)
    where kind in ('sweep', 'fuel') and state not in ('void', 'reverted', 'settled', 'replaced');
drop index intents_open_idx;
create index intents_open_idx on intents (state, created_at) where state not in ('settled', 'void', 'reverted', 'replaced');

alter table outbound_transactions
    add column replaces bigint,
    add column max_fee_per_gas base_units,
    add column max_priority_fee_per_gas base_units,
    add constraint outbound_transactions_replaces_fkey foreign key (replaces) references outbound_transactions (id) on delete restrict,
    -- Each is replaced by one at most, so that those of a nonce stand in a line.
    add constraint outbound_transactions_replaces_key unique (replaces),
    drop constraint outbound_transactions_nonce_key,
    drop constraint outbound_transactions_intent_key;
update outbound_transactions t
set max_fee_per_gas = i.max_fee_per_gas, max_priority_fee_per_gas = i.max_priority_fee_per_gas
from intents i where i.id = t.intent_id;
alter table outbound_transactions
    alter column max_fee_per_gas set not null,
    alter column max_priority_fee_per_gas set not null;
-- One signed transaction for each nonce, but for those that name the one they replace.
create unique index outbound_transactions_nonce_key on outbound_transactions (chain_id, from_address, nonce) where replaces is null;
create index outbound_transactions_of_nonce_idx on outbound_transactions (chain_id, from_address, nonce);
create index outbound_transactions_of_intent_idx on outbound_transactions (intent_id);
-- One of them settles. The others are settled with it, in no block.
create unique index outbound_transactions_one_settles_key on outbound_transactions (chain_id, from_address, nonce)
    where settled_at is not null and block_number is not null;
create unique index outbound_transactions_settles_once_key on outbound_transactions (intent_id)
    where settled_at is not null and block_number is not null;

create function outbound_transactions_link() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
declare
    earlier outbound_transactions%rowtype;
begin
    -- Whoever does not say what was signed to be paid means the intent's present terms.
    if new.max_fee_per_gas is null and new.max_priority_fee_per_gas is null then
        select i.max_fee_per_gas, i.max_priority_fee_per_gas into new.max_fee_per_gas, new.max_priority_fee_per_gas
        from intents i where i.id = new.intent_id;
    end if;
    if new.replaces is null then
        return new;
    end if;
    select * into earlier from outbound_transactions where id = new.replaces;
    if not found then
        -- The foreign key refuses it.
        return new;
    end if;
    if (earlier.chain_id, earlier.from_address, earlier.nonce) is distinct from (new.chain_id, new.from_address, new.nonce)
        or not (
            earlier.intent_id = new.intent_id
            or exists (select from intents i where i.id = new.intent_id and i.cancels = earlier.intent_id)
            or exists (select from intents i where i.id = earlier.intent_id and i.cancels = new.intent_id)
        )
    then
        raise exception using errcode = 'check_violation', constraint = 'outbound_transactions_replaces_its_own',
            message = 'a transaction replaces one of the same intent, or of the one it cancels, at the same nonce';
    end if;
    -- An original that comes in after its cancel was signed is stored to be watched, whatever it pays.
    if not exists (select from intents i where i.id = earlier.intent_id and i.cancels = new.intent_id) and (
        new.max_fee_per_gas::numeric * 8 < earlier.max_fee_per_gas::numeric * 9
        or new.max_priority_fee_per_gas::numeric * 8 < earlier.max_priority_fee_per_gas::numeric * 9
        or new.max_fee_per_gas::numeric <= earlier.max_fee_per_gas::numeric
        or new.max_priority_fee_per_gas::numeric <= earlier.max_priority_fee_per_gas::numeric
    ) then
        raise exception using errcode = 'check_violation', constraint = 'outbound_transactions_pays_more',
            message = 'a replacement pays an eighth more in both fees';
    end if;
    return new;
end
$$;
create trigger outbound_transactions_link before insert on outbound_transactions
    for each row execute function outbound_transactions_link();
alter table outbound_transactions enable always trigger outbound_transactions_link;

create or replace function intents_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.revision is distinct from old.revision then
        if new.revision <> old.revision + 1 or new.state <> 'planned' then
            raise exception using errcode = 'check_violation', constraint = 'intents_revised_by_one',
                message = 'a revision follows the one before it, and waits for approvals';
        end if;
    elsif (new.digest, new.gas_limit, new.max_fee_per_gas::numeric, new.max_priority_fee_per_gas::numeric, new.revised_by)
        is distinct from (old.digest, old.gas_limit, old.max_fee_per_gas::numeric, old.max_priority_fee_per_gas::numeric, old.revised_by)
    then
        raise exception using errcode = 'check_violation', constraint = 'intents_change_is_a_revision',
            message = 'what was approved changes only with the revision';
    end if;
    if new.state is not distinct from old.state then
        return new;
    end if;
    if (old.state::text || ' > ' || new.state::text) not in (
        'planned > approved', 'planned > void', 'approved > signing', 'approved > void', 'signing > approved', 'signing > signed',
        'signed > broadcast', 'signed > uncertain', 'signed > mined', 'broadcast > mined', 'uncertain > broadcast',
        'uncertain > mined', 'mined > broadcast', 'mined > settled', 'mined > reverted',
        'approved > planned', 'signed > planned', 'broadcast > planned', 'uncertain > planned',
        'planned > mined', 'approved > mined', 'signing > mined',
        'planned > replaced', 'approved > replaced', 'signing > replaced', 'signed > replaced', 'broadcast > replaced',
        'uncertain > replaced'
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_transition',
            message = format('an intent does not go from %s to %s', old.state, new.state);
    end if;
    if new.state = 'planned' and new.revision = old.revision then
        raise exception using errcode = 'check_violation', constraint = 'intents_planned_again_is_a_revision',
            message = 'an intent that is planned again is another revision';
    end if;
    if new.state = 'void' and (
        new.station is not null or exists (select from outbound_transactions t where t.intent_id = new.id)
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_void_unsigned',
            message = 'a station has had this intent; a signature may exist';
    end if;
    if new.state = 'mined' and not exists (
        select from outbound_transactions t where t.intent_id = new.id and t.block_number is not null
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_mined_is_in_a_block',
            message = 'an intent is mined by a transaction of its own';
    end if;
    if new.state = 'replaced' and not exists (
        select from outbound_transactions t
        where (t.chain_id, t.from_address, t.nonce) = (new.chain_id, new.from_address, new.nonce)
          and t.intent_id <> new.id and t.settled_at is not null and t.block_number is not null
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_replaced_by_another',
            message = 'an intent is replaced by a settled transaction at its nonce';
    end if;
    if new.approvals_required > (
        select count(distinct officer_id) from intent_approvals a
        where a.intent_id = new.id and a.revision = new.revision and a.digest = new.digest and a.expires_at > now()
    ) and (old.state::text || ' > ' || new.state::text) in ('planned > approved', 'approved > signing') then
        raise exception using errcode = 'check_violation', constraint = 'intents_approved_by_officers',
            message = 'an intent is approved by as many officers as it requires, and while their approvals count';
    end if;
    return new;
end
$$;

-- A cancel is a zero transfer of coin to its own sender, at the nonce of the intent that it cancels.
create or replace function intents_policy() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.kind = 'cancel' then
        if new.to_address <> new.from_address or new.amount::numeric <> 0 or new.asset <> decode(repeat('ee', 20), 'hex')
            or new.cancels is not null and not exists (
                select from intents i
                where i.id = new.cancels
                  and (i.chain_id, i.from_address, i.nonce) = (new.chain_id, new.from_address, new.nonce)
                  and i.kind <> 'cancel' and new.approvals_required >= i.approvals_required
                  and i.state not in ('void', 'mined', 'settled', 'reverted', 'replaced')
            )
        then
            raise exception using errcode = 'check_violation', constraint = 'intents_cancel_of_an_open_one',
                message = 'a cancel sends nothing to itself at the nonce of an open intent, and takes as many officers';
        end if;
    elsif new.policy_id is distinct from (
        select id from outflow_policies where effective_at <= now() order by id desc limit 1
    ) then
        raise exception using errcode = 'check_violation', constraint = 'intents_under_the_policy_in_force',
            message = 'an intent is planned under the policy in force';
    end if;
    return new;
end
$$;

-- Who asked for a revision does not approve it either.
create or replace function intent_approvals_guard() returns trigger
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
    if 'user:' || new.officer_id in (approved.requested_by, coalesce(approved.revised_by, '')) then
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

-- Few rows, asked for at every look once there is one.
create index events_foreign_nonce_idx on events (chain_id, (detail ->> 'address'), (detail ->> 'nonce')) where kind = 'chain.foreign_nonce';

grant insert (cancels, revised_by) on intents to amanat_app;
grant update (revision, digest, max_fee_per_gas, max_priority_fee_per_gas, revised_by, signed_revision) on intents to amanat_app;
grant insert (replaces, max_fee_per_gas, max_priority_fee_per_gas) on outbound_transactions to amanat_app;
