-- as amanat_app
insert into leases (name, number, holder, taken_at) values ('house', 1, 'sample', now()), ('chain:1', 4, 'sample', now());
select lease_verify('chain:1', 4);
select pg_try_advisory_xact_lock(lease_key('chain:1', 'held'));
