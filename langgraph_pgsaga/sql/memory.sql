-- What agents remember: stored, recalled by words, listed, forgotten. With vectors:
-- memory_vectors.sql.
--
-- A scope is a user, a thread, or a user in a thread. Each statement names those that it may see.
--
-- Lock order: a session's row before its memories; memories that are superseded before new ones,
-- those in the order of type and content.
--
-- All of a tenant's memories are on one server, so no statement is for a shard.

-- name: create_memory_vectors
-- Makes what memories with vectors need, unless it is there.
-- columns: made void
-- shard: all, memories are on one server
select {schema}.pgsaga_create_memory_vectors() as made;

-- name: find_memory_vectors
-- Whether there is a table of vectors.
-- params: table text
-- columns: is_there boolean
-- shard: all, reads catalogs only
select pg_catalog.to_regclass($1::text) is not null as is_there;

-- name: get_language
-- The full name of a configuration of text search; nothing where there is none.
-- params: language text
-- columns: language text
-- shard: all, reads catalogs only
select n.nspname::text || '.'::text || c.cfgname::text as language
from pg_catalog.pg_ts_config c
join pg_catalog.pg_namespace n on n.oid = c.cfgnamespace
where n.nspname::text || '.'::text || c.cfgname::text = $1;

-- name: insert_memories
-- Remembers in one scope, in the order given, all or none; a memory of a type that is there with
-- the same content is reinforced. Nothing is stored, and no memory_id given, where one supersedes
-- a memory that isn't there, or isn't live.
-- params: scope_id uuid, tenant_id text, user_id text, session_id uuid, thread_id text,
--   language text, memory_ids uuid[], types text[], texts text[], hashes bytea[], contexts text[],
--   importances float8[], pinned boolean[], expires_at timestamp with time zone[],
--   lifetimes float8[], metadata jsonb[], source_thread_id text, source_checkpoint_ns text,
--   source_checkpoint_id text, source_message_nos integer[],
--   valid_from timestamp with time zone[], valid_to timestamp with time zone[],
--   superseded_ids uuid[]
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at),
given as materialized (
  select *
  from rows from (
    pg_catalog.unnest($7::uuid[]), pg_catalog.unnest($8::text[]), pg_catalog.unnest($9::text[]),
    pg_catalog.unnest($10::bytea[]), pg_catalog.unnest($11::text[]),
    pg_catalog.unnest($12::double precision[]), pg_catalog.unnest($13::boolean[]),
    pg_catalog.unnest($14::timestamptz[]), pg_catalog.unnest($15::double precision[]),
    pg_catalog.unnest($16::jsonb[]), pg_catalog.unnest($20::integer[]),
    pg_catalog.unnest($21::timestamptz[]), pg_catalog.unnest($22::timestamptz[]),
    pg_catalog.unnest($23::uuid[])
  ) with ordinality g (
    memory_id, memory_type, content_text, content_hash, context_text, importance_score, pinned,
    expires_at, lifetime, metadata, source_message_no, valid_from, valid_to, superseded_id, no
  )
),
superseding as materialized (
  select m.memory_id
  from {schema}.agent_memory m
  where m.scope_id = $1 and m.memory_id = any($23)
    and m.superseded_at is null and m.forgotten_at is null
  for update of m
),
kept as (
  insert into {schema}.agent_memory as m (
    scope_id, memory_id, tenant_id, user_id, session_id, thread_id, memory_type, content_text,
    content_hash, context_text, search_words, search_length, importance_score, pinned, expires_at,
    metadata, source_thread_id, source_checkpoint_ns, source_checkpoint_id, source_message_no,
    valid_from, valid_to, created_at, last_accessed_at, recorded_at
  )
  select
    {schema}.pgsaga_memory_scope($2, $3, $4), g.memory_id, $2, $3, $4, $5, g.memory_type,
    g.content_text, g.content_hash, g.context_text, w.words,
    (
      select coalesce(sum(pg_catalog.cardinality(u.positions)), 0)::integer
      from pg_catalog.unnest(w.words) u
    ),
    g.importance_score, g.pinned,
    coalesce(g.expires_at, {schema}.pgsaga_after(k.at, g.lifetime)),
    g.metadata, $17, $18, $19, g.source_message_no, g.valid_from, g.valid_to, k.at, k.at, k.at
  from given g
  cross join clock k
  cross join lateral (
    select pg_catalog.to_tsvector(
      $6::text::regconfig,
      -- What a tsvector holds has its limit.
      pg_catalog.left(pg_catalog.concat_ws(' '::text, g.content_text, g.context_text), 100000)
    ) as words
  ) w
  where not exists (
    select from given o
    where o.superseded_id is not null
      and not exists (select from superseding s where s.memory_id = o.superseded_id)
  )
  -- In one order for everybody, so that two can't wait for each other.
  order by g.memory_type, g.content_hash
  on conflict (scope_id, memory_type, content_hash)
    where superseded_at is null and forgotten_at is null
  do update set
    access_count = m.access_count + (m.memory_id <> excluded.memory_id)::integer,
    importance_score = greatest(m.importance_score, excluded.importance_score),
    pinned = m.pinned or excluded.pinned,
    last_accessed_at = greatest(m.last_accessed_at, excluded.last_accessed_at),
    expires_at = case
      when m.expires_at is null or excluded.expires_at is null then null
      else greatest(m.expires_at, excluded.expires_at)
    end,
    metadata = m.metadata || excluded.metadata
  returning
    m.content_hash,
    m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
    m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
    m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
    m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
    m.sources
),
superseded as (
  update {schema}.agent_memory m
  set superseded_at = k.at, superseded_by = n.memory_id
  from given g
  join kept n on n.memory_type = g.memory_type and n.content_hash = g.content_hash
  cross join clock k
  where m.scope_id = $1 and m.memory_id = g.superseded_id and m.memory_id <> n.memory_id
)
select
  k.scope_id, k.memory_id, k.user_id, k.thread_id, k.memory_type, k.content_text, k.context_text,
  k.importance_score, k.access_count, k.created_at, k.last_accessed_at, k.expires_at, k.pinned,
  k.metadata, k.source_thread_id, k.source_checkpoint_ns, k.source_checkpoint_id,
  k.source_message_no, k.valid_from, k.valid_to, k.recorded_at, k.superseded_at, k.superseded_by,
  k.sources
