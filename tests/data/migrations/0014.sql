-- as amanat_app
insert into reconcile_findings (
    chain_id, address, asset, ledger_units, chain_units, pending_units, block_number, block_hash, first_seen_at, last_seen_at
) values
    (1, decode(repeat('11', 20), 'hex'), decode(repeat('ee', 20), 'hex'), 0, 7, 0, 101, decode(repeat('c1', 32), 'hex'), now(), now()),
    (1, decode(repeat('12', 20), 'hex'), decode(repeat('ee', 20), 'hex'), 9, 7, -1, 101, decode(repeat('c1', 32), 'hex'), now(), now());
update reconcile_findings set closed_at = now(), resolution = 'explained' where address = decode(repeat('12', 20), 'hex');
