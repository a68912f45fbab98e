-- What becomes of transactions, how long they may wait, and for whom they do.

-- name: begin_transaction
-- The transaction's number.
-- columns: transaction text
-- shard: all, reads no table
select pg_catalog.pg_current_xact_id()::text as transaction;

-- name: get_outcome
-- Whether the transaction is 'committed', 'aborted' or 'in progress'; null where it is long gone.
-- params: transaction text
-- columns: outcome text
-- shard: all, reads no table
select pg_catalog.pg_xact_status($1::text::pg_catalog.xid8) as outcome;

-- name: set_default_limits
-- Sets the limits of time, in milliseconds, that are set neither for the connection nor for its
-- role or database. Gives what counts then, and which of them are ours.
-- params: lock_timeout text, statement_timeout text
-- columns: name text, milliseconds text, is_own boolean, set_config text
-- shard: all, reads no table
with found as materialized (
  select
    s.name, s.setting,
    s.setting = '0'::text and s.source in ('default'::text, 'configuration file'::text) as is_own,
    case when s.name = 'lock_timeout'::text then $1 else $2 end as wanted
  from pg_catalog.pg_settings s
  where s.name in ('lock_timeout'::text, 'statement_timeout'::text)
)
select
  f.name,
  case when f.is_own then f.wanted else f.setting end as milliseconds,
  f.is_own,
  case when f.is_own then pg_catalog.set_config(f.name, f.wanted, false) end as set_config
from found f;

-- name: limit_transaction
-- Other limits of time, in milliseconds, to the end of the transaction; null leaves one as it is.
-- params: lock_timeout text, statement_timeout text
-- columns: lock_timeout text, statement_timeout text
-- shard: all, reads no table
select
  pg_catalog.set_config(
    'lock_timeout', coalesce($1, pg_catalog.current_setting('lock_timeout')), true
  ) as lock_timeout,
  pg_catalog.set_config(
    'statement_timeout', coalesce($2, pg_catalog.current_setting('statement_timeout')), true
  ) as statement_timeout;

-- name: list_lock_holders
-- The oldest transactions that have locks on the tables, beyond those of reading them.
-- params: sessions_table text
-- columns: pid integer, application_name text, state text, since text
-- shard: all, reads the catalogue of one server
select
  a.pid, a.application_name, a.state,
  pg_catalog.to_char(a.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC' as since
from pg_catalog.pg_stat_activity a
where a.pid <> pg_catalog.pg_backend_pid()
  and exists (
    select
    from pg_catalog.pg_locks l
    join pg_catalog.pg_class c on c.oid = l.relation
    where l.pid = a.pid
      and l.granted
      and l.mode <> 'AccessShareLock'::text
      and l.database = a.datid
      and c.relnamespace = (
        select t.relnamespace from pg_catalog.pg_class t where t.oid = pg_catalog.to_regclass($1)
      )
  )
order by a.xact_start, a.pid
limit 3;
