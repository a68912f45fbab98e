-- Deleting, pruning and copying. Every transaction here locks the session's row first,
-- so that no put is between its reading and its writing while rows go.

-- name: lock_session
-- Waits for puts of the session to end and holds off further ones.
-- params: session_id uuid
-- columns: session_id uuid
-- shard: session_id
select session_id from {schema}.agent_sessions where session_id = $1 for update;

-- name: lock_free_session
-- lock_session that passes over a session which somebody else holds.
-- params: session_id uuid
-- columns: session_id uuid
-- shard: session_id
select session_id from {schema}.agent_sessions where session_id = $1 for update skip locked;

-- name: claim_session
-- A row to lock where there is none: without it, puts could come between the snapshot
-- of delete_session and its end, and be deleted in part, or into what copy_session makes.
-- delete_session takes it away, copy_session fills it.
-- params: session_id uuid, tenant_id text
-- shard: session_id
insert into {schema}.agent_sessions as s (session_id, thread_id, tenant_id) values ($1, '', $2)
on conflict (session_id) do update set last_activity_at = s.last_activity_at;

-- name: delete_session
-- Everything of a session, its row included. Names a table whose rows are seen and stay: row
-- security has policies for each command, and a deletion that has none passes over them.
-- params: session_id uuid
-- columns: kept_in text
-- shard: session_id
with writes as (
  delete from {schema}.agent_state_writes where session_id = $1 returning 1
),
states as (
  delete from {schema}.agent_states where session_id = $1 returning 1
),
state_values as (
  delete from {schema}.agent_state_values where session_id = $1 returning 1
),
blobs as (
  delete from {schema}.agent_state_blobs where session_id = $1 returning 1
),
messages as (
  delete from {schema}.agent_messages where session_id = $1 returning 1
),
session as (
  delete from {schema}.agent_sessions where session_id = $1 returning 1
)
select case
  when not exists (select from session)
    and exists (select from {schema}.agent_sessions where session_id = $1) then 'agent_sessions'
  when not exists (select from states)
    and exists (select from {schema}.agent_states where session_id = $1) then 'agent_states'
  when not exists (select from state_values)
    and exists (select from {schema}.agent_state_values where session_id = $1)
    then 'agent_state_values'
  when not exists (select from blobs)
    and exists (select from {schema}.agent_state_blobs where session_id = $1)
    then 'agent_state_blobs'
  when not exists (select from messages)
    and exists (select from {schema}.agent_messages where session_id = $1) then 'agent_messages'
  when not exists (select from writes)
    and exists (select from {schema}.agent_state_writes where session_id = $1)
    then 'agent_state_writes'
end as kept_in;

-- name: delete_session_memories
-- What was remembered in a session, with its vectors; is_kept as kept_in of delete_session.
-- params: session_id uuid
-- columns: is_kept boolean
-- shard: all, memories are on one server
with gone as (
  delete from {schema}.agent_memory where session_id = $1 returning 1
)
select
  not exists (select from gone)
  and exists (select from {schema}.agent_memory where session_id = $1) as is_kept;

