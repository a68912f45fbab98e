-- name: create_schema
-- The schema of the user's choice; skipped where there is none to make.
-- shard: all, on the server that is asked
create schema if not exists {schema_name};

-- name: exists_schema
-- Whether the schema is there. Then it isn't made: even `if not exists` asks for the
-- right to make schemas, which the owner of just one may not have.
-- params: schema_name text
-- columns: is_there boolean
-- shard: all, on the server that is asked
select exists (select from pg_namespace where nspname = $1::text) as is_there;

-- name: create_migrations_table
-- The record of what was applied. Runs under the lock of lock_migrations.
-- shard: all, on the server that is asked
create table if not exists {schema}.pgsaga_migrations (
  version integer primary key,
  name text not null unique,
  sha256 text not null,
  applied_at timestamptz not null default now()
);

-- name: lift_limits
-- Time-outs that would end a transaction which holds an advisory lock, or its wait for one, are
-- meant for an application's statements. Each with what it was; to the end of the transaction.
-- columns: name text, before text, set_config text
-- shard: all, on the server that is asked
select s.name, s.setting as before, set_config(s.name, '0', true)
from pg_catalog.pg_settings s
where s.name in (
  'idle_in_transaction_session_timeout', 'lock_timeout', 'statement_timeout', 'transaction_timeout'
);

-- name: limit_locks
-- How long a statement of the transaction may wait for a lock of a table, in milliseconds.
-- params: lock_timeout text
-- columns: set_config text
-- shard: all, on the server that is asked
select set_config('lock_timeout', $1, true);

-- name: lock_migrations
-- One runner at a time per database and schema, until the transaction ends.
-- params: key bigint
-- columns: pg_advisory_xact_lock void
-- shard: all, on the server that is asked
select pg_advisory_xact_lock($1::bigint);

-- name: find_schemas
-- Where the search_path finds the tables, where new ones are to be made, which is the first
-- schema on it that isn't PostgreSQL's own, and which schemas have them that this role may use.
-- columns: found text, creation text, every text[]
-- shard: all, on the server that is asked
select
  (
    select n.nspname::text
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid = to_regclass('pgsaga_migrations')
  ) as found,
  (
    select p.name::text
    from pg_catalog.unnest(pg_catalog.current_schemas(false)) with ordinality p (name, place)
    where p.name::text !~ '^(pg_|information_schema$)'::text
    order by p.place
    limit 1
  ) as creation,
  array(
    select n.nspname::text
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relname = 'pgsaga_migrations'
      and c.relkind = 'r'
      and c.relpersistence <> 't'
      and has_schema_privilege(n.oid, 'usage')
    order by n.nspname
  ) as every;

-- name: set_search_path
-- Until the transaction ends: what a migration makes finds PostgreSQL's own functions, and
-- nothing of the same name that somebody made on the search_path.
-- shard: all, on the server that is asked
set local search_path to {schema_name}, pg_temp;

-- name: keep_backslashes
-- Until the transaction ends: a backslash in a migration's text is one, also where the role or the
-- database has it begin an escape, as PostgreSQL before 9.1 had.
-- shard: all, on the server that is asked
set local standard_conforming_strings to on;

-- name: exists_migrations_table
-- Whether anything was ever applied here.
-- params: table_name text
-- columns: is_there boolean
-- shard: all, on the server that is asked
select to_regclass($1::text) is not null as is_there;

-- name: select_migrations
-- What was applied, in order. The last two are columns since migration 0006.
-- columns: version integer, name text, sha256 text, applied_at text,
--   serves integer, release text
-- shard: all, on the server that is asked
select
  m.version, m.name, m.sha256,
  pg_catalog.to_jsonb(m.applied_at) #>> '{}'::text[] as applied_at,
  (pg_catalog.to_jsonb(m) ->> 'serves'::text)::integer as serves,
  pg_catalog.to_jsonb(m) ->> 'release'::text as release
from {schema}.pgsaga_migrations m
order by m.version;

-- name: insert_migration
-- Records a file in the transaction that applied it.
-- params: version integer, name text, sha256 text
-- shard: all, on the server that is asked
insert into {schema}.pgsaga_migrations (version, name, sha256)
values ($1, $2, $3);

-- name: update_migration
-- Records which releases it still serves, for files that say so.
-- params: version integer, serves integer, release text
-- shard: all, on the server that is asked
update {schema}.pgsaga_migrations
set serves = $2, release = $3
where version = $1;
