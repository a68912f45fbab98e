-- Consumers of events: how far each has come, who is at it, and what couldn't be handled.
--
-- Lock order: a partition's row, then its dead letters.
--
-- As events, they are on the server that is asked.

-- name: insert_consumer
-- The partitions of a consumer, which begin at a place (null: behind all that is there), where it
-- isn't known yet. Gives how many partitions it has, and whether it is retired.
-- params: tenant_id text, name text, partition_count integer, era integer, tx xid8, position bigint
-- columns: partition_count integer, is_retired boolean
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
known as materialized (
  select c.partition_count, c.retired_at is not null as is_retired
  from {schema}.event_consumers c
  where c.tenant_id = $1 and c.name = $2 and c.partition = 0
),
made as (
  insert into {schema}.event_consumers (
    tenant_id, name, partition, partition_count, era, tx, position, due_at
  )
  select
    $1, $2, p.no, $3, coalesce($4, h.era), coalesce($5, h.tx), coalesce($6, 0::bigint),
    {schema}.pgsaga_now()
  from pg_catalog.generate_series(0, $3 - 1) p (no)
  cross join horizon h
  where not exists (select from known)
  order by p.no
  on conflict do nothing
  returning partition_count
)
select k.partition_count, k.is_retired from known k
union all
(select m.partition_count, false from made m limit 1);

-- name: claim_consumer
-- Takes partitions of the consumers for which there is something: an event that can be read by
-- now, whatever it is, or a dead letter that is due. One that has a predecessor (null: none) goes
-- no further than that one has come. deaths is how often a worker died at it.
-- params: claimed_by uuid, lease_seconds float8, page bigint, tenant_id text, consumers text[],
--   predecessors text[]
-- columns: tenant_id text, name text, partition integer, partition_count integer, fence bigint,
--   attempts integer, deaths integer, era integer, tx xid8, position bigint
-- shard: all, events are on one server
with clock as materialized (
  select {schema}.pgsaga_now() as at
),
horizon as materialized (
  select
    case when l.system_identifier = c.system_identifier then l.era else l.era + 1 end as era,
    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) as tx
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  cross join pg_catalog.pg_control_system() c
),
due as materialized (
  select c.tenant_id, c.name, c.partition
  from rows from (
    pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::text[])
  ) i (name, predecessor)
  join {schema}.event_consumers c on c.tenant_id = $4 and c.name = i.name
  cross join clock k
  left join {schema}.event_consumers p
    on p.tenant_id = $4 and p.name = i.predecessor and p.partition = c.partition
      and p.retired_at is null
  where c.due_at <= k.at and c.retired_at is null
    and (c.claim_expires_at is null or c.claim_expires_at <= k.at)
    and (
      exists (
        select from {schema}.agent_events e
        where e.tenant_id = c.tenant_id and e.position > 0
          and (e.era, e.tx, e.position) > (c.era, c.tx, c.position)
          and (e.era, e.tx, e.position)
            < ((select h.era from horizon h), (select h.tx from horizon h), 0)
          and (p.name is null or (e.era, e.tx, e.position) <= (p.era, p.tx, p.position))
      )
      or exists (
        select from {schema}.event_dead_letters d
        where d.tenant_id = c.tenant_id and d.consumer = c.name and d.partition = c.partition
          and d.due_at <= k.at
      )
    )
  order by c.moved_at, c.name, c.partition
  limit $3
  for update of c skip locked
)
update {schema}.event_consumers c set
  claimed_by = $1,
  claim_expires_at = {schema}.pgsaga_after(k.at, $2),
  fence = c.fence + 1,
  attempts = c.attempts + 1,
  deaths = case when c.claimed_by is null then c.deaths else c.deaths + 1 end
from due d
cross join clock k
where c.tenant_id = d.tenant_id and c.name = d.name and c.partition = d.partition
returning
  c.tenant_id, c.name, c.partition, c.partition_count, c.fence, c.attempts, c.deaths, c.era, c.tx,
  c.position;

