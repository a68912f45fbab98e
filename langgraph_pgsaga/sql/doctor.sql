-- What a server says of its own health. Everything here reads catalogs and statistics only.
-- What a user may not see comes as null or not at all.

-- name: ping
-- The shortest round trip there is.
-- columns: pid integer
-- shard: all, on the server that is asked
select pg_backend_pid() as pid;

-- name: describe_server
-- The server, its database, and how far transaction ids are from running out.
-- columns: version text, version_number integer, is_standby boolean, is_read_only boolean,
--   transaction_age integer, vector_version text, character_types text, encoding text
-- shard: all, on the server that is asked
select
  current_setting('server_version') as version,
  current_setting('server_version_num')::integer as version_number,
  pg_is_in_recovery() as is_standby,
  current_setting('default_transaction_read_only')::boolean as is_read_only,
  age(d.datfrozenxid) as transaction_age,
  (select e.extversion from pg_extension e where e.extname = 'vector') as vector_version,
  d.datctype::text as character_types,
  pg_encoding_to_char(d.encoding)::text as encoding
from pg_database d
where d.datname = current_database();

-- name: count_connections
-- Connections of clients, how many of them are this package's, and how many there may be.
-- columns: connections bigint, own_connections bigint, max_connections integer
-- shard: all, on the server that is asked
select
  count(*) as connections,
  count(*) filter (where a.application_name = 'langgraph_pgsaga') as own_connections,
  current_setting('max_connections')::integer as max_connections
from pg_stat_activity a
where a.backend_type = 'client backend';

-- name: list_settings
-- Settings by name, numbers in their base unit.
-- params: names text[]
-- columns: name text, setting text, unit text
-- shard: all, on the server that is asked
select s.name, s.setting, s.unit
from pg_settings s
where s.name = any ($1::text[]);

-- name: list_tables
-- The tables beside agent_sessions that are named as this package's, and how they fare.
-- params: sessions_table text
-- columns: name text, total_bytes bigint, live_rows bigint, dead_rows bigint, updates bigint,
--   hot_updates bigint
-- shard: all, on the server that is asked
select
  c.relname::text as name,
  pg_total_relation_size(c.oid::regclass) as total_bytes,
  t.n_live_tup as live_rows,
  t.n_dead_tup as dead_rows,
  t.n_tup_upd as updates,
  t.n_tup_hot_upd as hot_updates
from pg_class c
join pg_stat_user_tables t on t.relid = c.oid
where c.relnamespace = (select s.relnamespace from pg_class s where s.oid = to_regclass($1::text))
  and c.relkind = 'r'
  and c.relname ~ '^(agent_|event_|saga|tool_|pgsaga_)'::text
order by c.relname;

-- name: list_filtered_tables
-- Those beside agent_sessions with row security that counts for this user.
-- params: sessions_table text
-- columns: name text
-- shard: all, on the server that is asked
select c.relname::text as name
from pg_class c
where c.relnamespace = (select s.relnamespace from pg_class s where s.oid = to_regclass($1::text))
  and c.relkind = 'r'
  and c.relname ~ '^(agent_|event_|saga|tool_|pgsaga_)'::text
  and row_security_active(c.oid)
order by c.relname;

-- name: print_plainly
-- Has literals and names printed in one way, whatever the database's settings; to the transaction's
-- end.
-- columns: strings text, bytes text, dates text, intervals text, names text
-- shard: all, on the server that is asked
select
  set_config('standard_conforming_strings', 'on', true) as strings,
  set_config('bytea_output', 'hex', true) as bytes,
  set_config('datestyle', 'ISO, MDY', true) as dates,
  set_config('intervalstyle', 'postgres', true) as intervals,
  set_config('quote_all_identifiers', 'off', true) as names;

