-- Roles and the rights a database needs before the first migration. Run once per cluster and
-- database by a superuser; repeating it changes nothing:
--
--   createdb amanat && psql -d amanat -f migrations/bootstrap.sql
--
-- amanat_owner     owns every table; nobody logs in as it
-- amanat_migrator  may become the owner; used only while `amanatd migrate` runs
-- amanat_app       the daemon: column-level inserts, no right to change the ledger
-- amanat_readonly  metrics and auditors
--
-- Passwords are not set here. On a unix socket use peer or trust by your own rules; over TCP run
-- `\password amanat_app` and keep the connection string in a systemd credential.

do $$
begin
    if not exists (select from pg_roles where rolname = 'amanat_owner') then
        create role amanat_owner nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'amanat_migrator') then
        create role amanat_migrator login noinherit;
    end if;
    if not exists (select from pg_roles where rolname = 'amanat_app') then
        create role amanat_app login noinherit;
    end if;
    if not exists (select from pg_roles where rolname = 'amanat_readonly') then
        create role amanat_readonly login noinherit;
    end if;
end
$$;

grant amanat_owner to amanat_migrator;

-- Time limits act on the server, where a cancelled client cannot escape them.
alter role amanat_app set idle_in_transaction_session_timeout = '15s';
alter role amanat_app set statement_timeout = '30s';
alter role amanat_app set lock_timeout = '10s';
alter role amanat_readonly set default_transaction_read_only = on;
alter role amanat_readonly set statement_timeout = '60s';

do $$
begin
    execute format('alter database %I owner to amanat_owner', current_database());
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to amanat_migrator, amanat_app, amanat_readonly', current_database());
end
$$;
