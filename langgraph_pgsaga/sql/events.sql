-- Events: appended, read by aggregate and in one order, and snapshots of what they add up to.
--
-- Lock order: what guarded events and conditions lock, in the order of the keys; then keys of
-- rows, an aggregate's next version first.
--
-- An id is looked for as the first one from there on, in the order of its index: for the id itself
-- the planner takes the primary key of a few rows for as good, and keeps that plan as they become
-- many.
--
-- `position > 0`, `version > 0` and `timestamp > '-infinity'` are so of each row; they say which
-- index is meant.
--
-- All of a tenant's events are on one server: their order is that of its transactions. So no
-- statement is for a shard.

-- name: append_events
-- Appends events to an aggregate, all or none, and says why where it was none: the log is in
-- a new cluster (era is null), one of the ids is there, a type is guarded and no locks are named,
-- an event matches the condition, or the aggregate isn't at expected (null: any, -1: exists).
-- Where nothing of that is so, somebody else appended meanwhile: the first event decides, since
-- its version is the one that others append, too.
-- keys are what is locked, and null where nothing is. An array of what all events have by default
-- may be null.
-- params: tenant_id text, aggregate_id text, aggregate_type text, expected integer,
--   event_ids text[], event_types text[], schema_versions integer[], event_data jsonb[],
--   metadata jsonb[], tags jsonb[], correlation_ids text[], causation_ids text[],
--   session_ids uuid[], checkpoint_ids text[], timestamps timestamp with time zone[],
--   keys bigint[], condition_types text[], condition_tags text[], after_position bigint
-- columns: era integer, is_known boolean, is_guarded boolean, is_allowed boolean,
--   version integer, first_version integer, tx xid8, positions bigint[],
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
with era as materialized (
  select l.era
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  join pg_catalog.pg_control_system() c on c.system_identifier = l.system_identifier
),
known as materialized (
  select count(*) > 0 as is_known
  from pg_catalog.unnest($5::text[]) k (event_id)
  cross join lateral (
    select e.tenant_id, e.event_id from {schema}.agent_events e
    where (e.tenant_id, e.event_id) >= ($1, k.event_id)
    order by e.tenant_id, e.event_id
    limit 1
  ) e
  where e.tenant_id = $1 and e.event_id = k.event_id
),
guarded as materialized (
  select $16::bigint[] is null and exists (
    select from {schema}.event_guards g where g.tenant_id = $1 and g.event_type = any($6)
  ) as is_guarded
),
allowed as materialized (
  select case when $16::bigint[] is null then true
    else {schema}.pgsaga_append_is_allowed($1, $16, $17, $18, $19) end as is_allowed
),
stream as materialized (
  select e.version, e.era, e.tx
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.aggregate_id = $2 and e.aggregate_type = $3
  order by e.version desc
  limit 1
),
place as materialized (
  select coalesce((select s.version from stream s), 0) as version
),
due as materialized (
  select p.version, r.era,
    (select s.tx from stream s where s.era = r.era) as least_tx
  from place p
  cross join era r
  cross join known k
  cross join guarded g
  cross join allowed a
  where not k.is_known and not g.is_guarded and a.is_allowed
    and ($4::integer is null or p.version = $4 or ($4 = -1 and p.version > 0))
),
given as materialized (
  select *
  from rows from (
    pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::text[]),
    pg_catalog.unnest($7::integer[]), pg_catalog.unnest($8::jsonb[]),
    pg_catalog.unnest($9::jsonb[]), pg_catalog.unnest($10::jsonb[]),
    pg_catalog.unnest($11::text[]), pg_catalog.unnest($12::text[]),
    pg_catalog.unnest($13::uuid[]), pg_catalog.unnest($14::text[]),
    pg_catalog.unnest($15::timestamptz[])
  ) with ordinality g (
    event_id, event_type, schema_version, event_data, metadata, tags, correlation_id, causation_id,
    session_id, checkpoint_id, happened_at, no
  )
),
first as (
  insert into {schema}.agent_events (
    tenant_id, aggregate_id, aggregate_type, version, era, tx, event_id, event_type,
    schema_version, event_data, metadata, tags, correlation_id, causation_id, session_id,
    checkpoint_id, timestamp
  )
  select
    $1, $2, $3, d.version + 1, d.era,
    greatest(pg_catalog.pg_current_xact_id(), d.least_tx), g.event_id, g.event_type,
    coalesce(g.schema_version, 1), g.event_data, coalesce(g.metadata, '{}'::jsonb),
    case when g.tags is null then '{}'::text[]
      else array(select pg_catalog.jsonb_array_elements_text(g.tags)) end,
    g.correlation_id, g.causation_id, g.session_id, g.checkpoint_id, g.happened_at
  from due d
  cross join given g
  where g.no = 1
  on conflict do nothing
  returning version, era, tx, position, recorded_at
),
rest as (
  insert into {schema}.agent_events (
    tenant_id, aggregate_id, aggregate_type, version, era, tx, event_id, event_type,
    schema_version, event_data, metadata, tags, correlation_id, causation_id, session_id,
    checkpoint_id, timestamp
  )
  select
    $1, $2, $3, (f.version + g.no - 1)::integer, f.era, f.tx, g.event_id, g.event_type,
    coalesce(g.schema_version, 1), g.event_data, coalesce(g.metadata, '{}'::jsonb),
    case when g.tags is null then '{}'::text[]
      else array(select pg_catalog.jsonb_array_elements_text(g.tags)) end,
    g.correlation_id, g.causation_id, g.session_id, g.checkpoint_id, g.happened_at
  from first f
  cross join given g
  where g.no > 1
  order by g.no
  returning version, position
)
select
  (select r.era from era r) as era,
  k.is_known,
  g.is_guarded,
  a.is_allowed,
  p.version,
  f.version as first_version,
  f.tx,
  case when f.version is not null
    then pg_catalog.array_cat(
      array[f.position], array(select r.position from rest r order by r.version)
    )
  end as positions,
  f.recorded_at
