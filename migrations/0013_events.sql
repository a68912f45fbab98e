-- serves: 0007
--
-- The log of events, and the snapshots of what they add up to.
--
-- Why: what agents did, in one order that everybody reads alike, and that nobody holds up.
--
-- Order. A reader goes by (era, tx, position), and only below the oldest transaction that is still
-- open: a position alone is drawn before others commit, and readers would pass over what comes
-- late. `tx` is the transaction that stored the event, or that of the version before, where that
-- is the greater one: a transaction that began early may append to what a later one left, and an
-- aggregate's versions are read in their order all the same. Transactions are a cluster's own
-- count. A dump that is restored into another cluster begins a new era there, and so does one that
-- comes back.
--
-- Keys. No row and no lock is shared by aggregates: who appends a version second finds it by the
-- primary key. The tenant is first in all of them, and would be what they are distributed by.
-- Three indexes have a condition that each row fulfils, and are for such statements only as say it:
-- on an empty table all that begin with the tenant cost the same, and a plan is kept.
-- The index of the tags writes through (fastupdate = off): a condition is looked up at each append,
-- and would go through what is pending each time.
--
-- Functions find the tables by the search_path that they are made with, which is this schema
-- alone: their bodies name none.
--
-- Locks: none of what was there before.

create table {schema}.event_eras (
  era integer primary key,
  system_identifier bigint not null,
  began_at timestamptz not null default now()
);

comment on table {schema}.event_eras is
  'The clusters that the log was in, one after the other; the last one''s transactions are counted '
  'where its system identifier is pg_control_system()''s. Whoever appends adds a missing one.';

insert into {schema}.event_eras (era, system_identifier)
select 1, c.system_identifier from pg_catalog.pg_control_system() c;

create table {schema}.agent_events (
  tenant_id text collate "C" not null default '',
  aggregate_id text collate "C" not null,
  aggregate_type text collate "C" not null,
  version integer not null,
  era integer not null,
  tx xid8 not null default pg_catalog.pg_current_xact_id(),
  position bigint not null generated always as identity,
  event_id text collate "C" not null,
  event_type text collate "C" not null,
  schema_version integer not null default 1,
  event_data jsonb not null,
  metadata jsonb not null default '{}',
  tags text[] collate "C" not null default '{}',
  correlation_id text collate "C",
  causation_id text collate "C",
  session_id uuid,
  checkpoint_id text collate "C",
  timestamp timestamptz not null default now(),
  recorded_at timestamptz not null default statement_timestamp(),
  constraint agent_events_pkey primary key (tenant_id, aggregate_id, aggregate_type, version),
  constraint agent_events_event_id_key unique (tenant_id, event_id),
  constraint agent_events_version_check check (version > 0)
);

create index agent_events_order_idx on {schema}.agent_events (tenant_id, era, tx, position)
  where position > 0;
create index agent_events_type_idx on {schema}.agent_events (tenant_id, event_type, timestamp)
  where timestamp > '-infinity';
create index agent_events_time_idx on {schema}.agent_events (tenant_id, timestamp)
  where version > 0;
create index agent_events_correlation_idx on {schema}.agent_events (tenant_id, correlation_id)
  where correlation_id is not null;
create index agent_events_causation_idx on {schema}.agent_events (tenant_id, causation_id)
  where causation_id is not null;
create index agent_events_tags_idx on {schema}.agent_events using gin (tags)
  with (fastupdate = off) where tags operator(pg_catalog.<>) '{}';

