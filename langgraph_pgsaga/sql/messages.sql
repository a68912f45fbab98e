-- Reading messages: pages by filters, the search across threads. Nothing here writes or locks.
-- Times come as to_jsonb writes them: rows may have times that the driver has none for.

-- The listings: in the order of session and number, each the next page after the message
-- that (after_session, after_no) name, or the first where after_no is null. A filter that
-- is null doesn't filter. They are five because the index that serves them differs, and a
-- generic plan can't choose at run time. The exact bytes come where with_payload says so.

-- name: list_thread_messages
-- A thread's messages.
-- params: session_id uuid, types text[], roles text[], since timestamp with time zone, until timestamp with time zone, text text, after_no integer, page bigint, with_payload boolean
-- columns: session_id uuid, thread_id text, message_no integer, message_id text, parent_message_no integer, message_type text, role text, content text, metadata jsonb, created_at text, tenant_id text, payload_type text, payload bytea
-- shard: session_id
select
  m.session_id, t.thread_id, m.message_no, m.message_id, m.parent_message_no, m.message_type,
  m.role, m.content, m.metadata,
  pg_catalog.to_jsonb(m.created_at) #>> '{}'::text[] as created_at, t.tenant_id,
  case when $9 then m.payload_type end as payload_type, case when $9 then m.payload end as payload
from {schema}.agent_messages m
join {schema}.agent_sessions t on t.session_id = m.session_id
where m.session_id = $1
  and m.message_no > coalesce($7, 0)
  and ($2::text[] is null or m.message_type = any($2))
  and ($3::text[] is null or m.role = any($3))
  and ($4::timestamptz is null or m.created_at >= $4)
  and ($5::timestamptz is null or m.created_at < $5)
  and ($6::text is null
    or {schema}.pgsaga_message_words(m.content) @@ websearch_to_tsquery('simple'::regconfig, $6))
order by m.message_no
limit $8;

-- name: list_children
-- The messages of a thread that were stored after the given one in their list.
-- params: session_id uuid, message_no integer
-- columns: session_id uuid, thread_id text, message_no integer, message_id text, parent_message_no integer, message_type text, role text, content text, metadata jsonb, created_at text, tenant_id text
-- shard: session_id
select
  m.session_id, t.thread_id, m.message_no, m.message_id, m.parent_message_no, m.message_type,
  m.role, m.content, m.metadata,
  pg_catalog.to_jsonb(m.created_at) #>> '{}'::text[] as created_at, t.tenant_id
from {schema}.agent_messages m
join {schema}.agent_sessions t on t.session_id = m.session_id
where m.session_id = $1
  -- A message has a lower number than what follows it.
  and m.message_no > $2
  and m.parent_message_no = $2
order by m.message_no;

-- name: list_checkpoint_messages
-- The messages that any value of a thread's checkpoint holds.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text, types text[], roles text[], since timestamp with time zone, until timestamp with time zone, text text, after_no integer, page bigint, with_payload boolean
-- columns: session_id uuid, thread_id text, message_no integer, message_id text, parent_message_no integer, message_type text, role text, content text, metadata jsonb, created_at text, tenant_id text, payload_type text, payload bytea
-- shard: session_id
with runs as materialized (
  select distinct run.first_no, run.last_no
  from {schema}.agent_states s
  -- Forged versions, which are no object, name nothing.
  cross join lateral jsonb_each_text(
    case when jsonb_typeof(s.state_data -> 'channel_versions'::text) = 'object'
      then s.state_data -> 'channel_versions'::text end
  ) c (channel, version)
  cross join lateral (
    select a.message_runs
    from {schema}.agent_state_values a
    where a.session_id = $1 and a.checkpoint_ns = $2
      and a.channel = c.channel and a.version = c.version
    limit 1
  ) v
  cross join lateral unnest(v.message_runs, v.message_runs[2:]) with ordinality
    run (first_no, last_no, i)
  where s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = $3
    and run.i % 2::bigint = 1
),
-- Each message once: a run is that of the runs from behind those before it on.
apart as materialized (
  select
    r.first_no, r.last_no,
    max(r.last_no) over (
      order by r.first_no rows between unbounded preceding and 1 preceding
    ) as seen_no
  from runs r
)
select
  m.session_id, t.thread_id, m.message_no, m.message_id, m.parent_message_no, m.message_type,
  m.role, m.content, m.metadata,
  pg_catalog.to_jsonb(m.created_at) #>> '{}'::text[] as created_at, t.tenant_id,
  case when $11 then m.payload_type end as payload_type,
  case when $11 then m.payload end as payload