from given g
left join kept k on k.memory_type = g.memory_type and k.content_hash = g.content_hash
order by g.no;

-- name: get_memory
-- A memory of one of the scopes that isn't forgotten.
-- params: scope_ids uuid[], memory_id uuid
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb
-- shard: all, memories are on one server
select
  m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
  m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
  m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
  m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
  m.sources
from {schema}.agent_memory m
where m.scope_id = any($1) and m.memory_id = $2 and m.forgotten_at is null;

-- name: list_important
-- A page of the live memories of scopes, the most important first.
-- params: scope_ids uuid[], types text[], after_place float8,
--   after_id uuid, page bigint
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at)
select
  m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
  m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
  m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
  m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
  m.sources
from pg_catalog.unnest($1::uuid[]) s (scope_id)
cross join clock k
cross join lateral (
  select
    m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
    m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
    m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
    m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
    m.sources
  from {schema}.agent_memory m
  where m.scope_id = s.scope_id and m.superseded_at is null and m.forgotten_at is null
    and ($2::text[] is null or m.memory_type = any($2))
    and (m.expires_at is null or m.expires_at > k.at)
    and (m.importance_score, m.memory_id) < (
      coalesce($3, 'infinity'::float8),
      coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
  order by m.importance_score desc, m.memory_id desc
  limit $5
) m
order by m.importance_score desc, m.memory_id desc
limit $5;

-- name: list_newest
-- A page of the live memories of scopes, the newest first.
-- params: scope_ids uuid[], types text[], after_place timestamp with time zone,
--   after_id uuid, page bigint
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at)
select
  m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
  m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
  m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
  m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
  m.sources
from pg_catalog.unnest($1::uuid[]) s (scope_id)
cross join clock k
cross join lateral (
  select
    m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
    m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
    m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
    m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
    m.sources
  from {schema}.agent_memory m
  where m.scope_id = s.scope_id and m.superseded_at is null and m.forgotten_at is null
    and ($2::text[] is null or m.memory_type = any($2))
    and (m.expires_at is null or m.expires_at > k.at)
    and (m.created_at, m.memory_id) < (
      coalesce($3, 'infinity'::timestamp with time zone),
      coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
  order by m.created_at desc, m.memory_id desc
  limit $5
) m
order by m.created_at desc, m.memory_id desc
limit $5;

-- name: list_accessed
-- A page of the live memories of scopes, the last accessed first, which no index has.
-- params: scope_ids uuid[], types text[], after_place timestamp with time zone,
--   after_id uuid, page bigint
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at)
select
  m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
  m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
  m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
  m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
  m.sources
