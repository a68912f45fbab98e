-- Reading many checkpoints: pages of states, then what of their contents isn't there yet.

-- name: find_place
-- Where in its thread's order a checkpoint of whatever namespace stands: of the given one, or
-- the root graph's, or else the first, for which the thread's part of one index is read, and no
-- other row. One row: its namespace and its position; null where it isn't there.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text
-- columns: place text[]
-- shard: session_id
select coalesce(
  (
    select array[s.checkpoint_ns, s.position::text] from {schema}.agent_states s
    where s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = $3
  ),
  (
    select array[s.checkpoint_ns, s.position::text] from {schema}.agent_states s
    where s.session_id = $1 and s.checkpoint_ns = '' and s.checkpoint_id = $3
  ),
  (
    select array[s.checkpoint_ns, s.position::text] from {schema}.agent_states s
    where s.session_id = $1 and s.checkpoint_id = $3
    order by s.position
    limit 1
  )
) as place;

-- The five listings: newest first, by position. Each is the next page below a place: the
-- position before_position, and of that (where the listing is of all threads) the sessions
-- after after_session; the first page where it is null. Apart from that, a filter that is
-- null doesn't filter. They are five because the index that serves them differs, and a
-- generic plan can't choose at run time.
-- A subgraph's checkpoints are its caller's superstep's, wherever they stand themselves: those of
-- the superstep that followed a checkpoint may be stored before it is (durability "async" and
-- "exit"). So a thread's are before the checkpoint of of_ns at of_position if the one of of_ns
-- that they began at is. Where that was pruned, or isn't saved, their own place tells.

-- name: list_namespace
-- The checkpoints of a thread's namespace.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, metadata jsonb, before_id text, before_position bigint, page bigint, of_ns text, of_position bigint
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea, position bigint, message_epoch bigint, message_count integer, deletion_count integer
-- shard: session_id
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact, s.position, t.message_epoch,
  t.message_count, t.deletion_count
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id
where s.session_id = $1
  and s.checkpoint_ns = $2
  and ($3::text is null or s.checkpoint_id = $3)
  and ($4::jsonb is null or s.metadata @> $4)
  and ($5::text is null or s.checkpoint_id < $5)
  and s.position > 0
  and s.position < coalesce($6, 9223372036854775807)
  and ($9::bigint is null or $9 > coalesce((
    select r.position from {schema}.agent_states r
    where r.session_id = $1 and r.checkpoint_ns = $8
      and r.checkpoint_id = s.metadata -> 'parents'::text ->> $8
  ), 0))
order by s.position desc
limit $7;

-- name: list_thread
-- The checkpoints of all of a thread's namespaces: of each the next ones, and of those the
-- highest. An index on the thread's order alone would cost every put as much as this one's
-- own does.
-- params: session_id uuid, checkpoint_id text, metadata jsonb, before_id text, before_position bigint, page bigint, of_ns text, of_position bigint
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea, position bigint, message_epoch bigint, message_count integer, deletion_count integer
-- shard: session_id
with recursive namespaces as (
  (
    select s.checkpoint_ns from {schema}.agent_states s
    where s.session_id = $1
    order by s.checkpoint_ns
    limit 1
  )
  union all
  select next.checkpoint_ns
  from namespaces n
  cross join lateral (
    select s.checkpoint_ns from {schema}.agent_states s
    where s.session_id = $1 and s.checkpoint_ns > n.checkpoint_ns
    order by s.checkpoint_ns
    limit 1
  ) next
),
page as (
  select n.checkpoint_ns, p.checkpoint_id, p.position
  from namespaces n
  cross join lateral (
    select s.checkpoint_id, s.position from {schema}.agent_states s
    where s.session_id = $1
      and s.checkpoint_ns = n.checkpoint_ns
      and ($2::text is null or s.checkpoint_id = $2)
      and ($3::jsonb is null or s.metadata @> $3)
      and ($4::text is null or s.checkpoint_id < $4)
      and s.position > 0
      and s.position < coalesce($5, 9223372036854775807)
      and ($8::bigint is null or $8 > coalesce((
        select r.position from {schema}.agent_states r
        where r.session_id = $1 and r.checkpoint_ns = $7
          and r.checkpoint_id = s.metadata -> 'parents'::text ->> $7
      ), 0))
    order by s.position desc
    limit $6
  ) p
  order by p.position desc
  limit $6
)
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact, s.position, t.message_epoch,
  t.message_count, t.deletion_count
