-- Reading many checkpoints: pages of states, then what of their contents isn't there yet.

-- The four listings: newest first, each the next page after the checkpoint that
-- (after_id, after_ns, after_session) name, or the first where after_id is null. Apart
-- from those two, a filter that is null doesn't filter. They are four because the index
-- that serves them differs, and a generic plan can't choose at run time.

-- name: list_namespace
-- The checkpoints of a thread's namespace.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, metadata jsonb, before_id text, after_id text, page bigint
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id
where s.session_id = $1
  and s.checkpoint_ns = $2
  and ($3::text is null or s.checkpoint_id = $3)
  and ($4::jsonb is null or s.metadata @> $4)
  and s.checkpoint_id < coalesce($5, chr(1114111))
  and s.checkpoint_id < coalesce($6, chr(1114111))
order by s.checkpoint_id desc
limit $7;

-- name: list_thread
-- The checkpoints of all of a thread's namespaces.
-- params: session_id uuid, checkpoint_id text, metadata jsonb, before_id text, after_id text, after_ns text, page bigint
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id
where s.session_id = $1
  and ($2::text is null or s.checkpoint_id = $2)
  and ($3::jsonb is null or s.metadata @> $3)
  and ($4::text is null or s.checkpoint_id < $4)
  and ($5::text is null or (s.checkpoint_id, s.checkpoint_ns) < ($5, $6::text))
order by s.checkpoint_id desc, s.checkpoint_ns desc
limit $7;

-- name: list_all
-- The checkpoints of all threads.
-- params: before_id text, after_id text, after_ns text, after_session uuid, page bigint
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id
where (s.checkpoint_id || '') <= coalesce($2, chr(1114111))
  and ($1::text is null or s.checkpoint_id < $1)
  and ($2::text is null
    or (s.checkpoint_id, s.checkpoint_ns, s.session_id) < ($2, $3::text, $4::uuid))
order by (s.checkpoint_id || '') desc, s.checkpoint_ns desc, s.session_id desc
limit $5;

-- name: list_by_metadata
-- The checkpoints of all threads whose metadata contains the given.
-- params: metadata jsonb, before_id text, after_id text, after_ns text, after_session uuid, page bigint
-- columns: session_id uuid, thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea
select
  s.session_id, t.thread_id, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id,
  s.state_data, s.metadata, s.exact_type, s.exact
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id
where s.metadata @> $1
  and ($2::text is null or s.checkpoint_id < $2)
  and ($3::text is null
    or (s.checkpoint_id, s.checkpoint_ns, s.session_id) < ($3, $4::text, $5::uuid))
order by s.checkpoint_id desc, s.checkpoint_ns desc, s.session_id desc
limit $6;

-- name: select_values
-- The stored values at the given versions; a version without a value has no row.
-- params: session_ids uuid[], checkpoint_nss text[], channels text[], versions text[]
-- columns: session_id uuid, checkpoint_ns text, channel text, version text, type text, payload bytea, message_runs integer[]
select
  k.session_id, k.checkpoint_ns, k.channel, k.version, v.type,
  coalesce(v.payload, {schema}.pgsaga_joined_blobs(k.session_id, v.blob_hashes)) as payload,
  v.message_runs
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
  k (session_id, checkpoint_ns, channel, version)
cross join lateral (
  select a.type, a.payload, a.blob_hashes, a.message_runs
  from {schema}.agent_state_values a
  where a.session_id = k.session_id and a.checkpoint_ns = k.checkpoint_ns
    and a.channel = k.channel and a.version = k.version
  limit 1
) v;

-- name: select_messages
-- The messages of the given runs.
-- params: session_ids uuid[], first_nos integer[], last_nos integer[]
-- columns: session_id uuid, message_no integer, payload_type text, payload bytea
select r.session_id, m.message_no, m.payload_type, m.payload
from unnest($1::uuid[], $2::integer[], $3::integer[]) r (session_id, first_no, last_no)
cross join lateral (
  select a.message_no, a.payload_type, a.payload from {schema}.agent_messages a
  where a.session_id = r.session_id and a.message_no between r.first_no and r.last_no
  order by a.message_no
) m;

