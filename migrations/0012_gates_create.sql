-- Two gates, credit and release: each has thresholds with tiers by amount, changes that are dated, and
-- verdicts of its own. And the final block that a chain's node names.

create type verdict_gate as enum ('credit', 'release');

-- The highest block the node has called final, kept as a maximum: a node whose tag goes back is at fault,
-- not the chain.
alter table chain_cursors
    add column final_number bigint,
    add column final_hash hash32,
    add constraint chain_cursors_final_is_a_block check ((final_number is null) = (final_hash is null)),
    add constraint chain_cursors_final_positive check (final_number >= 0);
grant update (final_number, final_hash) on chain_cursors to amanat_app;

-- A change takes effect at an instant that is not before it was written. What is in force at an instant is
-- the newest row (by id) that has taken effect by then. The rows there are took effect when they were
-- written: the second statement fills the new column only, and no row of the history is updated.
alter table config_setting_history add column effective_at timestamptz;
alter table config_setting_history alter column effective_at type timestamptz using created_at;
alter table config_setting_history
    alter column effective_at set default now(),
    alter column effective_at set not null,
    add constraint config_setting_history_not_backdated check (effective_at >= created_at),
    drop constraint config_setting_history_threshold_bounds,
    -- confirmation_threshold:<chain> and release_threshold:<chain>, and tiers of them:
    -- …:<asset, in lower case>:<from this many base units on>, where 0 blocks switches the tier off.
    add constraint config_setting_history_threshold_bounds check (
        key !~ '^(confirmation|release)_threshold(:|$)'
        or (
            key ~ '^(confirmation|release)_threshold:[1-9][0-9]{0,18}$'
            and new_value between 1 and 10000 and new_value = trunc(new_value)
        )
        or (
            key ~ '^(confirmation|release)_threshold:[1-9][0-9]{0,18}:0x[0-9a-f]{40}:[1-9][0-9]{0,77}$'
            and new_value between 0 and 10000 and new_value = trunc(new_value)
        )
    );
grant insert (effective_at) on config_setting_history to amanat_app;
-- A gate's rows, its tiers among them.
create index config_setting_history_gate_idx
    on config_setting_history ((split_part(key, ':', 1) || ':' || split_part(key, ':', 2)), id desc);

-- Whoever waits on a setting is woken. The notice is only a knock: what changed is read from the table.
create function config_setting_history_notify() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform pg_notify('amanat_settings', new.key);
    return null;
end
$$;
create trigger config_setting_history_notify after insert on config_setting_history
    for each row execute function config_setting_history_notify();
alter table config_setting_history enable always trigger config_setting_history_notify;

-- A verdict is of one gate. Replaying it takes the instant at which the thresholds were read and the
-- newest history row of its gate at that time; verdicts from before this migration have neither.
alter table transfer_verdicts
    add column gate verdict_gate not null default 'credit',
    add column final_number bigint,
    add column final_hash hash32,
    add column judged_at timestamptz,
    add column history_head_id bigint,
    add constraint transfer_verdicts_head_fkey foreign key (history_head_id) references config_setting_history (id) on delete restrict,
    add constraint transfer_verdicts_replayable check ((judged_at is null) = (history_head_id is null)),
    add constraint transfer_verdicts_final_is_a_block check ((final_number is null) = (final_hash is null)),
    add constraint transfer_verdicts_final_is_of_release check (final_number is null or gate = 'release'),
    drop constraint transfer_verdicts_depth_reached,
    -- Deep enough, or under a block that the node calls final.
    add constraint transfer_verdicts_gate_reached check (
        threshold between 1 and 10000
        and case when final_number is null then depth >= threshold else final_number >= block_number and depth >= 1 end
    );
drop index transfer_verdicts_one_live_key;
create unique index transfer_verdicts_one_live_key on transfer_verdicts (transfer_id, gate) where revoked_at is null;
-- Whole indexes: to a planner that knows no figures yet, a partial one looks as good as empty, and it would
-- read all of it where one row is wanted. Revoked verdicts are few.
drop index transfer_verdicts_chain_idx;
create index transfer_verdicts_chain_idx on transfer_verdicts (chain_id, gate, id);
drop index transfer_verdicts_observation_idx;
create index transfer_verdicts_observation_idx on transfer_verdicts (observation_id);
grant insert (gate, final_number, final_hash, judged_at, history_head_id) on transfer_verdicts to amanat_app;

-- The furthest gate that a sighting has passed. Written by the triggers below and by nobody else, so that
-- whoever looks for what waits reads what waits, however many sightings there are.
alter table transfer_observations add column gate_passed verdict_gate;
update transfer_observations o set gate_passed = 'credit'
where exists (select from transfer_verdicts v where v.observation_id = o.id and v.revoked_at is null);
create index transfer_observations_credit_due_idx on transfer_observations (chain_id, id)
    where state = 'canonical' and not internal and gate_passed is null;
create index transfer_observations_release_due_idx on transfer_observations (chain_id, id)
    where state = 'canonical' and gate_passed = 'credit';
-- Addresses whose money is only credited.
create index transfer_observations_only_credited_idx on transfer_observations (derived_address_id) where gate_passed = 'credit';

-- Money is released only where it is credited.
create function transfer_verdicts_gate() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.gate = 'release' then
        -- Whoever takes the credit back waits for us, and then takes back what we insert too.
        perform from transfer_verdicts
        where observation_id = new.observation_id and gate = 'credit' and revoked_at is null
        for share;
        if not found then
            raise exception using errcode = 'check_violation', constraint = 'transfer_verdicts_release_is_credited',
                message = 'a sighting without a credit passes no release gate';
        end if;
    end if;
    return new;
end
$$;
create trigger transfer_verdicts_gate before insert on transfer_verdicts
    for each row execute function transfer_verdicts_gate();
alter table transfer_verdicts enable always trigger transfer_verdicts_gate;

-- Taking a credit back takes its release back; and the sighting says what it has passed.
create function transfer_verdicts_follow() returns trigger
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.gate = 'credit' and new.revoked_at is not null then
        update transfer_verdicts set revoked_at = new.revoked_at
        where transfer_id = new.transfer_id and gate = 'release' and revoked_at is null;
    end if;
    update transfer_observations o set gate_passed = p.gate
    from (
        select max(gate) as gate from transfer_verdicts where observation_id = new.observation_id and revoked_at is null
    ) p
    where o.id = new.observation_id and o.gate_passed is distinct from p.gate;
    return null;
end
$$;
create trigger transfer_verdicts_follow after insert or update on transfer_verdicts
    for each row execute function transfer_verdicts_follow();
alter table transfer_verdicts enable always trigger transfer_verdicts_follow;