from known k
cross join guarded g
cross join allowed a
cross join place p
left join first f on true;

-- name: append_one
-- append_events for one event: a plan that has no second insert begins twice as fast.
-- params: tenant_id text, aggregate_id text, aggregate_type text, expected integer,
--   event_ids text[], event_types text[], schema_versions integer[], event_data jsonb[],
--   metadata jsonb[], tags jsonb[], correlation_ids text[], causation_ids text[],
--   session_ids uuid[], checkpoint_ids text[], timestamps timestamp with time zone[],
--   keys bigint[], condition_types text[], condition_tags text[], after_position bigint
-- columns: era integer, is_known boolean, is_guarded boolean, is_allowed boolean,
--   version integer, first_version integer, tx xid8, positions bigint[],
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
with era as materialized (
  select l.era
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  join pg_catalog.pg_control_system() c on c.system_identifier = l.system_identifier
),
known as materialized (
  select count(*) > 0 as is_known
  from (
    select e.tenant_id, e.event_id from {schema}.agent_events e
    where (e.tenant_id, e.event_id) >= ($1, ($5::text[])[1])
    order by e.tenant_id, e.event_id
    limit 1
  ) e
  where e.tenant_id = $1 and e.event_id = ($5::text[])[1]
),
guarded as materialized (
  select $16::bigint[] is null and exists (
    select from {schema}.event_guards g where g.tenant_id = $1 and g.event_type = ($6::text[])[1]
  ) as is_guarded
),
allowed as materialized (
  select case when $16::bigint[] is null then true
    else {schema}.pgsaga_append_is_allowed($1, $16, $17, $18, $19) end as is_allowed
),
stream as materialized (
  select e.version, e.era, e.tx
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.aggregate_id = $2 and e.aggregate_type = $3
  order by e.version desc
  limit 1
),
place as materialized (
  select coalesce((select s.version from stream s), 0) as version
),
due as materialized (
  select p.version, r.era,
    (select s.tx from stream s where s.era = r.era) as least_tx
  from place p
  cross join era r
  cross join known k
  cross join guarded g
  cross join allowed a
  where not k.is_known and not g.is_guarded and a.is_allowed
    and ($4::integer is null or p.version = $4 or ($4 = -1 and p.version > 0))
),
first as (
  insert into {schema}.agent_events (
    tenant_id, aggregate_id, aggregate_type, version, era, tx, event_id, event_type,
    schema_version, event_data, metadata, tags, correlation_id, causation_id, session_id,
    checkpoint_id, timestamp
  )
  select
    $1, $2, $3, d.version + 1, d.era,
    greatest(pg_catalog.pg_current_xact_id(), d.least_tx), ($5::text[])[1], ($6::text[])[1],
    coalesce(($7::integer[])[1], 1), ($8::jsonb[])[1], coalesce(($9::jsonb[])[1], '{}'::jsonb),
    case when ($10::jsonb[])[1] is null then '{}'::text[]
      else array(select pg_catalog.jsonb_array_elements_text(($10::jsonb[])[1])) end,
    ($11::text[])[1], ($12::text[])[1], ($13::uuid[])[1], ($14::text[])[1], ($15::timestamptz[])[1]
  from due d
  on conflict do nothing
  returning version, era, tx, position, recorded_at
)
select
  (select r.era from era r) as era,
  k.is_known,
  g.is_guarded,
  a.is_allowed,
  p.version,
  f.version as first_version,
  f.tx,
  case when f.version is not null then array[f.position] end as positions,
  f.recorded_at
