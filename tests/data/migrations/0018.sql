-- as amanat_app
insert into payments (
    id, amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at, tolerance_bps,
    late_window_seconds, platform_fee_bps, platform_fee_min_units, provider_fee_bps, provider_fee_min_units
) values
    ('01900000-0000-7000-8000-000000000043', 10, 'USDC', 1, decode(repeat('55', 20), 'hex'), 'USDC', 6, 10000000,
        decode(repeat('66', 20), 'hex'), '2030-01-01T00:00:00Z', 10, 3600, 250, 1000, 30, 0);
update payments set status = 'confirmed', escrow_state = 'partial', escrowed_units = 10000000
where id = '01900000-0000-7000-8000-000000000043';
insert into disputes (id, payment_id, opened_by, reason) values
    ('01900000-0000-7000-8000-000000000071', '01900000-0000-7000-8000-000000000043', 'token:1', 'nothing was delivered');
update disputes set state = 'resolved', resolution = 'compensation', resolved_by = 'user:1', note = 'half and half', resolved_at = now();
insert into payment_payouts (
    id, payment_id, kind, chain_id, asset, asset_decimals, source, gross_units, platform_fee_units, provider_fee_units, net_units,
    to_address, requested_by, dispute_id, reservation_key
) values
    ('01900000-0000-7000-8000-000000000081', '01900000-0000-7000-8000-000000000043', 'release', 1, decode(repeat('55', 20), 'hex'), 6,
        'held', 5000000, 125000, 15000, 4860000, decode(repeat('66', 20), 'hex'), 'token:1', null,
        'payout:01900000-0000-7000-8000-000000000081:reserve'),
    ('01900000-0000-7000-8000-000000000082', '01900000-0000-7000-8000-000000000043', 'refund', 1, decode(repeat('55', 20), 'hex'), 6,
        'disputed', 5000000, 0, 0, 5000000, decode(repeat('67', 20), 'hex'), 'user:1', '01900000-0000-7000-8000-000000000071',
        'payout:01900000-0000-7000-8000-000000000082:reserve');
update payment_payouts set state = 'withdrawn', closed_at = now() where kind = 'refund';
