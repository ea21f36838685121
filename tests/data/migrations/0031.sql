-- as amanat_app
insert into high_water_marks (installation, number, token, written_at)
values ('01900000-0000-7000-8000-0000000000f1', 1, '01900000-0000-7000-8000-0000000000f2', now());
insert into database_losses (found_at, found_by, cause, detail, read_again)
values (now(), 'sample', 'failover', 'from timeline 1 to timeline 2', '{"1": 7}');
update database_losses set reconciled_at = now(), reconciled_by = 'sample', reconciled_reason = 'sample';
