-- as amanat_app
insert into users (id, legacy_object_id, email, display_name, role, auth_provider) values
    ('01900000-0000-7000-8000-000000000001', '64b0c0ffee00000000000001', 'Officer@example.org', 'officer', 'guard', 'email'),
    ('01900000-0000-7000-8000-000000000002', null, 'admin@example.org', 'admin', 'admin', 'google'),
    ('01900000-0000-7000-8000-000000000003', '64b0c0ffee00000000000003', null, 'خریدار', 'buyer', 'telegram'),
    ('01900000-0000-7000-8000-000000000004', null, null, 'seller', 'seller', 'telegram'),
    ('01900000-0000-7000-8000-000000000005', null, 'gone@example.org', 'gone', 'resolver', 'email');
-- The address of somebody who left is free again.
update users set status = 'deleted', updated_at = now() where email = 'gone@example.org';
insert into users (id, email, display_name, role) values
    ('01900000-0000-7000-8000-000000000006', 'GONE@example.org', 'back', 'resolver');
insert into api_tokens (id, name, secret_sha256, scopes, user_id, expires_at) values
    ('01900000-0000-7000-8000-000000000011', 'marketplace', decode(repeat('a1', 32), 'hex'), '{payments:read,payments:write,ledger:read}', null, null),
    ('01900000-0000-7000-8000-000000000012', 'officer', decode(repeat('a2', 32), 'hex'), '{intents:read,intents:approve}',
        '01900000-0000-7000-8000-000000000001', '2030-01-01T00:00:00Z'),
    ('01900000-0000-7000-8000-000000000013', 'station', decode(repeat('a3', 32), 'hex'), '{signing,intents:read}', null, null);
-- The name of a revoked token is free again.
update api_tokens set revoked_at = now() where name = 'station';
insert into api_tokens (id, name, secret_sha256, scopes) values
    ('01900000-0000-7000-8000-000000000014', 'station', decode(repeat('a4', 32), 'hex'), '{signing,intents:read}');

-- as amanat_owner
insert into user_passkeys (credential_id, user_id, public_key, counter, device_type, device_name) values
    ('cred-1', '01900000-0000-7000-8000-000000000001', '\xa501', 7, 'singleDevice', 'key');
insert into user_refresh_tokens (token, user_id) values ('refresh-1', '01900000-0000-7000-8000-000000000001');