-- name: renew_consumers
-- Makes claims last for a while longer. Gives those that are had still; what is locked just now
-- is passed over.
-- params: claimed_by uuid, lease_seconds float8, tenant_ids text[], names text[],
--   partitions integer[], fences bigint[]
-- columns: tenant_id text, name text, partition integer, is_renewed boolean
-- shard: all, events are on one server
with clock as materialized (
  select {schema}.pgsaga_now() as at
),
had as materialized (
  select c.tenant_id, c.name, c.partition
  from unnest($3::text[], $4::text[], $5::integer[], $6::bigint[])
    i (tenant_id, name, partition, fence)
  join {schema}.event_consumers c
    on c.tenant_id = i.tenant_id and c.name = i.name and c.partition = i.partition
    and c.fence = i.fence and c.claimed_by = $1
),
free as materialized (
  select c.tenant_id, c.name, c.partition
  from had h
  join {schema}.event_consumers c
    on c.tenant_id = h.tenant_id and c.name = h.name and c.partition = h.partition
  for update of c skip locked
),
renewed as (
  update {schema}.event_consumers c
  set claim_expires_at = {schema}.pgsaga_after(k.at, $2)
  from unnest($3::text[], $4::text[], $5::integer[], $6::bigint[])
    i (tenant_id, name, partition, fence)
  join free f on f.tenant_id = i.tenant_id and f.name = i.name and f.partition = i.partition
  cross join clock k
  where c.tenant_id = i.tenant_id and c.name = i.name and c.partition = i.partition
    and c.fence = i.fence and c.claimed_by = $1
  returning c.tenant_id, c.name, c.partition
)
select h.tenant_id, h.name, h.partition, r.name is not null as is_renewed
from had h
left join renewed r
  on r.tenant_id = h.tenant_id and r.name = h.name and r.partition = h.partition;

-- name: release_consumers
-- Gives claims back, as if they hadn't been made.
-- params: claimed_by uuid, tenant_ids text[], names text[], partitions integer[], fences bigint[]
-- shard: all, events are on one server
update {schema}.event_consumers c set
  claimed_by = null,
  claim_expires_at = null,
  attempts = greatest(c.attempts - 1, 0)
from unnest($2::text[], $3::text[], $4::integer[], $5::bigint[])
  i (tenant_id, name, partition, fence)
where c.tenant_id = i.tenant_id and c.name = i.name and c.partition = i.partition
  and c.fence = i.fence and c.claimed_by = $1;

-- name: fail_consumer
-- What it is doesn't stand in events, such as a server that is away: due again after a while.
-- params: claimed_by uuid, tenant_id text, name text, partition integer, fence bigint, error text,
--   delay_seconds float8
-- columns: fence bigint
-- shard: all, events are on one server
update {schema}.event_consumers set
  claimed_by = null,
  claim_expires_at = null,
  last_error = $6,
  due_at = {schema}.pgsaga_after({schema}.pgsaga_now(), $7)
where tenant_id = $2 and name = $3 and partition = $4 and fence = $5 and claimed_by = $1
returning fence;

-- name: move_consumer
-- It has come so far, and goes on.
-- params: claimed_by uuid, tenant_id text, name text, partition integer, fence bigint, era integer,
--   tx xid8, position bigint
-- columns: fence bigint, transaction text
-- shard: all, events are on one server
update {schema}.event_consumers set
  era = $6,
  tx = $7,
  position = $8,
  attempts = 0,
  deaths = 0,
  last_error = null,
  moved_at = now()
where tenant_id = $2 and name = $3 and partition = $4 and fence = $5 and claimed_by = $1
returning fence, pg_catalog.pg_current_xact_id()::text as transaction;

-- name: end_consumer
-- It has come so far, and is nobody's; due again at once.
-- params: claimed_by uuid, tenant_id text, name text, partition integer, fence bigint, era integer,
--   tx xid8, position bigint
-- columns: fence bigint, transaction text
-- shard: all, events are on one server
update {schema}.event_consumers set
  era = $6,
  tx = $7,
  position = $8,
  attempts = 0,
  deaths = 0,
  last_error = null,
  moved_at = now(),
  claimed_by = null,
  claim_expires_at = null,
  due_at = {schema}.pgsaga_now()
where tenant_id = $2 and name = $3 and partition = $4 and fence = $5 and claimed_by = $1
returning fence, pg_catalog.pg_current_xact_id()::text as transaction;

-- name: hold_consumer
-- Keeps others from claiming it until the transaction ends.
-- params: claimed_by uuid, tenant_id text, name text, partition integer, fence bigint
-- columns: fence bigint, transaction text
-- shard: all, events are on one server
select c.fence, pg_catalog.pg_current_xact_id()::text as transaction
from {schema}.event_consumers c
where c.tenant_id = $2 and c.name = $3 and c.partition = $4 and c.fence = $5 and c.claimed_by = $1
for update of c;

