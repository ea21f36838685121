-- as amanat_app
-- Two officers say that the first four nonces of the gas address are past.
insert into change_proposals (subject, body, digest, proposed_by, api_token_id, reason)
select 'nonce_baseline', p.body, sha256(convert_to(p.body, 'UTF8')), '01900000-0000-7000-8000-000000000001',
       '01900000-0000-7000-8000-000000000012', 'used by hand before'
from (values ('{"address":"0x3434343434343434343434343434343434343434","chain":1,"nonce":4}')) as p (body);
insert into change_decisions (proposal_id, confirmed, digest, decided_by, reason)
select id, true, digest, '01900000-0000-7000-8000-000000000002', null from change_proposals where subject = 'nonce_baseline';
insert into nonce_baselines (chain_id, address, nonce, proposal_id)
select 1, decode(repeat('34', 20), 'hex'), 4, id from change_proposals where subject = 'nonce_baseline';
