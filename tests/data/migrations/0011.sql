-- as amanat_app
insert into events (kind, payment_id, intent_id, chain_id, detail) values
    ('payment.created', '01900000-0000-7000-8000-000000000041', null, null, '{"path": "m/44''/60''/0''/0/0"}'),
    ('intent.settled', '01900000-0000-7000-8000-000000000041', '01900000-0000-7000-8000-000000000061', 1, '{"tx_hash": "0xd3"}');
insert into idempotency_keys (api_token_id, route, key, body_sha256, status, response) values
    ('01900000-0000-7000-8000-000000000011', 'POST /v1/payments', 'order-7', decode(repeat('f1', 32), 'hex'), 201, '{"id": "…"}');