-- name: select_heads
-- The checkpoints that pruning keeps for their own sake: the last ones of each namespace
-- and, with keep_named, those with a name. With keep_replays also, in the namespaces of
-- subgraphs that go on from call to call, the one that a replay of each of the root
-- graph's starts from: the last one before it. The root graph's namespace comes first, the
-- latest checkpoint of a namespace before its others.
-- With what pruning must know of each: the parent whose Sends it still needs (formats
-- before 4), its delta channels that have no value of their own, and the root graph's
-- checkpoint its subgraph call began at.
-- params: session_id uuid, sends_channel text, keep_last integer, keep_named boolean,
--   keep_replays boolean
-- columns: checkpoint_ns text, checkpoint_id text, is_named boolean, sends_parent_id text,
--   delta_channels text[], root_id text, is_root_saved boolean
-- shard: session_id
with picked as materialized (
  select r.checkpoint_ns, r.checkpoint_id, r.position
  from (
    select
      s.checkpoint_ns, s.checkpoint_id, s.checkpoint_name, s.position,
      row_number() over (partition by s.checkpoint_ns order by s.position desc) as place
    from {schema}.agent_states s
    where s.session_id = $1
  ) r
  where r.place <= $3::integer or ($4::boolean and r.checkpoint_name is not null)
),
replayed as (
  select n.checkpoint_ns, before.checkpoint_id
  from picked root
  cross join (
    select distinct p.checkpoint_ns from picked p
    where p.checkpoint_ns <> '' and strpos(p.checkpoint_ns, ':') = 0
  ) n
  cross join lateral (
    select s.checkpoint_id from {schema}.agent_states s
    where s.session_id = $1 and s.checkpoint_ns = n.checkpoint_ns
      and s.position > 0 and s.position < root.position
      -- As a listing before it has them: those of its own superstep may be stored before it.
      and root.position > coalesce((
        select r.position from {schema}.agent_states r
        where r.session_id = $1 and r.checkpoint_ns = ''
          and r.checkpoint_id = s.metadata -> 'parents'::text ->> ''::text
      ), 0)
    order by s.position desc
    limit 1
  ) before
  where $5::boolean and root.checkpoint_ns = ''
),
kept as (
  select checkpoint_ns, checkpoint_id from picked
  union
  select checkpoint_ns, checkpoint_id from replayed
)
select
  h.checkpoint_ns, h.checkpoint_id,
  $4::boolean and h.checkpoint_name is not null as is_named,
  case
    when coalesce((h.state_data ->> 'v'::text)::numeric, 1) < 4.0 and exists (
      select from {schema}.agent_state_writes w
      where w.session_id = $1 and w.checkpoint_ns = h.checkpoint_ns
        and w.checkpoint_id = h.parent_checkpoint_id and w.channel = $2
    )
    then h.parent_checkpoint_id
  end as sends_parent_id,
  array(
    select c from pg_catalog.unnest(d.channels) c
    where not h.state_data -> 'channel_values'::text ? c
      and not exists (
        select from {schema}.agent_state_values v
        where v.session_id = $1 and v.checkpoint_ns = h.checkpoint_ns and v.channel = c
          and v.version = h.state_data -> 'channel_versions'::text ->> c
      )
      -- One that was never written has no value, and nothing to be rebuilt from.
      and h.state_data -> 'channel_versions'::text ? c
  ) as delta_channels,
  h.metadata -> 'parents'::text ->> ''::text as root_id,
  exists (
    select from {schema}.agent_states r
    where r.session_id = $1 and r.checkpoint_ns = ''
      and r.checkpoint_id = h.metadata -> 'parents'::text ->> ''::text
  ) as is_root_saved
from kept k
join {schema}.agent_states h
  on h.session_id = $1 and h.checkpoint_ns = k.checkpoint_ns
  and h.checkpoint_id = k.checkpoint_id
cross join lateral (
  select array(
    select jsonb_object_keys(h.metadata -> 'counters_since_delta_snapshot'::text)
    where jsonb_typeof(h.metadata -> 'counters_since_delta_snapshot'::text) = 'object'
  ) as channels
) d
order by h.checkpoint_ns, h.position desc;

-- name: delete_checkpoints_but
-- The namespace's checkpoints other than those given, with their writes. Writes whose
-- checkpoint isn't saved yet belong to a running superstep and stay. is_refused: there are some,
-- and row security let none be deleted.
-- params: session_id uuid, checkpoint_ns text, kept_ids text[], step bigint
-- columns: deleted bigint, is_refused boolean
-- shard: session_id
with unwanted as materialized (
  select array(
    select s.checkpoint_id from {schema}.agent_states s
    where s.session_id = $1 and s.checkpoint_ns = $2
    except all
    select k from pg_catalog.unnest($3::text[]) k
  ) as ids
),
gone as (
  delete from {schema}.agent_states
  where session_id = $1 and checkpoint_ns = $2
    and checkpoint_id = any((select u.ids from unwanted u)::text[])
  returning checkpoint_id
),
writes as (
  delete from {schema}.agent_state_writes w
  where w.session_id = $1 and w.checkpoint_ns = $2
    and w.checkpoint_id = any(array(select g.checkpoint_id from gone g))
),
counted as (
  -- Another one, begun anew at its end, that is also none of those that a server lost.
  update {schema}.agent_sessions
  set deletion_count = ((deletion_count + $4::bigint) & 2147483647::bigint)::integer
  where session_id = $1 and exists (select from gone)
)
select
  count(*) as deleted,
  count(*) = 0 and (select pg_catalog.cardinality(u.ids) from unwanted u) > 0 as is_refused