from apart r
cross join lateral (
  select a.* from {schema}.agent_messages a
  where a.session_id = $1
    and a.message_no >= r.first_no and a.message_no > coalesce(r.seen_no, 0)
    and a.message_no > coalesce($9, 0) and a.message_no <= r.last_no
  order by a.message_no
) m
join {schema}.agent_sessions t on t.session_id = $1
where ($4::text[] is null or m.message_type = any($4))
  and ($5::text[] is null or m.role = any($5))
  and ($6::timestamptz is null or m.created_at >= $6)
  and ($7::timestamptz is null or m.created_at < $7)
  and ($8::text is null
    or {schema}.pgsaga_message_words(m.content) @@ websearch_to_tsquery('simple'::regconfig, $8))
order by m.message_no
limit $10;

-- name: list_all_messages
-- The messages of all threads, of every tenant where tenant_id is null, else of that one, which
-- is '': others' threads are passed over. Thread by thread, so that a page reads those it takes of
-- and no others, where a plan over all messages would read and sort them all.
-- params: types text[], roles text[], since timestamp with time zone, until timestamp with time zone, after_session uuid, after_no integer, page bigint, with_payload boolean, tenant_id text
-- columns: session_id uuid, thread_id text, message_no integer, message_id text, parent_message_no integer, message_type text, role text, content text, metadata jsonb, created_at text, tenant_id text, payload_type text, payload bytea
-- shard: all, pages run over every thread
with threads as (
  select s.session_id, s.thread_id, s.tenant_id
  from {schema}.agent_sessions s
  where s.session_id >= coalesce($5, '00000000-0000-0000-0000-000000000000'::uuid)
    and ($9::text is null or s.tenant_id = $9)
  order by s.session_id
  offset 0
)
select
  t.session_id, t.thread_id, m.message_no, m.message_id, m.parent_message_no, m.message_type,
  m.role, m.content, m.metadata,
  pg_catalog.to_jsonb(m.created_at) #>> '{}'::text[] as created_at, t.tenant_id,
  case when $8 then m.payload_type end as payload_type, case when $8 then m.payload end as payload
from threads t
cross join lateral (
  select a.*
  from {schema}.agent_messages a
  where a.session_id = t.session_id
    and a.message_no > case when t.session_id = $5 then $6 else 0 end
    and ($1::text[] is null or a.message_type = any($1))
    and ($2::text[] is null or a.role = any($2))
    and ($3::timestamptz is null or a.created_at >= $3)
    and ($4::timestamptz is null or a.created_at < $4)
  order by a.message_no
  limit $7
) m
order by t.session_id, m.message_no
limit $7;

-- name: list_tenant_messages
-- list_all_messages of a tenant that isn't '', by an index of its own.
-- params: types text[], roles text[], since timestamp with time zone, until timestamp with time zone, after_session uuid, after_no integer, page bigint, with_payload boolean, tenant_id text
-- columns: session_id uuid, thread_id text, message_no integer, message_id text, parent_message_no integer, message_type text, role text, content text, metadata jsonb, created_at text, tenant_id text, payload_type text, payload bytea
-- shard: all, pages run over every thread of the tenant
with threads as (
  select s.session_id, s.thread_id, s.tenant_id
  from {schema}.agent_sessions s
  where s.session_id >= coalesce($5, '00000000-0000-0000-0000-000000000000'::uuid)
    and s.tenant_id = $9 and s.tenant_id <> ''::text
  order by s.session_id
  offset 0
)
select
  t.session_id, t.thread_id, m.message_no, m.message_id, m.parent_message_no, m.message_type,
  m.role, m.content, m.metadata,
  pg_catalog.to_jsonb(m.created_at) #>> '{}'::text[] as created_at, t.tenant_id,
  case when $8 then m.payload_type end as payload_type, case when $8 then m.payload end as payload