-- name: list_objects
-- What the migrations make, in the schema of their own table, as catalogue.txt has it: the
-- schema's name is taken out, so that every database whose migrations are applied has the
-- same lines. Texts, the sources of functions and views, are there where they are known to be
-- printed in the same way: by PostgreSQL 15 to 18. PostgreSQL's own functions and operators are
-- without their schema, which is printed only where others of that name stand before them.
-- params: migrations_table text
-- columns: kind text, name text, definition text
-- shard: all, on the server that is asked
with home as materialized (
  select n.oid as id, n.nspname::text as name, quote_ident(n.nspname::text) || '.' as prefix
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.oid = to_regclass($1::text)
),
relations as (
  select c.oid as id, c.relname::text as name, c.relkind, c.reloptions
  from pg_catalog.pg_class c
  where c.relnamespace = (select h.id from home h) and c.relkind in ('r', 'p', 'v', 'm', 'S')
    -- That of an identity column is the column's.
    and not exists (
      select from pg_catalog.pg_depend d
      where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'i'
    )
),
functions as (
  select p.*, p.proname::text || '(' || pg_get_function_identity_arguments(p.oid) || ')' as name
  from pg_catalog.pg_proc p
  where p.pronamespace = (select h.id from home h) and p.prokind in ('f', 'p')
    and not exists (
      select from pg_catalog.pg_depend d
      where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    )
),
objects (kind, name, definition) as (
  select
    case r.relkind
      when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence'
      else 'table'
    end,
    r.name::text,
    coalesce('with (' || pg_catalog.array_to_string(r.reloptions, ', ') || ')', '')
  from relations r
  union all
  select
    'column',
    r.name || '.' || a.attname::text,
    pg_catalog.concat_ws(' ',
      format_type(a.atttypid, a.atttypmod),
      'collate ' || nullif(l.collname::text, 'default'),
      case when a.attnotnull then 'not null' end,
      case when a.attidentity <> '' then 'identity' end,
      case when a.attgenerated <> '' then 'generated' when d.oid is not null then 'default' end,
      pg_get_expr(d.adbin, d.adrelid)
    )
  from relations r
  join pg_catalog.pg_attribute a on a.attrelid = r.id and a.attnum > 0 and not a.attisdropped
  left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  left join pg_catalog.pg_collation l on l.oid = a.attcollation
  where r.relkind <> 'S'
  union all
  select 'constraint', r.name || '.' || c.conname::text, pg_get_constraintdef(c.oid)
  from relations r
  join pg_catalog.pg_constraint c on c.conrelid = r.id
  -- PostgreSQL 18 has those of columns that are not null here, too.
  where c.contype <> 'n'
  union all
  select
    'index',
    c.relname::text,
    pg_get_indexdef(i.indexrelid)
      || case when i.indisvalid and i.indisready and i.indislive then '' else ' (invalid)' end
  from relations r
  join pg_catalog.pg_index i on i.indrelid = r.id
  join pg_catalog.pg_class c on c.oid = i.indexrelid
  union all
  select
    'trigger',
    r.name || '.' || t.tgname::text,
    pg_get_triggerdef(t.oid) || case when t.tgenabled = 'O' then '' else ' (disabled)' end
  from relations r
  join pg_catalog.pg_trigger t on t.tgrelid = r.id and not t.tgisinternal
  union all
  select
    'type',
    t.typname::text,
    case
      when t.typtype = 'd' then 'domain ' || format_type(t.typbasetype, t.typtypmod)
      when t.typtype = 'c' then 'composite'
      else 'enum ' || (
        select string_agg(quote_literal(e.enumlabel::text), ', ' order by e.enumsortorder)
        from pg_catalog.pg_enum e where e.enumtypid = t.oid
      )
    end
  from pg_catalog.pg_type t
  left join pg_catalog.pg_class c on c.oid = t.typrelid
  where t.typnamespace = (select h.id from home h)
    and (t.typtype in ('d', 'e') or (t.typtype = 'c' and c.relkind = 'c'))
    and not exists (
      select from pg_catalog.pg_depend d
      where d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
    )
  union all
  select
    'function',
    f.name,
    pg_catalog.concat_ws(' ',
      'returns ' || pg_get_function_result(f.oid),
      (select l.lanname from pg_catalog.pg_language l where l.oid = f.prolang),
      case f.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
      case f.proparallel when 's' then 'parallel safe' when 'r' then 'parallel restricted' end,
      case when f.proisstrict then 'strict' end,
      case when f.prosecdef then 'security definer' end
    )
  from functions f
  union all
  select 'text', t.name, t.source
  from (
    -- Where it finds the tables isn't what it does.
    select
      f.name,
      replace(
        pg_get_functiondef(f.oid),
        pg_catalog.format(
          ' SET search_path TO %L, %L', (select h.name from home h), 'pg_temp'
        ),
        ' SET search_path TO its schema'
      ) as source
    from functions f
    union all
    select r.name, pg_get_viewdef(r.id) from relations r where r.relkind in ('v', 'm')
  ) t
  where current_setting('server_version_num')::integer between 150000 and 189999
)
select
  o.kind,
  replace(o.name, h.prefix, '') as name,
  trim(regexp_replace(
    regexp_replace(
      replace(o.definition, h.prefix, ''),
      'OPERATOR[(]pg_catalog[.]([^)]+)[)]|pg_catalog[.]', chr(92) || '1', 'g'
    ),
    '[[:space:]]+', ' ', 'g'
  )) as definition
