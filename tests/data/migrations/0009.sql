-- as amanat_app
insert into ledger_accounts (kind, chain_id, asset, address, payment_id) values
    ('custody', 1, decode(repeat('55', 20), 'hex'), decode(repeat('33', 20), 'hex'), null),
    ('custody', 1, decode(repeat('55', 20), 'hex'), decode(repeat('32', 20), 'hex'), null),
    ('received', 1, decode(repeat('55', 20), 'hex'), null, '01900000-0000-7000-8000-000000000041'),
    ('held', 1, decode(repeat('55', 20), 'hex'), null, '01900000-0000-7000-8000-000000000041'),
    ('payable', 1, decode(repeat('55', 20), 'hex'), null, '01900000-0000-7000-8000-000000000041'),
    ('suspense', 1, decode(repeat('55', 20), 'hex'), null, null),
    ('suspense', 1, decode(repeat('55', 20), 'hex'), null, '01900000-0000-7000-8000-000000000041'),
    -- An asset of the largest amount there is.
    ('custody', 1, decode(repeat('57', 20), 'hex'), decode(repeat('33', 20), 'hex'), null),
    ('operator', 1, decode(repeat('57', 20), 'hex'), null, null),
    ('network_fee', 1, decode(repeat('57', 20), 'hex'), null, null);
insert into funds_ledger_entries (
    entry_type, payment_ref_kind, payment_id, payment_external_ref, chain_id, asset, debit_account_id, credit_account_id, amount_units,
    asset_decimals, reverses_entry_id, idempotency_key, memo
) values
    ('payment_detected', 'entity', '01900000-0000-7000-8000-000000000041', null, 1, decode(repeat('55', 20), 'hex'), 1, 3, 250000001, 6, null,
        'verdict:1:credit', 'deposit confirmed');
insert into funds_ledger_entries (
    entry_type, payment_ref_kind, payment_id, payment_external_ref, chain_id, asset, debit_account_id, credit_account_id, amount_units,
    asset_decimals, reverses_entry_id, idempotency_key, memo
) values
    ('reversal', 'entity', '01900000-0000-7000-8000-000000000041', null, 1, decode(repeat('55', 20), 'hex'), 3, 1, 250000001, 6, 1,
        'reversal:1', 'left the chain');
insert into funds_ledger_entries (
    entry_type, payment_ref_kind, payment_id, payment_external_ref, chain_id, asset, debit_account_id, credit_account_id, amount_units,
    asset_decimals, reverses_entry_id, idempotency_key, memo
) values
    ('payment_detected', 'entity', '01900000-0000-7000-8000-000000000041', null, 1, decode(repeat('55', 20), 'hex'), 1, 3, 250000001, 6, null,
        'verdict:2:credit', 'deposit confirmed'),
    ('hold', 'entity', '01900000-0000-7000-8000-000000000041', null, 1, decode(repeat('55', 20), 'hex'), 3, 4, 250000001, 6, null,
        'verdict:2:hold', 'whole'),
    ('sweep', 'template', null, 'template-9', 1, decode(repeat('55', 20), 'hex'), 2, 1, 250000001, 6, null, 'tx:0xd3:move', 'sweep'),
    ('adjustment', null, null, null, 1, decode(repeat('57', 20), 'hex'), 8, 9,
        115792089237316195423570985008687907853269984665640564039457584007913129639935, 18, null, 'verdict:3:credit', 'float'),
    ('network_fee', null, null, null, 1, decode(repeat('57', 20), 'hex'), 10, 8, 1, 18, null, 'tx:0xd3:fee', 'gas');
insert into ledger_cursors (chain_id, verdict_id) values (1, 2);
update ledger_cursors set updated_at = now();
insert into ledger_unposted (verdict_id, chain_id, reason) values (2, 1, 'asset was not in the chain book');
update ledger_unposted set posted_at = now();
