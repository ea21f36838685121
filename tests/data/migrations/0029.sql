-- as amanat_app
insert into change_proposals (subject, body, digest, proposed_by, reason)
select 'adjustment', p.body, sha256(convert_to(p.body, 'UTF8')), '01900000-0000-7000-8000-000000000001', 'destroyed by the issuer'
from (values ('{"act":"lost","chain":1,"asset":"0x5555555555555555555555555555555555555555","units":"1"}')) as p (body);
insert into change_decisions (proposal_id, confirmed, digest, decided_by)
select id, true, digest, '01900000-0000-7000-8000-000000000002' from change_proposals where subject = 'adjustment';
insert into ledger_adjustments (proposal_id, act) select id, 'lost' from change_proposals where subject = 'adjustment';
