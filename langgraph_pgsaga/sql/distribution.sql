-- Distributing the tables over the servers of a Citus cluster.

-- name: find_tables
-- The schema that has the table, and the version of Citus in this database; null where it isn't.
-- params: sessions_table text
-- columns: schema_name text, citus_version text
-- shard: all, reads catalogs only
select
  (
    select n.nspname::text
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid = to_regclass($1::text)
  ) as schema_name,
  (select e.extversion from pg_catalog.pg_extension e where e.extname = 'citus') as citus_version;

-- name: distribute_tables
-- Distributes the tables of the first schema on the search_path, those that aren't yet: by
-- session, so that a session is on one server with all that it has. The record of migrations
-- is on every server; workers and their jobs, a few rows, and the events, which have one order,
-- are where they were, on the coordinator.
-- What was made before Citus was there is made on the other servers first: types of rows come
-- there only as those of a function's parameters.
-- shard: all, the tables themselves
do $$
declare
  row_types text;
  name text;
begin
  select pg_catalog.string_agg(t.oid::regtype::text, ', ' order by t.typname) into row_types
  from pg_catalog.pg_type t
  join pg_catalog.pg_class c on c.oid = t.typrelid and c.relkind = 'c'
  join pg_catalog.pg_namespace n on n.oid = t.typnamespace
  where n.nspname = current_schema() and t.typname ~ '^pgsaga_';
  execute pg_catalog.format(
    'create function pgsaga_rows(%s) returns boolean language sql return true', row_types
  );
  perform create_distributed_function(
    pg_catalog.format('pgsaga_rows(%s)', row_types)::regprocedure
  );
  execute 'drop function pgsaga_rows';
  perform create_distributed_function('pgsaga_after(timestamptz, double precision)');
  perform create_distributed_function('pgsaga_now()');
  foreach name in array array[
    'agent_sessions', 'agent_states', 'agent_state_values', 'agent_state_blobs',
    'agent_state_writes', 'agent_messages'
  ] loop
    if not exists (select from pg_dist_partition p where p.logicalrelid = name::regclass) then
      perform create_distributed_table(
        name::regclass, 'session_id',
        colocate_with => case name when 'agent_sessions' then 'none' else 'agent_sessions' end
      );
    end if;
  end loop;
  if not exists (
    select from pg_dist_partition p where p.logicalrelid = 'pgsaga_migrations'::regclass
  ) then
    perform create_reference_table('pgsaga_migrations');
  end if;
end
$$;