from known k
cross join guarded g
cross join allowed a
cross join place p
left join first f on true;

-- name: append_alone
-- append_together for one event that locks nothing: nothing is stored where its id is there, its
-- type is guarded, or the aggregate isn't at expected. Its plan has no arrays and no joins of them,
-- which is a third of what the server takes.
-- params: tenant_id text, aggregate_id text, aggregate_type text, expected integer, event_id text,
--   event_type text, schema_version integer, event_data jsonb, metadata jsonb, tags text[],
--   correlation_id text, causation_id text, session_id uuid, checkpoint_id text,
--   happened_at timestamp with time zone
-- columns: version integer, era integer, tx xid8, position bigint,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
with era as materialized (
  select l.era, pg_catalog.set_config('lock_timeout', '20ms', true) as limited
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  join pg_catalog.pg_control_system() c on c.system_identifier = l.system_identifier
)
insert into {schema}.agent_events (
  tenant_id, aggregate_id, aggregate_type, version, era, tx, event_id, event_type,
  schema_version, event_data, metadata, tags, correlation_id, causation_id, session_id,
  checkpoint_id, timestamp
)
select
  $1, $2, $3, coalesce(s.version, 0) + 1, r.era,
  greatest(pg_catalog.pg_current_xact_id(), s.tx), $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15
from era r
left join lateral (
  select e.version, case when e.era = r.era then e.tx end as tx
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.aggregate_id = $2 and e.aggregate_type = $3
  order by e.version desc
  limit 1
) s on true
where not exists (
    select from {schema}.event_guards d where d.tenant_id = $1 and d.event_type = $6
  )
  and (
    $4::integer is null or coalesce(s.version, 0) = $4 or ($4 = -1 and s.version > 0)
  )
on conflict do nothing
returning version, era, tx, position, recorded_at;

