-- The bridge to the marketplace's documents.

create table id_map (
    collection text not null,
    legacy_object_id text not null,
    new_id uuid not null,
    created_at timestamptz not null default now(),
    constraint id_map_pkey primary key (collection, legacy_object_id),
    constraint id_map_new_id_key unique (new_id)
);

create table pg_dualwrite_gaps (
    id bigint generated always as identity,
    collection text not null,
    op text not null,
    payload jsonb not null,
    severity text not null,
    error text,
    resolved_at timestamptz,
    resolution text,
    created_at timestamptz not null default now(),
    constraint pg_dualwrite_gaps_pkey primary key (id),
    constraint pg_dualwrite_gaps_severity check (severity in ('info', 'warning', 'error', 'critical'))
);

grant insert (collection, legacy_object_id, new_id) on id_map to amanat_app;
grant insert (collection, op, payload, severity, error) on pg_dualwrite_gaps to amanat_app;
grant update (resolved_at, resolution) on pg_dualwrite_gaps to amanat_app;
