-- What happened wakes whoever streams it. The notice is only a knock: what happened is read from the table. One for each
-- transaction, however much it writes.
create function events_notify() returns trigger
    language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform pg_notify('amanat_events', '');
    return null;
end
$$;
create trigger events_notify after insert on events
    for each statement execute function events_notify();
alter table events enable always trigger events_notify;

-- From where and with what a session was begun, as the browser says it: for its officer, who knows their own.
alter table user_sessions add column begun_from text;
alter table user_sessions add column begun_with text;
alter table user_sessions add constraint user_sessions_begun_lengths check (length(begun_from) <= 64 and length(begun_with) <= 200);
grant insert (begun_from, begun_with) on user_sessions to amanat_app;

-- A token's secret is replaced without a gap: the one before serves until its time is over. The row stays, and with it
-- the calls that were made under its idempotency keys and the intents that its station has.
alter table api_tokens add column old_secret_sha256 hash32;
alter table api_tokens add column old_secret_until timestamptz;
alter table api_tokens add constraint api_tokens_old_secret_key unique (old_secret_sha256);
alter table api_tokens add constraint api_tokens_old_secret_has_end check ((old_secret_sha256 is null) = (old_secret_until is null));
alter table api_tokens add constraint api_tokens_secrets_differ check (old_secret_sha256 <> secret_sha256);
grant update (secret_sha256, old_secret_sha256, old_secret_until, expires_at) on api_tokens to amanat_app;
