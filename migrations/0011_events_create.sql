-- What happened, appended in the transaction that made it true; and the answers kept for repeated calls.

create table events (
    id bigint generated always as identity,
    kind text not null,
    payment_id uuid,
    intent_id uuid,
    chain_id chain_id,
    detail jsonb not null,
    created_at timestamptz not null default now(),
    constraint events_pkey primary key (id),
    constraint events_kind_form check (kind ~ '^[a-z_]+(\.[a-z_]+)+$'),
    constraint events_payment_fkey foreign key (payment_id) references payments (id) on delete restrict,
    constraint events_intent_fkey foreign key (intent_id) references intents (id) on delete restrict
);
create index events_payment_idx on events (payment_id, id) where payment_id is not null;
create trigger events_no_update before update on events for each statement execute function forbid_change();
create trigger events_no_delete before delete on events for each statement execute function forbid_change();
create trigger events_no_truncate before truncate on events for each statement execute function forbid_change();
alter table events enable always trigger events_no_update;
alter table events enable always trigger events_no_delete;
alter table events enable always trigger events_no_truncate;

-- Kept for ever: the row and the effect of the call commit together.
create table idempotency_keys (
    api_token_id uuid not null,
    route text not null,
    key text not null,
    body_sha256 hash32 not null,
    status smallint not null,
    response text not null,
    created_at timestamptz not null default now(),
    constraint idempotency_keys_pkey primary key (api_token_id, route, key),
    constraint idempotency_keys_token_fkey foreign key (api_token_id) references api_tokens (id) on delete restrict,
    constraint idempotency_keys_key_form check (key ~ '^[\x21-\x7e]{1,200}$')
);

grant insert (kind, payment_id, intent_id, chain_id, detail) on events to amanat_app;
grant insert (api_token_id, route, key, body_sha256, status, response) on idempotency_keys to amanat_app;
