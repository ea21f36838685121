-- Who may and who did: people, their passkeys and sessions, and the tokens of services.

create table users (
    id uuid not null default gen_random_uuid(),
    legacy_object_id text,
    email text,
    display_name text,
    role user_role not null,
    auth_provider auth_provider not null default 'email',
    status user_status not null default 'active',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint users_pkey primary key (id),
    constraint users_email_form check (email is null or email ~ '^[^@\s]+@[^@\s]+$')
);
create unique index users_legacy_object_id_key on users (legacy_object_id) where legacy_object_id is not null;
create unique index users_email_key on users (lower(email)) where email is not null and status <> 'deleted';

create table user_passkeys (
    credential_id text not null,
    user_id uuid not null,
    public_key bytea not null,
    counter bigint not null default 0,
    device_type text,
    device_name text,
    created_at timestamptz not null default now(),
    constraint user_passkeys_pkey primary key (credential_id),
    constraint user_passkeys_user_id_fkey foreign key (user_id) references users (id) on delete cascade,
    constraint user_passkeys_counter_positive check (counter >= 0)
);
create index user_passkeys_user_id_idx on user_passkeys (user_id);

create table user_refresh_tokens (
    token text not null,
    user_id uuid not null,
    created_at timestamptz not null default now(),
    constraint user_refresh_tokens_pkey primary key (token),
    constraint user_refresh_tokens_user_id_fkey foreign key (user_id) references users (id) on delete cascade
);
create index user_refresh_tokens_user_id_idx on user_refresh_tokens (user_id);

-- Bearer tokens. Only the SHA-256 of the secret is kept: it has 256 random bits, so no salt or slow
-- hash is needed, and a copy of this table opens nothing.
create table api_tokens (
    id uuid not null default gen_random_uuid(),
    name text not null,
    secret_sha256 hash32 not null,
    scopes text[] not null,
    user_id uuid,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz not null default now(),
    constraint api_tokens_pkey primary key (id),
    constraint api_tokens_secret_sha256_key unique (secret_sha256),
    constraint api_tokens_name_form check (length(name) between 1 and 100),
    constraint api_tokens_scopes_known check (
        cardinality(scopes) > 0
        and scopes <@ array['payments:read', 'payments:write', 'intents:read', 'intents:approve', 'signing', 'ledger:read']
    ),
    constraint api_tokens_user_id_fkey foreign key (user_id) references users (id) on delete restrict,
    -- An approval names a person; a token that approves must belong to one.
    constraint api_tokens_approver_is_a_person check (not ('intents:approve' = any (scopes)) or user_id is not null)
);
create unique index api_tokens_name_key on api_tokens (name) where revoked_at is null;

grant insert (id, legacy_object_id, email, display_name, role, auth_provider) on users to amanat_app;
grant update (email, display_name, role, status, updated_at) on users to amanat_app;
grant insert (id, name, secret_sha256, scopes, user_id, expires_at) on api_tokens to amanat_app;
grant update (revoked_at, last_used_at) on api_tokens to amanat_app;
