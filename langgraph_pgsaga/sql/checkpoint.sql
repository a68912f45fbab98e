-- The saver's hot statements, each one round trip: writing what is queued, and get_tuple.
--
-- Lock order: the agent_sessions rows by session_id, then the next versions of aggregates of
-- events, then the rows of those sessions, in the order of the CTEs. Arrays of a call come sorted
-- by session, events by aggregate, so two processes that write for the same sessions can't wait
-- for each other.

-- name: write_batch
-- Stores the checkpoints, with all that is new in them, and the pending writes of any
-- number of sessions: an array of rows for each table.
-- A session's numbers were given by the caller, who counted on its epoch and (where new
-- messages are numbered) on its message_count. Where these are others by now, or a
-- session taken for new is there, nothing that hangs on the session's row is stored and
-- the session isn't returned. Neither where the last of what the caller knows of it, in
-- last_known, isn't there any more: a server that lost commits has the epoch of before.
-- Pending writes that refer to no message or blob are stored in any case. Regular ones
-- (idx >= 0) are written once; special ones (errors, interrupts, ...) replace what stands at
-- their place.
-- The same goes for leases: whoever may not write stores nothing. Pending writes of which
-- the lease isn't known are no concern of it: nobody sees them before a checkpoint
-- follows, and the first ones of a task count.
-- Of each session: where the last of its checkpoints stands, unless that was there before; and a
-- blob that wasn't there before, which tells that this statement was committed.
-- tenant_ids are those of session_ids, in that order; {} where all of them are ''.
-- The clock stands in the items: Citus takes no now() where a column is set, and a CTE of its
-- own takes longer to start.
-- params: session_ids uuid[], sessions pgsaga_new_session[],
--   last_known pgsaga_known_session[], states pgsaga_new_state[],
--   new_values pgsaga_new_value[], blobs pgsaga_new_blob[], messages pgsaga_new_message[],
--   writes pgsaga_new_write[], tenant_ids text[]
-- columns: session_id uuid, deletion_count integer, position bigint, stored_hash bytea
-- shard: session_ids
with items as materialized (
  select u.*, now() as at, (extract(epoch from now()) * 1000000.0)::bigint as micros
  from rows from (
    pg_catalog.unnest($2::{schema}.pgsaga_new_session[]),
    pg_catalog.unnest($3::{schema}.pgsaga_known_session[])
  ) u
),
made as (
  insert into {schema}.agent_sessions as s
    (session_id, thread_id, user_id, agent_type, status, priority, metadata, message_epoch,
     message_count, last_position, lease_id, lease_holder, lease_expires_at, tenant_id)
  select
    i.session_id, i.thread_id, i.user_id, i.agent_type, coalesce(i.status, 'active'),
    coalesce(i.priority, 0), coalesce(i.metadata, '{}'), i.message_epoch, i.new_messages,
    i.micros + i.new_states, i.lease_id, i.lease_holder,
    {schema}.pgsaga_after(i.at, i.lease_seconds),
    coalesce(($9::text[])[pg_catalog.array_position($1::uuid[], i.session_id)], '')
  from items i
  where i.is_new
  on conflict (session_id) do nothing
  returning s.session_id, s.last_position, s.deletion_count
),
kept as (
  update {schema}.agent_sessions s set
    last_activity_at = i.at,
    message_count = s.message_count + i.new_messages,
    last_position = case
      when i.new_states = 0 then s.last_position
      else greatest(s.last_position, i.micros) + i.new_states
    end,
    user_id = case when s.user_id = '' then i.user_id else s.user_id end,
    agent_type = case when s.agent_type = '' then i.agent_type else s.agent_type end,
    status = coalesce(i.status, s.status),
    priority = coalesce(i.priority, s.priority),
    metadata = coalesce(i.metadata, s.metadata),
    lease_id = case when i.is_claim is null then s.lease_id else i.lease_id end,
    lease_holder = case when i.is_claim is null then s.lease_holder else i.lease_holder end,
    lease_expires_at = case
      when i.is_claim is null then s.lease_expires_at
      else {schema}.pgsaga_after(i.at, i.lease_seconds)
    end
  from items i
  where s.session_id = i.session_id
    and s.session_id = any($1::uuid[])
    and not i.is_new
    and s.message_epoch = i.message_epoch
    and s.message_count = coalesce(i.message_count, s.message_count)
    and s.deletion_count = coalesce(i.deletion_count, s.deletion_count)
    and (i.known_id is null or (
      select true from {schema}.agent_states p
      where p.session_id = s.session_id
        and p.checkpoint_ns = i.known_ns and p.checkpoint_id = i.known_id
    ))
    and (i.known_no is null or (
      select true from {schema}.agent_messages p
      where p.session_id = s.session_id
        and p.message_no = i.known_no and p.digest = i.known_digest
    ))
    and (i.known_hash is null or (
      select true from {schema}.agent_state_blobs p
      where p.session_id = s.session_id and p.hash = i.known_hash
    ))
    and (
      s.lease_id is not distinct from i.lease_id
      or i.is_claim is null
      or (
        i.is_claim
        and (
          s.lease_expires_at is null
          or s.lease_expires_at <= i.at
          or (i.is_superseding and s.lease_id = i.base_lease_id)
        )
        and (
          i.lease_id is null
          or (
            s.lease_id is not distinct from i.base_lease_id
            and s.last_position = i.base_position
          )
        )
      )
    )
  returning s.session_id, s.last_position, s.deletion_count
),
live as materialized (
  select session_id, last_position, deletion_count from made
  union all
  select session_id, last_position, deletion_count from kept
),
new_states as (
  insert into {schema}.agent_states as s
    (session_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, state_data, metadata,
     exact_type, exact, position)
  select
    i.session_id, i.checkpoint_ns, i.checkpoint_id, i.parent_checkpoint_id, i.state_data,
    i.metadata, i.exact_type, i.exact, l.last_position - i.followers
  from live l
  join pg_catalog.unnest($4::{schema}.pgsaga_new_state[]) i using (session_id)
  on conflict (session_id, checkpoint_ns, checkpoint_id) do update set
    parent_checkpoint_id = excluded.parent_checkpoint_id,
    state_data = excluded.state_data,
    metadata = excluded.metadata,
    exact_type = excluded.exact_type,
    exact = excluded.exact
  returning s.session_id, s.position
),
new_values as (
  insert into {schema}.agent_state_values
    (session_id, checkpoint_ns, channel, version, type, payload, blob_hashes, message_runs)
  select
    i.session_id, i.checkpoint_ns, i.channel, i.version, i.type, i.payload, i.blob_hashes,
    i.message_runs
  from live l
  join pg_catalog.unnest($5::{schema}.pgsaga_new_value[]) i using (session_id)
  on conflict (session_id, checkpoint_ns, channel, version) do nothing
),
new_blobs as (
  insert into {schema}.agent_state_blobs as b (session_id, hash, payload)
  select i.session_id, i.hash, i.payload
  from live l
  join pg_catalog.unnest($6::{schema}.pgsaga_new_blob[]) i using (session_id)
  on conflict (session_id, hash) do nothing
  returning b.session_id, b.hash
),
-- A digest that is there already, unknown to the caller, fails the statement.
new_messages as (
  insert into {schema}.agent_messages
    (session_id, message_no, message_id, parent_message_no, message_type, role, content,
     metadata, digest, payload_type, payload)
  select
    i.session_id, i.message_no, i.message_id, i.parent_message_no, i.message_type, i.role,
    i.content, i.metadata, i.digest, i.payload_type, i.payload
  from live l
  join pg_catalog.unnest($7::{schema}.pgsaga_new_message[]) i using (session_id)
),
new_writes as (
  insert into {schema}.agent_state_writes as w
    (session_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, payload,
     blob_hashes, message_runs)
  select
    i.session_id, i.checkpoint_ns, i.checkpoint_id, i.task_id, i.idx, i.task_path, i.channel,
    i.type, i.payload, i.blob_hashes, i.message_runs
  from pg_catalog.unnest($8::{schema}.pgsaga_new_write[]) i
  where not i.is_dependent or i.session_id in (select l.session_id from live l)
  on conflict (session_id, checkpoint_ns, checkpoint_id, task_id, idx) do update set
    channel = excluded.channel,
    task_path = excluded.task_path,
    type = excluded.type,
    payload = excluded.payload,
    blob_hashes = excluded.blob_hashes,
    message_runs = excluded.message_runs
  where w.idx < 0
)
select
  l.session_id, l.deletion_count, n.position,
  (select b.hash from new_blobs b where b.session_id = l.session_id limit 1) as stored_hash