from page p
cross join lateral (
  select a.* from {schema}.agent_states a
  where a.session_id = $1 and a.checkpoint_ns = p.checkpoint_ns
    and a.checkpoint_id = p.checkpoint_id
  limit 1
) s
join {schema}.agent_sessions t on t.session_id = $1
order by s.position desc;

-- name: list_all
-- The checkpoints of all threads: of every tenant where tenant_id is null, else of that one.
-- Others' are passed over, so it serves '', to which all belong where nobody has tenants.
-- params: before_id text, before_position bigint, after_session uuid, page bigint, tenant_id text
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea, position bigint, message_epoch bigint, message_count integer, deletion_count integer, tenant_id text
-- shard: all, pages run over every thread
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact, s.position, t.message_epoch,
  t.message_count, t.deletion_count, t.tenant_id
from {schema}.agent_states s
cross join lateral (
  select a.* from {schema}.agent_sessions a
  where a.session_id = s.session_id and ($5::text is null or a.tenant_id = $5)
  limit 1
) t
where (- s.position) >= - coalesce($2, 9223372036854775807)
  and ($1::text is null or s.checkpoint_id < $1)
  and ($2::bigint is null or s.position < $2 or s.session_id > $3)
order by (- s.position), s.session_id
limit $4;

-- name: list_tenant
-- The checkpoints of all threads of a tenant, which isn't '': of each thread the next ones, and
-- of those the highest. So nobody else's are read.
-- params: before_id text, before_position bigint, after_session uuid, page bigint, tenant_id text
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea, position bigint, message_epoch bigint, message_count integer, deletion_count integer, tenant_id text
-- shard: all, pages run over every thread of the tenant
with page as materialized (
  select s.session_id, s.checkpoint_ns, s.checkpoint_id, s.position
  from {schema}.agent_sessions t
  cross join lateral (
    select a.session_id, a.checkpoint_ns, a.checkpoint_id, a.position
    from {schema}.agent_states a
    where a.session_id = t.session_id and a.position > 0
      and ($1::text is null or a.checkpoint_id < $1)
      and (
        $2::bigint is null or a.position < $2
        or (a.position = $2 and a.session_id > $3)
      )
    order by a.position desc
    limit $4
  ) s
  where t.tenant_id = $5 and t.tenant_id <> ''::text
  order by s.position desc, s.session_id
  limit $4
)
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact, s.position, t.message_epoch,
  t.message_count, t.deletion_count, t.tenant_id
from page p
cross join lateral (
  select a.* from {schema}.agent_states a
  where a.session_id = p.session_id and a.checkpoint_ns = p.checkpoint_ns
    and a.checkpoint_id = p.checkpoint_id
  limit 1
) s
join {schema}.agent_sessions t on t.session_id = p.session_id
order by s.position desc, s.session_id;

-- name: list_by_metadata
-- The checkpoints of all threads whose metadata contains the given: of every tenant where
-- tenant_id is null, else of that one.
-- params: metadata jsonb, before_id text, before_position bigint, after_session uuid, page bigint, tenant_id text
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea, position bigint, message_epoch bigint, message_count integer, deletion_count integer, tenant_id text
-- shard: all, pages run over every thread
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact, s.position, t.message_epoch,
  t.message_count, t.deletion_count, t.tenant_id
from {schema}.agent_states s
cross join lateral (
  select a.* from {schema}.agent_sessions a
  where a.session_id = s.session_id and ($6::text is null or a.tenant_id = $6)
  limit 1
) t
where s.metadata @> $1
  and ($2::text is null or s.checkpoint_id < $2)
  and ($3::bigint is null or s.position < $3 or (s.position = $3 and s.session_id > $4))
order by s.position desc, s.session_id
limit $5;

-- The contents of checkpoints: of one or more sessions. Each is bound twice, by the row that
-- asks for it and by $1, which says where it is where the tables are distributed.

-- name: select_values
-- The stored values at the given versions; a version without a value has no row.
-- params: session_ids uuid[], checkpoint_nss text[], channels text[], versions text[]
-- columns: session_id uuid, checkpoint_ns text, channel text, version text, type text, payload bytea, message_runs integer[]
-- shard: session_ids
select
  k.session_id, k.checkpoint_ns, k.channel, k.version, v.type, v.payload, v.message_runs
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
  k (session_id, checkpoint_ns, channel, version)
