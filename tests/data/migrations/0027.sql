-- as amanat_app
-- An entry of a payment that touches none of its accounts, and one that has an order.
insert into ledger_accounts (kind, chain_id, asset, address, payment_id) values
    ('payable', 1, decode(repeat('55', 20), 'hex'), null, '01900000-0000-7000-8000-000000000041')
on conflict do nothing;
insert into funds_ledger_entries (
    entry_type, payment_ref_kind, payment_id, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals,
    idempotency_key, memo
) values
    ('sweep', 'entity', '01900000-0000-7000-8000-000000000041', 1, decode(repeat('55', 20), 'hex'), 1, 2, 1, 6, 'outbound:900:move', 'back');