from threads t
cross join lateral (
  select a.*
  from {schema}.agent_messages a
  where a.session_id = t.session_id
    and a.message_no > case when t.session_id = $5 then $6 else 0 end
    and ($1::text[] is null or a.message_type = any($1))
    and ($2::text[] is null or a.role = any($2))
    and ($3::timestamptz is null or a.created_at >= $3)
    and ($4::timestamptz is null or a.created_at < $4)
  order by a.message_no
  limit $7
) m
order by t.session_id, m.message_no
limit $7;

-- name: list_matching_messages
-- The messages of all threads that a full-text search finds, of every tenant where tenant_id is
-- null, else of that one.
-- params: types text[], roles text[], since timestamp with time zone, until timestamp with time zone, text text, after_session uuid, after_no integer, page bigint, with_payload boolean, tenant_id text
-- columns: session_id uuid, thread_id text, message_no integer, message_id text, parent_message_no integer, message_type text, role text, content text, metadata jsonb, created_at text, tenant_id text, payload_type text, payload bytea
-- shard: all, pages run over every thread
with hits as materialized (
  select m.session_id, m.message_no
  from {schema}.agent_messages m
  where {schema}.pgsaga_message_words(m.content) @@ websearch_to_tsquery('simple'::regconfig, $5)
    and ($1::text[] is null or m.message_type = any($1))
    and ($2::text[] is null or m.role = any($2))
    and ($3::timestamptz is null or m.created_at >= $3)
    and ($4::timestamptz is null or m.created_at < $4)
    and ($7::integer is null or (m.session_id, m.message_no) > ($6::uuid, $7))
    and ($10::text is null or exists (
      select from {schema}.agent_sessions t
      where t.session_id = m.session_id and t.tenant_id = $10
    ))
),
page as materialized (
  select h.session_id, h.message_no
  from hits h
  order by h.session_id, h.message_no
  limit $8
)
select
  m.session_id, t.thread_id, m.message_no, m.message_id, m.parent_message_no, m.message_type,
  m.role, m.content, m.metadata,
  pg_catalog.to_jsonb(m.created_at) #>> '{}'::text[] as created_at, t.tenant_id,
  case when $9 then m.payload_type end as payload_type, case when $9 then m.payload end as payload
from page p
join {schema}.agent_messages m on m.session_id = p.session_id and m.message_no = p.message_no
join {schema}.agent_sessions t on t.session_id = m.session_id
order by m.session_id, m.message_no;

-- The two searches: the best hits first, or the newest. Rank and marked text are of what the
-- index sees, marked by characters that are taken out of the text before. All of it is marked,
-- since PostgreSQL's own fragments lose short words, numbers and tags.

