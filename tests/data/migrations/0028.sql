-- as amanat_app
update recipient_screenings set policy_id = (select max(id) from screening_policies), outcome = 'clear', state_version = state_version + 1
where id = (select min(id) from recipient_screenings);
insert into recipient_verdicts (recipient_id, policy_id, screener, outcome, evidence, screened_at)
select min(r.id), (select max(id) from screening_policies), 'list', 'clear', '{}', now() from recipient_screenings r;
