-- as amanat_app
insert into screening_policies (chain_id, list_sha256, list_entries, oracle, provider) values
    (1, decode(repeat('e1', 32), 'hex'), 3, decode(repeat('e2', 20), 'hex'), 'example, hit from 75');
insert into screening_verdicts (observation_id, policy_id, screener, outcome, evidence, screened_at) values
    (2, (select max(id) from screening_policies), 'list', 'hit', '{"sha256": "e1"}', now()),
    (2, (select max(id) from screening_policies), 'provider', 'unavailable', '{"reason": "timeout"}', now());
update transfer_screenings set
    policy_id = (select max(id) from screening_policies), outcome = 'hit', origin = decode(repeat('77', 20), 'hex'),
    hits = '{list:0x77}', missing = '{unavailable:provider}', attempts = 1, next_at = now(), state_version = 2
where observation_id = 2;
update transfer_screenings set
    cleared = '{list:0x77,unavailable:provider}', decision = 'cleared', decided_by = '01900000-0000-7000-8000-000000000006',
    decided_at = now(), decision_reason = 'a namesake', state_version = 3
where observation_id = 2;
insert into token_freezes (chain_id, contract, address, block_number, block_hash, first_seen_at) values
    (1, decode(repeat('55', 20), 'hex'), decode(repeat('33', 20), 'hex'), 112, decode(repeat('c2', 32), 'hex'), now());
update token_freezes set closed_at = now();

-- as amanat_owner
-- A payment that is whole and whose release was asked for, before there were orders.
insert into payments (
    id, amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at
) values
    ('01900000-0000-7000-8000-000000000044', 10, 'USDC', 1, decode(repeat('55', 20), 'hex'), 'USDC', 6, 10000000,
        decode(repeat('68', 20), 'hex'), '2030-01-01T00:00:00Z');
update payments set status = 'confirmed', escrow_state = 'releasable', release_requested_by = 'token:1'
where id = '01900000-0000-7000-8000-000000000044';
insert into ledger_accounts (kind, chain_id, asset, payment_id) values
    ('received', 1, decode(repeat('55', 20), 'hex'), '01900000-0000-7000-8000-000000000044'),
    ('held', 1, decode(repeat('55', 20), 'hex'), '01900000-0000-7000-8000-000000000044');
insert into funds_ledger_entries (
    entry_type, payment_ref_kind, payment_id, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals,
    idempotency_key, memo
)
select 'payment_detected'::funds_ledger_entry_type, 'entity'::ref_kind, r.payment_id, 1, r.asset, 1, r.id, 10000000, 6, 'verdict:44:credit', 'deposit confirmed'
from ledger_accounts r where r.kind = 'received' and r.payment_id = '01900000-0000-7000-8000-000000000044'
union all
select 'hold'::funds_ledger_entry_type, 'entity'::ref_kind, r.payment_id, 1, r.asset, r.id, h.id, 10000000, 6, 'verdict:44:hold', 'whole'
from ledger_accounts r join ledger_accounts h on h.payment_id = r.payment_id and h.kind = 'held'
where r.kind = 'received' and r.payment_id = '01900000-0000-7000-8000-000000000044';
