-- as amanat_app
insert into chain_blocks (chain_id, number, hash, parent_hash, block_time, threshold_history_id) values
    (1, 100, decode(repeat('b0', 32), 'hex'), decode(repeat('af', 32), 'hex'), '2026-01-01T00:00:00Z', 1),
    (1, 101, decode(repeat('b1', 32), 'hex'), decode(repeat('b0', 32), 'hex'), '2026-01-01T00:00:12Z', 1);
-- A reorg: the block is kept, and another one takes its height.
update chain_blocks set state = 'orphaned', orphaned_at = now() where number = 101;
insert into chain_blocks (chain_id, number, hash, parent_hash, block_time, threshold_history_id) values
    (1, 101, decode(repeat('c1', 32), 'hex'), decode(repeat('b0', 32), 'hex'), '2026-01-01T00:00:13Z', 2),
    (1, 112, decode(repeat('c2', 32), 'hex'), decode(repeat('c1', 32), 'hex'), '2026-01-01T00:02:13Z', 2);
insert into chain_cursors (chain_id, start_number, number, hash) values (1, 100, 112, decode(repeat('c2', 32), 'hex'));
update chain_cursors set outflow_halted_at = now(), outflow_halted_reason = 'a reorg took away a confirmed transfer';
insert into transfers (chain_id, tx_hash, position) values
    (1, decode(repeat('d1', 32), 'hex'), 'log:0'), (1, decode(repeat('d1', 32), 'hex'), 'call:'), (1, decode(repeat('d2', 32), 'hex'), 'call:0.12.3');
insert into transfer_observations (transfer_id, chain_id, block_number, block_hash, asset, sender, recipient, amount, derived_address_id, internal) values
    (1, 1, 101, decode(repeat('b1', 32), 'hex'), decode(repeat('55', 20), 'hex'), decode(repeat('77', 20), 'hex'), decode(repeat('33', 20), 'hex'),
        115792089237316195423570985008687907853269984665640564039457584007913129639935, '01900000-0000-7000-8000-000000000033', false);
update transfer_observations set state = 'orphaned', orphaned_at = now();
insert into transfer_observations (transfer_id, chain_id, block_number, block_hash, asset, sender, recipient, amount, derived_address_id, internal) values
    (1, 1, 101, decode(repeat('c1', 32), 'hex'), decode(repeat('55', 20), 'hex'), decode(repeat('77', 20), 'hex'), decode(repeat('33', 20), 'hex'),
        250000001, '01900000-0000-7000-8000-000000000033', false);
insert into transfer_verdicts (
    transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth, threshold, threshold_seen_history_id,
    threshold_now_history_id
) values
    (1, 1, 1, 101, decode(repeat('b1', 32), 'hex'), 112, decode(repeat('c2', 32), 'hex'), 12, 12, 1, 2);
update transfer_verdicts set revoked_at = now();
insert into transfer_verdicts (
    transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth, threshold, threshold_seen_history_id,
    threshold_now_history_id
) values
    (1, 2, 1, 101, decode(repeat('c1', 32), 'hex'), 112, decode(repeat('c2', 32), 'hex'), 12, 12, 2, 2);