from live l
left join new_states n on n.session_id = l.session_id and n.position = l.last_position;

-- name: write_batch_with_events
-- write_batch, and what is told of the calls: events of the sessions that are as expected, and
-- those that depend on none. Rows without a session say nothing.
-- params: session_ids uuid[], sessions pgsaga_new_session[],
--   last_known pgsaga_known_session[], states pgsaga_new_state[],
--   new_values pgsaga_new_value[], blobs pgsaga_new_blob[], messages pgsaga_new_message[],
--   writes pgsaga_new_write[], tenant_ids text[], events pgsaga_new_event[]
-- columns: session_id uuid, deletion_count integer, position bigint, stored_hash bytea
-- shard: all, events are on one server
with items as materialized (
  select u.*, now() as at, (extract(epoch from now()) * 1000000.0)::bigint as micros
  from rows from (
    pg_catalog.unnest($2::{schema}.pgsaga_new_session[]),
    pg_catalog.unnest($3::{schema}.pgsaga_known_session[])
  ) u
),
made as (
  insert into {schema}.agent_sessions as s
    (session_id, thread_id, user_id, agent_type, status, priority, metadata, message_epoch,
     message_count, last_position, lease_id, lease_holder, lease_expires_at, tenant_id)
  select
    i.session_id, i.thread_id, i.user_id, i.agent_type, coalesce(i.status, 'active'),
    coalesce(i.priority, 0), coalesce(i.metadata, '{}'), i.message_epoch, i.new_messages,
    i.micros + i.new_states, i.lease_id, i.lease_holder,
    {schema}.pgsaga_after(i.at, i.lease_seconds),
    coalesce(($9::text[])[pg_catalog.array_position($1::uuid[], i.session_id)], '')
  from items i
  where i.is_new
  on conflict (session_id) do nothing
  returning s.session_id, s.last_position, s.deletion_count
),
kept as (
  update {schema}.agent_sessions s set
    last_activity_at = i.at,
    message_count = s.message_count + i.new_messages,
    last_position = case
      when i.new_states = 0 then s.last_position
      else greatest(s.last_position, i.micros) + i.new_states
    end,
    user_id = case when s.user_id = '' then i.user_id else s.user_id end,
    agent_type = case when s.agent_type = '' then i.agent_type else s.agent_type end,
    status = coalesce(i.status, s.status),
    priority = coalesce(i.priority, s.priority),
    metadata = coalesce(i.metadata, s.metadata),
    lease_id = case when i.is_claim is null then s.lease_id else i.lease_id end,
    lease_holder = case when i.is_claim is null then s.lease_holder else i.lease_holder end,
    lease_expires_at = case
      when i.is_claim is null then s.lease_expires_at
      else {schema}.pgsaga_after(i.at, i.lease_seconds)
    end
  from items i
  where s.session_id = i.session_id
    and s.session_id = any($1::uuid[])
    and not i.is_new
    and s.message_epoch = i.message_epoch
    and s.message_count = coalesce(i.message_count, s.message_count)
    and s.deletion_count = coalesce(i.deletion_count, s.deletion_count)
    and (i.known_id is null or (
      select true from {schema}.agent_states p
      where p.session_id = s.session_id
        and p.checkpoint_ns = i.known_ns and p.checkpoint_id = i.known_id
    ))
    and (i.known_no is null or (
      select true from {schema}.agent_messages p
      where p.session_id = s.session_id
        and p.message_no = i.known_no and p.digest = i.known_digest
    ))
    and (i.known_hash is null or (
      select true from {schema}.agent_state_blobs p
      where p.session_id = s.session_id and p.hash = i.known_hash
    ))
    and (
      s.lease_id is not distinct from i.lease_id
      or i.is_claim is null
      or (
        i.is_claim
        and (
          s.lease_expires_at is null
          or s.lease_expires_at <= i.at
          or (i.is_superseding and s.lease_id = i.base_lease_id)
        )
        and (
          i.lease_id is null
          or (
            s.lease_id is not distinct from i.base_lease_id
            and s.last_position = i.base_position
          )
        )
      )
    )
  returning s.session_id, s.last_position, s.deletion_count
),
live as materialized (
  select session_id, last_position, deletion_count from made
  union all
  select session_id, last_position, deletion_count from kept
),
new_states as (
  insert into {schema}.agent_states as s
    (session_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, state_data, metadata,
     exact_type, exact, position)
  select
    i.session_id, i.checkpoint_ns, i.checkpoint_id, i.parent_checkpoint_id, i.state_data,
    i.metadata, i.exact_type, i.exact, l.last_position - i.followers
  from live l
  join pg_catalog.unnest($4::{schema}.pgsaga_new_state[]) i using (session_id)
  on conflict (session_id, checkpoint_ns, checkpoint_id) do update set
    parent_checkpoint_id = excluded.parent_checkpoint_id,
    state_data = excluded.state_data,
    metadata = excluded.metadata,
    exact_type = excluded.exact_type,
    exact = excluded.exact
  returning s.session_id, s.position
),
new_values as (
  insert into {schema}.agent_state_values
    (session_id, checkpoint_ns, channel, version, type, payload, blob_hashes, message_runs)
  select
    i.session_id, i.checkpoint_ns, i.channel, i.version, i.type, i.payload, i.blob_hashes,
    i.message_runs
  from live l
  join pg_catalog.unnest($5::{schema}.pgsaga_new_value[]) i using (session_id)
  on conflict (session_id, checkpoint_ns, channel, version) do nothing
),
new_blobs as (
  insert into {schema}.agent_state_blobs as b (session_id, hash, payload)
  select i.session_id, i.hash, i.payload
  from live l
  join pg_catalog.unnest($6::{schema}.pgsaga_new_blob[]) i using (session_id)
  on conflict (session_id, hash) do nothing
  returning b.session_id, b.hash
),
-- A digest that is there already, unknown to the caller, fails the statement.
new_messages as (
  insert into {schema}.agent_messages
    (session_id, message_no, message_id, parent_message_no, message_type, role, content,
     metadata, digest, payload_type, payload)
  select
    i.session_id, i.message_no, i.message_id, i.parent_message_no, i.message_type, i.role,
    i.content, i.metadata, i.digest, i.payload_type, i.payload
  from live l
  join pg_catalog.unnest($7::{schema}.pgsaga_new_message[]) i using (session_id)
),
new_writes as (
  insert into {schema}.agent_state_writes as w
    (session_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, payload,
     blob_hashes, message_runs)
  select
    i.session_id, i.checkpoint_ns, i.checkpoint_id, i.task_id, i.idx, i.task_path, i.channel,
    i.type, i.payload, i.blob_hashes, i.message_runs
  from pg_catalog.unnest($8::{schema}.pgsaga_new_write[]) i
  where not i.is_dependent or i.session_id in (select l.session_id from live l)
  on conflict (session_id, checkpoint_ns, checkpoint_id, task_id, idx) do update set
    channel = excluded.channel,
    task_path = excluded.task_path,
    type = excluded.type,
    payload = excluded.payload,
    blob_hashes = excluded.blob_hashes,
    message_runs = excluded.message_runs
  where w.idx < 0
),
told as materialized (
  select {schema}.pgsaga_append_each(array(
    select i from pg_catalog.unnest($10::{schema}.pgsaga_new_event[]) i
    where not i.is_dependent or i.session_id in (select l.session_id from live l)
  )) as appended
)
select
  l.session_id, l.deletion_count, n.position,
  (select b.hash from new_blobs b where b.session_id = l.session_id limit 1) as stored_hash
