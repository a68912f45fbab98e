-- Looking at the checkpoints of one thread.

-- name: list_steps
-- A page of a namespace's checkpoints, newest first, with what is special among their writes. An
-- error that a handler took, or that a function caught of what it called, is none of the step's:
-- beside the one stands its source, and the path of the other is below its caller's.
-- params: session_id uuid, checkpoint_ns text, before_position bigint, page bigint
-- columns: checkpoint_id text, parent_checkpoint_id text, checkpoint_name text, state_data jsonb, metadata jsonb, exact_type text, exact bytea, position bigint, marks text[]
-- shard: session_id
select
  s.checkpoint_id, s.parent_checkpoint_id, s.checkpoint_name, s.state_data, s.metadata,
  s.exact_type, s.exact, s.position,
  array(
    select distinct w.channel
    from {schema}.agent_state_writes w
    where w.session_id = s.session_id and w.checkpoint_ns = s.checkpoint_ns
      and w.checkpoint_id = s.checkpoint_id and w.channel in ('__interrupt__', '__error__')
      and (w.channel = '__interrupt__' or not (
        starts_with(w.task_path, '~__pregel_push, ~'::text) or exists (
          select from {schema}.agent_state_writes h
          where h.session_id = w.session_id and h.checkpoint_ns = w.checkpoint_ns
            and h.checkpoint_id = w.checkpoint_id and h.task_id = w.task_id
            and h.channel = '__error_source_node__'
        )
      ))
  ) as marks
from {schema}.agent_states s
where s.session_id = $1
  and s.checkpoint_ns = $2
  and s.position > 0
  and s.position < coalesce($3, 9223372036854775807)
order by s.position desc
limit $4;

-- name: list_namespaces
-- The namespaces in which a thread has checkpoints, in their order; up to `count` of them.
-- params: session_id uuid, count bigint
-- columns: checkpoint_ns text
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
)
select n.checkpoint_ns from namespaces n
order by n.checkpoint_ns
limit $2;

-- name: list_failed_calls
-- The tasks of a checkpoint that a node or entrypoint called, and that failed: their callers know.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text
-- columns: task_id text
-- shard: session_id
select w.task_id
from {schema}.agent_state_writes w
where w.session_id = $1 and w.checkpoint_ns = $2 and w.checkpoint_id = $3
  and w.channel = '__error__' and starts_with(w.task_path, '~__pregel_push, ~'::text);

-- name: name_checkpoint
-- Gives a checkpoint (without an id, the latest) a name, or takes it away. No row where it isn't
-- there, or another has the name: that fails no transaction, as long as the session is locked.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, checkpoint_name text
-- columns: checkpoint_id text
-- shard: session_id
update {schema}.agent_states s
set checkpoint_name = $4
where s.session_id = $1
  and s.checkpoint_ns = $2
  and s.checkpoint_id = coalesce($3, (
    select l.checkpoint_id
    from {schema}.agent_states l
    where l.session_id = $1 and l.checkpoint_ns = $2 and l.position > 0
    order by l.position desc
    limit 1
  ))
  and not exists (
    select from {schema}.agent_states o
    where o.session_id = $1 and o.checkpoint_name = $4
      and (o.checkpoint_ns <> s.checkpoint_ns or o.checkpoint_id <> s.checkpoint_id)
  )
returning s.checkpoint_id;

-- name: exists_checkpoint_to_name
-- Whether the checkpoint (without an id, any of the namespace) is there.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text
-- columns: is_there boolean
-- shard: session_id
select exists (
  select from {schema}.agent_states s
  where s.session_id = $1 and s.checkpoint_ns = $2
    and case when $3::text is null then s.position > 0 else s.checkpoint_id = $3 end
) as is_there;