cross join lateral (
  select
    a.type, a.message_runs,
    coalesce(a.payload, (
      select case when count(*) = pg_catalog.cardinality(a.blob_hashes)
        then pg_catalog.string_agg(b.payload, ''::bytea order by h.place) end
      from pg_catalog.unnest(a.blob_hashes) with ordinality h (hash, place)
      cross join lateral (
        select c.payload from {schema}.agent_state_blobs c
        where c.session_id = any($1::uuid[]) and c.session_id = a.session_id and c.hash = h.hash
        limit 1
      ) b
    )) as payload
  from {schema}.agent_state_values a
  where a.session_id = k.session_id and a.session_id = any($1::uuid[])
    and a.checkpoint_ns = k.checkpoint_ns and a.channel = k.channel and a.version = k.version
  limit 1
) v;

-- name: select_messages
-- The messages of the given runs.
-- params: session_ids uuid[], first_nos integer[], last_nos integer[]
-- columns: session_id uuid, message_no integer, payload_type text, payload bytea
-- shard: session_ids
select r.session_id, m.message_no, m.payload_type, m.payload
from unnest($1::uuid[], $2::integer[], $3::integer[]) r (session_id, first_no, last_no)
cross join lateral (
  select a.message_no, a.payload_type, a.payload from {schema}.agent_messages a
  where a.session_id = r.session_id and a.session_id = any($1::uuid[])
    and a.message_no between r.first_no and r.last_no
  order by a.message_no
) m;

-- name: select_writes
-- The pending writes of the given checkpoints.
-- params: session_ids uuid[], checkpoint_nss text[], checkpoint_ids text[]
-- columns: session_id uuid, checkpoint_ns text, checkpoint_id text, task_id text, task_path text, idx integer, channel text, type text, payload bytea, message_runs integer[]
-- shard: session_ids
select
  k.session_id, k.checkpoint_ns, k.checkpoint_id, w.task_id, w.task_path, w.idx, w.channel,
  w.type, w.payload, w.message_runs
from unnest($1::uuid[], $2::text[], $3::text[]) k (session_id, checkpoint_ns, checkpoint_id)
cross join lateral (
  select
    a.task_id, a.task_path, a.idx, a.channel, a.type, a.message_runs,
    coalesce(a.payload, (
      select case when count(*) = pg_catalog.cardinality(a.blob_hashes)
        then pg_catalog.string_agg(b.payload, ''::bytea order by h.place) end
      from pg_catalog.unnest(a.blob_hashes) with ordinality h (hash, place)
      cross join lateral (
        select c.payload from {schema}.agent_state_blobs c
        where c.session_id = any($1::uuid[]) and c.session_id = a.session_id and c.hash = h.hash
        limit 1
      ) b
    )) as payload
  from {schema}.agent_state_writes a
  where a.session_id = k.session_id and a.session_id = any($1::uuid[])
    and a.checkpoint_ns = k.checkpoint_ns and a.checkpoint_id = k.checkpoint_id
  offset 0
) w;

