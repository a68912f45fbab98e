-- Seals of the event log: hashes of what is sealed, by which changes are found.
--
-- Lock order: a tenant's head, then its seal.
--
-- All of a tenant's events are on one server, so no statement is for a shard.

-- name: read_leaves
-- Events behind a place, and up to another (null: to the horizon, below which everything that
-- will ever be there is there), in the order of reading, with all that is hashed as text: at most a
-- page, and so many bytes as they are stored, but one at least. Behind after_event_id, too, since
-- of several at one place none may be passed over. now is for what is sealed by it.
-- params: tenant_id text, from_era integer, from_tx xid8, from_position bigint, to_era integer,
--   to_tx xid8, to_position bigint, after_era integer, after_tx xid8, after_position bigint,
--   after_event_id text, page bigint, most_bytes bigint
-- columns: era integer, tx xid8, position bigint, event_id text, columns text[],
--   now timestamp with time zone
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
page as materialized (
  select e.*
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.position > 0
    and (e.era, e.tx, e.position) > ($2, $3, $4)
    and (e.era, e.tx, e.position) <= (
      coalesce($5, (select h.era from horizon h)), coalesce($6, (select h.tx from horizon h)),
      coalesce($7, 0::bigint)
    )
    and (e.era, e.tx, e.position, e.event_id) > ($8, $9, $10, $11)
  order by e.era, e.tx, e.position, e.event_id
  limit $12
),
sized as (
  select
    p.*,
    row_number() over w as no,
    sum(pg_catalog.pg_column_size(p.event_data) + pg_catalog.pg_column_size(p.metadata)) over w
      as bytes
  from page p
  window w as (order by p.era, p.tx, p.position, p.event_id)
)
select
  s.era, s.tx, s.position, s.event_id,
  array[
    s.tenant_id, s.aggregate_type, s.aggregate_id, s.version::text, s.era::text, s.tx::text,
    s.position::text, s.event_id, s.event_type, s.schema_version::text, s.event_data::text,
    s.metadata::text, s.tags::text, s.correlation_id, s.causation_id, s.session_id::text,
    s.checkpoint_id, extract(epoch from s.timestamp)::text, extract(epoch from s.recorded_at)::text
  ]::text[] as columns,
  pg_catalog.statement_timestamp() as now
from sized s
where s.no = 1 or s.bytes <= $13
order by s.no;

-- name: list_misplaced
-- Events that have a place which no append gives, so that no seal will ever have them: a position
-- that isn't read, or a transaction that hasn't begun.
-- params: tenant_id text, page bigint
-- columns: event_id text
-- shard: all, events are on one server
with horizon as materialized (
  select
    case when l.system_identifier = c.system_identifier then l.era else l.era + 1 end as era,
    pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) as tx
  from (
    select e.era, e.system_identifier from {schema}.event_eras e order by e.era desc limit 1
  ) l
  cross join pg_catalog.pg_control_system() c
),
misplaced as (
  select e.event_id
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.position <= 0
  union all
  select e.event_id
  from {schema}.agent_events e
  where e.tenant_id = $1 and e.position > 0
    and (e.era, e.tx, e.position)
      >= ((select h.era from horizon h), (select h.tx from horizon h), 0::bigint)
)
select m.event_id from misplaced m order by m.event_id limit $2;

-- name: read_leaf
-- One event as it is hashed.
-- params: tenant_id text, event_id text
-- columns: era integer, tx xid8, position bigint, event_id text, columns text[]
-- shard: all, events are on one server
select
  s.era, s.tx, s.position, s.event_id,
  array[
    s.tenant_id, s.aggregate_type, s.aggregate_id, s.version::text, s.era::text, s.tx::text,
    s.position::text, s.event_id, s.event_type, s.schema_version::text, s.event_data::text,
    s.metadata::text, s.tags::text, s.correlation_id, s.causation_id, s.session_id::text,
    s.checkpoint_id, extract(epoch from s.timestamp)::text, extract(epoch from s.recorded_at)::text
  ]::text[] as columns
from (
  select a.* from {schema}.agent_events a
  where (a.tenant_id, a.event_id) >= ($1, $2)
  order by a.tenant_id, a.event_id
  limit 1
) s
where s.tenant_id = $1 and s.event_id = $2;