from told t
left join live l on t.appended >= 0
left join new_states n on n.session_id = l.session_id and n.position = l.last_position;

-- name: write_states
-- write_batch for checkpoints without new messages and blobs, of one session that is there, of
-- which no message or blob has to be looked for: each part costs its share also where it has
-- nothing to do, and one row needs no array.
-- params: session_id uuid, user_id text, agent_type text, priority integer, metadata jsonb,
--   message_epoch bigint, message_count integer, new_messages integer, status text,
--   lease_id uuid, lease_holder text, lease_seconds float8, is_claim boolean,
--   is_superseding boolean, base_lease_id uuid, new_states integer, deletion_count integer,
--   base_position bigint, known_ns text, known_id text, states pgsaga_new_state[],
--   new_values pgsaga_new_value[]
-- columns: session_id uuid, deletion_count integer, position bigint, stored_hash bytea
-- shard: session_id
with clock as materialized (
  select now() as at, (extract(epoch from now()) * 1000000.0)::bigint as micros
),
live as (
  update {schema}.agent_sessions s set
    last_activity_at = k.at,
    message_count = s.message_count + $8,
    last_position = case
      when $16 = 0 then s.last_position
      else greatest(s.last_position, k.micros) + $16
    end,
    user_id = case when s.user_id = '' then $2 else s.user_id end,
    agent_type = case when s.agent_type = '' then $3 else s.agent_type end,
    status = coalesce($9, s.status),
    priority = coalesce($4, s.priority),
    metadata = coalesce($5, s.metadata),
    lease_id = case when $13::boolean is null then s.lease_id else $10 end,
    lease_holder = case when $13::boolean is null then s.lease_holder else $11 end,
    lease_expires_at = case
      when $13::boolean is null then s.lease_expires_at
      else {schema}.pgsaga_after(k.at, $12)
    end
  from clock k
  left join {schema}.agent_states p
    on p.session_id = $1 and p.checkpoint_ns = coalesce($19, ''::text)
      and p.checkpoint_id = coalesce($20, ''::text)
  where s.session_id = $1
    and s.message_epoch = $6
    and s.message_count = coalesce($7, s.message_count)
    and s.deletion_count = coalesce($17, s.deletion_count)
    and ($20::text is null or p.checkpoint_id is not null)
    and (
      s.lease_id is not distinct from $10
      or $13::boolean is null
      or (
        $13
        and (
          s.lease_expires_at is null
          or s.lease_expires_at <= k.at
          or ($14 and s.lease_id = $15)
        )
        and (
          $10 is null
          or (
            s.lease_id is not distinct from $15
            and s.last_position = $18
          )
        )
      )
    )
  returning s.session_id, s.last_position, s.deletion_count
),
new_states as (
  insert into {schema}.agent_states as s
    (session_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, state_data, metadata,
     exact_type, exact, position)
  select
    l.session_id, i.checkpoint_ns, i.checkpoint_id, i.parent_checkpoint_id, i.state_data,
    i.metadata, i.exact_type, i.exact, l.last_position - i.followers
  from live l
  cross join pg_catalog.unnest($21::{schema}.pgsaga_new_state[]) i
  on conflict (session_id, checkpoint_ns, checkpoint_id) do update set
    parent_checkpoint_id = excluded.parent_checkpoint_id,
    state_data = excluded.state_data,
    metadata = excluded.metadata,
    exact_type = excluded.exact_type,
    exact = excluded.exact
  returning s.session_id, s.position
),
new_values as (
  insert into {schema}.agent_state_values
    (session_id, checkpoint_ns, channel, version, type, payload, blob_hashes, message_runs)
  select
    l.session_id, i.checkpoint_ns, i.channel, i.version, i.type, i.payload, i.blob_hashes,
    i.message_runs
  from live l
  cross join pg_catalog.unnest($22::{schema}.pgsaga_new_value[]) i
  on conflict (session_id, checkpoint_ns, channel, version) do nothing
)
select
  l.session_id, l.deletion_count, n.position, null::bytea as stored_hash
