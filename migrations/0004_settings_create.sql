-- Runtime settings and who changed them. The newest history row of a key is the value in force.

create table config_settings (
    key text not null,
    legacy_object_id text,
    value numeric not null,
    description text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint config_settings_pkey primary key (key),
    constraint config_settings_value_is_finite check (value between -1e30 and 1e30)
);
create unique index config_settings_legacy_object_id_key on config_settings (legacy_object_id) where legacy_object_id is not null;

create table config_setting_history (
    id bigint generated always as identity,
    key text not null,
    old_value numeric,
    new_value numeric not null,
    changed_by text not null,
    changed_by_user_id uuid,
    reason text not null,
    created_at timestamptz not null default now(),
    constraint config_setting_history_pkey primary key (id),
    constraint config_setting_history_key_fkey foreign key (key) references config_settings (key) on delete restrict,
    constraint config_setting_history_user_fkey foreign key (changed_by_user_id) references users (id) on delete restrict,
    constraint config_setting_history_value_is_finite check (new_value between -1e30 and 1e30),
    constraint config_setting_history_reason_given check (length(reason) between 1 and 500),
    constraint config_setting_history_changed_by_given check (length(changed_by) between 1 and 200),
    constraint config_setting_history_threshold_bounds check (
        key !~ '^confirmation_threshold:'
        or (key ~ '^confirmation_threshold:[1-9][0-9]{0,18}$' and new_value between 1 and 10000 and new_value = trunc(new_value))
    )
);
create index config_setting_history_newest_idx on config_setting_history (key, id desc);

create trigger config_setting_history_no_update before update on config_setting_history
    for each statement execute function forbid_change();
create trigger config_setting_history_no_delete before delete on config_setting_history
    for each statement execute function forbid_change();
create trigger config_setting_history_no_truncate before truncate on config_setting_history
    for each statement execute function forbid_change();
alter table config_setting_history enable always trigger config_setting_history_no_update;
alter table config_setting_history enable always trigger config_setting_history_no_delete;
alter table config_setting_history enable always trigger config_setting_history_no_truncate;

grant insert (key, value, description) on config_settings to amanat_app;
grant update (value, description, updated_at) on config_settings to amanat_app;
grant insert (key, old_value, new_value, changed_by, changed_by_user_id, reason) on config_setting_history to amanat_app;
