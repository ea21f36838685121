-- as amanat_app
update intents set state = 'approved', state_version = state_version + 1 where id = '01900000-0000-7000-8000-000000000066';
update intents set state = 'signing', station = 'desk' where id = '01900000-0000-7000-8000-000000000066';
insert into outbound_transactions (intent_id, chain_id, from_address, nonce, tx_hash, raw, max_fee_per_gas, max_priority_fee_per_gas) values
    ('01900000-0000-7000-8000-000000000066', 1, decode(repeat('31', 20), 'hex'), 10, decode(repeat('d6', 32), 'hex'), decode(repeat('02', 180), 'hex'),
        80, 8);
update intents set state = 'signed', signed_revision = 1 where id = '01900000-0000-7000-8000-000000000066';
-- Higher fees, and a cancel; it is the cancel that is mined.
update intents
set state = 'planned', revision = 2, digest = decode(repeat('e7', 32), 'hex'), max_fee_per_gas = 90, max_priority_fee_per_gas = 9,
    revised_by = 'user:01900000-0000-7000-8000-000000000001'
where id = '01900000-0000-7000-8000-000000000066';
insert into intents (
    id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, max_fee_per_gas,
    max_priority_fee_per_gas, payment_id, destination_id, digest, approvals_required, requested_by, cancels
) values
    ('01900000-0000-7000-8000-000000000067', 'cancel', 1, '01900000-0000-7000-8000-000000000031', decode(repeat('31', 20), 'hex'),
        decode(repeat('31', 20), 'hex'), decode(repeat('ee', 20), 'hex'), 0, 10, 21000, 102, 11, null, null, decode(repeat('e8', 32), 'hex'), 1,
        'user:01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000066');
insert into outbound_transactions (
    intent_id, chain_id, from_address, nonce, tx_hash, raw, replaces, max_fee_per_gas, max_priority_fee_per_gas
)
select '01900000-0000-7000-8000-000000000067', 1, from_address, nonce, decode(repeat('d7', 32), 'hex'), raw, id, 102, 11
from outbound_transactions where nonce = 10;
update outbound_transactions
set block_number = 113, block_hash = decode(repeat('c3', 32), 'hex'), succeeded = true, fee_paid = 1, settled_at = now()
where nonce = 10 and replaces is not null;
update outbound_transactions set settled_at = now() where nonce = 10 and settled_at is null;
update intents set state = 'replaced' where id = '01900000-0000-7000-8000-000000000066';