from live l
left join new_states n on n.position >= l.last_position;

-- name: write_turns
-- write_states for checkpoints with new messages.
-- params: session_id uuid, user_id text, agent_type text, priority integer, metadata jsonb,
--   message_epoch bigint, message_count integer, new_messages integer, status text,
--   lease_id uuid, lease_holder text, lease_seconds float8, is_claim boolean,
--   is_superseding boolean, base_lease_id uuid, new_states integer, deletion_count integer,
--   base_position bigint, known_ns text, known_id text, states pgsaga_new_state[],
--   new_values pgsaga_new_value[], messages pgsaga_new_message[]
-- columns: session_id uuid, deletion_count integer, position bigint, stored_hash bytea
-- shard: session_id
with clock as materialized (
  select now() as at, (extract(epoch from now()) * 1000000.0)::bigint as micros
),
live as (
  update {schema}.agent_sessions s set
    last_activity_at = k.at,
    message_count = s.message_count + $8,
    last_position = case
      when $16 = 0 then s.last_position
      else greatest(s.last_position, k.micros) + $16
    end,
    user_id = case when s.user_id = '' then $2 else s.user_id end,
    agent_type = case when s.agent_type = '' then $3 else s.agent_type end,
    status = coalesce($9, s.status),
    priority = coalesce($4, s.priority),
    metadata = coalesce($5, s.metadata),
    lease_id = case when $13::boolean is null then s.lease_id else $10 end,
    lease_holder = case when $13::boolean is null then s.lease_holder else $11 end,
    lease_expires_at = case
      when $13::boolean is null then s.lease_expires_at
      else {schema}.pgsaga_after(k.at, $12)
    end
  from clock k
  left join {schema}.agent_states p
    on p.session_id = $1 and p.checkpoint_ns = coalesce($19, ''::text)
      and p.checkpoint_id = coalesce($20, ''::text)
  where s.session_id = $1
    and s.message_epoch = $6
    and s.message_count = coalesce($7, s.message_count)
    and s.deletion_count = coalesce($17, s.deletion_count)
    and ($20::text is null or p.checkpoint_id is not null)
    and (
      s.lease_id is not distinct from $10
      or $13::boolean is null
      or (
        $13
        and (
          s.lease_expires_at is null
          or s.lease_expires_at <= k.at
          or ($14 and s.lease_id = $15)
        )
        and (
          $10 is null
          or (
            s.lease_id is not distinct from $15
            and s.last_position = $18
          )
        )
      )
    )
  returning s.session_id, s.last_position, s.deletion_count
),
new_states as (
  insert into {schema}.agent_states as s
    (session_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, state_data, metadata,
     exact_type, exact, position)
  select
    l.session_id, i.checkpoint_ns, i.checkpoint_id, i.parent_checkpoint_id, i.state_data,
    i.metadata, i.exact_type, i.exact, l.last_position - i.followers
  from live l
  cross join pg_catalog.unnest($21::{schema}.pgsaga_new_state[]) i
  on conflict (session_id, checkpoint_ns, checkpoint_id) do update set
    parent_checkpoint_id = excluded.parent_checkpoint_id,
    state_data = excluded.state_data,
    metadata = excluded.metadata,
    exact_type = excluded.exact_type,
    exact = excluded.exact
  returning s.session_id, s.position
),
new_values as (
  insert into {schema}.agent_state_values
    (session_id, checkpoint_ns, channel, version, type, payload, blob_hashes, message_runs)
  select
    l.session_id, i.checkpoint_ns, i.channel, i.version, i.type, i.payload, i.blob_hashes,
    i.message_runs
  from live l
  cross join pg_catalog.unnest($22::{schema}.pgsaga_new_value[]) i
  on conflict (session_id, checkpoint_ns, channel, version) do nothing
),
new_messages as (
  insert into {schema}.agent_messages
    (session_id, message_no, message_id, parent_message_no, message_type, role, content,
     metadata, digest, payload_type, payload)
  select
    l.session_id, i.message_no, i.message_id, i.parent_message_no, i.message_type, i.role,
    i.content, i.metadata, i.digest, i.payload_type, i.payload
  from live l
  cross join pg_catalog.unnest($23::{schema}.pgsaga_new_message[]) i
)
select
  l.session_id, l.deletion_count, n.position, null::bytea as stored_hash
