-- as amanat_app
update chain_cursors set final_number = 101, final_hash = decode(repeat('c1', 32), 'hex') where chain_id = 1;
insert into config_settings (key, value, description) values
    ('release_threshold:1', 64, 'blocks until money may leave again'),
    ('confirmation_threshold:1:0x5555555555555555555555555555555555555555:1000000000', 0, 'a tier'),
    ('release_threshold:1:0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee:1', 0, 'a tier');
insert into config_setting_history (key, old_value, new_value, changed_by, changed_by_user_id, reason) values
    ('release_threshold:1', null, 64, 'daemon', null, 'default of chains.toml'),
    ('confirmation_threshold:1:0x5555555555555555555555555555555555555555:1000000000', null, 30, 'officer',
        '01900000-0000-7000-8000-000000000001', 'large sums wait longer'),
    ('release_threshold:1:0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee:1', 10000, 0, 'test', null, 'off');
insert into config_setting_history (key, old_value, new_value, changed_by, reason, effective_at) values
    ('confirmation_threshold:1', 12, 20, 'test', 'next year', now() + interval '400 days');
insert into transfer_verdicts (
    transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth, threshold, threshold_seen_history_id,
    threshold_now_history_id, gate, final_number, final_hash, judged_at, history_head_id
) values
    (1, 2, 1, 101, decode(repeat('c1', 32), 'hex'), 112, decode(repeat('c2', 32), 'hex'), 12, 64, 5, 5, 'release',
        101, decode(repeat('c1', 32), 'hex'), now(), 5);