-- name: insert_dead_letter
-- An event that couldn't be handled, at which its aggregate waits. By who holds the partition.
-- params: tenant_id text, consumer text, partition integer, aggregate_type text,
--   aggregate_id text, version integer, event_id text, event_type text, attempts integer,
--   delay_seconds float8, error text
-- shard: all, events are on one server
insert into {schema}.event_dead_letters (
  tenant_id, consumer, partition, aggregate_type, aggregate_id, version, event_id, event_type,
  attempts, due_at, error
)
values (
  $1, $2, $3, $4, $5, $6, $7, $8, $9,
  {schema}.pgsaga_after({schema}.pgsaga_now(), $10), $11
);

-- name: list_waiting
-- Which of the aggregates wait.
-- params: tenant_id text, consumer text, aggregate_types text[], aggregate_ids text[]
-- columns: aggregate_type text, aggregate_id text
-- shard: all, events are on one server
select d.aggregate_type, d.aggregate_id
from rows from (
  pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])
) a (aggregate_type, aggregate_id)
cross join lateral (
  select l.aggregate_type, l.aggregate_id
  from {schema}.event_dead_letters l
  where l.tenant_id = $1 and l.consumer = $2
    and l.aggregate_type = a.aggregate_type and l.aggregate_id = a.aggregate_id
  limit 1
) d;

-- name: list_due
-- Aggregates of a partition that are to be tried again, the longest due first.
-- params: tenant_id text, consumer text, partition integer, page bigint
-- columns: aggregate_type text, aggregate_id text, version integer, attempts integer
-- shard: all, events are on one server
select d.aggregate_type, d.aggregate_id, d.version, d.attempts
from {schema}.event_dead_letters d
where d.tenant_id = $1 and d.consumer = $2 and d.partition = $3
  and d.due_at <= {schema}.pgsaga_now()
order by d.due_at, d.aggregate_type, d.aggregate_id
limit $4;

-- name: read_waiting
-- An aggregate's events from a version on, up to a place in the log.
-- params: tenant_id text, aggregate_type text, aggregate_id text, version integer, era integer,
--   tx xid8, position bigint, types text[], tags text[], page bigint
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
where e.tenant_id = $1 and e.aggregate_id = $3 and e.aggregate_type = $2 and e.version >= $4
  and (e.era, e.tx, e.position) <= ($5, $6, $7)
  and ($8::text[] is null or e.event_type = any($8))
  and ($9::text[] is null or e.tags operator(pg_catalog.@>) $9)
order by e.version
limit $10;

-- name: begin_attempt
-- Another attempt at an event of an aggregate that waits begins; it counts, whatever comes of it.
-- Nothing where the dead letter is another by now.
-- params: claimed_by uuid, tenant_id text, name text, partition integer, fence bigint,
--   aggregate_type text, aggregate_id text, version integer, event_version integer,
--   event_id text, event_type text, attempts integer, delay_seconds float8, error text
-- columns: fence bigint, attempts integer
-- shard: all, events are on one server
with clock as materialized (
  select {schema}.pgsaga_now() as at
),
held as materialized (
  select c.tenant_id, c.name, c.fence
  from {schema}.event_consumers c
  where c.tenant_id = $2 and c.name = $3 and c.partition = $4 and c.fence = $5
    and c.claimed_by = $1
  for update of c
),
begun as (
  update {schema}.event_dead_letters d set
    version = $9,
    event_id = $10,
    event_type = $11,
    attempts = $12,
    error = $14,
    failed_at = now(),
    due_at = {schema}.pgsaga_after(k.at, $13)
  from held h
  cross join clock k
  where d.tenant_id = h.tenant_id and d.consumer = h.name and d.aggregate_type = $6
    and d.aggregate_id = $7 and d.version = $8 and d.due_at <= k.at
  returning d.attempts
)
select h.fence, b.attempts from held h left join begun b on true;

-- name: fail_attempt
-- The attempt that was begun failed. Nothing where the dead letter is another by now. By who holds
-- the partition.
-- params: tenant_id text, consumer text, aggregate_type text, aggregate_id text, version integer,
--   attempts integer, delay_seconds float8, error text
-- shard: all, events are on one server
update {schema}.event_dead_letters set
  error = $8,
  failed_at = now(),
  due_at = {schema}.pgsaga_after({schema}.pgsaga_now(), $7)
where tenant_id = $1 and consumer = $2 and aggregate_type = $3 and aggregate_id = $4
  and version = $5 and attempts = $6;

