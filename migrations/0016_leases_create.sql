-- Who works on this database. The number grows with each daemon that takes over, and every unit of work of a
-- daemon checks in its own transaction that its number is still the last: a daemon that was paused, and whose
-- lease went to another meanwhile, writes nothing when it wakes.

create table leases (
    name text not null,
    number bigint not null,
    holder text not null,
    taken_at timestamptz not null,
    constraint leases_pkey primary key (name),
    constraint leases_number_positive check (number >= 0)
);
insert into leases (name, number, holder, taken_at) values ('daemon', 0, 'nobody', now());

-- The lock is shared by all units of work; whoever takes over takes it alone for a moment, after the number has
-- grown, and so waits for the units that had passed this check. Each statement of a volatile function sees
-- what is committed when it begins, so the number is read after the lock was got.
create function lease_check(held bigint) returns void
    language plpgsql volatile set search_path = pg_catalog, public, pg_temp
as $$
declare
    last bigint;
begin
    perform pg_advisory_xact_lock_shared(7061654493442434917);
    select number into last from leases where name = 'daemon';
    if last is distinct from held then
        raise exception using errcode = 'AM001', message = format('lease %s is over; the database is served under lease %s', held, last);
    end if;
end
$$;

grant update (number, holder, taken_at) on leases to amanat_app;
grant execute on function lease_check(bigint) to amanat_app;