-- name: append_together
-- append_one for many, each for itself: a row for each that was stored. No two are of one
-- aggregate, or have a key in common; they come sorted by aggregate. Whoever is held up by
-- somebody's open transaction holds up those with it for 20 ms: then nothing is stored, and each
-- goes alone.
-- params: events pgsaga_grouped_event[], keys bigint[]
-- columns: no integer, version integer, era integer, tx xid8, position bigint,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
with era as materialized (
  select l.era, pg_catalog.set_config('lock_timeout', '20ms', true) as limited
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  join pg_catalog.pg_control_system() c on c.system_identifier = l.system_identifier
),
locked as materialized (
  select r.era
  from era r
  where case when $2::bigint[] is null then true else {schema}.pgsaga_lock_keys($2) end
),
given as materialized (
  select g.*, r.era from locked r cross join pg_catalog.unnest($1::{schema}.pgsaga_grouped_event[]) g
),
stored as (
  insert into {schema}.agent_events (
    tenant_id, aggregate_id, aggregate_type, version, era, tx, event_id, event_type,
    schema_version, event_data, metadata, tags, correlation_id, causation_id, session_id,
    checkpoint_id, timestamp
  )
  select
    g.tenant_id, g.aggregate_id, g.aggregate_type, coalesce(s.version, 0) + 1, g.era,
    greatest(pg_catalog.pg_current_xact_id(), s.tx), g.event_id, g.event_type, g.schema_version,
    g.event_data, g.metadata, coalesce(g.tags, '{}'::text[]), g.correlation_id, g.causation_id,
    g.session_id, g.checkpoint_id, g.happened_at
  from given g
  left join lateral (
    select e.version, case when e.era = g.era then e.tx end as tx
    from {schema}.agent_events e
    where e.tenant_id = g.tenant_id and e.aggregate_id = g.aggregate_id
      and e.aggregate_type = g.aggregate_type
    order by e.version desc
    limit 1
  ) s on true
  left join lateral (
    select true as is_guarded
    from {schema}.event_guards d
    where d.tenant_id = g.tenant_id and d.event_type = g.event_type
    limit 1
  ) d on g.keys is null
  where (
      g.expected is null or coalesce(s.version, 0) = g.expected
      or (g.expected = -1 and s.version > 0)
    )
    and case when g.keys is null then d.is_guarded is null
      else {schema}.pgsaga_append_is_allowed(
        g.tenant_id, g.keys, g.condition_types, g.condition_tags, g.after_position
      ) end
  on conflict do nothing
  returning event_id, version, era, tx, position, recorded_at
)
select g.no, s.version, s.era, s.tx, s.position, s.recorded_at
from stored s
join given g on g.event_id = s.event_id;

-- name: begin_era
-- Notes that the log is in another cluster now; nothing where that is known.
-- shard: all, events are on one server
insert into {schema}.event_eras (era, system_identifier)
select coalesce(l.era, 0) + 1, c.system_identifier
from pg_catalog.pg_control_system() c
left join (
  select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
) l on true
where l.system_identifier is distinct from c.system_identifier
on conflict (era) do nothing;

-- name: find_resent
-- What is stored of events that were appended before, in the order of their versions, and
-- whether each is the same as given: of the same aggregate, type, form, data, metadata and tags.
-- params: tenant_id text, aggregate_id text, aggregate_type text, event_ids text[],
--   event_types text[], schema_versions integer[], event_data jsonb[], metadata jsonb[],
--   tags jsonb[]
-- columns: event_id text, version integer, era integer, tx xid8, position bigint,
--   recorded_at timestamp with time zone, timestamp timestamp with time zone,
--   correlation_id text, causation_id text, session_id uuid, checkpoint_id text,
--   is_of_aggregate boolean, is_same boolean
-- shard: all, events are on one server
select
  e.event_id, e.version, e.era, e.tx, e.position, e.recorded_at, e.timestamp, e.correlation_id,
  e.causation_id, e.session_id, e.checkpoint_id,
  e.aggregate_id = $2 and e.aggregate_type = $3 as is_of_aggregate,
  e.event_type = g.event_type and e.schema_version = coalesce(g.schema_version, 1)
    and e.event_data = g.event_data and e.metadata = coalesce(g.metadata, '{}'::jsonb)
    and e.tags operator(pg_catalog.=) case when g.tags is null then '{}'::text[]
      else array(select pg_catalog.jsonb_array_elements_text(g.tags)) end as is_same
from rows from (
  pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]),
  pg_catalog.unnest($6::integer[]), pg_catalog.unnest($7::jsonb[]),
  pg_catalog.unnest($8::jsonb[]), pg_catalog.unnest($9::jsonb[])
) g (event_id, event_type, schema_version, event_data, metadata, tags)
cross join lateral (
  select a.* from {schema}.agent_events a
  where (a.tenant_id, a.event_id) >= ($1, g.event_id)
  order by a.tenant_id, a.event_id
  limit 1
) e
where e.tenant_id = $1 and e.event_id = g.event_id
order by e.version;

-- name: guard_events
-- Declares types that conditions may ask for.
-- params: tenant_id text, types text[]
-- columns: done text
-- shard: all, events are on one server
select {schema}.pgsaga_guard_events($1, $2)::text as done;