-- name: select_writes
-- The pending writes of the given checkpoints.
-- params: session_ids uuid[], checkpoint_nss text[], checkpoint_ids text[]
-- columns: session_id uuid, checkpoint_ns text, checkpoint_id text, task_id text, task_path text, idx integer, channel text, type text, payload bytea, message_runs integer[]
select
  k.session_id, k.checkpoint_ns, k.checkpoint_id, w.task_id, w.task_path, w.idx, w.channel,
  w.type,
  coalesce(w.payload, {schema}.pgsaga_joined_blobs(k.session_id, w.blob_hashes)) as payload,
  w.message_runs
from unnest($1::uuid[], $2::text[], $3::text[]) k (session_id, checkpoint_ns, checkpoint_id)
cross join lateral (
  select a.* from {schema}.agent_state_writes a
  where a.session_id = k.session_id and a.checkpoint_ns = k.checkpoint_ns
    and a.checkpoint_id = k.checkpoint_id
  offset 0
) w;

-- name: walk_delta_channels
-- The way back from a checkpoint's parent, newest first: per ancestor which of the
-- channels are still looking for a stored value (open_channels) and which of those
-- find it there (inline or in agent_state_values). The walk ends where none is open.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, channels text[]
-- columns: depth integer, checkpoint_id text, open_channels text[], found_channels text[], state_data jsonb
with recursive target as (
  select s.parent_checkpoint_id
  from {schema}.agent_states s
  where s.session_id = $1 and s.checkpoint_ns = $2
    and s.checkpoint_id <= coalesce($3, chr(1114111))
    and s.checkpoint_id = coalesce($3, s.checkpoint_id)
  order by s.checkpoint_id desc
  limit 1
),
walk as (
  select
    1 as depth, s.checkpoint_id, s.parent_checkpoint_id, $4::text[] as open_channels,
    f.found_channels
  from target t
  join {schema}.agent_states s
    on s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = t.parent_checkpoint_id
  cross join lateral {schema}.pgsaga_stored_channels(s, $4::text[]) f (found_channels)
  union all
  select
    w.depth + 1, s.checkpoint_id, s.parent_checkpoint_id, o.open_channels, f.found_channels
  from walk w
  cross join lateral (
    select array_agg(c) as open_channels
    from unnest(w.open_channels) c where c <> all(w.found_channels)
  ) o
  join {schema}.agent_states s
    on s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = w.parent_checkpoint_id
  cross join lateral {schema}.pgsaga_stored_channels(s, o.open_channels) f (found_channels)
  where o.open_channels is not null
)
select
  w.depth, w.checkpoint_id, w.open_channels, w.found_channels,
  case when w.found_channels <> '{}' then s.state_data end as state_data
from walk w
join {schema}.agent_states s
  on s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = w.checkpoint_id
order by w.depth;

-- name: select_channel_writes
-- The writes of the given channels at the given checkpoints, in the order in which
-- live execution applied them, checkpoints in the order of the array.
-- params: session_id uuid, checkpoint_ns text, checkpoint_ids text[], channels text[]
-- columns: checkpoint_id text, task_id text, channel text, type text, payload bytea, message_runs integer[]
select
  w.checkpoint_id, w.task_id, w.channel, w.type,
  coalesce(w.payload, {schema}.pgsaga_joined_blobs($1, w.blob_hashes)) as payload, w.message_runs
from unnest($3::text[]) with ordinality k (checkpoint_id, place)
cross join lateral (
  select a.* from {schema}.agent_state_writes a
  where a.session_id = $1 and a.checkpoint_ns = $2 and a.checkpoint_id = k.checkpoint_id
    and a.channel = any($4::text[])
  offset 0
) w
order by k.place, w.task_path, w.task_id, w.idx;
