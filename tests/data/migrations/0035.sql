-- as amanat_app
insert into change_proposals (subject, body, digest, effective_at, proposed_by, api_token_id, reason)
select 'planning', body, sha256(convert_to(body, 'UTF8')), null, '01900000-0000-7000-8000-000000000001', null, 'fewer confirmations'
from (values ('{"key":"planning:release_path:1","value":1}')) proposed (body);
insert into config_settings (key, value, description) values ('planning:release_path:1', 1, 'from where a release is paid');
insert into config_setting_history (key, old_value, new_value, changed_by, reason) values ('planning:release_path:1', null, 1, 'test', 'fewer confirmations');
update intents set l1_fee_max = 12345 where nonce = 10 and kind = 'cancel';