from live l
left join new_states n on n.position >= l.last_position;

-- name: write_dependent
-- The same for pending writes alone, without new blobs.
-- params: session_id uuid, user_id text, agent_type text, priority integer, metadata jsonb,
--   message_epoch bigint, message_count integer, new_messages integer, status text,
--   lease_id uuid, lease_holder text, lease_seconds float8, is_claim boolean,
--   is_superseding boolean, base_lease_id uuid, new_states integer, deletion_count integer,
--   base_position bigint, known_ns text, known_id text, writes pgsaga_new_write[]
-- columns: session_id uuid, deletion_count integer, position bigint, stored_hash bytea
-- shard: session_id
with clock as materialized (
  select now() as at, (extract(epoch from now()) * 1000000.0)::bigint as micros
),
live as (
  update {schema}.agent_sessions s set
    last_activity_at = k.at,
    message_count = s.message_count + $8,
    last_position = case
      when $16 = 0 then s.last_position
      else greatest(s.last_position, k.micros) + $16
    end,
    user_id = case when s.user_id = '' then $2 else s.user_id end,
    agent_type = case when s.agent_type = '' then $3 else s.agent_type end,
    status = coalesce($9, s.status),
    priority = coalesce($4, s.priority),
    metadata = coalesce($5, s.metadata),
    lease_id = case when $13::boolean is null then s.lease_id else $10 end,
    lease_holder = case when $13::boolean is null then s.lease_holder else $11 end,
    lease_expires_at = case
      when $13::boolean is null then s.lease_expires_at
      else {schema}.pgsaga_after(k.at, $12)
    end
  from clock k
  left join {schema}.agent_states p
    on p.session_id = $1 and p.checkpoint_ns = coalesce($19, ''::text)
      and p.checkpoint_id = coalesce($20, ''::text)
  where s.session_id = $1
    and s.message_epoch = $6
    and s.message_count = coalesce($7, s.message_count)
    and s.deletion_count = coalesce($17, s.deletion_count)
    and ($20::text is null or p.checkpoint_id is not null)
    and (
      s.lease_id is not distinct from $10
      or $13::boolean is null
      or (
        $13
        and (
          s.lease_expires_at is null
          or s.lease_expires_at <= k.at
          or ($14 and s.lease_id = $15)
        )
        and (
          $10 is null
          or (
            s.lease_id is not distinct from $15
            and s.last_position = $18
          )
        )
      )
    )
  returning s.session_id, s.last_position, s.deletion_count
),
new_writes as (
  insert into {schema}.agent_state_writes as w
    (session_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, payload,
     blob_hashes, message_runs)
  select
    i.session_id, i.checkpoint_ns, i.checkpoint_id, i.task_id, i.idx, i.task_path, i.channel,
    i.type, i.payload, i.blob_hashes, i.message_runs
  from pg_catalog.unnest($21::{schema}.pgsaga_new_write[]) i
  left join live l on true
  where not i.is_dependent or l.session_id is not null
  on conflict (session_id, checkpoint_ns, checkpoint_id, task_id, idx) do update set
    channel = excluded.channel,
    task_path = excluded.task_path,
    type = excluded.type,
    payload = excluded.payload,
    blob_hashes = excluded.blob_hashes,
    message_runs = excluded.message_runs
  where w.idx < 0
)
select
  l.session_id, l.deletion_count, null::bigint as position, null::bytea as stored_hash
