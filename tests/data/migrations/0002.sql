-- as amanat_app
insert into id_map (collection, legacy_object_id, new_id) values
    ('users', '64b0c0ffee0000000000aaaa', '01900000-0000-7000-8000-00000000000a'),
    ('payments', '64b0c0ffee0000000000aaaa', '01900000-0000-7000-8000-00000000000b');
insert into pg_dualwrite_gaps (collection, op, payload, severity, error) values
    ('payments', 'upsert', '{"amount": "12.5", "nested": {"list": [1, null]}}', 'warning', 'timeout'),
    ('users', 'delete', '{}', 'critical', null);
update pg_dualwrite_gaps set resolved_at = now(), resolution = 'replayed' where collection = 'users';
