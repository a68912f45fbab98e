-- serves: 0007
--
-- Appends of one process that wait for each other go together: one statement, one commit.
--
-- Why: an append takes a round trip, a plan's start and a commit, which many can share.
--
-- Locks: none of what was there before.

create type {schema}.pgsaga_grouped_event as (
  no integer,
  tenant_id text,
  aggregate_id text,
  aggregate_type text,
  expected integer,
  event_id text,
  event_type text,
  schema_version integer,
  event_data jsonb,
  metadata jsonb,
  tags text[],
  correlation_id text,
  causation_id text,
  session_id uuid,
  checkpoint_id text,
  happened_at timestamptz,
  keys bigint[],
  condition_types text[],
  condition_tags text[],
  after_position bigint
);

create function {schema}.pgsaga_lock_keys(keys bigint[]) returns boolean
  language plpgsql volatile
  set search_path from current
as $$
declare
  key bigint;
begin
  if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
    return false;
  end if;
  foreach key in array keys loop
    perform pg_catalog.pg_advisory_xact_lock(key);
  end loop;
  return true;
end
$$;

comment on function {schema}.pgsaga_lock_keys(bigint[]) is
  'Locks the keys, which are in order, to the end of the transaction; false, and no locks, where '
  'it isn''t read committed, so that what is looked at then may be old.';