from live l;

-- name: write_pending
-- write_batch for pending writes that refer to no message and no blob, and are written
-- under no lease.
-- params: writes pgsaga_new_write[]
-- shard: writes
insert into {schema}.agent_state_writes as w
  (session_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, payload)
select
  i.session_id, i.checkpoint_ns, i.checkpoint_id, i.task_id, i.idx, i.task_path, i.channel,
  i.type, i.payload
from pg_catalog.unnest($1::{schema}.pgsaga_new_write[]) i
on conflict (session_id, checkpoint_ns, checkpoint_id, task_id, idx) do update set
  channel = excluded.channel,
  task_path = excluded.task_path,
  type = excluded.type,
  payload = excluded.payload,
  blob_hashes = null,
  message_runs = null
where w.idx < 0;

-- name: delete_stray_writes
-- The pending writes of a session that isn't there: they came after its deletion.
-- params: session_id uuid
-- shard: session_id
delete from {schema}.agent_state_writes w
where w.session_id = $1
  and not exists (select from {schema}.agent_sessions s where s.session_id = $1);

-- name: find_session
-- What numbering a session's messages takes: its epoch, its message_count, and which of
-- the digests it has; and what may keep a call from it: its lease, and that the checkpoint
-- it is put below isn't there any more, and whether the last of what is known of it is there.
-- One row; none where the session isn't there.
-- params: session_id uuid, digests bytea[], checkpoint_ns text, parent_id text,
--   known_ns text, known_id text, known_no integer, known_digest bytea,
--   known_hash bytea
-- columns: message_epoch bigint, message_count integer, digests bytea[], message_nos integer[],
--   deletion_count integer, parent_position bigint, is_last_known boolean,
--   lease_id uuid, lease_holder text, lease_expires_at text,
--   is_leased boolean, last_position bigint
-- shard: session_id
select
  s.message_epoch, s.message_count, h.digests, h.message_nos, s.deletion_count,
  (
    select p.position from {schema}.agent_states p
    where p.session_id = $1 and p.checkpoint_ns = $3 and p.checkpoint_id = $4
  ) as parent_position,
  k.is_last_known,
  s.lease_id, s.lease_holder,
  pg_catalog.to_jsonb(s.lease_expires_at) #>> '{}'::text[] as lease_expires_at,
  coalesce(s.lease_expires_at > now(), false) as is_leased, s.last_position
from {schema}.agent_sessions s
cross join lateral (
  select
    pg_catalog.array_agg(m.digest) as digests,
    pg_catalog.array_agg(m.message_no) as message_nos
  from pg_catalog.unnest($2::bytea[]) n (digest)
  cross join lateral (
    select a.digest, a.message_no from {schema}.agent_messages a
    where a.session_id = $1 and a.digest = n.digest
    limit 1
  ) m
) h
cross join lateral (
  select (
    ($6::text is null or (
      select true from {schema}.agent_states p
      where p.session_id = $1 and p.checkpoint_ns = $5 and p.checkpoint_id = $6
    ))
    and ($7::integer is null or (
      select true from {schema}.agent_messages p
      where p.session_id = $1 and p.message_no = $7 and p.digest = $8
    ))
    and ($9::bytea is null or (
      select true from {schema}.agent_state_blobs p
      where p.session_id = $1 and p.hash = $9
    ))
  ) is true as is_last_known
  offset 0
) k
where s.session_id = $1;

-- name: exists_state
-- Whether a checkpoint is stored: a row where it is.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text
-- columns: checkpoint_id text
-- shard: session_id
select s.checkpoint_id from {schema}.agent_states s
where s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = $3;

-- name: find_missing_step
-- The first of these that isn't there: the writes of a task at a checkpoint, or, where the task is
-- null, the checkpoint.
-- params: session_id uuid, namespaces text[], checkpoint_ids text[], task_ids text[]
-- columns: checkpoint_id text
-- shard: session_id
select u.checkpoint_id
from unnest($2::text[], $3::text[], $4::text[])
  with ordinality u (checkpoint_ns, checkpoint_id, task_id, place)
