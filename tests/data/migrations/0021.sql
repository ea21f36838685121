-- as amanat_app
insert into user_passkeys (credential_id, user_id, public_key, counter, device_name, credential) values
    ('cred-2', '01900000-0000-7000-8000-000000000001', '\x04aa', 0, 'laptop', '{"cred": {}}');
update user_passkeys set counter = 1, last_used_at = now() where credential_id = 'cred-2';
insert into user_invitations (token_sha256, user_id, created_at, expires_at) values
    (decode(repeat('b1', 32), 'hex'), '01900000-0000-7000-8000-000000000001', now(), now() + interval '15 minutes');
update user_invitations set used_at = now();
insert into user_sessions (id, user_id, access_sha256, access_expires_at, csrf_token, created_at, expires_at) values
    ('01900000-0000-7000-8000-0000000000f1', '01900000-0000-7000-8000-000000000001', decode(repeat('b2', 32), 'hex'),
     now() + interval '10 minutes', repeat('c1', 32), now(), now() + interval '12 hours');
insert into user_refresh_tokens (token, user_id, session_id, expires_at) values
    (repeat('b3', 32), '01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-0000000000f1', now() + interval '2 hours');
update user_refresh_tokens set used_at = now() where session_id is not null;
update user_sessions set ended_at = now(), ended_reason = 'signed out';
