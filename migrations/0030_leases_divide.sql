-- One lease for each chain, and one for the house: what belongs to no chain (seals, webhooks, what lapses, the memory
-- of prices). Several daemons divide them, and each write of a worker checks the number of its own lease.

-- Three locks belong to a lease. `held` is with whoever holds it, for as long as its connection lives. `asked` is shared
-- by those who have fewer and would take it over. `units` is shared by the units of work under it, and whoever takes it
-- over takes that one alone for a moment, after the number has grown.
create function lease_key(lease text, side text) returns bigint
    language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
    return hashtextextended('amanatd lease ' || side || ' ' || lease, 0);

-- As `lease_check` before, which is of the time of a single lease and which nothing calls now, for one of several.
create function lease_verify(lease text, held bigint) returns void
    language plpgsql volatile set search_path = pg_catalog, public, pg_temp
as $$
declare
    last bigint;
begin
    perform pg_advisory_xact_lock_shared(public.lease_key(lease, 'units'));
    select number into last from leases where name = lease;
    if last is distinct from held then
        raise exception using errcode = 'AM001', message = format('lease %s of %s is over; it is worked on under lease %s', held, lease, last);
    end if;
end
$$;

-- A daemon of the version before, were one still at work, writes nothing from here on.
update leases set number = number + 1, holder = 'nobody: leases are by chain', taken_at = now() where name = 'daemon';

grant insert (name, number, holder, taken_at) on leases to amanat_app;
grant execute on function lease_key(text, text) to amanat_app, amanat_readonly;
grant execute on function lease_verify(text, bigint) to amanat_app;
