-- What the oracle heard in its last round, so that sources which are too few or too far apart for a price are no gap
-- in what it knows. And late money of a payment that has failed is valued by a fresh quote before it is accepted.

alter table oracle_states
    add column heard_at timestamptz,
    add column heard_prices numeric(38, 18)[] not null default '{}',
    add constraint oracle_states_heard_whole check (heard_at is not null or heard_prices = '{}'),
    add constraint oracle_states_heard_bounds check (cardinality(heard_prices) <= 64 and array_position(heard_prices, null) is null);
grant insert (heard_at, heard_prices) on oracle_states to amanat_app;
grant update (heard_at, heard_prices) on oracle_states to amanat_app;

-- As before, and also of a payment that has failed: nothing is in escrow, and an officer may still take what came.
create or replace function payments_due_guard() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.due_units is distinct from old.due_units or new.expires_at is distinct from old.expires_at then
        if old.escrow_state is not null or old.status not in ('pending', 'processing', 'failed') then
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