-- name: get_head
-- Where the chain is: the head, null where there is none; the number of the last seal that is
-- stored; and of the seal that the head names its hash and its last place.
-- params: tenant_id text
-- columns: number bigint, hash bytea, greatest bigint, seal_hash bytea, last_era integer,
--   last_tx xid8, last_position bigint
-- shard: all, events are on one server
select
  h.number, h.hash, g.number as greatest, s.hash as seal_hash, s.last_era, s.last_tx,
  s.last_position
from (
  select max(m.number) as number from {schema}.event_seals m where m.tenant_id = $1
) g
left join {schema}.event_seal_heads h on h.tenant_id = $1
left join {schema}.event_seals s on s.tenant_id = $1 and s.number = h.number;

-- name: insert_seal
-- Stores the next seal, and makes it the head; nothing where the head is another one than
-- previous by now.
-- params: tenant_id text, number bigint, first_era integer, first_tx xid8, first_position bigint,
--   last_era integer, last_tx xid8, last_position bigint, events integer, leaves bytea, root bytea,
--   previous bytea, hash bytea, sealed_at timestamp with time zone
-- columns: number bigint
-- shard: all, events are on one server
with head as (
  insert into {schema}.event_seal_heads as h (tenant_id, number, hash)
  values ($1, $2, $13)
  on conflict (tenant_id) do update
  set number = excluded.number, hash = excluded.hash
  where h.number = excluded.number - 1 and h.hash = $12
  returning number
)
insert into {schema}.event_seals (
  tenant_id, number, first_era, first_tx, first_position, last_era, last_tx, last_position,
  events, leaves, root, previous, hash, sealed_at
)
select $1, h.number, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
from head h
returning number;

-- name: list_seals
-- Seals above a number, up to another, in order.
-- params: tenant_id text, after_number bigint, to_number bigint, page bigint
-- columns: number bigint, first_era integer, first_tx xid8, first_position bigint,
--   last_era integer, last_tx xid8, last_position bigint, events integer, leaves bytea, root bytea,
--   previous bytea, hash bytea, sealed_at text
-- shard: all, events are on one server
select
  s.number, s.first_era, s.first_tx, s.first_position, s.last_era, s.last_tx, s.last_position,
  s.events, s.leaves, s.root, s.previous, s.hash,
  extract(epoch from s.sealed_at)::text as sealed_at
from {schema}.event_seals s
where s.tenant_id = $1 and s.number > $2 and s.number <= $3
order by s.number
limit $4;

-- name: list_seal_hashes
-- The hashes of seals above a number, up to another, in order.
-- params: tenant_id text, after_number bigint, to_number bigint, page bigint
-- columns: number bigint, hash bytea
-- shard: all, events are on one server
select s.number, s.hash
from {schema}.event_seals s
where s.tenant_id = $1 and s.number > $2 and s.number <= $3
order by s.number
limit $4;

-- name: find_seal
-- The seal whose events reach to a place or beyond, and the first that does.
-- params: tenant_id text, era integer, tx xid8, position bigint
-- columns: number bigint, first_era integer, first_tx xid8, first_position bigint,
--   last_era integer, last_tx xid8, last_position bigint, events integer, leaves bytea, root bytea,
--   previous bytea, hash bytea, sealed_at text
-- shard: all, events are on one server
select
  s.number, s.first_era, s.first_tx, s.first_position, s.last_era, s.last_tx, s.last_position,
  s.events, s.leaves, s.root, s.previous, s.hash,
  extract(epoch from s.sealed_at)::text as sealed_at
from {schema}.event_seals s
where s.tenant_id = $1 and (s.last_era, s.last_tx, s.last_position) >= ($2, $3, $4)
order by s.last_era, s.last_tx, s.last_position
limit 1;

-- name: list_tenants
-- The tenants that have events, behind one (null: from the first).
-- params: after_tenant text, page bigint
-- columns: tenant_id text
-- shard: all, events are on one server
with recursive tenants as (
  (
    select e.tenant_id, 1::bigint as no
    from {schema}.agent_events e
    where $1::text is null or e.tenant_id > $1
    order by e.tenant_id
    limit 1
  )
  union all
  select n.tenant_id, t.no + 1
  from tenants t
  cross join lateral (
    select e.tenant_id from {schema}.agent_events e
    where e.tenant_id > t.tenant_id
    order by e.tenant_id
    limit 1
  ) n
  where t.no < $2
)
select t.tenant_id from tenants t order by t.tenant_id limit $2;
