-- The saver's hot statements: put, put_writes and get_tuple, each one round trip.
--
-- Lock order: the agent_sessions row, then the rows of that session.

-- name: put_checkpoint
-- Stores a checkpoint with all that is new in it, in one statement.
-- Returns no row where the caller's message numbers are stale (messages of the
-- session were deleted since it learned them): nothing was stored then, and the
-- caller sends every message again. A reference below zero in run_starts,
-- run_ends and parents means the message at that place of this call's arrays.
-- params: session_id uuid, thread_id text, user_id text, agent_type text, priority integer, session_metadata jsonb, message_epoch bigint, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, state_data jsonb, metadata jsonb, exact_type text, exact bytea, channels text[], versions text[], types text[], payloads bytea[], blob_hashes bytea[], run_values integer[], run_starts integer[], run_ends integer[], hashes bytea[], blobs bytea[], digests bytea[], message_ids text[], parents integer[], message_types text[], roles text[], contents text[], message_metadata jsonb[], payload_types text[], message_payloads bytea[]
-- columns: message_epoch bigint, message_nos integer[]
with seen as (
  select message_epoch from {schema}.agent_sessions where session_id = $1
),
held as (
  select n.place::integer as place, m.message_no
  from unnest($25::bytea[]) with ordinality n (digest, place)
  cross join lateral (
    select a.message_no from {schema}.agent_messages a
    where a.session_id = $1 and a.digest = n.digest
    limit 1
  ) m
),
fresh as (
  select n.place, row_number() over (order by n.place)::integer as rank
  from generate_series(1, cardinality($25::bytea[])) n (place)
  where not exists (select from held h where h.place = n.place)
),
session as (
  insert into {schema}.agent_sessions as s
    (session_id, thread_id, user_id, agent_type, priority, metadata, message_count)
  values ($1, $2, $3, $4, coalesce($5, 0), $6, (select count(*) from fresh))
  on conflict (session_id) do update set
    last_activity_at = now(),
    message_count = s.message_count + excluded.message_count,
    user_id = case when s.user_id = '' then excluded.user_id else s.user_id end,
    agent_type = case when s.agent_type = '' then excluded.agent_type else s.agent_type end,
    priority = coalesce($5, s.priority)
  where s.message_epoch = coalesce($7, (select message_epoch from seen), s.message_epoch)
    or cardinality($20::integer[]) = 0
  returning s.message_epoch, s.message_count
),
-- Numbers that the caller knows, or that this statement's snapshot has, are good only if
-- the row that was locked (or made anew, after a deletion) is still of their epoch. A call
-- without messages has none.
live as (
  select message_epoch, message_count from session
  where message_epoch = coalesce($7, (select message_epoch from seen), message_epoch)
    or cardinality($20::integer[]) = 0
),
numbered as (
  select h.place, h.message_no from held h
  union all
  select f.place, l.message_count - (select count(*)::integer from fresh) + f.rank
  from fresh f cross join live l
),
new_messages as (
  insert into {schema}.agent_messages as m
    (session_id, message_no, message_id, parent_message_no, message_type, role, content,
     metadata, digest, payload_type, payload)
  select
    $1, n.message_no, i.message_id,
    case when i.parent < 0 then p.message_no else i.parent end,
    i.message_type, i.role, i.content, i.metadata, i.digest, i.payload_type, i.payload
  from live
  cross join unnest(
    $25::bytea[], $26::text[], $27::integer[], $28::text[], $29::text[], $30::text[],
    $31::jsonb[], $32::text[], $33::bytea[]
  ) with ordinality i (
    digest, message_id, parent, message_type, role, content, metadata, payload_type, payload,
    place
  )
  join fresh f on f.place = i.place
  join numbered n on n.place = i.place
  left join numbered p on p.place = -i.parent
  -- Another process stored the same message while this statement waited for the session.
  on conflict (session_id, digest) do update set digest = excluded.digest
  returning m.message_no, m.digest
),
placed as (
  select h.place, h.message_no from held h
  union all
  select n.place::integer, m.message_no
  from new_messages m
  join unnest($25::bytea[]) with ordinality n (digest, place) on n.digest = m.digest
),
runs as (
  select r.value_no, array_agg(e.message_no order by r.place, e.side) as message_runs
  from unnest($20::integer[], $21::integer[], $22::integer[])
    with ordinality r (value_no, first_no, last_no, place)
  left join placed f on f.place = -r.first_no
  left join placed l on l.place = -r.last_no
  cross join lateral (
    values (0, coalesce(f.message_no, r.first_no)), (1, coalesce(l.message_no, r.last_no))
  ) e (side, message_no)
  group by r.value_no
),
new_blobs as (
  insert into {schema}.agent_state_blobs (session_id, hash, payload)
  select $1, b.hash, b.payload
  from live cross join unnest($23::bytea[], $24::bytea[]) b (hash, payload)
  on conflict (session_id, hash) do nothing
),
new_values as (
  insert into {schema}.agent_state_values
    (session_id, checkpoint_ns, channel, version, type, payload, blob_hash, message_runs)
  select $1, $8, v.channel, v.version, v.type, v.payload, v.blob_hash, r.message_runs
  from live
  cross join unnest($15::text[], $16::text[], $17::text[], $18::bytea[], $19::bytea[])
    with ordinality v (channel, version, type, payload, blob_hash, value_no)
  left join runs r on r.value_no = v.value_no
  on conflict (session_id, checkpoint_ns, channel, version) do nothing
),
new_state as (
  insert into {schema}.agent_states as s
    (session_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, state_data, metadata,
     exact_type, exact)
  select $1, $8, $9, $10, $11, $12, $13, $14 from live
  on conflict (session_id, checkpoint_ns, checkpoint_id) do update set
    parent_checkpoint_id = excluded.parent_checkpoint_id,
    state_data = excluded.state_data,
    metadata = excluded.metadata,
    exact_type = excluded.exact_type,
    exact = excluded.exact
)
select
  l.message_epoch,
  (select array_agg(p.message_no order by p.place) from placed p) as message_nos
