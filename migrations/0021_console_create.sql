-- Officers at the console: passkeys, the links that enrol one, and sessions that can be ended.

-- What the verifier keeps of a passkey: algorithm, key, counter, flags. `public_key` and `counter` repeat what
-- people and other readers of the marketplace's columns look for. A passkey without it was not enrolled here and
-- opens nothing. Lost keys are revoked, never removed: approvals rest on them.
alter table user_passkeys add column credential jsonb;
alter table user_passkeys add column last_used_at timestamptz;
alter table user_passkeys add column revoked_at timestamptz;

-- A link that enrols one passkey, once. Only the hash of its 256 random bits is kept.
create table user_invitations (
    token_sha256 hash32 not null,
    user_id uuid not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    constraint user_invitations_pkey primary key (token_sha256),
    constraint user_invitations_user_fkey foreign key (user_id) references users (id) on delete restrict,
    constraint user_invitations_short check (expires_at > created_at and expires_at <= created_at + interval '1 day')
);
create index user_invitations_user_idx on user_invitations (user_id) where used_at is null;

create table user_sessions (
    id uuid not null,
    user_id uuid not null,
    -- The access cookie's hash; another one with each refresh.
    access_sha256 hash32 not null,
    access_expires_at timestamptz not null,
    -- What a form must repeat.
    csrf_token text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    ended_reason text,
    constraint user_sessions_pkey primary key (id),
    constraint user_sessions_user_fkey foreign key (user_id) references users (id) on delete restrict,
    constraint user_sessions_access_key unique (access_sha256),
    constraint user_sessions_csrf_form check (csrf_token ~ '^[0-9a-f]{64}$'),
    constraint user_sessions_ended_with_reason check ((ended_at is null) = (ended_reason is null))
);
create index user_sessions_live_idx on user_sessions (user_id) where ended_at is null;

-- `token` holds the hex of the SHA-256. A refresh token serves once: used again, it was copied.
alter table user_refresh_tokens add column session_id uuid;
alter table user_refresh_tokens add column expires_at timestamptz;
alter table user_refresh_tokens add column used_at timestamptz;
alter table user_refresh_tokens add constraint user_refresh_tokens_session_fkey
    foreign key (session_id) references user_sessions (id) on delete cascade;


-- An intent's page and a payment's page are read again every second while somebody looks.
create index events_intent_idx on events (intent_id, id) where intent_id is not null;
create index intents_payment_idx on intents (payment_id) where payment_id is not null;
create index intents_destination_idx on intents (destination_id) where destination_id is not null;
create index intents_newest_idx on intents (created_at desc, id desc);

grant insert (credential_id, user_id, public_key, counter, device_name, credential) on user_passkeys to amanat_app;
grant update (counter, credential, last_used_at, revoked_at) on user_passkeys to amanat_app;
grant insert (token_sha256, user_id, created_at, expires_at) on user_invitations to amanat_app;
grant update (used_at) on user_invitations to amanat_app;
grant insert (id, user_id, access_sha256, access_expires_at, csrf_token, created_at, expires_at) on user_sessions to amanat_app;
grant update (access_sha256, access_expires_at, ended_at, ended_reason) on user_sessions to amanat_app;
grant insert (token, user_id, session_id, expires_at) on user_refresh_tokens to amanat_app;
grant update (used_at) on user_refresh_tokens to amanat_app;
revoke select on user_sessions, user_invitations, user_refresh_tokens from amanat_readonly;