-- name: list_guards
-- Which of the types are declared.
-- params: tenant_id text, types text[]
-- columns: event_type text
-- shard: all, events are on one server
select g.event_type
from {schema}.event_guards g
where g.tenant_id = $1 and g.event_type = any($2);

-- name: list_types_of
-- The types of the aggregates that have an id.
-- params: tenant_id text, aggregate_id text
-- columns: aggregate_type text
-- shard: all, events are on one server
with recursive types as (
  (
    select e.aggregate_type from {schema}.agent_events e
    where e.tenant_id = $1 and e.aggregate_id = $2
    order by e.aggregate_type
    limit 1
  )
  union all
  select (
    select e.aggregate_type from {schema}.agent_events e
    where e.tenant_id = $1 and e.aggregate_id = $2 and e.aggregate_type > t.aggregate_type
    order by e.aggregate_type
    limit 1
  )
  from types t
  where t.aggregate_type is not null
)
select t.aggregate_type from types t where t.aggregate_type is not null;

-- name: read_stream
-- An aggregate's events above a version, up to another, in order.
-- params: tenant_id text, aggregate_id text, aggregate_type text, from_version integer,
--   to_version integer, page bigint
-- columns: aggregate_id text, aggregate_type text, version integer, era integer, tx xid8,
--   position bigint, event_id text, event_type text, schema_version integer, event_data jsonb,
--   metadata jsonb, tags text[], correlation_id text, causation_id text, session_id uuid,
--   checkpoint_id text, timestamp timestamp with time zone,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
select
  e.aggregate_id, e.aggregate_type, e.version, e.era, e.tx, e.position, e.event_id, e.event_type,
  e.schema_version, e.event_data, e.metadata, e.tags, e.correlation_id, e.causation_id,
  e.session_id, e.checkpoint_id, e.timestamp, e.recorded_at
from {schema}.agent_events e
where e.tenant_id = $1 and e.aggregate_id = $2 and e.aggregate_type = $3
  and e.version > $4 and e.version <= $5
order by e.version
limit $6;

-- name: read_page
-- What comes after a place, of the types and with the tags (null: any): at most a page of it, of
-- as many rows in order as the window has. reached is how far that was: behind the last event of a
-- full page or window, else at the horizon (is_end), below which everything that will ever be
-- there is there. Without events one row says it. is_withheld: events are committed, and wait for
-- a transaction that is older.
-- params: tenant_id text, after_era integer, after_tx xid8, after_position bigint, types text[],
--   tags text[], page bigint, window_rows bigint
-- columns: reached_era integer, reached_tx xid8, reached_position bigint, is_end boolean,
--   is_withheld boolean, aggregate_id text, aggregate_type text, version integer, era integer,
--   tx xid8, position bigint, event_id text, event_type text, schema_version integer,
--   event_data jsonb, metadata jsonb, tags text[], correlation_id text, causation_id text,
--   session_id uuid, checkpoint_id text, timestamp timestamp with time zone,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
with horizon as materialized (
  select
    case when l.system_identifier = c.system_identifier then l.era else l.era + 1 end as era,
    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) as tx
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  cross join pg_catalog.pg_control_system() c
),
scanned as materialized (
  select
    e.aggregate_id, e.aggregate_type, e.version, e.era, e.tx, e.position, e.event_id, e.event_type,
    e.schema_version, e.event_data, e.metadata, e.tags, e.correlation_id, e.causation_id,
    e.session_id, e.checkpoint_id, e.timestamp, e.recorded_at
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.position > 0
    and (e.era, e.tx, e.position) > ($2, $3, $4)
    and (e.era, e.tx, e.position) < ((select h.era from horizon h), (select h.tx from horizon h), 0)
  order by e.era, e.tx, e.position
  limit $8
),
found as materialized (
  select s.*
  from scanned s
  where ($5::text[] is null or s.event_type = any($5)) and ($6::text[] is null or s.tags operator(pg_catalog.@>) $6)
  order by s.era, s.tx, s.position
  limit $7
),
reached as materialized (
  select r.era, r.tx, r.position, r.is_end
  from (
    (
      select 1 as rank, f.era, f.tx, f.position, false as is_end
      from found f
      where (select count(*) from found) = $7
      order by f.era desc, f.tx desc, f.position desc
      limit 1
    )
    union all
    (
      select 2, s.era, s.tx, s.position, false
      from scanned s
      where (select count(*) from scanned) = $8
      order by s.era desc, s.tx desc, s.position desc
      limit 1
    )
    union all
    select 3, h.era, h.tx, 0::bigint, true from horizon h
  ) r
  order by r.rank
  limit 1
)
select
  r.era as reached_era, r.tx as reached_tx, r.position as reached_position, r.is_end,
  exists (
    select from {schema}.agent_events e
    where e.tenant_id = $1 and e.position > 0
      and (e.era, e.tx, e.position)
        >= ((select h.era from horizon h), (select h.tx from horizon h), 0)
  ) as is_withheld,
  f.aggregate_id, f.aggregate_type, f.version, f.era, f.tx, f.position, f.event_id, f.event_type,
  f.schema_version, f.event_data, f.metadata, f.tags, f.correlation_id, f.causation_id,
  f.session_id, f.checkpoint_id, f.timestamp, f.recorded_at
