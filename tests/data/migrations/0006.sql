-- as amanat_app
insert into payments (
    id, legacy_object_id, buyer_id, seller_id, purchase_request_ref_kind, purchase_request_id, purchase_request_external_ref,
    seller_offer_ref_kind, seller_offer_id, seller_offer_external_ref, provider, amount, currency, chain_id, token_contract, token_symbol,
    token_decimals, due_units, seller_address, expires_at, metadata
) values
    ('01900000-0000-7000-8000-000000000041', '64b0c0ffee00000000000041', '01900000-0000-7000-8000-000000000003',
        '01900000-0000-7000-8000-000000000004', 'entity', '01900000-0000-7000-8000-0000000000aa', null, 'template', null, 'offer-7',
        'amn.scanner', 250.000001, 'USDC', 1, decode(repeat('55', 20), 'hex'), 'USDC', 6, 250000001, decode(repeat('66', 20), 'hex'),
        '2030-01-01T00:00:00Z', '{"order": 7}'),
    -- The largest that both columns hold, at a chain of the largest id.
    ('01900000-0000-7000-8000-000000000042', null, null, null, null, null, null, null, null, null, 'other',
        99999999999999999999.999999999999999999, 'USDT', 9223372036854775807, decode(repeat('56', 20), 'hex'), 'USDT', 18,
        115792089237316195423570985008687907853269984665640564039457584007913129639935, decode(repeat('66', 20), 'hex'),
        '2000-01-01T00:00:00Z', '{}');
update payments set status = 'confirmed', escrow_state = 'releasing', state_version = state_version + 1 where token_symbol = 'USDC';
insert into payment_exceptions (payment_id, kind, detail) values
    ('01900000-0000-7000-8000-000000000041', 'late', 'after expiry'), ('01900000-0000-7000-8000-000000000041', 'over', 'too much');
update payment_exceptions set closed_at = now(), resolution = 'refunded' where kind = 'late';
insert into payment_exceptions (payment_id, kind, detail) values ('01900000-0000-7000-8000-000000000041', 'late', 'once more');

-- as amanat_owner
insert into payment_quotes (payment_id, fx_rate, token_price_usd, depeg_adjustment_bps, settle_amount, chain_id, token, expires_at) values
    ('01900000-0000-7000-8000-000000000041', 1.000000000000000001, 0.9998, -2, 250.000001, 1, 'USDC', '2030-01-01T00:00:00Z');
