-- as amanat_app
insert into user_sessions (id, user_id, access_sha256, access_expires_at, csrf_token, created_at, expires_at, begun_from, begun_with) values
    ('01900000-0000-7000-8000-0000000000f2', '01900000-0000-7000-8000-000000000001', decode(repeat('b4', 32), 'hex'),
     now() + interval '10 minutes', repeat('c2', 32), now(), now() + interval '12 hours', '192.0.2.7', 'Mozilla/5.0 (X11; Linux x86_64)');
insert into events (kind, detail) values ('session.ended', '{"user": "01900000-0000-7000-8000-000000000001"}');
update api_tokens
set old_secret_sha256 = secret_sha256, old_secret_until = now() + interval '1 day', secret_sha256 = decode(repeat('b5', 32), 'hex')
where id = (select min(id::text)::uuid from api_tokens);