where not case
  when u.task_id is null then exists (
    select from {schema}.agent_states s
    where s.session_id = $1
      and s.checkpoint_ns = u.checkpoint_ns and s.checkpoint_id = u.checkpoint_id
  )
  else exists (
    select from {schema}.agent_state_writes w
    where w.session_id = $1 and w.checkpoint_ns = u.checkpoint_ns
      and w.checkpoint_id = u.checkpoint_id and w.task_id = u.task_id
  )
end
order by u.place
limit 1;

-- name: find_result
-- The first of these tasks, each at a checkpoint, that has a result there.
-- params: session_id uuid, namespaces text[], checkpoint_ids text[], task_ids text[]
-- columns: checkpoint_id text
-- shard: session_id
select u.checkpoint_id
from unnest($2::text[], $3::text[], $4::text[])
  with ordinality u (checkpoint_ns, checkpoint_id, task_id, place)
where exists (
  select from {schema}.agent_state_writes w
  where w.session_id = $1 and w.checkpoint_ns = u.checkpoint_ns
    and w.checkpoint_id = u.checkpoint_id and w.task_id = u.task_id and w.idx >= 0
)
order by u.place
limit 1;

-- name: find_state_data
-- What stands in a checkpoint's own row: a put below it may go on with its values.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text
-- columns: state_data jsonb
-- shard: session_id
select s.state_data from {schema}.agent_states s
where s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = $3;

-- name: get_checkpoint
-- One checkpoint (the latest of the namespace where checkpoint_id is null) with its
-- values, pending writes, and the blobs and messages that these refer to: one row of kind
-- 'state', then the others. The first held_messages of the session are left out if held_epoch
-- is still its epoch, and the last that is known of it (known_...) is there. A column that a
-- kind doesn't have is null. type and payload are what the kind's row holds, a state's its
-- exact_type and exact; counters are the session's message_epoch, message_count, deletion_count
-- and last_position, and the state's position. number is a write's idx and a message's
-- message_no; hashes are those of a value's blobs, and a blob's own. There is a state's row,
-- without a checkpoint, where only the session is.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, held_epoch bigint,
--   held_messages integer, known_ns text, known_id text, known_no integer, known_digest bytea
-- columns: kind text, type text, payload bytea, message_runs integer[], channel text,
--   task_id text, task_path text, number integer, hashes bytea[], checkpoint_id text,
--   parent_checkpoint_id text, state_data jsonb, metadata jsonb, counters bigint[], lease_id uuid,
--   is_last_known boolean
-- shard: session_id
with head as materialized (
  select
    s.checkpoint_id, s.parent_checkpoint_id, s.state_data, s.metadata, s.exact_type, s.exact,
    s.position, e.message_epoch, e.message_count, e.deletion_count, e.last_position, e.lease_id,
    -- What is known last is mostly this checkpoint: it is looked for where it isn't.
    (
      ($7::text is null or ($6::text = $2 and $7 = s.checkpoint_id) or (
        select true from {schema}.agent_states p
        where p.session_id = $1 and p.checkpoint_ns = $6 and p.checkpoint_id = $7
      ))
      and ($8::integer is null or (
        select true from {schema}.agent_messages p
        where p.session_id = $1 and p.message_no = $8 and p.digest = $9
      ))
    ) is true as is_last_known
  from (select) one
  left join {schema}.agent_states s
    on s.session_id = $1 and s.checkpoint_ns = $2
    and s.checkpoint_id = coalesce($3, (
      select l.checkpoint_id from {schema}.agent_states l
      where l.session_id = $1 and l.checkpoint_ns = $2 and l.position > 0
      order by l.position desc
      limit 1
    ))
  left join {schema}.agent_sessions e on e.session_id = $1
),
held as materialized (
  select
    'value' as kind, c.channel, null as task_id, null as task_path, null::integer as idx,
    v.type, v.payload, v.blob_hashes, v.message_runs, s.message_count,
    case when s.is_last_known and s.message_epoch = $4 then $5 else 0 end as known_count
  from head s
  -- Forged versions, which are no object, are told of by who decodes the state.
  cross join lateral jsonb_each_text(
    case when jsonb_typeof(s.state_data -> 'channel_versions'::text) = 'object'
      then s.state_data -> 'channel_versions'::text end
  ) c (channel, version)
  cross join lateral (
    select a.type, a.payload, a.blob_hashes, a.message_runs
    from {schema}.agent_state_values a
    where a.session_id = $1 and a.checkpoint_ns = $2
      and a.channel = c.channel and a.version = c.version
    limit 1
  ) v
  union all
  select
    'write', w.channel, w.task_id, w.task_path, w.idx, w.type, w.payload, w.blob_hashes,
    w.message_runs, s.message_count,
    case when s.is_last_known and s.message_epoch = $4 then $5 else 0 end
  from head s
  cross join lateral (
    select a.* from {schema}.agent_state_writes a
    where a.session_id = $1 and a.checkpoint_ns = $2 and a.checkpoint_id = s.checkpoint_id
    offset 0
  ) w
)
select
  'state' as kind, s.exact_type as type, s.exact as payload, null::integer[] as message_runs,
  null as channel, null as task_id, null as task_path, null::integer as number,
  null::bytea[] as hashes, s.checkpoint_id, s.parent_checkpoint_id, s.state_data, s.metadata,
  array[s.message_epoch, s.message_count, s.deletion_count, s.last_position, s.position]
    as counters,
  s.lease_id, s.is_last_known