from pg_catalog.unnest($1::uuid[]) s (scope_id)
cross join clock k
cross join lateral (
  select
    m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
    m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
    m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
    m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
    m.sources
  from {schema}.agent_memory m
  where m.scope_id = s.scope_id and m.superseded_at is null and m.forgotten_at is null
    and ($2::text[] is null or m.memory_type = any($2))
    and (m.expires_at is null or m.expires_at > k.at)
    and (m.last_accessed_at, m.memory_id) < (
      coalesce($3, 'infinity'::timestamp with time zone),
      coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
  order by m.last_accessed_at desc, m.memory_id desc
  limit $5
) m
order by m.last_accessed_at desc, m.memory_id desc
limit $5;

-- name: forget_memory
-- Has a memory of one of the scopes not recalled any more, but as of before.
-- params: scope_ids uuid[], memory_id uuid
-- columns: memory_id uuid
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at)
update {schema}.agent_memory m
set forgotten_at = k.at
from clock k
where m.scope_id = any($1) and m.memory_id = $2 and m.forgotten_at is null
returning m.memory_id;

-- name: erase_memory
-- Deletes a memory of one of the scopes.
-- params: scope_ids uuid[], memory_id uuid
-- columns: memory_id uuid
-- shard: all, memories are on one server
delete from {schema}.agent_memory m
where m.scope_id = any($1) and m.memory_id = $2
returning m.memory_id;

-- name: erase_user
-- Deletes all memories of a user, those in threads, too; how many they were.
-- params: tenant_id text, user_id text
-- columns: memories bigint
-- shard: all, memories are on one server
with gone as (
  delete from {schema}.agent_memory m
  where m.tenant_id = $1 and m.user_id = $2
  returning m.memory_id
)
select count(*) as memories from gone;

-- name: count_by_policy
-- How many memories of a tenant a policy takes: of live ones, or, where it erases, of all.
-- params: tenant_id text, types text[], erases boolean, max_age interval, max_idle interval,
--   max_expired interval, max_accesses integer, keep_best bigint
-- columns: memories bigint
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at),
ranked as (
  select
    m.scope_id, m.memory_id, m.pinned, m.created_at, m.last_accessed_at, m.expires_at,
    m.access_count,
    row_number() over (
      partition by m.scope_id
      order by
        m.superseded_at is null and m.forgotten_at is null desc, m.pinned desc,
        m.importance_score desc, m.created_at desc, m.memory_id
    ) as place
  from {schema}.agent_memory m
  where m.tenant_id = $1 and ($2::text[] is null or m.memory_type = any($2))
    and ($3::boolean or (m.superseded_at is null and m.forgotten_at is null))
),
chosen as materialized (
  select r.scope_id, r.memory_id
  from ranked r
  cross join clock k
  where not r.pinned
    and ($4::interval is null or r.created_at <= k.at - $4)
    and ($5::interval is null or r.last_accessed_at <= k.at - $5)
    and ($6::interval is null or coalesce(r.expires_at, 'infinity'::timestamptz) <= k.at - $6)
    and ($7::integer is null or r.access_count <= $7)
    and ($8::bigint is null or r.place > $8)
)
select count(*) as memories from chosen;

-- name: forget_by_policy
-- Has the memories that a policy takes not recalled any more, but as of before.
-- params: tenant_id text, types text[], erases boolean, max_age interval, max_idle interval,
--   max_expired interval, max_accesses integer, keep_best bigint
-- columns: memories bigint
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at),
ranked as (
  select
    m.scope_id, m.memory_id, m.pinned, m.created_at, m.last_accessed_at, m.expires_at,
    m.access_count,
    row_number() over (
      partition by m.scope_id
      order by
        m.superseded_at is null and m.forgotten_at is null desc, m.pinned desc,
        m.importance_score desc, m.created_at desc, m.memory_id
    ) as place
  from {schema}.agent_memory m
  where m.tenant_id = $1 and ($2::text[] is null or m.memory_type = any($2))
    and ($3::boolean or (m.superseded_at is null and m.forgotten_at is null))
),
chosen as materialized (
  select r.scope_id, r.memory_id
  from ranked r
  cross join clock k
  where not r.pinned
    and ($4::interval is null or r.created_at <= k.at - $4)
    and ($5::interval is null or r.last_accessed_at <= k.at - $5)
    and ($6::interval is null or coalesce(r.expires_at, 'infinity'::timestamptz) <= k.at - $6)
    and ($7::integer is null or r.access_count <= $7)
    and ($8::bigint is null or r.place > $8)
),
gone as (
  update {schema}.agent_memory m
  set forgotten_at = k.at
  from chosen c
  cross join clock k
  where m.scope_id = c.scope_id and m.memory_id = c.memory_id
    and m.superseded_at is null and m.forgotten_at is null and not m.pinned
  returning m.memory_id
)
select count(*) as memories from gone;