comment on column {schema}.agent_events.tenant_id is 'Whose event it is; '''' is nobody''s.';
comment on column {schema}.agent_events.version is
  'Which event of its aggregate it is, from 1, without gaps.';
comment on column {schema}.agent_events.era is 'The cluster whose transactions tx counts.';
comment on column {schema}.agent_events.tx is
  'The transaction after which it is read: its own, or that of the version before, whichever is '
  'later.';
comment on column {schema}.agent_events.position is
  'Unique. Not the order of reading, which is (era, tx, position).';
comment on column {schema}.agent_events.schema_version is 'The form that event_data has.';
comment on column {schema}.agent_events.timestamp is 'When it happened, as whoever appended says.';
comment on column {schema}.agent_events.recorded_at is 'When it was appended, by the server.';
comment on column {schema}.agent_events.session_id is
  'The session of the thread whose step appended it.';
comment on column {schema}.agent_events.checkpoint_id is
  'The checkpoint that that step was planned at.';

create table {schema}.event_snapshots (
  tenant_id text collate "C" not null default '',
  aggregate_id text collate "C" not null,
  aggregate_type text collate "C" not null,
  version integer not null,
  snapshot_id uuid not null,
  schema_version integer not null default 1,
  snapshot_data jsonb not null,
  created_at timestamptz not null default now(),
  constraint event_snapshots_pkey primary key (tenant_id, aggregate_id, aggregate_type, version),
  constraint event_snapshots_version_check check (version > 0)
);

comment on column {schema}.event_snapshots.tenant_id is 'Whose it is; '''' is nobody''s.';
comment on column {schema}.event_snapshots.version is
  'The version of the aggregate whose state it is.';
comment on column {schema}.event_snapshots.schema_version is 'The form that snapshot_data has.';

create table {schema}.event_guards (
  tenant_id text collate "C" not null default '',
  event_type text collate "C" not null,
  constraint event_guards_pkey primary key (tenant_id, event_type)
);

comment on table {schema}.event_guards is
  'The types of events that conditions may ask for: who appends one locks its tags.';

create function {schema}.pgsaga_event_matches(
  tenant_id text, types text[], tags text[], after_position bigint
) returns table (era integer, tx xid8, "position" bigint)
  language plpgsql stable rows 100
  set search_path from current
  -- So that no plan reads another index from end to end.
  set enable_indexscan = off
  set enable_indexonlyscan = off
as $$
begin
  return query
  with tagged as materialized (
    select e.era, e.tx, e.position, e.tenant_id, e.event_type
    from agent_events e
    where e.tags operator(pg_catalog.@>) $3 and e.tags operator(pg_catalog.<>) '{}'::text[]
  )
  select t.era, t.tx, t.position
  from tagged t
  where t.tenant_id = $1 and t.position > $4 and ($2 is null or t.event_type = any($2));
end
$$;

comment on function {schema}.pgsaga_event_matches(text, text[], text[], bigint) is
  'Where the events stand that have one of the types (null: any) and all of the tags, of those '
  'after a position.';

create function {schema}.pgsaga_append_is_allowed(
  tenant_id text, keys bigint[], types text[], tags text[], after_position bigint
) returns boolean
  language plpgsql volatile
  set search_path from current
as $$
declare
  key bigint;
begin
  if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
    return null;
  end if;
  foreach key in array keys loop
    perform pg_catalog.pg_advisory_xact_lock(key);
  end loop;
  -- A statement of its own, so that it sees what was committed while the locks were waited for.
  return types is null or not exists (
    select from pgsaga_event_matches($1, $3, $4, $5)
  );
end
$$;

comment on function {schema}.pgsaga_append_is_allowed(text, bigint[], text[], text[], bigint) is
  'Locks the keys, which are in order, to the end of the transaction; then, whether no event '
  'matches a condition. Null, and no locks, where the transaction isn''t read committed: it '
  'wouldn''t see what was committed meanwhile.';

create function {schema}.pgsaga_guard_events(tenant_id text, types text[]) returns void
  language plpgsql volatile
  set search_path from current
as $$
begin
  -- Who has begun to append without a lock ends first.
  lock table agent_events in share row exclusive mode;
  insert into event_guards (tenant_id, event_type)
  select $1, t.event_type from pg_catalog.unnest($2) t (event_type)
  on conflict do nothing;
end
$$;

comment on function {schema}.pgsaga_guard_events(text, text[]) is
  'Declares types of events that conditions may ask for.';