from reached r
left join found f on true
order by f.era, f.tx, f.position;

-- name: read_narrowed
-- As read_page, for what is rare: events of a correlation, of a causation, with tags, or of a
-- time, of which the first that is given is looked up, and sorted. The others are filters.
-- params: tenant_id text, after_era integer, after_tx xid8, after_position bigint, types text[],
--   tags text[], page bigint, correlation_id text, causation_id text,
--   since timestamp with time zone, until timestamp with time zone
-- columns: reached_era integer, reached_tx xid8, reached_position bigint, is_end boolean,
--   is_withheld boolean, aggregate_id text, aggregate_type text, version integer, era integer,
--   tx xid8, position bigint, event_id text, event_type text, schema_version integer,
--   event_data jsonb, metadata jsonb, tags text[], correlation_id text, causation_id text,
--   session_id uuid, checkpoint_id text, timestamp timestamp with time zone,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
with horizon as materialized (
  select
    case when l.system_identifier = c.system_identifier then l.era else l.era + 1 end as era,
    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) as tx
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  cross join pg_catalog.pg_control_system() c
),
candidates as materialized (
  select e.era, e.tx, e.position
  from {schema}.agent_events e
  where $8::text is not null and e.tenant_id = $1 and e.correlation_id = $8
  union all
  select e.era, e.tx, e.position
  from {schema}.agent_events e
  where $8::text is null and $9::text is not null and e.tenant_id = $1 and e.causation_id = $9
  union all
  select m.era, m.tx, m.position
  from {schema}.pgsaga_event_matches($1, null::text[], $6::text[], 0::bigint) m
  where coalesce($8, $9) is null and $6::text[] is not null
  union all
  select e.era, e.tx, e.position
  from (select distinct t.event_type from pg_catalog.unnest($5::text[]) t (event_type)) k
  cross join lateral (
    select a.era, a.tx, a.position
    from {schema}.agent_events a
    where a.tenant_id = $1 and a.event_type = k.event_type
      and a.timestamp > '-infinity'::timestamptz
      and a.timestamp >= coalesce($10, '-infinity'::timestamptz)
      and a.timestamp < coalesce($11, 'infinity'::timestamptz)
    offset 0
  ) e
  where coalesce($8, $9) is null and $6::text[] is null
  union all
  select e.era, e.tx, e.position
  from {schema}.agent_events e
  where coalesce($8, $9) is null and $6::text[] is null and $5::text[] is null
    and e.tenant_id = $1 and e.version > 0
    and e.timestamp >= coalesce($10, '-infinity'::timestamptz)
    and e.timestamp < coalesce($11, 'infinity'::timestamptz)
),
found as materialized (
  select e.*
  from candidates c
  cross join lateral (
    select a.* from {schema}.agent_events a
    where a.tenant_id = $1 and a.era = c.era and a.tx = c.tx and a.position = c.position
      and a.position > 0
    limit 1
  ) e
  where (c.era, c.tx, c.position) > ($2, $3, $4)
    and (c.era, c.tx, c.position) < ((select h.era from horizon h), (select h.tx from horizon h), 0)
    and ($5::text[] is null or e.event_type = any($5))
    and ($6::text[] is null or e.tags operator(pg_catalog.@>) $6)
    and ($8::text is null or e.correlation_id = $8)
    and ($9::text is null or e.causation_id = $9)
    and e.timestamp >= coalesce($10, '-infinity'::timestamptz)
    and e.timestamp < coalesce($11, 'infinity'::timestamptz)
  order by e.era, e.tx, e.position
  limit $7
),
reached as materialized (
  select r.era, r.tx, r.position, r.is_end
  from (
    (
      select 1 as rank, f.era, f.tx, f.position, false as is_end
      from found f
      where (select count(*) from found) = $7
      order by f.era desc, f.tx desc, f.position desc
      limit 1
    )
    union all
    select 2, h.era, h.tx, 0::bigint, true from horizon h
  ) r
  order by r.rank
  limit 1
)
select
  r.era as reached_era, r.tx as reached_tx, r.position as reached_position, r.is_end,
  false as is_withheld,
  f.aggregate_id, f.aggregate_type, f.version, f.era, f.tx, f.position, f.event_id, f.event_type,
  f.schema_version, f.event_data, f.metadata, f.tags, f.correlation_id, f.causation_id,
  f.session_id, f.checkpoint_id, f.timestamp, f.recorded_at