-- name: erase_by_policy
-- Deletes the memories that a policy takes.
-- params: tenant_id text, types text[], erases boolean, max_age interval, max_idle interval,
--   max_expired interval, max_accesses integer, keep_best bigint
-- columns: memories bigint
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at),
ranked as (
  select
    m.scope_id, m.memory_id, m.pinned, m.created_at, m.last_accessed_at, m.expires_at,
    m.access_count,
    row_number() over (
      partition by m.scope_id
      order by
        m.superseded_at is null and m.forgotten_at is null desc, m.pinned desc,
        m.importance_score desc, m.created_at desc, m.memory_id
    ) as place
  from {schema}.agent_memory m
  where m.tenant_id = $1 and ($2::text[] is null or m.memory_type = any($2))
    and ($3::boolean or (m.superseded_at is null and m.forgotten_at is null))
),
chosen as materialized (
  select r.scope_id, r.memory_id
  from ranked r
  cross join clock k
  where not r.pinned
    and ($4::interval is null or r.created_at <= k.at - $4)
    and ($5::interval is null or r.last_accessed_at <= k.at - $5)
    and ($6::interval is null or coalesce(r.expires_at, 'infinity'::timestamptz) <= k.at - $6)
    and ($7::integer is null or r.access_count <= $7)
    and ($8::bigint is null or r.place > $8)
),
gone as (
  delete from {schema}.agent_memory m
  using chosen c
  where m.scope_id = c.scope_id and m.memory_id = c.memory_id and not m.pinned
  returning m.memory_id
)
select count(*) as memories from gone;

-- name: list_consolidated
-- A page of the scopes of a tenant, and of the types in each, that have two live memories or more:
-- of all, or of some.
-- params: tenant_id text, scope_ids uuid[], types text[], after_scope uuid, after_type text,
--   page bigint
-- columns: scope_id uuid, memory_type text
-- shard: all, memories are on one server
select m.scope_id, m.memory_type
from {schema}.agent_memory m
where m.tenant_id = $1 and m.superseded_at is null and m.forgotten_at is null
  and ($2::uuid[] is null or m.scope_id = any($2))
  and ($3::text[] is null or m.memory_type = any($3))
  and (m.scope_id, m.memory_type) > (
    coalesce($4, '00000000-0000-0000-0000-000000000000'::uuid), coalesce($5, ''::text)
  )
group by m.scope_id, m.memory_type
having count(*) > 1
order by m.scope_id, m.memory_type
limit $6;

-- name: get_memories
-- Live memories of a scope.
-- params: scope_id uuid, memory_ids uuid[]
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb
-- shard: all, memories are on one server
select
  m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
  m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
  m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
  m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
  m.sources
from {schema}.agent_memory m
where m.scope_id = $1 and m.memory_id = any($2)
  and m.superseded_at is null and m.forgotten_at is null
order by m.created_at, m.memory_id;

-- name: lock_memories
-- The live ones of some memories of a scope, which nobody else changes until the transaction ends.
-- params: scope_id uuid, memory_ids uuid[]
-- columns: memory_id uuid
-- shard: all, memories are on one server
select m.memory_id
from {schema}.agent_memory m
where m.scope_id = $1 and m.memory_id = any($2)
  and m.superseded_at is null and m.forgotten_at is null
order by m.memory_id
for update of m;