from head s
where s.checkpoint_id is not null or s.message_epoch is not null
union all
select
  h.kind, h.type, h.payload, h.message_runs, h.channel, h.task_id, h.task_path, h.idx,
  h.blob_hashes, null, null, null, null, null, null, null
from held h
union all
select
  'blob', null, b.payload, null, null, null, null, null, array[b.hash], null, null, null, null,
  null, null, null
from held h
cross join lateral (
  select a.hash, a.payload from {schema}.agent_state_blobs a
  where a.session_id = $1 and a.hash = any(h.blob_hashes)
  offset 0
) b
where h.payload is null and h.blob_hashes is not null
union all
select
  'message', m.payload_type, m.payload, null, null, null, null, m.message_no, null, null, null,
  null, null, null, null, null
from held h
cross join lateral (
  select b.message_no, b.payload_type, b.payload
  from unnest(h.message_runs, h.message_runs[2:]) with ordinality u (first_no, last_no, i)
  cross join lateral (
    select c.message_no, c.payload_type, c.payload from {schema}.agent_messages c
    where c.session_id = $1
      and c.message_no between greatest(u.first_no, h.known_count + 1) and u.last_no
    order by c.message_no
  ) b
  where u.i % 2::bigint = 1 and u.last_no > h.known_count
  -- A value that has more was forged: see MOST_REPEATED.
  limit greatest(h.message_count, 0)::bigint + 5000
) m
where h.message_runs is not null;

-- name: select_pending_sends
-- The Send writes of a checkpoint, which checkpoints before format 4 take from their parent.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, channel text
-- columns: type text, message_runs integer[], payload bytea
-- shard: session_id
select
  w.type, w.message_runs,
  coalesce(w.payload, (
    select case when count(*) = pg_catalog.cardinality(w.blob_hashes)
      then pg_catalog.string_agg(b.payload, ''::bytea order by h.place) end
    from pg_catalog.unnest(w.blob_hashes) with ordinality h (hash, place)
    cross join lateral (
      select c.payload from {schema}.agent_state_blobs c
      where c.session_id = $1 and c.hash = h.hash
      limit 1
    ) b
  )) as payload
from {schema}.agent_state_writes w
where w.session_id = $1 and w.checkpoint_ns = $2 and w.checkpoint_id = $3 and w.channel = $4
order by w.task_path, w.task_id, w.idx;

-- name: claim_lease
-- Takes a thread's lease for a while, unless somebody has it; makes the session where there
-- is none. No row where somebody has it.
-- params: session_id uuid, thread_id text, lease_id uuid, lease_holder text,
--   lease_seconds float8, tenant_id text
-- columns: message_epoch bigint, message_count integer, is_new boolean
-- shard: session_id
insert into {schema}.agent_sessions as s
  (session_id, thread_id, lease_id, lease_holder, lease_expires_at, tenant_id)
values ($1, $2, $3, $4, {schema}.pgsaga_after(now(), $5), $6)
on conflict (session_id) do update set
  lease_id = excluded.lease_id,
  lease_holder = excluded.lease_holder,
  lease_expires_at = excluded.lease_expires_at
-- created_at is now, by its default.
where s.lease_expires_at is null or s.lease_expires_at <= excluded.created_at
  or s.lease_id = excluded.lease_id
returning s.message_epoch, s.message_count, s.xmax = 0 as is_new;

-- name: renew_free_leases
-- Makes leases last for a while longer, also those that have ended but nobody took; but for those of
-- sessions that somebody holds just now, which would hold up the others.
-- params: session_ids uuid[], lease_ids uuid[], lease_seconds float8[]
-- columns: lease_id uuid
-- shard: all, sessions of any; where these are on several servers, renew_leases is for each
with clock as materialized (
  select now() as at
),
free as materialized (
  select a.session_id, i.lease_id, i.lease_seconds
  from unnest($1::uuid[], $2::uuid[], $3::double precision[])
    i (session_id, lease_id, lease_seconds)
  cross join lateral (
    select s.session_id from {schema}.agent_sessions s
    where s.session_id = i.session_id and s.lease_id = i.lease_id
    for update skip locked
  ) a
)
update {schema}.agent_sessions s
set lease_expires_at = {schema}.pgsaga_after(k.at, f.lease_seconds)
from clock k
cross join free f
where s.session_id = f.session_id and s.lease_id = f.lease_id
returning s.lease_id;

-- name: renew_leases
-- The same, when nobody holds the sessions any more.
-- params: session_ids uuid[], lease_ids uuid[], lease_seconds float8[]
-- columns: lease_id uuid
-- shard: session_ids
with clock as materialized (
  select now() as at
)
update {schema}.agent_sessions s
set lease_expires_at = {schema}.pgsaga_after(k.at, i.lease_seconds)
from clock k
cross join unnest($1::uuid[], $2::uuid[], $3::double precision[])
  i (session_id, lease_id, lease_seconds)
where s.session_id = i.session_id and s.session_id = any($1::uuid[]) and s.lease_id = i.lease_id
returning s.lease_id;

-- name: release_lease
-- Gives a lease back.
-- params: session_id uuid, lease_id uuid
-- shard: session_id
update {schema}.agent_sessions
set lease_id = null, lease_holder = null, lease_expires_at = null
where session_id = $1 and lease_id = $2;
