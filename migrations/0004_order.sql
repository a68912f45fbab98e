-- The order of checkpoints is the order in which they were written.
--
-- Why: ids are made from the clock of the host that writes. One whose clock is ten seconds
-- behind gave its checkpoints ids below those that it went on from, and by ids its run was
-- no part of the latest state.
--
-- The model in a page:
--   Every checkpoint has a position, which the statement that stores it gives it while it
--   holds the session's row: the server's time in microseconds, or, where that isn't higher
--   than the session's last_position, the next numbers after that. So within a thread, all
--   of its namespaces together, positions rise in the order of writing, whatever any clock
--   says; across threads they rise with the server's time. Latest, newest first, before, the
--   last n, up to: all of that goes by position. Ids only name.
--   A repeated put of an id keeps its position. Numbers may be left out. Copies keep the
--   positions of their source.
--   deletion_count goes up with every deletion of checkpoints of a session. A process knows
--   under which count it read or wrote a checkpoint. A put below that one is stored at once
--   only while the count is still the same; else it is asked first whether its parent is
--   still there.
--
-- Existing checkpoints get the order of their ids within the thread, as it was until now, at
-- the times at which they were stored.
--
-- Locks: agent_states and agent_sessions against everything until the file is done, since
-- every row of agent_states is written anew and its indexes are built: 29 s for 300,000
-- checkpoints of 1 KB on a busy machine of two cores. The table takes twice its size until
-- it is vacuumed.
--
-- Processes of earlier releases can't write checkpoints any more: they would give them no
-- place in the order.

alter table {schema}.agent_sessions
  -- The highest position given out.
  add column last_position bigint not null default 0,
  add column deletion_count integer not null default 0;

alter table {schema}.agent_states add column position bigint;

-- Made anew below, or replaced: rows are updated faster without them.
drop index {schema}.agent_states_recent_idx;
drop index {schema}.agent_states_metadata_idx;

-- The time of each, or the number after the last one's where the time isn't higher.
with numbered as (
  select
    s.session_id, s.checkpoint_ns, s.checkpoint_id,
    (extract(epoch from s.created_at) * 1000000)::bigint as moment,
    row_number() over (
      partition by s.session_id order by s.checkpoint_id, s.checkpoint_ns
    ) as number
  from {schema}.agent_states s
),
placed as (
  select
    n.session_id, n.checkpoint_ns, n.checkpoint_id,
    n.number + max(n.moment - n.number) over (
      partition by n.session_id order by n.number
    ) as position
  from numbered n
)
update {schema}.agent_states s
set position = p.position
from placed p
where s.session_id = p.session_id
  and s.checkpoint_ns = p.checkpoint_ns
  and s.checkpoint_id = p.checkpoint_id;

update {schema}.agent_sessions t
set last_position = l.position
from (
  select s.session_id, max(s.position) as position
  from {schema}.agent_states s
  group by s.session_id
) l
where t.session_id = l.session_id;

alter table {schema}.agent_states alter column position set not null;

create index agent_states_metadata_idx on {schema}.agent_states
  using gin (metadata jsonb_path_ops);
-- Of all rows, but for such statements only as say so. Else a plan made while the tables
-- were small could take it to find a checkpoint by its id, and read all of the thread.
create index agent_states_order_idx on {schema}.agent_states
  (session_id, checkpoint_ns, position) where position > 0;
-- For listings across threads only. As an expression, since such a plan could else take it
-- for one thread's latest checkpoint, and read everybody's.
create index agent_states_recent_idx on {schema}.agent_states ((- position));

alter type {schema}.pgsaga_new_session
  -- How many of its checkpoints the statement stores.
  add attribute new_states integer,
  -- Under which the parents of these were there; null where it doesn't matter.
  add attribute deletion_count integer;

alter type {schema}.pgsaga_new_state
  -- How many of the session's checkpoints in the statement come after it.
  add attribute followers integer;

create or replace view {schema}.agent_state_history as
select
  s.session_id,
  t.thread_id,
  s.checkpoint_ns,
  s.checkpoint_id,
  s.parent_checkpoint_id,
  s.checkpoint_name,
  s.position = max(s.position)
    over (partition by s.session_id, s.checkpoint_ns) as is_current,
  encode(sha256(convert_to((s.state_data -> 'channel_versions')::text, 'UTF8')), 'hex')
    as state_hash,
  s.metadata ->> 'source' as source,
  -- Metadata is the user's: one odd row must not fail the view for all.
  case when s.metadata ->> 'step' ~ '^-?[0-9]{1,9}$' then (s.metadata ->> 'step')::integer end
    as step,
  s.state_data,
  s.metadata,
  s.created_at,
  s.position
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id;

create or replace view {schema}.agent_conversations as
select
  t.thread_id,
  t.user_id,
  v.channel,
  row_number() over (
    partition by t.session_id, v.channel order by run.i, m.message_no
  )::integer as position,
  m.role,
  m.message_type,
  m.content,
  m.metadata,
  m.message_id,
  m.message_no,
  m.created_at
from {schema}.agent_sessions t
cross join lateral (
  select s.state_data -> 'channel_versions' as versions
  from {schema}.agent_states s
  where s.session_id = t.session_id and s.checkpoint_ns = '' and s.position > 0
  order by s.position desc
  limit 1
) latest
cross join lateral jsonb_each_text(latest.versions) c (channel, version)
join {schema}.agent_state_values v
  on v.session_id = t.session_id and v.checkpoint_ns = ''
  and v.channel = c.channel and v.version = c.version
cross join lateral generate_series(1, cardinality(v.message_runs), 2) run (i)
join {schema}.agent_messages m
  on m.session_id = t.session_id
  and m.message_no between v.message_runs[run.i] and v.message_runs[run.i + 1];

comment on column {schema}.agent_state_history.is_current is
  'Whether it was written last in its thread and namespace.';
comment on column {schema}.agent_state_history.position is
  'The order in which the thread''s checkpoints were written: the highest is the latest.';
