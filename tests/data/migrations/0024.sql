-- as amanat_app
-- Before the first policy the configuration's number stands, and an approval counts a day.
insert into intents (
    id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, max_fee_per_gas,
    max_priority_fee_per_gas, payment_id, destination_id, digest, approvals_required, requested_by
) values
    ('01900000-0000-7000-8000-000000000066', 'fuel', 1, '01900000-0000-7000-8000-000000000031', decode(repeat('31', 20), 'hex'),
        decode(repeat('33', 20), 'hex'), decode(repeat('ee', 20), 'hex'), 1, 10, 21000, 80, 8, null,
        '01900000-0000-7000-8000-000000000051', decode(repeat('e6', 32), 'hex'), 1, 'daemon');
insert into intent_approvals (intent_id, revision, digest, officer_id, api_token_id) values
    ('01900000-0000-7000-8000-000000000066', 1, decode(repeat('e6', 32), 'hex'), '01900000-0000-7000-8000-000000000002', null);
insert into change_proposals (subject, body, digest, effective_at, proposed_by, api_token_id, reason)
select p.subject::proposal_subject, p.body, sha256(convert_to(p.body, 'UTF8')), p.effective_at::timestamptz,
       '01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000012', 'first rules'
from (values
    ('policy', '{"version":1,"approvals_expire_minutes":1440,"cooling_hours":24,"rules":[]}', '2040-01-01T00:00:00Z'),
    ('destination', '{"chain":1,"address":"0x7777777777777777777777777777777777777777","label":"فروشنده"}', null),
    ('threshold', '{"key":"confirmation_threshold:1","blocks":6}', null)
) as p (subject, body, effective_at);
insert into change_decisions (proposal_id, confirmed, digest, decided_by, reason)
select id, subject <> 'threshold', digest, '01900000-0000-7000-8000-000000000002', case when subject = 'threshold' then 'not now' end
from change_proposals;
insert into outflow_policies (proposal_id, body, digest, effective_at)
select id, body, digest, effective_at from change_proposals where subject = 'policy';
insert into outflow_destinations (chain_id, address, label, allowed, proposal_id, changed_by, reason)
select 1, decode(repeat('77', 20), 'hex'), 'فروشنده', true, id, '01900000-0000-7000-8000-000000000002', 'first rules'
from change_proposals where subject = 'destination';
insert into outflow_destinations (chain_id, address, label, allowed, changed_by, reason) values
    (1, decode(repeat('77', 20), 'hex'), 'فروشنده', false, '01900000-0000-7000-8000-000000000001', 'another address');
insert into policy_refusals (kind, payment_id, chain_id, asset, amount, to_address, policy_id, reasons)
select 'release', '01900000-0000-7000-8000-000000000041', 1, decode(repeat('55', 20), 'hex'), 7, decode(repeat('66', 20), 'hex'), id, 'no rule'
from outflow_policies;
update policy_refusals set closed_at = now();