from reached r
left join found f on true
order by f.era, f.tx, f.position;

-- name: read_matching
-- The events that match a condition, all that are committed, in the order of their positions,
-- which is that of their commits: who appends one holds the locks that they share.
-- params: tenant_id text, types text[], tags text[], after_position bigint
-- columns: aggregate_id text, aggregate_type text, version integer, era integer, tx xid8,
--   position bigint, event_id text, event_type text, schema_version integer, event_data jsonb,
--   metadata jsonb, tags text[], correlation_id text, causation_id text, session_id uuid,
--   checkpoint_id text, timestamp timestamp with time zone,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
select
  e.aggregate_id, e.aggregate_type, e.version, e.era, e.tx, e.position, e.event_id, e.event_type,
  e.schema_version, e.event_data, e.metadata, e.tags, e.correlation_id, e.causation_id,
  e.session_id, e.checkpoint_id, e.timestamp, e.recorded_at
from {schema}.pgsaga_event_matches($1, $2, $3, $4) m
cross join lateral (
  select a.* from {schema}.agent_events a
  where a.tenant_id = $1 and a.era = m.era and a.tx = m.tx and a.position = m.position
    and a.position > 0
  limit 1
) e
order by e.position;

-- name: get_event
-- One event, by its id.
-- params: tenant_id text, event_id text
-- columns: aggregate_id text, aggregate_type text, version integer, era integer, tx xid8,
--   position bigint, event_id text, event_type text, schema_version integer, event_data jsonb,
--   metadata jsonb, tags text[], correlation_id text, causation_id text, session_id uuid,
--   checkpoint_id text, timestamp timestamp with time zone,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
select
  e.aggregate_id, e.aggregate_type, e.version, e.era, e.tx, e.position, e.event_id, e.event_type,
  e.schema_version, e.event_data, e.metadata, e.tags, e.correlation_id, e.causation_id,
  e.session_id, e.checkpoint_id, e.timestamp, e.recorded_at
from (
  select a.* from {schema}.agent_events a
  where (a.tenant_id, a.event_id) >= ($1, $2)
  order by a.tenant_id, a.event_id
  limit 1
) e
where e.tenant_id = $1 and e.event_id = $2;

-- name: get_horizon
-- The place below which everything that will ever be there is there.
-- columns: era integer, tx xid8
-- shard: all, events are on one server
select
  case when l.system_identifier = c.system_identifier then l.era else l.era + 1 end as era,
  pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) as tx
from (
  select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
) l
cross join pg_catalog.pg_control_system() c;

