-- Planning weighs what an outflow costs and is worth.

-- What a transaction may pay at most for its data on the chain below, on top of its gas. It is promised like gas.
alter table intents add column l1_fee_max base_units not null default 0;
grant update (l1_fee_max) on intents to amanat_app;

-- planning:<name>:<chain>, and for a number of an asset …:<asset, in lower case>.
alter table config_setting_history add constraint config_setting_history_planning_form check (
    key !~ '^planning(:|$)'
    or (
        key ~ '^planning:[a-z0-9_]{1,40}:[1-9][0-9]{0,18}(:0x[0-9a-f]{40})?$'
        and new_value between 0 and 2e18 and new_value = trunc(new_value)
    )
);
