-- What is about a user, in every system's tables.
--
-- Lock order: a session's row before what is of it, as for each deletion of a session.

-- name: list_user_sessions
-- The sessions of a user.
-- params: tenant_id text, user_id text
-- columns: session_id uuid
-- shard: all, a user's sessions are anywhere
select s.session_id
from {schema}.agent_sessions s
where left(s.user_id, 256) = left($2, 256) and s.user_id = $2 and s.tenant_id = $1;

-- name: lock_user_session
-- Waits for puts of the session to end and holds off further ones; no row where it isn't the
-- user's any more.
-- params: session_id uuid, user_id text
-- columns: session_id uuid
-- shard: session_id
select s.session_id from {schema}.agent_sessions s
where s.session_id = $1 and s.user_id = $2
for update;

-- name: count_session_rows
-- How many rows there are of a session, by table.
-- params: session_id uuid
-- columns: table_name text, row_count bigint
-- shard: session_id
select 'agent_states' as table_name, count(*) as row_count
from {schema}.agent_states where session_id = $1
union all
select 'agent_state_values', count(*) from {schema}.agent_state_values where session_id = $1
union all
select 'agent_state_writes', count(*) from {schema}.agent_state_writes where session_id = $1
union all
select 'agent_state_blobs', count(*) from {schema}.agent_state_blobs where session_id = $1
union all
select 'agent_messages', count(*) from {schema}.agent_messages where session_id = $1;

-- name: count_session_memories
-- How many memories there are of a session, but for those of one user, where one is given.
-- params: session_id uuid, but_of text
-- columns: row_count bigint
-- shard: all, memories are on one server
select count(*) as row_count
from {schema}.agent_memory m
where m.session_id = $1 and ($2::text is null or m.user_id is distinct from $2);

-- name: count_user_memories
-- How many memories there are of a user, those in threads, too.
-- params: tenant_id text, user_id text
-- columns: row_count bigint
-- shard: all, memories are on one server
select count(*) as row_count
from {schema}.agent_memory m
where m.tenant_id = $1 and m.user_id = $2;

-- name: count_subject_keys
-- How many keys a subject has.
-- params: tenant_id text, subject text
-- columns: row_count bigint
-- shard: all, events are on one server
select count(*) as row_count
from {schema}.event_subjects e
where e.tenant_id = $1 and e.subject = $2;

-- name: count_items
-- How many items of the store a namespace has, with those below it.
-- params: tenant_id text, namespace text, after text, before text
-- columns: row_count bigint
-- shard: all, the store's tables are on one server
select count(*) as row_count
from {schema}.agent_store_items i
where i.tenant_id = $1
  and i.namespace >= $2 and i.namespace < $4
  and (i.namespace = $2 or i.namespace >= $3);

-- name: erase_items
-- Deletes the items of a namespace and those below it; how many they were.
-- params: tenant_id text, namespace text, after text, before text
-- columns: row_count bigint
-- shard: all, the store's tables are on one server
with gone as (
  delete from {schema}.agent_store_items i
  where i.tenant_id = $1
    and i.namespace >= $2 and i.namespace < $4
    and (i.namespace = $2 or i.namespace >= $3)
  returning i.namespace
)
select count(*) as row_count from gone;
