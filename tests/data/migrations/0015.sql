-- as amanat_app
insert into webhook_endpoints (id, url, description, events, created_by, created_at)
values ('00000000-0000-0000-0000-0000000000e1', 'https://shop.example/hooks', 'shop', array['payment.*'], 'sample', now());
insert into webhook_secrets (endpoint_id, secret, created_at, expires_at) values
    ('00000000-0000-0000-0000-0000000000e1', decode(repeat('01', 32), 'hex'), now(), now()),
    ('00000000-0000-0000-0000-0000000000e1', decode(repeat('02', 32), 'hex'), now(), null);
insert into webhook_deliveries (endpoint_id, event_id, payment_id, payment_version, next_attempt_at, created_at)
select '00000000-0000-0000-0000-0000000000e1', id, payment_id, case when payment_id is not null then 1 end, now(), now() from events order by id limit 1;
insert into webhook_attempts (delivery_id, attempted_at, took_ms, status, outcome, answer)
select id, now(), 12, 503, 'answered 503', 'busy' from webhook_deliveries;
update webhook_deliveries set attempts = 1;