-- name: move_dead_letter
-- The aggregate has come further: its next event is due at once. By who holds the partition;
-- nothing where the dead letter is another by now.
-- params: tenant_id text, consumer text, aggregate_type text, aggregate_id text, version integer,
--   next_version integer
-- columns: version integer
-- shard: all, events are on one server
update {schema}.event_dead_letters set
  version = $6,
  event_id = null,
  event_type = null,
  attempts = 0,
  error = null,
  due_at = {schema}.pgsaga_now()
where tenant_id = $1 and consumer = $2 and aggregate_type = $3 and aggregate_id = $4
  and version = $5
returning version;

-- name: delete_dead_letter
-- The aggregate waits no more. By who holds the partition; nothing where the dead letter is another
-- by now.
-- params: tenant_id text, consumer text, aggregate_type text, aggregate_id text, version integer
-- columns: version integer
-- shard: all, events are on one server
delete from {schema}.event_dead_letters
where tenant_id = $1 and consumer = $2 and aggregate_type = $3 and aggregate_id = $4
  and version = $5
returning version;

-- name: read_every
-- What comes after a place, of any kind, in order, up to where the predecessor is (null: none);
-- has_waiting, whether any aggregate of a consumer's partition waits.
-- params: tenant_id text, after_era integer, after_tx xid8, after_position bigint, page bigint,
--   consumer text, partition integer, predecessor text
-- columns: has_waiting boolean, aggregate_id text, aggregate_type text, version integer,
--   era integer, tx xid8, position bigint, event_id text, event_type text,
--   schema_version integer, event_data jsonb, metadata jsonb, tags text[], correlation_id text,
--   causation_id text, session_id uuid, checkpoint_id text, timestamp timestamp with time zone,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
with horizon as materialized (
  select h.era, h.tx, h.position
  from (
    select
      case when l.system_identifier = c.system_identifier then l.era else l.era + 1 end as era,
      pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) as tx,
      0::bigint as position
    from (
      select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
    ) l
    cross join pg_catalog.pg_control_system() c
    union all
    select p.era, p.tx, p.position
    from {schema}.event_consumers p
    where p.tenant_id = $1 and p.name = $8 and p.partition = $7 and p.retired_at is null
  ) h
  order by h.era, h.tx, h.position
  limit 1
),
waiting as materialized (
  select exists (
    select from {schema}.event_dead_letters d
    where d.tenant_id = $1 and d.consumer = $6 and d.partition = $7
  ) as is_any
)
select
  (select w.is_any from waiting w) as has_waiting,
  e.aggregate_id, e.aggregate_type, e.version, e.era, e.tx, e.position, e.event_id, e.event_type,
  e.schema_version, e.event_data, e.metadata, e.tags, e.correlation_id, e.causation_id,
  e.session_id, e.checkpoint_id, e.timestamp, e.recorded_at
from {schema}.agent_events e
where e.tenant_id = $1 and e.position > 0
  and (e.era, e.tx, e.position) > ($2, $3, $4)
  and (e.era, e.tx, e.position) <= (
    (select h.era from horizon h), (select h.tx from horizon h), (select h.position from horizon h)
  )
order by e.era, e.tx, e.position
limit $5;

