-- Events told to the marketplace's servers: to whom, signed with what, and every attempt there was.

-- The transaction that wrote an event. Ids are drawn before their transactions commit, so a reader who goes by
-- id alone passes rows that commit late. Below the oldest transaction that still runs nothing can be added.
alter table events add column written_by xid8 not null default pg_current_xact_id();
create index events_feed_idx on events (written_by, id);

create type webhook_delivery_state as enum ('pending', 'delivered', 'dead');

create table webhook_endpoints (
    id uuid not null,
    url text not null,
    description text not null,
    -- Kinds of events: one kind, all of a noun (`payment.*`), or `*`.
    events text[] not null,
    created_by text not null,
    created_at timestamptz not null,
    disabled_at timestamptz,
    disabled_reason text,
    constraint webhook_endpoints_pkey primary key (id),
    constraint webhook_endpoints_url_form check (url ~ '^https?://' and length(url) <= 2000),
    constraint webhook_endpoints_description_length check (length(description) <= 200),
    constraint webhook_endpoints_events_some check (cardinality(events) between 1 and 50),
    constraint webhook_endpoints_disabled_with_reason check ((disabled_at is null) = (disabled_reason is null))
);

-- What deliveries are signed with. While one is replaced, the old one signs too, until it expires.
create table webhook_secrets (
    id bigint generated always as identity,
    endpoint_id uuid not null,
    secret bytea not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    constraint webhook_secrets_pkey primary key (id),
    constraint webhook_secrets_endpoint_fkey foreign key (endpoint_id) references webhook_endpoints (id) on delete restrict,
    constraint webhook_secrets_size check (octet_length(secret) between 24 and 64)
);
create unique index webhook_secrets_one_current_key on webhook_secrets (endpoint_id) where expires_at is null;

create table webhook_deliveries (
    id bigint generated always as identity,
    endpoint_id uuid not null,
    event_id bigint not null,
    payment_id uuid,
    -- The payment's version when the event was handed on: it only grows, so a receiver may drop what is older.
    payment_version bigint,
    state webhook_delivery_state not null default 'pending',
    attempts integer not null default 0,
    next_attempt_at timestamptz not null,
    created_at timestamptz not null,
    finished_at timestamptz,
    constraint webhook_deliveries_pkey primary key (id),
    constraint webhook_deliveries_endpoint_fkey foreign key (endpoint_id) references webhook_endpoints (id) on delete restrict,
    constraint webhook_deliveries_event_fkey foreign key (event_id) references events (id) on delete restrict,
    constraint webhook_deliveries_payment_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint webhook_deliveries_once_key unique (endpoint_id, event_id),
    constraint webhook_deliveries_attempts_positive check (attempts >= 0),
    constraint webhook_deliveries_finished check ((state = 'pending') = (finished_at is null)),
    constraint webhook_deliveries_payment_version check ((payment_id is null) = (payment_version is null))
);
-- What is due, and what must go before it.
create index webhook_deliveries_due_idx on webhook_deliveries (endpoint_id, next_attempt_at, id) where state = 'pending';
create index webhook_deliveries_order_idx on webhook_deliveries (endpoint_id, payment_id, event_id) where state = 'pending';
create index webhook_deliveries_event_idx on webhook_deliveries (event_id);

create table webhook_attempts (
    id bigint generated always as identity,
    delivery_id bigint not null,
    attempted_at timestamptz not null,
    took_ms integer not null,
    -- Null where nobody answered.
    status smallint,
    outcome text not null,
    -- The beginning of the answer.
    answer text not null,
    constraint webhook_attempts_pkey primary key (id),
    constraint webhook_attempts_delivery_fkey foreign key (delivery_id) references webhook_deliveries (id) on delete restrict,
    constraint webhook_attempts_took_positive check (took_ms >= 0),
    constraint webhook_attempts_lengths check (length(outcome) <= 500 and length(answer) <= 1000)
);
create index webhook_attempts_delivery_idx on webhook_attempts (delivery_id, id);
create trigger webhook_attempts_no_update before update on webhook_attempts for each statement execute function forbid_change();
create trigger webhook_attempts_no_delete before delete on webhook_attempts for each statement execute function forbid_change();
create trigger webhook_attempts_no_truncate before truncate on webhook_attempts for each statement execute function forbid_change();
alter table webhook_attempts enable always trigger webhook_attempts_no_update;
alter table webhook_attempts enable always trigger webhook_attempts_no_delete;
alter table webhook_attempts enable always trigger webhook_attempts_no_truncate;

-- How far events were handed to the endpoints. One row.
create table webhook_cursor (
    one boolean not null default true,
    written_by xid8 not null,
    event_id bigint not null,
    constraint webhook_cursor_pkey primary key (one),
    constraint webhook_cursor_one_row check (one)
);
insert into webhook_cursor (written_by, event_id)
select coalesce(max(written_by::text::bigint), 0)::text::xid8, coalesce(max(id), 0) from events;

alter table api_tokens drop constraint api_tokens_scopes_known;
alter table api_tokens add constraint api_tokens_scopes_known check (
    cardinality(scopes) > 0
    and scopes <@ array[
        'payments:read', 'payments:write', 'intents:read', 'intents:approve', 'signing', 'ledger:read', 'events:read', 'webhooks:write'
    ]
);

grant insert (id, url, description, events, created_by, created_at) on webhook_endpoints to amanat_app;
grant update (url, description, events, disabled_at, disabled_reason) on webhook_endpoints to amanat_app;
grant insert (endpoint_id, secret, created_at, expires_at) on webhook_secrets to amanat_app;
grant update (expires_at) on webhook_secrets to amanat_app;
grant insert (endpoint_id, event_id, payment_id, payment_version, next_attempt_at, created_at) on webhook_deliveries to amanat_app;
grant update (state, attempts, next_attempt_at, finished_at) on webhook_deliveries to amanat_app;
grant insert (delivery_id, attempted_at, took_ms, status, outcome, answer) on webhook_attempts to amanat_app;
grant update (written_by, event_id) on webhook_cursor to amanat_app;
revoke select on webhook_secrets from amanat_readonly;
