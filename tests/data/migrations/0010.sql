-- as amanat_app
insert into intents (
    id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, max_fee_per_gas,
    max_priority_fee_per_gas, payment_id, destination_id, digest, approvals_required, requested_by
) values
    ('01900000-0000-7000-8000-000000000061', 'sweep', 1, '01900000-0000-7000-8000-000000000033', decode(repeat('33', 20), 'hex'),
        decode(repeat('32', 20), 'hex'), decode(repeat('55', 20), 'hex'), 250000001, 0, 65000, 30000000000, 1000000000,
        '01900000-0000-7000-8000-000000000041', '01900000-0000-7000-8000-000000000051', decode(repeat('e1', 32), 'hex'), 1, 'daemon'),
    ('01900000-0000-7000-8000-000000000062', 'release', 1, '01900000-0000-7000-8000-000000000032', decode(repeat('32', 20), 'hex'),
        decode(repeat('66', 20), 'hex'), decode(repeat('55', 20), 'hex'), 250000001, 9223372036854775807, 30000000, 1, 0,
        '01900000-0000-7000-8000-000000000041', null, decode(repeat('e2', 32), 'hex'), 20, 'daemon'),
    ('01900000-0000-7000-8000-000000000063', 'fuel', 1, '01900000-0000-7000-8000-000000000031', decode(repeat('31', 20), 'hex'),
        decode(repeat('33', 20), 'hex'), decode(repeat('ee', 20), 'hex'), 1, 4, 21000, 2, 1, null,
        '01900000-0000-7000-8000-000000000051', decode(repeat('e3', 32), 'hex'), 1, 'daemon');
-- Where these rows come after later migrations, a release pays an order.
do $$
begin
    if to_regclass('public.payment_payouts') is not null then
        execute $order$
            insert into payment_payouts (
                id, payment_id, kind, chain_id, asset, asset_decimals, source, gross_units, platform_fee_units, provider_fee_units,
                net_units, to_address, requested_by, reservation_key
            )
            select id, payment_id, 'release', chain_id, asset, 6, 'held', amount, 0, 0, amount, to_address, requested_by,
                   'intent:' || id || ':reserve'
            from intents where kind = 'release'
        $order$;
        execute 'update payment_payouts set state = ''planned'', intent_id = id';
    end if;
end
$$;
-- The nonce of an intent that was given up is free again.
update intents set state = 'void' where kind = 'fuel';
insert into intents (
    id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, max_fee_per_gas,
    max_priority_fee_per_gas, payment_id, destination_id, digest, approvals_required, requested_by
) values
    ('01900000-0000-7000-8000-000000000064', 'cancel', 1, '01900000-0000-7000-8000-000000000031', decode(repeat('31', 20), 'hex'),
        decode(repeat('31', 20), 'hex'), decode(repeat('ee', 20), 'hex'), 0, 4, 21000, 2, 1, null, null, decode(repeat('e4', 32), 'hex'), 1,
        'user:01900000-0000-7000-8000-000000000001');
insert into intent_approvals (intent_id, revision, digest, officer_id, api_token_id) values
    ('01900000-0000-7000-8000-000000000061', 1, decode(repeat('e1', 32), 'hex'), '01900000-0000-7000-8000-000000000001',
        '01900000-0000-7000-8000-000000000012'),
    ('01900000-0000-7000-8000-000000000062', 1, decode(repeat('e2', 32), 'hex'), '01900000-0000-7000-8000-000000000002', null);
update intents set state = 'approved', state_version = state_version + 1 where kind = 'sweep';
update intents set state = 'signing', station = 'desk' where kind = 'sweep';
insert into outbound_transactions (intent_id, chain_id, from_address, nonce, tx_hash, raw) values
    ('01900000-0000-7000-8000-000000000061', 1, decode(repeat('33', 20), 'hex'), 0, decode(repeat('d3', 32), 'hex'), decode(repeat('02', 180), 'hex')),
    ('01900000-0000-7000-8000-000000000062', 1, decode(repeat('32', 20), 'hex'), 9223372036854775807, decode(repeat('d4', 32), 'hex'),
        decode(repeat('02', 80), 'hex'));
update outbound_transactions
set first_sent_at = now(), last_sent_at = now(), send_attempts = 2, last_send_outcome = 'already known', block_number = 112,
    block_hash = decode(repeat('c2', 32), 'hex'), succeeded = true, fee_paid = 1, settled_at = now()
where nonce = 0;
update intents set state = 'signed' where kind = 'sweep';
update intents set state = 'broadcast' where kind = 'sweep';
update intents set state = 'mined' where kind = 'sweep';
update intents set state = 'settled' where kind = 'sweep';
insert into derived_destination_sweeps (destination_id, intent_id, chain_id, tx_hash, asset, amount_units) values
    ('01900000-0000-7000-8000-000000000051', '01900000-0000-7000-8000-000000000061', 1, decode(repeat('d3', 32), 'hex'),
        decode(repeat('55', 20), 'hex'), 250000001);