-- name: walk_delta_channels
-- The way back from a checkpoint's parent (without an id: the namespace's latest), newest
-- first: per ancestor which of the channels are still looking for a stored value
-- (open_channels) and which of those find it there (inline or in agent_state_values). The
-- walk ends where none is open, or where it comes to a checkpoint again (is_again): of
-- each round, one step at least leads to a parent that was written after its child, and
-- these are remembered. Before it, at depth 0, a row of the checkpoint itself (without an id
-- where it isn't there) with the session's deletion_count.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, channels text[]
-- columns: depth integer, checkpoint_id text, open_channels text[], found_channels text[], is_again boolean, state_data jsonb, deletion_count integer
-- shard: session_id
with recursive target as (
  select s.checkpoint_id, s.parent_checkpoint_id, s.position
  from {schema}.agent_states s
  where s.session_id = $1 and s.checkpoint_ns = $2
    and s.checkpoint_id = coalesce($3, (
      select l.checkpoint_id from {schema}.agent_states l
      where l.session_id = $1 and l.checkpoint_ns = $2 and l.position > 0
      order by l.position desc
      limit 1
    ))
),
walk as (
  select
    1 as depth, s.checkpoint_id, s.parent_checkpoint_id, s.position,
    $4::text[] as open_channels, f.found_channels,
    case when s.position >= t.position then array[s.position] else '{}' end as younger,
    false as is_again
  from target t
  cross join lateral (
    select a.* from {schema}.agent_states a
    where a.session_id = $1 and a.checkpoint_ns = $2 and a.checkpoint_id = t.parent_checkpoint_id
    limit 1
  ) s
  cross join lateral (
    select coalesce(pg_catalog.array_agg(c), '{}') as found_channels
    from pg_catalog.unnest($4::text[]) c
    where s.state_data -> 'channel_values'::text ? c
      or (
        select true from {schema}.agent_state_values v
        where v.session_id = $1 and v.checkpoint_ns = $2 and v.channel = c
          and v.version = s.state_data -> 'channel_versions'::text ->> c
      )
  ) f
  union all
  select
    w.depth + 1, s.checkpoint_id, s.parent_checkpoint_id, s.position, o.open_channels,
    f.found_channels,
    case
      when s.position >= w.position then pg_catalog.array_append(w.younger, s.position)
      else w.younger
    end,
    s.position >= w.position and s.position = any(w.younger)
  from walk w
  cross join lateral (
    select pg_catalog.array_agg(c) as open_channels
    from pg_catalog.unnest(w.open_channels) c where c <> all(w.found_channels)
  ) o
  cross join lateral (
    select a.* from {schema}.agent_states a
    where a.session_id = $1 and a.checkpoint_ns = $2 and a.checkpoint_id = w.parent_checkpoint_id
    limit 1
  ) s
  cross join lateral (
    select coalesce(pg_catalog.array_agg(c), '{}') as found_channels
    from pg_catalog.unnest(o.open_channels) c
    where s.state_data -> 'channel_values'::text ? c
      or (
        select true from {schema}.agent_state_values v
        where v.session_id = $1 and v.checkpoint_ns = $2 and v.channel = c
          and v.version = s.state_data -> 'channel_versions'::text ->> c
      )
  ) f
  where o.open_channels is not null and not w.is_again
)
select
  0 as depth, t.checkpoint_id, $4::text[] as open_channels, '{}' as found_channels,
  false as is_again, null as state_data, e.deletion_count
from (select) one
left join target t on true
left join {schema}.agent_sessions e on e.session_id = $1
union all
select
  w.depth, w.checkpoint_id, w.open_channels, w.found_channels, w.is_again,
  case when pg_catalog.cardinality(w.found_channels) > 0 then s.state_data end as state_data, null
from walk w
cross join lateral (
  select a.state_data from {schema}.agent_states a
  where a.session_id = $1 and a.checkpoint_ns = $2 and a.checkpoint_id = w.checkpoint_id
  limit 1
) s
order by depth;

-- name: select_channel_writes
-- The writes of the given channels at the given checkpoints, in the order in which
-- live execution applied them, checkpoints in the order of the array.
-- params: session_id uuid, checkpoint_ns text, checkpoint_ids text[], channels text[]
-- columns: checkpoint_id text, task_id text, channel text, type text, payload bytea, message_runs integer[]
-- shard: session_id
select
  w.checkpoint_id, w.task_id, w.channel, w.type,
  coalesce(w.payload, (
    select case when count(*) = pg_catalog.cardinality(w.blob_hashes)
      then pg_catalog.string_agg(b.payload, ''::bytea order by h.place) end
    from pg_catalog.unnest(w.blob_hashes) with ordinality h (hash, place)
    cross join lateral (
      select c.payload from {schema}.agent_state_blobs c
      where c.session_id = $1 and c.hash = h.hash
      limit 1
    ) b
  )) as payload,
  w.message_runs
from pg_catalog.unnest($3::text[]) with ordinality k (checkpoint_id, place)
cross join lateral (
  select a.* from {schema}.agent_state_writes a
  where a.session_id = $1 and a.checkpoint_ns = $2 and a.checkpoint_id = k.checkpoint_id
    and a.channel = any($4::text[])
  offset 0
) w
order by k.place, w.task_path, w.task_id, w.idx;

-- name: select_states
-- The channel versions of some checkpoints.
-- params: session_id uuid, checkpoint_ns text, checkpoint_ids text[]
-- columns: checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea
-- shard: session_id
select s.checkpoint_id, s.state_data, s.metadata, s.exact_type, s.exact
from {schema}.agent_states s
where s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = any ($3);
