-- name: create_schema
-- The schema of the user's choice; skipped where there is none to make.
create schema if not exists {schema_name};

-- name: exists_schema
-- Whether the schema is there. Then it isn't made: even `if not exists` asks for the
-- right to make schemas, which the owner of just one may not have.
-- params: schema_name text
-- columns: is_there boolean
select exists (select from pg_namespace where nspname = $1::text) as is_there;

-- name: create_migrations_table
-- The record of what was applied. Runs under the lock of lock_migrations.
create table if not exists {schema}.pgsaga_migrations (
  version integer primary key,
  name text not null unique,
  sha256 text not null,
  applied_at timestamptz not null default now()
);

-- name: lock_migrations
-- One runner at a time per database and schema, until the transaction ends.
-- params: key bigint
-- columns: pg_advisory_xact_lock void
select pg_advisory_xact_lock($1::bigint);

-- name: exists_migrations_table
-- Whether anything was ever applied here.
-- params: table_name text
-- columns: is_there boolean
select to_regclass($1::text) is not null as is_there;

-- name: select_migrations
-- What was applied, in order.
-- columns: version integer, name text, sha256 text, applied_at timestamp with time zone
select version, name, sha256, applied_at
from {schema}.pgsaga_migrations
order by version;

-- name: insert_migration
-- Records a file in the transaction that applied it.
-- params: version integer, name text, sha256 text
insert into {schema}.pgsaga_migrations (version, name, sha256)
values ($1, $2, $3);
