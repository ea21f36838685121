-- as amanat_app
insert into config_settings (key, value, description) values
    ('confirmation_threshold:1', 12, 'blocks until a transfer is credited'),
    ('confirmation_threshold:31337', 10000, null),
    ('something_else', -0.5, 'not a threshold');
insert into config_setting_history (key, old_value, new_value, changed_by, changed_by_user_id, reason) values
    ('confirmation_threshold:1', null, 1, 'daemon', null, 'default of chains.toml'),
    ('confirmation_threshold:1', 1, 12, 'officer', '01900000-0000-7000-8000-000000000001', 'more caution'),
    ('confirmation_threshold:31337', null, 10000, 'test', null, 'the most there is'),
    ('something_else', null, -0.5, 'test', null, 'any number');