from objects o
cross join home h
order by o.kind collate "C", o.name collate "C";

-- name: list_missing_privileges
-- What this role may not do of what is asked for, by the names of tables and functions that are
-- there, in one schema; before that, usage of the schema.
-- params: schema_name text, kinds text[], names text[], privileges text[]
-- columns: role text, kind text, name text, privilege text
-- shard: all, on the server that is asked
with home as (
  select n.oid as id, n.nspname::text as name
  from pg_catalog.pg_namespace n
  where n.nspname = $1::text
),
asked as (
  select a.place, a.kind, a.name, a.privilege
  from unnest($2::text[], $3::text[], $4::text[])
    with ordinality a (kind, name, privilege, place)
),
missing as (
  select 0 as place, 'schema' as kind, h.name, 'usage' as privilege
  from home h
  where not pg_catalog.has_schema_privilege(h.id, 'usage')
  union all
  select a.place, a.kind, a.name, a.privilege
  from home h
  join pg_catalog.pg_class c on c.relnamespace = h.id
  join asked a on a.kind = 'table' and a.name = c.relname::text
  where not pg_catalog.has_table_privilege(c.oid, a.privilege)
  union all
  select a.place, a.kind, a.name, a.privilege
  from home h
  join pg_catalog.pg_proc p on p.pronamespace = h.id
  join asked a on a.kind = 'function' and a.name = p.proname::text
  where not pg_catalog.has_function_privilege(p.oid, a.privilege)
)
select current_user::text as role, m.kind, m.name, m.privilege
from missing m
order by m.place;

-- name: list_long_transactions
-- Other sessions of this database whose transaction has been open for so long.
-- params: idle_seconds bigint, active_seconds bigint
-- columns: pid integer, user_name text, application_name text, is_idle boolean, seconds bigint
-- shard: all, on the server that is asked
select
  a.pid,
  a.usename::text as user_name,
  a.application_name,
  a.state like 'idle in transaction%' as is_idle,
  extract(epoch from clock_timestamp() - a.xact_start)::bigint as seconds
from pg_stat_activity a
where a.datname = current_database()
  and a.pid <> pg_backend_pid()
  and a.backend_type = 'client backend'
  and a.xact_start < clock_timestamp() - make_interval(
    secs => case when a.state like 'idle in transaction%' then $1::bigint else $2::bigint end
  )
order by a.xact_start;

-- name: list_replicas
-- Who replicates from here, and how far behind each one is.
-- columns: application_name text, state text, lag_bytes bigint, lag_seconds bigint
-- shard: all, on the server that is asked
select
  r.application_name,
  r.state,
  pg_wal_lsn_diff(
    case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end,
    r.replay_lsn
  )::bigint as lag_bytes,
  extract(epoch from r.replay_lag)::bigint as lag_seconds
from pg_stat_replication r
order by r.application_name;

-- name: list_idle_slots
-- Replication slots that nobody reads, and the WAL that the server keeps for each.
-- columns: slot_name text, kept_bytes bigint
-- shard: all, on the server that is asked
select
  s.slot_name::text as slot_name,
  pg_wal_lsn_diff(
    case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end,
    s.restart_lsn
  )::bigint as kept_bytes
from pg_replication_slots s
where not s.active
order by s.slot_name;

-- name: count_sessions
-- Sessions, those that have expired, and those that have waited a day for a sweep.
-- columns: sessions bigint, expired bigint, overdue bigint
-- shard: all, counts every session
select
  count(*) as sessions,
  count(*) filter (where s.expires_at <= now()) as expired,
  count(*) filter (where s.expires_at <= now() - interval '1 day') as overdue
from {schema}.agent_sessions s;