-- name: read_batch
-- What comes after a place for a partition of a consumer: at most a page of it. reached is how far
-- that was, as in read_page; has_waiting, whether any aggregate of it waits.
-- params: tenant_id text, after_era integer, after_tx xid8, after_position bigint, types text[],
--   tags text[], page bigint, window_rows bigint, aggregate_types text[], partition integer,
--   partition_count integer, consumer text, predecessor text
-- columns: reached_era integer, reached_tx xid8, reached_position bigint, is_end boolean,
--   has_waiting boolean, aggregate_id text, aggregate_type text, version integer, era integer,
--   tx xid8, position bigint, event_id text, event_type text, schema_version integer,
--   event_data jsonb, metadata jsonb, tags text[], correlation_id text, causation_id text,
--   session_id uuid, checkpoint_id text, timestamp timestamp with time zone,
--   recorded_at timestamp with time zone
-- shard: all, events are on one server
with horizon as materialized (
  select h.era, h.tx, h.position
  from (
    select
      case when l.system_identifier = c.system_identifier then l.era else l.era + 1 end as era,
      pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) as tx,
      0::bigint as position
    from (
      select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
    ) l
    cross join pg_catalog.pg_control_system() c
    union all
    select p.era, p.tx, p.position
    from {schema}.event_consumers p
    where p.tenant_id = $1 and p.name = $13 and p.partition = $10 and p.retired_at is null
  ) h
  order by h.era, h.tx, h.position
  limit 1
),
scanned as materialized (
  select e.era, e.tx, e.position, e.aggregate_id, e.aggregate_type, e.version, e.event_type, e.tags
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.position > 0
    and (e.era, e.tx, e.position) > ($2, $3, $4)
    and (e.era, e.tx, e.position) <= (
      (select h.era from horizon h), (select h.tx from horizon h),
      (select h.position from horizon h)
    )
  order by e.era, e.tx, e.position
  limit $8
),
found as materialized (
  select s.era, s.tx, s.position, s.aggregate_id, s.aggregate_type, s.version
  from scanned s
  where ($5::text[] is null or s.event_type = any($5))
    and ($6::text[] is null or s.tags operator(pg_catalog.@>) $6)
    and ($9::text[] is null or s.aggregate_type = any($9))
    and (
      $11 = 1
      or {schema}.pgsaga_event_partition(s.aggregate_type, s.aggregate_id, $11) = $10
    )
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
    select 3, h.era, h.tx, h.position, true from horizon h
  ) r
  order by r.rank
  limit 1
)
select
  r.era as reached_era, r.tx as reached_tx, r.position as reached_position, r.is_end,
  exists (
    select from {schema}.event_dead_letters d
    where d.tenant_id = $1 and d.consumer = $12 and d.partition = $10
  ) as has_waiting,
  f.aggregate_id, f.aggregate_type, f.version, f.era, f.tx, f.position, e.event_id, e.event_type,
  e.schema_version, e.event_data, e.metadata, e.tags, e.correlation_id, e.causation_id,
  e.session_id, e.checkpoint_id, e.timestamp, e.recorded_at
from reached r
left join found f on true
left join lateral (
  select a.* from {schema}.agent_events a
  where a.tenant_id = $1 and a.aggregate_id = f.aggregate_id
    and a.aggregate_type = f.aggregate_type and a.version = f.version
  limit 1
) e on true
order by f.era, f.tx, f.position;

-- name: list_consumers
-- The consumers of a tenant by name and partition, and how far behind each is: events that come
-- after its place, of any kind (counted to some most), since when, and how many of these wait for
-- an older transaction, whose process pid is where it is to be known.
-- params: tenant_id text, most bigint
-- columns: name text, partition integer, partition_count integer, era integer, tx xid8,
--   position bigint, is_claimed boolean, last_error text, moved_at timestamp with time zone,
--   retired_at timestamp with time zone, behind bigint, seconds float8, withheld bigint,
--   pid integer, waiting bigint, dead bigint
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
open as materialized (
  select a.pid
  from horizon h
  join pg_catalog.pg_stat_activity a on a.backend_xid = h.tx::xid
  limit 1
)
select
  c.name, c.partition, c.partition_count, c.era, c.tx, c.position,
  coalesce(c.claim_expires_at > {schema}.pgsaga_now(), false) as is_claimed,
  c.last_error, c.moved_at, c.retired_at, b.behind,
  coalesce(
    extract(epoch from pg_catalog.clock_timestamp() - b.since), 0
  )::double precision as seconds,
  b.withheld,
  case when b.withheld > 0 then (select o.pid from open o) end as pid,
  w.waiting, w.dead
from {schema}.event_consumers c
cross join horizon h
cross join lateral (
  select
    count(*) as behind,
    min(l.recorded_at) as since,
    count(*) filter (where (l.era, l.tx, l.position) >= (h.era, h.tx, 0)) as withheld
  from (
    select e.recorded_at, e.era, e.tx, e.position
    from {schema}.agent_events e
    where e.tenant_id = c.tenant_id and e.position > 0
      and (e.era, e.tx, e.position) > (c.era, c.tx, c.position)
    order by e.era, e.tx, e.position
    limit $2
  ) l
) b
cross join lateral (
  select count(*) as waiting, count(*) filter (where d.due_at is null) as dead
  from {schema}.event_dead_letters d
  where d.tenant_id = c.tenant_id and d.consumer = c.name and d.partition = c.partition
) w
where c.tenant_id = $1
order by c.name, c.partition;

-- name: count_waiting
-- How many aggregates wait, for a consumer.
-- params: tenant_id text, consumer text
-- columns: waiting bigint
-- shard: all, events are on one server
select count(*) as waiting
from {schema}.event_dead_letters d
where d.tenant_id = $1 and d.consumer = $2;