-- name: merge_memories
-- Has memories of a scope give way to others of it, which get where they came from, their counts
-- and metadata, the greatest importance and the latest end. What isn't live any more is left out.
-- params: scope_id uuid, survivor_ids uuid[], merged_ids uuid[]
-- columns: merged bigint
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at),
locked as materialized (
  select m.memory_id
  from {schema}.agent_memory m
  where m.scope_id = $1 and (m.memory_id = any($2) or m.memory_id = any($3))
    and m.superseded_at is null and m.forgotten_at is null
  order by m.memory_id
  for update of m
),
taken as materialized (
  select g.survivor_id, g.merged_id
  from rows from (
    pg_catalog.unnest($2::uuid[]), pg_catalog.unnest($3::uuid[])
  ) g (survivor_id, merged_id)
  join locked s on s.memory_id = g.survivor_id
  join locked o on o.memory_id = g.merged_id
  where g.survivor_id <> g.merged_id
),
gone as (
  update {schema}.agent_memory m
  set superseded_at = k.at, superseded_by = t.survivor_id
  from taken t
  cross join clock k
  where m.scope_id = $1 and m.memory_id = t.merged_id
  returning
    t.survivor_id, m.memory_id, m.recorded_at, m.access_count, m.importance_score, m.pinned,
    m.last_accessed_at, m.expires_at, m.metadata, m.sources,
    pg_catalog.jsonb_build_object(
      'memory_id'::text, m.memory_id, 'recorded_at'::text, m.recorded_at,
      'thread_id'::text, m.source_thread_id, 'checkpoint_ns'::text, m.source_checkpoint_ns,
      'checkpoint_id'::text, m.source_checkpoint_id, 'message_no'::text, m.source_message_no
    ) as origin
),
origins as (
  select s.survivor_id, pg_catalog.jsonb_agg(s.origin order by s.recorded_at, s.place) as sources
  from (
    select g.survivor_id, g.recorded_at, g.memory_id, 0::bigint as place, g.origin
    from gone g
    union all
    select g.survivor_id, g.recorded_at, g.memory_id, e.place, e.origin
    from gone g
    cross join lateral pg_catalog.jsonb_array_elements(g.sources)
      with ordinality e (origin, place)
  ) s
  group by s.survivor_id
),
notes as (
  select
    g.survivor_id, pg_catalog.jsonb_object_agg(e.key, e.value order by g.recorded_at) as metadata
  from gone g
  cross join lateral pg_catalog.jsonb_each(g.metadata) e
  group by g.survivor_id
),
sums as (
  select
    g.survivor_id, sum(g.access_count) as accesses, max(g.importance_score) as importance,
    bool_or(g.pinned) as pinned, max(g.last_accessed_at) as last_accessed_at,
    bool_or(g.expires_at is null) as is_lasting, max(g.expires_at) as expires_at
  from gone g
  group by g.survivor_id
),
kept as (
  update {schema}.agent_memory m
  set
    access_count = least(m.access_count + s.accesses, 2147483647::bigint)::integer,
    importance_score = greatest(m.importance_score, s.importance),
    pinned = m.pinned or s.pinned,
    last_accessed_at = greatest(m.last_accessed_at, s.last_accessed_at),
    expires_at = case
      when m.expires_at is null or s.is_lasting then null
      else greatest(m.expires_at, s.expires_at)
    end,
    metadata = coalesce(n.metadata, '{}'::jsonb) || m.metadata,
    sources = m.sources || o.sources
  from sums s
  join origins o on o.survivor_id = s.survivor_id
  left join notes n on n.survivor_id = s.survivor_id
  where m.scope_id = $1 and m.memory_id = s.survivor_id
)
select count(*) as merged from gone;

-- name: supersede_memories
-- Has memories of a scope give way to new ones, each of which gets where they came from; the first
-- gets their counts.
-- params: scope_id uuid, source_ids uuid[], new_ids uuid[]
-- columns: superseded bigint
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at),
gone as (
  update {schema}.agent_memory m
  set superseded_at = k.at, superseded_by = ($3::uuid[])[1]
  from clock k
  where m.scope_id = $1 and m.memory_id = any($2) and m.memory_id <> all($3::uuid[])
    and m.superseded_at is null and m.forgotten_at is null
  returning
    m.memory_id, m.recorded_at, m.access_count, m.sources,
    pg_catalog.jsonb_build_object(
      'memory_id'::text, m.memory_id, 'recorded_at'::text, m.recorded_at,
      'thread_id'::text, m.source_thread_id, 'checkpoint_ns'::text, m.source_checkpoint_ns,
      'checkpoint_id'::text, m.source_checkpoint_id, 'message_no'::text, m.source_message_no
    ) as origin
),
origins as (
  select
    pg_catalog.jsonb_agg(s.origin order by s.recorded_at, s.memory_id, s.place) as sources
  from (
    select g.recorded_at, g.memory_id, 0::bigint as place, g.origin
    from gone g
    union all
    select g.recorded_at, g.memory_id, e.place, e.origin
    from gone g
    cross join lateral pg_catalog.jsonb_array_elements(g.sources)
      with ordinality e (origin, place)
  ) s
),
told as (
  update {schema}.agent_memory m
  set
    sources = m.sources || o.sources,
    access_count = least(
      m.access_count + case
        when m.memory_id = ($3::uuid[])[1] then (select sum(g.access_count) from gone g)
        else 0::bigint
      end,
      2147483647::bigint
    )::integer
  from origins o
  where m.scope_id = $1 and m.memory_id = any($3::uuid[]) and o.sources is not null
)
select count(*) as superseded from gone;

-- name: export_memories
-- A page of a tenant's memories, or of a user's of it, also of those that are live no more, behind a
-- place.
-- params: tenant_id text, user_id text, after_scope uuid, after_id uuid, page bigint
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb, forgotten_at timestamp with time zone
-- shard: all, memories are on one server
select
  m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
  m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
  m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
  m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
  m.sources, m.forgotten_at
from {schema}.agent_memory m
where m.tenant_id = $1 and ($2::text is null or m.user_id = $2)
  and (m.scope_id, m.memory_id) > (
    coalesce($3, '00000000-0000-0000-0000-000000000000'::uuid),
    coalesce($4, '00000000-0000-0000-0000-000000000000'::uuid)
  )
order by m.scope_id, m.memory_id
limit $5;