from live l;

-- name: put_writes
-- Stores a task's pending writes. Regular ones (idx >= 0) are written once; special
-- ones (errors, interrupts, ...) replace what stands at their place.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, task_id text, task_path text, idxs integer[], channels text[], types text[], payloads bytea[]
insert into {schema}.agent_state_writes as w
  (session_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, payload)
select $1, $2, $3, $4, n.idx, $5, n.channel, n.type, n.payload
from unnest($6::integer[], $7::text[], $8::text[], $9::bytea[]) n (idx, channel, type, payload)
on conflict (session_id, checkpoint_ns, checkpoint_id, task_id, idx) do update set
  channel = excluded.channel,
  task_path = excluded.task_path,
  type = excluded.type,
  payload = excluded.payload,
  blob_hash = null
where w.idx < 0;

-- name: put_large_writes
-- put_writes for calls with values that are stored by hash. Holding the session's
-- row keeps a deletion from taking a blob that this statement found in place.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, task_id text, task_path text, idxs integer[], channels text[], types text[], payloads bytea[], blob_hashes bytea[], hashes bytea[], blobs bytea[]
with held as (
  select 1 from {schema}.agent_sessions where session_id = $1 for key share
),
new_blobs as (
  insert into {schema}.agent_state_blobs (session_id, hash, payload)
  select $1, b.hash, b.payload
  from unnest($11::bytea[], $12::bytea[]) b (hash, payload)
  where (select count(*) from held) >= 0
  on conflict (session_id, hash) do nothing
)
insert into {schema}.agent_state_writes as w
  (session_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, payload,
   blob_hash)
select $1, $2, $3, $4, n.idx, $5, n.channel, n.type, n.payload, n.blob_hash
from unnest($6::integer[], $7::text[], $8::text[], $9::bytea[], $10::bytea[])
  n (idx, channel, type, payload, blob_hash)