from gone;

-- name: delete_checkpoints_of_runs
-- The session's checkpoints whose metadata names one of the runs, with their writes.
-- params: session_id uuid, run_ids text[], step bigint
-- shard: session_id
with gone as (
  delete from {schema}.agent_states
  where session_id = $1 and metadata ->> 'run_id'::text = any($2::text[])
  returning checkpoint_ns, checkpoint_id
),
counted as (
  -- Another one, begun anew at its end, that is also none of those that a server lost.
  update {schema}.agent_sessions
  set deletion_count = ((deletion_count + $3::bigint) & 2147483647::bigint)::integer
  where session_id = $1 and exists (select from gone)
)
delete from {schema}.agent_state_writes w
where w.session_id = $1
  -- Not a join, which the planner could make each with each.
  and ((w.checkpoint_ns, w.checkpoint_id) in (
    select g.checkpoint_ns, g.checkpoint_id from gone g
  )) is true;

-- name: select_sessions_of_run
-- The sessions with checkpoints of a run, of one tenant, or, where that is null, of all.
-- params: metadata jsonb, tenant_id text
-- columns: session_id uuid
-- shard: all, a run's checkpoints may be in any thread
select distinct s.session_id
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id
where s.metadata @> $1 and ($2::text is null or t.tenant_id = $2);

-- name: cut_parents
-- Checkpoints whose parent is gone become roots.
-- params: session_id uuid
-- shard: session_id
update {schema}.agent_states s set parent_checkpoint_id = null
where s.session_id = $1 and s.parent_checkpoint_id is not null and (
  select true from {schema}.agent_states p
  where p.session_id = $1 and p.checkpoint_ns = s.checkpoint_ns
    and p.checkpoint_id = s.parent_checkpoint_id
) is null;

-- name: delete_unused_values
-- Values at versions that no checkpoint of the session names any more.
-- params: session_id uuid
-- shard: session_id
with named as materialized (
  select distinct s.checkpoint_ns, c.channel, c.version
  from {schema}.agent_states s
  cross join lateral jsonb_each_text(s.state_data -> 'channel_versions'::text) c (channel, version)
  where s.session_id = $1
)
delete from {schema}.agent_state_values v
where v.session_id = $1 and not exists (
  select from named n
  where n.checkpoint_ns = v.checkpoint_ns and n.channel = v.channel and n.version = v.version
);

-- name: delete_unused_contents
-- Blobs and messages that no value or write names any more. What other processes
-- remember of them ends with the epoch, which changes only where one of them goes: each
-- change makes the puts that wait for this transaction start again. It goes up by a random step,
-- so that it isn't one that a server had, and lost.
-- The messages' runs are united as ranges: number by number they would be as many as
-- checkpoints times messages.
-- params: session_id uuid, step bigint
-- shard: session_id
with named as materialized (
  select coalesce(
    pg_catalog.range_agg(int4range(u.first_no, u.last_no, '[]')), '{}'
  ) as numbers
  from (
    select message_runs from {schema}.agent_state_values where session_id = $1
    union
    select message_runs from {schema}.agent_state_writes where session_id = $1
  ) r
  cross join lateral unnest(r.message_runs, r.message_runs[2:]) with ordinality
    u (first_no, last_no, i)
  where u.i % 2::bigint = 1
),
blobs as (
  delete from {schema}.agent_state_blobs b
  where b.session_id = $1 and b.hash = any(array(
    select a.hash from {schema}.agent_state_blobs a where a.session_id = $1
    except (
      select h from {schema}.agent_state_values v cross join pg_catalog.unnest(v.blob_hashes) h
      where v.session_id = $1
      union all
      select h from {schema}.agent_state_writes w cross join pg_catalog.unnest(w.blob_hashes) h
      where w.session_id = $1
    )
  ))
  returning b.hash
),
messages as (
  delete from {schema}.agent_messages m
  using named n
  where m.session_id = $1 and not n.numbers operator(pg_catalog.@>) m.message_no
  returning m.message_no
)
update {schema}.agent_sessions
set message_epoch = (message_epoch & ~2097151::bigint) | ((message_epoch + $2::bigint) & 2097151::bigint)
where session_id = $1 and (exists (select from messages) or exists (select from blobs));