-- name: measure_lag
-- How many events are behind a place, counted to most; how many of them wait for an open
-- transaction; for how many seconds the first of them is there; and that transaction, if it is
-- one of a connection.
-- params: tenant_id text, after_era integer, after_tx xid8, after_position bigint, most bigint
-- columns: events bigint, withheld bigint, seconds float8, pid integer,
--   application_name text, open_seconds float8
-- shard: all, events are on one server
with horizon as materialized (
  select
    case when l.system_identifier = c.system_identifier then l.era else l.era + 1 end as era,
    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) as tx
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  cross join pg_catalog.pg_control_system() c
),
behind as materialized (
  select e.recorded_at
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.position > 0 and (e.era, e.tx, e.position) > ($2, $3, $4)
  order by e.era, e.tx, e.position
  limit $5
),
withheld as materialized (
  select e.position
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.position > 0
    and (e.era, e.tx, e.position)
      >= ((select h.era from horizon h), (select h.tx from horizon h), 0)
    and (e.era, e.tx, e.position) > ($2, $3, $4)
  order by e.era, e.tx, e.position
  limit $5
),
open as materialized (
  select a.pid, a.application_name, a.xact_start
  from horizon h
  join pg_catalog.pg_stat_activity a on a.backend_xid = h.tx::xid
  where exists (select from withheld)
  limit 1
)
select
  (select count(*) from behind) as events,
  (select count(*) from withheld) as withheld,
  coalesce(
    extract(epoch from pg_catalog.clock_timestamp() - (select min(b.recorded_at) from behind b)),
    0
  )::double precision as seconds,
  (select o.pid from open o) as pid,
  (select o.application_name from open o) as application_name,
  (
    select extract(epoch from pg_catalog.clock_timestamp() - o.xact_start) from open o
  )::double precision as open_seconds;

-- name: save_snapshot
-- Stores a snapshot of an aggregate, in the place of one that the version has. last_version is
-- that of the aggregate; nothing is stored of a version beyond it.
-- params: tenant_id text, aggregate_id text, aggregate_type text, version integer,
--   snapshot_id uuid, schema_version integer, snapshot_data jsonb
-- columns: last_version integer
-- shard: all, events are on one server
with last as materialized (
  select coalesce(max(e.version), 0) as version
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.aggregate_id = $2 and e.aggregate_type = $3
),
stored as (
  insert into {schema}.event_snapshots as s (
    tenant_id, aggregate_id, aggregate_type, version, snapshot_id, schema_version, snapshot_data
  )
  select $1, $2, $3, $4, $5, $6, $7
  from last l
  where l.version >= $4
  on conflict (tenant_id, aggregate_id, aggregate_type, version) do update
  set snapshot_id = excluded.snapshot_id, schema_version = excluded.schema_version,
    snapshot_data = excluded.snapshot_data, created_at = now()
)
select l.version as last_version from last l;

-- name: get_latest_snapshot
-- The snapshot of the greatest version, up to one, of each type of aggregate that has the id, or
-- of one type; of a form (null: any).
-- params: tenant_id text, aggregate_id text, aggregate_type text, schema_version integer,
--   to_version integer
-- columns: aggregate_type text, version integer, snapshot_data jsonb
-- shard: all, events are on one server
with recursive types as (
  select min(e.aggregate_type) as aggregate_type
  from {schema}.event_snapshots e
  where $3::text is null and e.tenant_id = $1 and e.aggregate_id = $2
  union all
  select (
    select min(e.aggregate_type) from {schema}.event_snapshots e
    where e.tenant_id = $1 and e.aggregate_id = $2 and e.aggregate_type > t.aggregate_type
  )
  from types t
  where t.aggregate_type is not null
)
select l.aggregate_type, l.version, l.snapshot_data
from (
  select t.aggregate_type from types t where t.aggregate_type is not null
  union all
  select $3::text where $3::text is not null
) k
cross join lateral (
  select s.aggregate_type, s.version, s.snapshot_data
  from {schema}.event_snapshots s
  where s.tenant_id = $1 and s.aggregate_id = $2 and s.aggregate_type = k.aggregate_type
    and ($4::integer is null or s.schema_version = $4) and s.version <= $5
  order by s.version desc
  limit 1
) l
order by l.aggregate_type;