on conflict (session_id, checkpoint_ns, checkpoint_id, task_id, idx) do update set
  channel = excluded.channel,
  task_path = excluded.task_path,
  type = excluded.type,
  payload = excluded.payload,
  blob_hash = excluded.blob_hash
where w.idx < 0;

-- name: get_checkpoint
-- One checkpoint (the latest of the namespace where checkpoint_id is null) with its
-- values, messages and pending writes: one row of kind 'state', then the others.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text
-- columns: kind text, name text, ref text, path text, no bigint, type text, payload bytea, message_runs integer[], state_data jsonb, metadata jsonb
with state as materialized (
  select
    s.checkpoint_id, s.parent_checkpoint_id, s.state_data, s.metadata, s.exact_type, s.exact
  from {schema}.agent_states s
  where s.session_id = $1 and s.checkpoint_ns = $2
    -- Above every id: the latest is the highest, and the index serves both cases.
    and s.checkpoint_id <= coalesce($3, chr(1114111))
  order by s.checkpoint_id desc
  limit 1
),
wanted as materialized (
  select * from state where checkpoint_id = coalesce($3, checkpoint_id)
),
held_values as materialized (
  select c.channel, c.version, v.type, coalesce(v.payload, b.payload) as payload, v.message_runs
  from wanted s
  cross join lateral jsonb_each_text(s.state_data -> 'channel_versions') c (channel, version)
  cross join lateral (
    select a.type, a.payload, a.blob_hash, a.message_runs
    from {schema}.agent_state_values a
    where a.session_id = $1 and a.checkpoint_ns = $2
      and a.channel = c.channel and a.version = c.version
    limit 1
  ) v
  left join lateral (
    select a.payload from {schema}.agent_state_blobs a
    where a.session_id = $1 and a.hash = v.blob_hash
    limit 1
  ) b on true
)
select
  'state' as kind, s.checkpoint_id as name, s.parent_checkpoint_id as ref, null::text as path,
  (select e.message_epoch from {schema}.agent_sessions e where e.session_id = $1) as no,
  s.exact_type as type, s.exact as payload, null::integer[] as message_runs,
  s.state_data, s.metadata
from wanted s
union all
select 'value', v.channel, v.version, null, null, v.type, v.payload, v.message_runs, null, null
from held_values v
union all
select 'message', null, null, null, m.message_no, m.payload_type, m.payload, null, null, null
from (
  select distinct u.first_no, v.message_runs[(u.i + 1)::integer] as last_no
  from held_values v
  cross join lateral unnest(v.message_runs) with ordinality u (first_no, i)
  where u.i % 2 = 1
) r
cross join lateral (
  select a.message_no, a.payload_type, a.payload from {schema}.agent_messages a
  where a.session_id = $1 and a.message_no between r.first_no and r.last_no
  order by a.message_no
) m
union all
select
  'write', w.channel, w.task_id, w.task_path, w.idx, w.type, coalesce(w.payload, b.payload),
  null, null, null
from wanted s
cross join lateral (
  select a.* from {schema}.agent_state_writes a
  where a.session_id = $1 and a.checkpoint_ns = $2 and a.checkpoint_id = s.checkpoint_id
  offset 0
) w
left join lateral (
  select a.payload from {schema}.agent_state_blobs a
  where a.session_id = $1 and a.hash = w.blob_hash
  limit 1
) b on true;

-- name: select_pending_sends
-- The Send writes of a checkpoint, which checkpoints before format 4 take from their parent.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, channel text
-- columns: type text, payload bytea
select w.type, coalesce(w.payload, b.payload) as payload
from {schema}.agent_state_writes w
left join {schema}.agent_state_blobs b on b.session_id = w.session_id and b.hash = w.blob_hash
where w.session_id = $1 and w.checkpoint_ns = $2 and w.checkpoint_id = $3 and w.channel = $4
order by w.task_path, w.task_id, w.idx;
