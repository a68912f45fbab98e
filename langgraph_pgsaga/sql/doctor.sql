-- What a server says of its own health. Everything here reads catalogs and statistics only.
-- What a user may not see comes as null or not at all.

-- name: ping
-- The shortest round trip there is.
-- columns: pid integer
select pg_backend_pid() as pid;

-- name: describe_server
-- The server, its database, and how far transaction ids are from running out.
-- columns: version text, version_number integer, is_standby boolean, transaction_age integer,
--   vector_version text, connections bigint, own_connections bigint
select
  current_setting('server_version') as version,
  current_setting('server_version_num')::integer as version_number,
  pg_is_in_recovery() as is_standby,
  age(d.datfrozenxid) as transaction_age,
  (select e.extversion from pg_extension e where e.extname = 'vector') as vector_version,
  (select count(*) from pg_stat_activity a where a.backend_type = 'client backend')
    as connections,
  (
    select count(*) from pg_stat_activity a where a.application_name = 'langgraph_pgsaga'
  ) as own_connections
from pg_database d
where d.datname = current_database();

-- name: list_settings
-- Settings by name, numbers in their base unit.
-- params: names text[]
-- columns: name text, setting text, unit text
select s.name, s.setting, s.unit
from pg_settings s
where s.name = any ($1::text[]);

-- name: list_tables
-- The tables beside agent_sessions that are named as this package's, and how they fare.
-- params: sessions_table text
-- columns: name text, total_bytes bigint, live_rows bigint, dead_rows bigint, updates bigint,
--   hot_updates bigint, vacuumed_at timestamp with time zone
select
  c.relname::text as name,
  pg_total_relation_size(c.oid) as total_bytes,
  t.n_live_tup as live_rows,
  t.n_dead_tup as dead_rows,
  t.n_tup_upd as updates,
  t.n_tup_hot_upd as hot_updates,
  greatest(t.last_vacuum, t.last_autovacuum) as vacuumed_at
from pg_class c
join pg_stat_user_tables t on t.relid = c.oid
where c.relnamespace = (select s.relnamespace from pg_class s where s.oid = to_regclass($1::text))
  and c.relkind = 'r'
  and c.relname ~ '^(agent_|event_|saga|tool_|pgsaga_)'
order by c.relname;

-- name: list_invalid_indexes
-- Indexes in the schema of agent_sessions that no query uses, since their building failed.
-- params: sessions_table text
-- columns: index_name text, table_name text
select i.indexrelid::regclass::text as index_name, i.indrelid::regclass::text as table_name
from pg_index i
join pg_class c on c.oid = i.indrelid
where c.relnamespace = (select s.relnamespace from pg_class s where s.oid = to_regclass($1::text))
  and not (i.indisvalid and i.indisready)
order by i.indexrelid;

-- name: list_long_transactions
-- Other sessions of this database whose transaction has been open for so long.
-- params: idle_seconds bigint, active_seconds bigint
-- columns: pid integer, user_name text, application_name text, is_idle boolean, seconds bigint
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
select
  count(*) as sessions,
  count(*) filter (where s.expires_at <= now()) as expired,
  count(*) filter (where s.expires_at <= now() - interval '1 day') as overdue
from {schema}.agent_sessions s;
