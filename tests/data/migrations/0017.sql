-- as amanat_app
insert into screening_policies (chain_id, list_sha256, list_entries, oracle, provider) values
    (1, decode(repeat('e1', 32), 'hex'), 3, decode(repeat('e2', 20), 'hex'), 'example, hit from 75');
insert into screening_verdicts (observation_id, policy_id, screener, outcome, evidence, screened_at) values
    (2, (select max(id) from screening_policies), 'list', 'hit', '{"sha256": "e1"}', now()),
    (2, (select max(id) from screening_policies), 'provider', 'unavailable', '{"reason": "timeout"}', now());
update transfer_screenings set
    policy_id = (select max(id) from screening_policies), outcome = 'hit', origin = decode(repeat('77', 20), 'hex'),
    hits = '{list:0x77}', missing = '{unavailable:provider}', attempts = 1, next_at = now(), state_version = 2
where observation_id = 2;
update transfer_screenings set
    cleared = '{list:0x77,unavailable:provider}', decision = 'cleared', decided_by = '01900000-0000-7000-8000-000000000006',
    decided_at = now(), decision_reason = 'a namesake', state_version = 3
where observation_id = 2;
insert into token_freezes (chain_id, contract, address, block_number, block_hash, first_seen_at) values
    (1, decode(repeat('55', 20), 'hex'), decode(repeat('33', 20), 'hex'), 112, decode(repeat('c2', 32), 'hex'), now());
update token_freezes set closed_at = now();