-- name: get_next_due
-- In how many seconds the first aggregate that waits for one of the consumers is due; null where
-- none is.
-- params: tenant_id text, consumers text[]
-- columns: seconds float8
-- shard: all, events are on one server
select extract(epoch from min(d.due_at) - {schema}.pgsaga_now())::double precision as seconds
from {schema}.event_dead_letters d
where d.tenant_id = $1 and d.consumer = any($2);

-- name: find_consumer
-- Whether there is a consumer, and how many dead letters it has.
-- params: tenant_id text, name text
-- columns: partition_count integer, is_retired boolean
-- shard: all, events are on one server
select c.partition_count, c.retired_at is not null as is_retired
from {schema}.event_consumers c
where c.tenant_id = $1 and c.name = $2 and c.partition = 0;

-- name: delete_consumer
-- Forgets a consumer, with its dead letters.
-- params: tenant_id text, name text
-- columns: partition integer
-- shard: all, events are on one server
delete from {schema}.event_consumers where tenant_id = $1 and name = $2 returning partition;

-- name: lock_consumer
-- A consumer's partitions, which nobody moves until the transaction ends.
-- params: tenant_id text, name text
-- columns: era integer, tx xid8, position bigint, is_retired boolean
-- shard: all, events are on one server
select c.era, c.tx, c.position, c.retired_at is not null as is_retired
from {schema}.event_consumers c
where c.tenant_id = $1 and c.name = $2
order by c.partition
for update of c;

-- name: count_between
-- How many events come after one place and up to another, counted to some most.
-- params: tenant_id text, after_era integer, after_tx xid8, after_position bigint, era integer,
--   tx xid8, position bigint, most bigint
-- columns: events bigint
-- shard: all, events are on one server
select count(*) as events
from (
  select
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.position > 0
    and (e.era, e.tx, e.position) > ($2, $3, $4)
    and (e.era, e.tx, e.position) <= ($5, $6, $7)
  order by e.era, e.tx, e.position
  limit $8
) b;

-- name: retire_consumer
-- Another one is in its place: it gets no more events, and its claims are void.
-- params: tenant_id text, name text
-- columns: partition integer
-- shard: all, events are on one server
update {schema}.event_consumers set
  retired_at = now(),
  fence = fence + 1,
  claimed_by = null,
  claim_expires_at = null
where tenant_id = $1 and name = $2
returning partition;

-- name: list_dead_letters
-- Aggregates that wait, by consumer, type and id after those given, of one consumer (null: any);
-- is_dead where it isn't tried any more.
-- params: tenant_id text, consumer text, after_consumer text, after_type text, after_id text,
--   page bigint
-- columns: consumer text, aggregate_type text, aggregate_id text, version integer, event_id text,
--   event_type text, attempts integer, due_at timestamp with time zone, error text,
--   first_failed_at timestamp with time zone, failed_at timestamp with time zone
-- shard: all, events are on one server
select
  d.consumer, d.aggregate_type, d.aggregate_id, d.version, d.event_id, d.event_type, d.attempts,
  d.due_at, d.error, d.first_failed_at, d.failed_at
from {schema}.event_dead_letters d
where d.tenant_id = $1 and ($2::text is null or d.consumer = $2)
  and (d.consumer, d.aggregate_type, d.aggregate_id) > ($3, $4, $5)
order by d.consumer, d.aggregate_type, d.aggregate_id
limit $6;

-- name: retry_dead_letters
-- Has aggregates tried again at once, with all attempts: of a consumer, all or that of an event.
-- params: tenant_id text, consumer text, event_id text
-- columns: aggregate_type text, aggregate_id text
-- shard: all, events are on one server
update {schema}.event_dead_letters d set
  attempts = 0,
  due_at = {schema}.pgsaga_now()
where d.tenant_id = $1 and d.consumer = $2 and ($3::text is null or d.event_id = $3)
returning d.aggregate_type, d.aggregate_id;

-- name: skip_dead_letter
-- Passes over the event at which an aggregate waits; those that follow are due at once.
-- params: tenant_id text, consumer text, event_id text
-- columns: aggregate_type text, aggregate_id text, version integer
-- shard: all, events are on one server
update {schema}.event_dead_letters d set
  version = d.version + 1,
  event_id = null,
  event_type = null,
  attempts = 0,
  error = null,
  due_at = {schema}.pgsaga_now()
where d.tenant_id = $1 and d.consumer = $2 and d.event_id = $3
returning d.aggregate_type, d.aggregate_id, d.version - 1 as version;
