-- as amanat_app
insert into ledger_accounts (kind, chain_id, asset, address) values
    ('custody', 56, decode(repeat('55', 20), 'hex'), decode(repeat('33', 20), 'hex'));
insert into ledger_accounts (kind, chain_id, asset, payment_id) values
    ('received', 56, decode(repeat('55', 20), 'hex'), '01900000-0000-7000-8000-000000000041');
insert into funds_ledger_entries (
    entry_type, payment_ref_kind, payment_id, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals,
    idempotency_key, memo
)
select 'payment_detected', 'entity', c.payment_id, 56, c.asset, d.id, c.id, 18, 18, 'verdict:9:credit', 'deposit confirmed'
from ledger_accounts d, ledger_accounts c where d.chain_id = 56 and d.kind = 'custody' and c.chain_id = 56 and c.kind = 'received';
