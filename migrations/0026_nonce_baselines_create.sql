-- Every nonce that the chain has used of an address of ours is one that we signed for, or lies below what two
-- officers have stated as the address's past. Without that rule a database restored to before an outflow reads
-- like one of an address with a history, and pays again.

alter type proposal_subject add value 'nonce_baseline';

-- All nonces below the highest of an address are its past: used before it was ours to watch, or looked into and
-- accounted for. Zero where nothing is stated.
create table nonce_baselines (
    id bigint generated always as identity,
    chain_id chain_id not null,
    address evm_address not null,
    nonce bigint not null,
    proposal_id bigint,
    created_at timestamptz not null default now(),
    constraint nonce_baselines_pkey primary key (id),
    constraint nonce_baselines_proposal_key unique (proposal_id),
    constraint nonce_baselines_proposal_fkey foreign key (proposal_id) references change_proposals (id) on delete restrict,
    constraint nonce_baselines_nonce_positive check (nonce > 0)
);
create unique index nonce_baselines_nonce_key on nonce_baselines (chain_id, address, nonce);

-- Addresses that were in use when their first intent was planned: that was the rule until now.
insert into nonce_baselines (chain_id, address, nonce)
select chain_id, from_address, min(nonce) from intents where state <> 'void' group by chain_id, from_address having min(nonce) > 0;

create trigger nonce_baselines_no_update before update on nonce_baselines for each statement execute function forbid_change();
create trigger nonce_baselines_no_delete before delete on nonce_baselines for each statement execute function forbid_change();
create trigger nonce_baselines_no_truncate before truncate on nonce_baselines for each statement execute function forbid_change();
alter table nonce_baselines enable always trigger nonce_baselines_no_update;
alter table nonce_baselines enable always trigger nonce_baselines_no_delete;
alter table nonce_baselines enable always trigger nonce_baselines_no_truncate;

create function nonce_baselines_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not exists (
        select from change_proposals p join change_decisions d on d.proposal_id = p.id
        where p.id = new.proposal_id and p.subject = 'nonce_baseline' and d.confirmed
          and (p.body::jsonb ->> 'chain')::bigint = new.chain_id
          and lower(p.body::jsonb ->> 'address') = '0x' || encode(new.address, 'hex')
          and (p.body::jsonb ->> 'nonce')::bigint = new.nonce
    ) then
        raise exception using errcode = 'check_violation', constraint = 'nonce_baselines_confirmed',
            message = 'a nonce baseline is what one officer proposed and another confirmed';
    end if;
    return new;
end
$$;
create trigger nonce_baselines_guard before insert on nonce_baselines for each row execute function nonce_baselines_guard();
alter table nonce_baselines enable always trigger nonce_baselines_guard;

grant insert (chain_id, address, nonce, proposal_id) on nonce_baselines to amanat_app;