-- name: import_memories
-- Stores memories as they were exported; those that are there, or whose content a live one of the
-- scope has, are left out. Each has its number in the lists of users, sessions and threads.
-- params: language text, tenant_id text, user_ids text[], session_ids uuid[], thread_ids text[],
--   memory_ids uuid[], types text[], texts text[], hashes bytea[], contexts text[],
--   importances float8[], access_counts integer[], created_at timestamp with time zone[],
--   last_accessed_at timestamp with time zone[], expires_at timestamp with time zone[],
--   pinned boolean[], metadata jsonb[], source_thread_ids text[], source_checkpoint_nss text[],
--   source_checkpoint_ids text[], source_message_nos integer[],
--   valid_from timestamp with time zone[], valid_to timestamp with time zone[],
--   recorded_at timestamp with time zone[], superseded_at timestamp with time zone[],
--   superseded_by uuid[], forgotten_at timestamp with time zone[], sources jsonb[]
-- columns: memories bigint
-- shard: all, memories are on one server
with given as materialized (
  select *
  from rows from (
    pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::uuid[]), pg_catalog.unnest($5::text[]),
    pg_catalog.unnest($6::uuid[]), pg_catalog.unnest($7::text[]), pg_catalog.unnest($8::text[]),
    pg_catalog.unnest($9::bytea[]), pg_catalog.unnest($10::text[]),
    pg_catalog.unnest($11::double precision[]), pg_catalog.unnest($12::integer[]),
    pg_catalog.unnest($13::timestamptz[]), pg_catalog.unnest($14::timestamptz[]),
    pg_catalog.unnest($15::timestamptz[]), pg_catalog.unnest($16::boolean[]),
    pg_catalog.unnest($17::jsonb[]), pg_catalog.unnest($18::text[]),
    pg_catalog.unnest($19::text[]), pg_catalog.unnest($20::text[]),
    pg_catalog.unnest($21::integer[]), pg_catalog.unnest($22::timestamptz[]),
    pg_catalog.unnest($23::timestamptz[]), pg_catalog.unnest($24::timestamptz[]),
    pg_catalog.unnest($25::timestamptz[]), pg_catalog.unnest($26::uuid[]),
    pg_catalog.unnest($27::timestamptz[]), pg_catalog.unnest($28::jsonb[])
  ) g (
    user_id, session_id, thread_id, memory_id, memory_type, content_text, content_hash,
    context_text, importance_score, access_count, created_at, last_accessed_at, expires_at, pinned,
    metadata, source_thread_id, source_checkpoint_ns, source_checkpoint_id, source_message_no,
    valid_from, valid_to, recorded_at, superseded_at, superseded_by, forgotten_at, sources
  )
),
stored as (
  insert into {schema}.agent_memory (
    scope_id, memory_id, tenant_id, user_id, session_id, thread_id, memory_type, content_text,
    content_hash, context_text, search_words, search_length, importance_score, access_count,
    created_at, last_accessed_at, expires_at, pinned, metadata, source_thread_id,
    source_checkpoint_ns, source_checkpoint_id, source_message_no, valid_from, valid_to,
    recorded_at, superseded_at, superseded_by, forgotten_at, sources
  )
  select
    {schema}.pgsaga_memory_scope($2, g.user_id, g.session_id), g.memory_id, $2, g.user_id,
    g.session_id, g.thread_id, g.memory_type, g.content_text, g.content_hash, g.context_text,
    w.words,
    (
      select coalesce(sum(pg_catalog.cardinality(u.positions)), 0)::integer
      from pg_catalog.unnest(w.words) u
    ),
    g.importance_score, g.access_count, g.created_at, g.last_accessed_at, g.expires_at, g.pinned,
    g.metadata, g.source_thread_id, g.source_checkpoint_ns, g.source_checkpoint_id,
    g.source_message_no, g.valid_from, g.valid_to, g.recorded_at, g.superseded_at,
    g.superseded_by, g.forgotten_at, g.sources
  from given g
  cross join lateral (
    select pg_catalog.to_tsvector(
      $1::text::regconfig,
      pg_catalog.left(pg_catalog.concat_ws(' '::text, g.content_text, g.context_text), 100000)
    ) as words
  ) w
  order by 1, g.memory_type, g.content_hash
  on conflict do nothing
  returning 1
)
select count(*) as memories from stored;

-- name: touch_memories
-- Counts accesses of memories, in an order that is the same for everybody.
-- params: scope_ids uuid[], memory_ids uuid[], counts integer[],
--   accessed_at timestamp with time zone[]
-- shard: all, memories are on one server
with given as materialized (
  select m.ctid as place, g.times, g.at
  from rows from (
    pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::uuid[]), pg_catalog.unnest($3::integer[]),
    pg_catalog.unnest($4::timestamptz[])
  ) g (scope_id, memory_id, times, at)
  join {schema}.agent_memory m on m.scope_id = g.scope_id and m.memory_id = g.memory_id
  order by g.scope_id, g.memory_id
  for update of m
)
update {schema}.agent_memory m
set
  access_count = m.access_count + g.times,
  last_accessed_at = greatest(m.last_accessed_at, g.at)