-- name: find_target
-- Of the session that is copied to: whether it holds anything, and its lease. One row.
-- params: session_id uuid
-- columns: is_there boolean, lease_id uuid, lease_holder text, lease_expires_at text,
--   is_leased boolean, last_position bigint
-- shard: session_id
select
  exists (select from {schema}.agent_states where session_id = $1)
  or exists (select from {schema}.agent_state_writes where session_id = $1)
  or exists (select from {schema}.agent_messages where session_id = $1) as is_there,
  s.lease_id, s.lease_holder,
  pg_catalog.to_jsonb(s.lease_expires_at) #>> '{}'::text[] as lease_expires_at,
  coalesce(s.lease_expires_at > now(), false) as is_leased, s.last_position
from (select) one
left join {schema}.agent_sessions s on s.session_id = $1;

-- name: exists_checkpoint
-- Whether the root graph has this checkpoint.
-- params: session_id uuid, checkpoint_id text
-- columns: is_there boolean
-- shard: session_id
select exists (
  select from {schema}.agent_states
  where session_id = $1 and checkpoint_ns = '' and checkpoint_id = $2
) as is_there;

-- name: copy_session
-- Everything of a session under another thread; the target must hold nothing. With
-- until_id, only the root graph's checkpoints up to that one, the subgraphs' that
-- were saved in its superstep or before, and the writes of these. Where the thread went on,
-- its tasks are unfinished again: of what they wrote only the questions are copied, of
-- their subgraphs' checkpoints those up to the one that asked. Values, blobs and messages
-- are all copied. The copy stands as its source does, or, where that went on, as
-- until_status says: what the checkpoint leaves its thread with, unless a question is open.
-- Whose it is, its type, priority and metadata are the source's where the target's session has
-- none of its own. Of the target's lease only that under which it is copied stays.
-- params: source_id uuid, target_id uuid, thread_id text, until_id text, until_status text,
--   tenant_id text, lease_id uuid
-- shard: all, source and target may be on two servers
with begun as materialized (
  select
    s.checkpoint_ns, s.checkpoint_id, s.position,
    case s.checkpoint_ns
      when '' then s.checkpoint_id else s.metadata -> 'parents'::text ->> ''::text
    end
      collate "C" as root_id
  from {schema}.agent_states s
  where s.session_id = $1
),
asking as (
  select b.checkpoint_ns, max(b.position) as position
  from begun b
  cross join lateral (
    select true from {schema}.agent_state_writes w
    where w.session_id = $1 and w.checkpoint_ns = b.checkpoint_ns
      and w.checkpoint_id = b.checkpoint_id and w.channel = '__interrupt__'
    limit 1
  ) w
  where b.root_id = $4 and b.checkpoint_ns <> ''
  group by b.checkpoint_ns
),
last as (
  select
    u.position,
    exists (
      select from begun b where b.checkpoint_ns = '' and b.position > u.position
    ) as is_past
  from (
    -- One row, also where all is copied.
    select max(b.position) as position
    from begun b
    where b.checkpoint_ns = '' and b.checkpoint_id = $4
  ) u
),
kept as materialized (
  select
    b.checkpoint_ns, b.checkpoint_id,
    l.is_past and b.root_id = $4 and b.position = coalesce(a.position, l.position) as is_open
  from begun b
  cross join last l
  left join lateral (
    select s.position from {schema}.agent_states s
    where s.session_id = $1 and s.checkpoint_ns = '' and s.checkpoint_id = b.root_id
    limit 1
  ) r on true
  left join asking a on a.checkpoint_ns = b.checkpoint_ns
  where $4 is null
    -- Of a superstep whose checkpoint was pruned, or isn't saved yet, its own place tells.
    or (b.root_id is distinct from $4 and coalesce(r.position, b.position) < l.position)
    or (b.root_id = $4 and (
      not l.is_past or b.checkpoint_ns = '' or b.position <= a.position
    ))
),
session as (
  insert into {schema}.agent_sessions as t
    (session_id, thread_id, user_id, agent_type, status, priority, metadata, message_count,
     last_position, tenant_id)
  select
    $2, $3, s.user_id, s.agent_type,
    case
      when not (select l.is_past from last l) then s.status
      when exists (
        select from {schema}.agent_state_writes w
        where w.session_id = $1 and w.checkpoint_ns = '' and w.checkpoint_id = $4
          and w.channel = '__interrupt__'
      ) then 'paused'
      else coalesce($5, s.status)
    end,
    s.priority, s.metadata, s.message_count,
    s.last_position, $6
  from {schema}.agent_sessions s where s.session_id = $1
  on conflict (session_id) do update set
    thread_id = excluded.thread_id,
    tenant_id = excluded.tenant_id,
    user_id = case when t.user_id = '' then excluded.user_id else t.user_id end,
    agent_type = case when t.agent_type = '' then excluded.agent_type else t.agent_type end,
    status = excluded.status,
    priority = case when t.priority = 0 then excluded.priority else t.priority end,
    metadata = case when t.metadata = '{}'::jsonb then excluded.metadata else t.metadata end,
    message_count = excluded.message_count,
    -- Another one in any case: who found the thread empty doesn't begin it beside the copy.
    last_position = greatest(t.last_position + 1, excluded.last_position),
    lease_id = case when t.lease_id = $7 then t.lease_id end,
    lease_holder = case when t.lease_id = $7 then t.lease_holder end,
    lease_expires_at = case when t.lease_id = $7 then t.lease_expires_at end
),
states as (
  insert into {schema}.agent_states
    (session_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint_name,
     state_data, metadata, exact_type, exact, created_at, position)
  select
    $2, s.checkpoint_ns, s.checkpoint_id, s.parent_checkpoint_id, s.checkpoint_name,
    s.state_data, s.metadata, s.exact_type, s.exact, s.created_at, s.position
  from kept k
  cross join lateral (
    select a.* from {schema}.agent_states a
    where a.session_id = $1 and a.checkpoint_ns = k.checkpoint_ns
      and a.checkpoint_id = k.checkpoint_id
    limit 1
  ) s
),
state_values as (
  insert into {schema}.agent_state_values
    (session_id, checkpoint_ns, channel, version, type, payload, blob_hashes, message_runs)
  select $2, checkpoint_ns, channel, version, type, payload, blob_hashes, message_runs
  from {schema}.agent_state_values where session_id = $1
),
blobs as (
  insert into {schema}.agent_state_blobs (session_id, hash, payload)
  select $2, hash, payload from {schema}.agent_state_blobs where session_id = $1
),
writes as (
  insert into {schema}.agent_state_writes
    (session_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, payload,
     blob_hashes, message_runs)
  select
    $2, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, payload,
    blob_hashes, message_runs
  from {schema}.agent_state_writes
  where session_id = $1 and $4 is null
    -- Those of a checkpoint that is on its way would wait for it in vain.
    and ((checkpoint_ns, checkpoint_id) in (
      select k.checkpoint_ns, k.checkpoint_id from kept k
    )) is true
  union all
  select
    $2, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, w.type,
    w.payload, w.blob_hashes, w.message_runs
  from kept k
  cross join lateral (
    select a.* from {schema}.agent_state_writes a
    where a.session_id = $1 and a.checkpoint_ns = k.checkpoint_ns
      and a.checkpoint_id = k.checkpoint_id
    offset 0
  ) w
  where $4 is not null and (not k.is_open or w.channel = '__interrupt__')
)
insert into {schema}.agent_messages
  (session_id, message_no, message_id, parent_message_no, message_type, role, content,
   metadata, digest, payload_type, payload, created_at)
select
  $2, message_no, message_id, parent_message_no, message_type, role, content, metadata, digest,
  payload_type, payload, created_at
from {schema}.agent_messages where session_id = $1;
