-- as amanat_owner
insert into intents (
    id, kind, state, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, max_fee_per_gas,
    max_priority_fee_per_gas, payment_id, destination_id, digest, approvals_required, requested_by
) values
    ('01900000-0000-7000-8000-000000000065', 'fuel', 'replaced', 1, '01900000-0000-7000-8000-000000000031', decode(repeat('31', 20), 'hex'),
        decode(repeat('33', 20), 'hex'), decode(repeat('77', 20), 'hex'), 1, 9, 21000, 2, 1, null,
        '01900000-0000-7000-8000-000000000051', decode(repeat('e5', 32), 'hex'), 1, 'daemon');
update intents set station = 'desk' where id = '01900000-0000-7000-8000-000000000065';