from given g
where m.ctid = g.place;

-- name: get_checkpoint_time
-- When a checkpoint of a thread's root graph was stored, by the server's clock.
-- params: session_id uuid, checkpoint_id text
-- columns: created_at timestamp with time zone
-- shard: session_id
select s.created_at
from {schema}.agent_states s
where s.session_id = $1 and s.checkpoint_ns = '' and s.checkpoint_id = $2;

-- name: recall_by_words
-- The best of the memories of scopes, by words alone, recency and importance, in one moment.
-- Words: BM25 (k1 1.2, b 0.75) over the scopes' memories that hold, of which each has one of the
-- query's words, or more. How often one has a word is taken from ts_rank: of one word that is the
-- sum of 1/j² over its occurrences, over that of all j; which takes a tenth of what unnesting each
-- memory's words does.
-- form says how the parts become a score, by their weights: "normalised" takes each from its least
-- to its greatest as 0 to 1, "plain" as it is, words relative to the best, "ranks" by 1 / (60 +
-- rank). Recency halves in half_life seconds from the last access on. as_of: as known then.
-- params: scope_ids uuid[], types text[], language text, query text,
--   moment timestamp with time zone, as_of timestamp with time zone, form text,
--   text_weight float8, semantic_weight float8, recency_weight float8, importance_weight float8,
--   half_life float8, k bigint
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb, score float8, text_score float8, semantic_score float8,
--   recency_score float8, moment timestamp with time zone
-- shard: all, memories are on one server
with clock as materialized (
  select
    coalesce($6, $5, {schema}.pgsaga_now()) as at,
    coalesce($6, 'infinity'::timestamptz) as known_at
),
terms as materialized (
  select u.lexeme
  from pg_catalog.unnest(pg_catalog.to_tsvector($3::text::regconfig, $4)) u
  -- 92 is the backslash, by which a tsquery's text quotes.
  where pg_catalog.strpos(u.lexeme, pg_catalog.chr(92)) = 0
  order by u.lexeme
  limit 64
),
asked as materialized (
  select
    t.lexeme,
    (
      ''''::text || pg_catalog.replace(t.lexeme, ''''::text, ''''''::text) || ''''::text
    )::tsquery as word
  from terms t
),
any_asked as materialized (
  select (pg_catalog.string_agg(a.word::text, ' | '::text))::tsquery as words from asked a
),
live as materialized (
  select
    m.scope_id, m.memory_id, m.search_words, m.search_length, m.importance_score, m.created_at,
    m.last_accessed_at, m.search_words @@ a.words as is_hit
  from {schema}.agent_memory m
  cross join clock k
  cross join any_asked a
  where m.scope_id = any($1)
    and ($2::text[] is null or m.memory_type = any($2))
    and m.recorded_at <= k.known_at
    and (m.superseded_at is null or m.superseded_at > $6)
    and (m.forgotten_at is null or m.forgotten_at > $6)
    and (m.expires_at is null or m.expires_at > k.at)
    and (m.valid_from is null or m.valid_from <= k.at)
    and (m.valid_to is null or m.valid_to > k.at)
),
sizes as materialized (
  select
    count(*)::double precision as memories,
    greatest(avg(l.search_length), 1::numeric)::double precision as length
  from live l
),
hits as materialized (
  select
    l.scope_id, l.memory_id, l.search_length, a.lexeme,
    -- 1.6449… is the sum of all 1/j², and what is left of it behind n about 1 / (n + 1/2).
    pg_catalog.round(1::double precision / greatest(
      1.6449340668::double precision * (1::double precision - r.rank), 0.0001::double precision
    ) - 0.5::double precision) as times
  from live l
  join asked a on l.search_words @@ a.word
  cross join lateral (
    select pg_catalog.ts_rank('{1,1,1,1}'::real[], l.search_words, a.word)::double precision
      as rank
  ) r
  where l.is_hit
),
rarity as materialized (
  select
    h.lexeme, s.length,
    pg_catalog.ln(
      1::double precision + (s.memories - count(*)::double precision + 0.5::double precision)
        / (count(*)::double precision + 0.5::double precision)
    ) as idf
  from hits h
  cross join sizes s
  group by h.lexeme, s.memories, s.length
),
words as materialized (
  select
    h.scope_id, h.memory_id,
    sum(
      r.idf * h.times * 2.2::double precision / (
        h.times + 0.3::double precision
          + 0.9::double precision * h.search_length::double precision / r.length
      )
    ) as text_score
  from hits h
  join rarity r on r.lexeme = h.lexeme
  group by h.scope_id, h.memory_id
),
-- Joins of what no statistics are there for may be nested loops; a sum of rows is not.
gathered as materialized (
  select
    g.scope_id, g.memory_id, max(g.importance_score) as importance_score,
    max(g.created_at) as created_at, max(g.last_accessed_at) as last_accessed_at,
    coalesce(max(g.text_score), 0::double precision) as text_score,
    max(g.semantic_score) as semantic_score
  from (
    select
      l.scope_id, l.memory_id, true as is_live, l.importance_score, l.created_at,
      l.last_accessed_at, null::double precision as text_score,
      null::double precision as semantic_score
    from live l
    union all
    select
      w.scope_id, w.memory_id, false, null::double precision, null::timestamptz, null::timestamptz,
      w.text_score, null::double precision
    from words w
  ) g
  group by g.scope_id, g.memory_id
  having bool_or(g.is_live)
),
parts as materialized (
  select
    g.scope_id, g.memory_id, g.importance_score, g.created_at, g.text_score, g.semantic_score,
    pg_catalog.power(
      0.5::double precision,
      -- 2 to the power of more than 1,074 is out of a float's range, which is an error.
      least(
        greatest(
          pg_catalog.date_part('epoch'::text, k.at - g.last_accessed_at), 0::double precision
        ) / $12,
        1000::double precision
      )
    ) as recency_score
  from gathered g
  cross join clock k
),
ranges as materialized (
  select
    min(p.text_score) as least_text,
    nullif(max(p.text_score) - min(p.text_score), 0::double precision)
      as text_range,
    nullif(max(p.text_score), 0::double precision) as most_text,
    min(p.semantic_score) as least_semantic,
    nullif(max(p.semantic_score) - min(p.semantic_score), 0::double precision)
      as semantic_range,
    min(p.recency_score) as least_recency,
    nullif(max(p.recency_score) - min(p.recency_score), 0::double precision)
      as recency_range,
    min(p.importance_score) as least_importance,
    nullif(max(p.importance_score) - min(p.importance_score), 0::double precision)
      as importance_range
  from parts p
),
scored as materialized (
  select
    p.scope_id, p.memory_id, p.text_score, p.semantic_score, p.recency_score, p.created_at,
    p.importance_score,
    case $7
      when 'plain' then
        $8 * coalesce(p.text_score / g.most_text, 0) + $9 * coalesce(p.semantic_score, 0)
        + $10 * p.recency_score + $11 * p.importance_score
      else
        $8 * coalesce((p.text_score - g.least_text) / g.text_range, 0)
        + $9 * coalesce((p.semantic_score - g.least_semantic) / g.semantic_range, 0)
        + $10 * coalesce((p.recency_score - g.least_recency) / g.recency_range, 0)
        + $11 * coalesce((p.importance_score - g.least_importance) / g.importance_range, 0)
    end as score
  from parts p
  cross join ranges g
  where $7 <> 'ranks'
  union all
  select
    p.scope_id, p.memory_id, p.text_score, p.semantic_score, p.recency_score, p.created_at,
    p.importance_score,
    $8 * case when p.text_score > 0::double precision then 1::double precision / (
      60::bigint + rank() over (order by p.text_score desc)
    )::double precision else 0::double precision end
    + $9 * case when p.semantic_score is null then 0::double precision
      else 1::double precision / (
        60::bigint + rank() over (order by p.semantic_score desc nulls last)
      )::double precision end
    + $10 / (60::bigint + rank() over (order by p.recency_score desc))::double precision
    + $11 / (60::bigint + rank() over (order by p.importance_score desc))::double precision
  from parts p
  where $7 = 'ranks'
),
best as materialized (
  select p.*
  from scored p
  order by p.score desc, p.importance_score desc, p.created_at desc, p.memory_id
  limit $13
)
select
  m.scope_id, m.memory_id, m.user_id, m.thread_id, m.memory_type, m.content_text, m.context_text,
  m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at, m.pinned,
  m.metadata, m.source_thread_id, m.source_checkpoint_ns, m.source_checkpoint_id,
  m.source_message_no, m.valid_from, m.valid_to, m.recorded_at, m.superseded_at, m.superseded_by,
  m.sources,
  p.score, p.text_score, p.semantic_score, p.recency_score,
  (select k.at from clock k) as moment
from best p
join {schema}.agent_memory m on m.scope_id = p.scope_id and m.memory_id = p.memory_id
order by p.score desc, p.importance_score desc, p.created_at desc, p.memory_id;