-- name: search_messages
-- The best or newest hits of all of a tenant's threads (where tenant_id is null, of everybody's),
-- or of a user's.
-- params: text text, best_first boolean, user_id text, page bigint, tenant_id text
-- columns: thread_id text, message_no integer, message_id text, parent_message_no integer, message_type text, role text, content text, metadata jsonb, created_at text, user_id text, tenant_id text, rank float4, marked text
-- shard: all, hits may be in any thread
with hits as materialized (
  select
    m.session_id, m.message_no, m.created_at,
    case when $2 then
      ts_rank(
        {schema}.pgsaga_message_words(m.content), websearch_to_tsquery('simple'::regconfig, $1)
      )
    end as rank
  from {schema}.agent_messages m
  where {schema}.pgsaga_message_words(m.content) @@ websearch_to_tsquery('simple'::regconfig, $1)
),
best as materialized (
  select h.session_id, h.message_no, h.created_at, h.rank, t.thread_id, t.user_id, t.tenant_id
  from hits h
  join {schema}.agent_sessions t on t.session_id = h.session_id
  where ($3::text is null or t.user_id = $3) and ($5::text is null or t.tenant_id = $5)
  order by h.rank desc nulls last, h.created_at desc, h.session_id, h.message_no desc
  limit $4
)
select
  b.thread_id, m.message_no, m.message_id, m.parent_message_no, m.message_type, m.role,
  m.content, m.metadata, pg_catalog.to_jsonb(m.created_at) #>> '{}'::text[] as created_at,
  b.user_id, b.tenant_id,
  ts_rank(
    {schema}.pgsaga_message_words(m.content), websearch_to_tsquery('simple'::regconfig, $1)
  ) as rank,
  ts_headline(
    'simple'::regconfig, translate(left(m.content, 50000), chr(2) || chr(3), ''),
    websearch_to_tsquery('simple'::regconfig, $1),
    'HighlightAll=true, StartSel=' || chr(2) || ', StopSel=' || chr(3)
  ) as marked
from best b
join {schema}.agent_messages m on m.session_id = b.session_id and m.message_no = b.message_no
order by b.rank desc nulls last, b.created_at desc, b.session_id, b.message_no desc;

-- name: search_thread
-- The best or newest hits of a thread; none where it isn't the given user's.
-- params: text text, best_first boolean, user_id text, page bigint, session_id uuid
-- columns: thread_id text, message_no integer, message_id text, parent_message_no integer, message_type text, role text, content text, metadata jsonb, created_at text, user_id text, tenant_id text, rank float4, marked text
-- shard: session_id
with hits as materialized (
  select
    m.message_no, m.created_at, t.thread_id, t.user_id, t.tenant_id,
    ts_rank(
      {schema}.pgsaga_message_words(m.content), websearch_to_tsquery('simple'::regconfig, $1)
    ) as rank
  from {schema}.agent_messages m
  join {schema}.agent_sessions t on t.session_id = m.session_id
  where m.session_id = $5
    and {schema}.pgsaga_message_words(m.content) @@ websearch_to_tsquery('simple'::regconfig, $1)
    and ($3::text is null or t.user_id = $3)
),
best as materialized (
  select h.message_no, h.created_at, h.thread_id, h.user_id, h.tenant_id, h.rank
  from hits h
  order by case when $2 then h.rank end desc nulls last, h.created_at desc, h.message_no desc
  limit $4
)
select
  b.thread_id, m.message_no, m.message_id, m.parent_message_no, m.message_type, m.role,
  m.content, m.metadata, pg_catalog.to_jsonb(m.created_at) #>> '{}'::text[] as created_at,
  b.user_id, b.tenant_id, b.rank,
  ts_headline(
    'simple'::regconfig, translate(left(m.content, 50000), chr(2) || chr(3), ''),
    websearch_to_tsquery('simple'::regconfig, $1),
    'HighlightAll=true, StartSel=' || chr(2) || ', StopSel=' || chr(3)
  ) as marked
from best b
join {schema}.agent_messages m on m.session_id = $5 and m.message_no = b.message_no
order by case when $2 then b.rank end desc nulls last, b.created_at desc, b.message_no desc;

-- name: exists_thread
-- Whether the thread is there.
-- params: session_id uuid
-- columns: is_there boolean
-- shard: session_id
select exists (select from {schema}.agent_sessions s where s.session_id = $1) as is_there;

-- name: exists_checkpoint
-- Whether the thread's namespace has the checkpoint.
-- params: session_id uuid, checkpoint_ns text, checkpoint_id text
-- columns: is_there boolean
-- shard: session_id
select exists (
  select from {schema}.agent_states s
  where s.session_id = $1 and s.checkpoint_ns = $2 and s.checkpoint_id = $3
) as is_there;
