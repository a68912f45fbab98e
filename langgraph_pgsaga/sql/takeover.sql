-- Taking threads over from another saver: one taker per thread, and which threads are whole.
--
-- Lock order: the advisory lock of a thread, then what the saver's own statements lock.
-- Nothing that holds a row of agent_sessions waits for the advisory lock.

-- name: lock_takeover
-- Waits until nobody else takes this thread over; held to the end of the transaction.
-- params: session_id uuid
-- columns: pg_advisory_xact_lock void
-- shard: session_id
select pg_advisory_xact_lock(hashtextextended('pgsaga takeover ' || $1::uuid::text, 0::bigint));

-- name: check_takeover
-- Answers while the connection is there, and with it the lock.
-- columns: is_there boolean
-- shard: all, reads no table
select true as is_there;

-- name: set_times
-- Checkpoints, and the messages that they have, were stored when the source stored them: the
-- messages with the first checkpoint that has them. Times only go back.
-- params: session_id uuid, checkpoint_nss text[], checkpoint_ids text[],
--   times timestamp with time zone[]
-- shard: session_id
with session as materialized (
  select s.session_id from {schema}.agent_sessions s where s.session_id = $1 for update
),
given as materialized (
  select c.session_id, i.checkpoint_ns, i.checkpoint_id, i.time
  from session c
  cross join unnest($2::text[], $3::text[], $4::timestamptz[])
    i (checkpoint_ns, checkpoint_id, time)
),
states as (
  update {schema}.agent_states s
  set created_at = g.time
  from given g
  where s.session_id = $1 and s.checkpoint_ns = g.checkpoint_ns
    and s.checkpoint_id = g.checkpoint_id and s.created_at > g.time
),
held as materialized (
  select s.checkpoint_ns, c.channel, c.version, min(g.time) as time
  from given g
  cross join lateral (
    select a.checkpoint_ns, a.state_data from {schema}.agent_states a
    where a.session_id = $1 and a.checkpoint_ns = g.checkpoint_ns
      and a.checkpoint_id = g.checkpoint_id
    limit 1
  ) s
  cross join lateral jsonb_each_text(s.state_data -> 'channel_versions'::text) c (channel, version)
  group by s.checkpoint_ns, c.channel, c.version
),
said as materialized (
  select m.message_no, min(h.time) as time
  from held h
  cross join lateral (
    select a.message_runs from {schema}.agent_state_values a
    where a.session_id = $1 and a.checkpoint_ns = h.checkpoint_ns
      and a.channel = h.channel and a.version = h.version
    limit 1
  ) v
  cross join lateral generate_series(1, pg_catalog.cardinality(v.message_runs), 2) run (i)
  join {schema}.agent_messages m
    on m.session_id = $1 and m.created_at > h.time
    and m.message_no between v.message_runs[run.i] and v.message_runs[run.i + 1]
  group by m.message_no
)
update {schema}.agent_messages m
set created_at = d.time
from said d
where m.session_id = $1 and m.message_no = d.message_no;

-- name: order_checkpoints
-- The given checkpoints get the order in which they are given, at the places that they have
-- together: one that couldn't be stored at first comes after those that could.
-- params: session_id uuid, checkpoint_nss text[], checkpoint_ids text[]
-- shard: session_id
with session as materialized (
  select s.session_id from {schema}.agent_sessions s where s.session_id = $1 for update
),
given as materialized (
  select
    s.checkpoint_ns, s.checkpoint_id, s.position,
    row_number() over (order by i.place) as wanted,
    row_number() over (order by s.position) as place
  from session c
  cross join unnest($2::text[], $3::text[]) with ordinality
    i (checkpoint_ns, checkpoint_id, place)
  join {schema}.agent_states s
    on s.session_id = $1 and s.checkpoint_ns = i.checkpoint_ns
    and s.checkpoint_id = i.checkpoint_id
)
update {schema}.agent_states s
set position = p.position
from given g
join given p on p.place = g.wanted
where s.session_id = $1 and s.checkpoint_ns = g.checkpoint_ns
  and s.checkpoint_id = g.checkpoint_id and s.position <> p.position;

-- name: end_takeover
-- The session is as old as its first checkpoint, and was active last with its last one, or,
-- with is_active, is so now. With taken_over_to the thread is whole here up to this checkpoint of the
-- other saver. That mark goes with the session's row when the thread is deleted; a copy of the
-- thread has none.
-- params: session_id uuid, taken_over_to text, is_active boolean
-- shard: session_id
with clock as materialized (
  select now() as at
)
update {schema}.agent_sessions t set
  taken_over_to = coalesce($2, t.taken_over_to),
  created_at = least(t.created_at, o.first_at),
  last_activity_at = case when $3 then k.at else coalesce(o.last_at, t.last_activity_at) end
from (
  select min(s.created_at) as first_at, max(s.created_at) as last_at
  from {schema}.agent_states s
  where s.session_id = $1
) o
cross join clock k
where t.session_id = $1;

-- name: begin_takeover
-- Notes beside the mark that newer checkpoints are on their way from the source, so that they
-- aren't taken for those of runs here if the import ends halfway. The next end_takeover
-- replaces the mark. Not in the lock's transaction, whose changes are seen only at its end.
-- params: session_id uuid
-- shard: session_id
update {schema}.agent_sessions t set taken_over_to = t.taken_over_to || '/coming'
where t.session_id = $1
  and t.taken_over_to not like '%/coming'::text;

-- name: select_taken_over
-- Up to which checkpoint the thread was taken over, and whether runs here made newer ones, as
-- far as that is known; no row where it wasn't taken over, or not whole.
-- params: session_id uuid
-- columns: checkpoint_id text, went_on boolean
-- shard: session_id
select
  m.checkpoint_id,
  t.taken_over_to = m.checkpoint_id and exists (
    select from {schema}.agent_states s
    where s.session_id = $1 and case
      when m.position is null then s.checkpoint_id > m.checkpoint_id
      else s.position > m.position
    end
  ) as went_on
from {schema}.agent_sessions t
cross join lateral (
  select regexp_replace(t.taken_over_to, '/coming$'::text, ''::text) as checkpoint_id
) c
cross join lateral (
  select c.checkpoint_id, max(s.position) as position from {schema}.agent_states s
  where s.session_id = $1 and s.checkpoint_id = c.checkpoint_id
) m
where t.session_id = $1
  and t.taken_over_to is not null;
