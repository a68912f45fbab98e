-- Sessions as their users see them: made, changed, listed, and swept.
--
-- Lock order: as everywhere, the agent_sessions row before anything else of the session.
-- Who locks several of them passes over those that others hold, and so never waits with
-- some in hand.
--
-- Times come as to_jsonb writes them, which no setting changes: rows may have times that the
-- driver has none for, and a listing goes on behind them.

-- name: create_session
-- A new session; no row where the thread has one.
-- params: session_id uuid, thread_id text, user_id text, agent_type text, priority integer,
--   metadata jsonb, expires_at timestamp with time zone, tenant_id text
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: session_id
with made as (
  insert into {schema}.agent_sessions as s
    (session_id, thread_id, user_id, agent_type, priority, metadata, expires_at, tenant_id)
  values ($1, $2, $3, $4, $5, $6, $7, $8)
  on conflict (session_id) do nothing
  returning s.*
)
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from made s;

-- name: get_session
-- One session.
-- params: session_id uuid
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: session_id
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from {schema}.agent_sessions s
where s.session_id = $1;

-- name: update_session
-- What is null stays, but for expires_at, which stays where changes_expiry is false.
-- params: session_id uuid, user_id text, agent_type text, status text, priority integer,
--   metadata jsonb, expires_at timestamp with time zone, changes_expiry boolean
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: session_id
with changed as (
  update {schema}.agent_sessions s set
    user_id = coalesce($2, s.user_id),
    agent_type = coalesce($3, s.agent_type),
    status = coalesce($4, s.status),
    priority = coalesce($5, s.priority),
    metadata = coalesce($6, s.metadata),
    expires_at = case when $8 then $7 else s.expires_at end
  where s.session_id = $1
  returning s.*
)
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from changed s;

-- The listings: each the page after the session that (after_priority,) after_time and after_id
-- name, or the first where these are null; the latest first, or, by priority, as in a queue:
-- the highest priority first, of each the oldest. Apart from those, a parameter that is null
-- doesn't filter. They are several because the index that serves them differs, and a generic
-- plan can't choose at run time. created_at > '-infinity' is always so: it says that the index
-- may be taken (0009).

-- name: list_by_activity
-- A tenant's sessions, those active last first. Sorted: no index may be on last_activity_at.
-- params: status text, active_since timestamp with time zone,
--   active_before timestamp with time zone, after_time text, after_id uuid,
--   page bigint, tenant_id text
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: all, pages run over every session
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from (
  select a.* from {schema}.agent_sessions a where $7 = ''::text and a.tenant_id = ''::text
  union all
  select a.* from {schema}.agent_sessions a
  where $7 <> ''::text and a.tenant_id = $7 and a.tenant_id <> ''::text
) s
where ($1::text is null or s.status = $1)
  and ($2::timestamptz is null or s.last_activity_at >= $2)
  and ($3::timestamptz is null or s.last_activity_at < $3)
  and (s.last_activity_at, s.session_id)
    < (coalesce($4::text::timestamptz, 'infinity'), coalesce($5, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
order by s.last_activity_at desc, s.session_id desc
limit $6;

-- name: list_by_created
-- A tenant's sessions, the newest first.
-- params: status text, active_since timestamp with time zone,
--   active_before timestamp with time zone, after_time text, after_id uuid,
--   page bigint, tenant_id text
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: all, pages run over every session
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from {schema}.agent_sessions s
where s.created_at > '-infinity'
  and s.tenant_id = $7
  and ($1::text is null or s.status = $1)
  and ($2::timestamptz is null or s.last_activity_at >= $2)
  and ($3::timestamptz is null or s.last_activity_at < $3)
  and (s.created_at, s.session_id)
    < (coalesce($4::text::timestamptz, 'infinity'), coalesce($5, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
order by s.created_at desc, s.session_id desc
limit $6;

-- name: list_by_priority
-- A tenant's sessions as in a queue. ~priority falls as the priority rises, so that one index, which
-- is read in one direction, has the order.
-- params: status text, active_since timestamp with time zone,
--   active_before timestamp with time zone, after_priority integer,
--   after_time text, after_id uuid, page bigint, tenant_id text
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: all, pages run over every session
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from {schema}.agent_sessions s
where s.created_at > '-infinity'
  and s.tenant_id = $8
  and ($1::text is null or s.status = $1)
  and ($2::timestamptz is null or s.last_activity_at >= $2)
  and ($3::timestamptz is null or s.last_activity_at < $3)
  and (~ s.priority, s.created_at, s.session_id) > (
    ~ coalesce($4, 2147483647), coalesce($5::text::timestamptz, '-infinity'),
    coalesce($6, '00000000-0000-0000-0000-000000000000'::uuid)
  )
order by ~ s.priority, s.created_at, s.session_id
limit $7;

-- name: list_type_by_created
-- A tenant's sessions of an agent type, the newest first. Its beginning is compared as a range, not
-- for equality: only so is the order that of agent_sessions_type_idx and of no other index.
-- params: agent_type text, status text, active_since timestamp with time zone,
--   active_before timestamp with time zone, after_time text, after_id uuid,
--   page bigint, tenant_id text
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: all, pages run over every session
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from {schema}.agent_sessions s
where s.created_at > '-infinity'
  and s.tenant_id = $8
  and s.agent_type = $1
  and ($2::text is null or s.status = $2)
  and ($3::timestamptz is null or s.last_activity_at >= $3)
  and ($4::timestamptz is null or s.last_activity_at < $4)
  and left(s.agent_type, 256) >= left($1, 256)
  and (left(s.agent_type, 256), s.created_at, s.session_id) < (
    left($1, 256), coalesce($5::text::timestamptz, 'infinity'),
    coalesce($6, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
  )
order by left(s.agent_type, 256) desc, s.created_at desc, s.session_id desc
limit $7;

-- name: list_type_sorted
-- A tenant's sessions of an agent type in any of the three orders.
-- params: agent_type text, status text, active_since timestamp with time zone,
--   active_before timestamp with time zone, order_name text, after_priority integer,
--   after_time text, after_id uuid, page bigint,
--   tenant_id text
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: all, pages run over every session
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from {schema}.agent_sessions s
cross join lateral (
  select case when $5::text = 'activity' then s.last_activity_at else s.created_at end as time
) place
where s.created_at > '-infinity'
  and s.tenant_id = $10
  and left(s.agent_type, 256) = left($1, 256)
  and s.agent_type = $1
  and ($2::text is null or s.status = $2)
  and ($3::timestamptz is null or s.last_activity_at >= $3)
  and ($4::timestamptz is null or s.last_activity_at < $4)
  and case when $5::text = 'priority'
    then (~ s.priority, s.created_at, s.session_id) > (
      ~ coalesce($6, 2147483647), coalesce($7::text::timestamptz, '-infinity'),
      coalesce($8, '00000000-0000-0000-0000-000000000000'::uuid)
    )
    else (place.time, s.session_id) < (
      coalesce($7::text::timestamptz, 'infinity'),
      coalesce($8, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
  end
order by
  case when $5 = 'priority' then ~ s.priority end,
  case when $5 = 'priority' then s.created_at end,
  case when $5 = 'priority' then s.session_id end,
  place.time desc, s.session_id desc
limit $9;

-- name: list_every
-- The sessions of all tenants, or those of an agent type, in any of the three orders. Sorted:
-- the indexes have the order within each tenant.
-- params: agent_type text, status text, active_since timestamp with time zone,
--   active_before timestamp with time zone, order_name text, after_priority integer,
--   after_time text, after_id uuid, page bigint
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: all, pages run over every session
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from {schema}.agent_sessions s
cross join lateral (
  select case when $5::text = 'activity' then s.last_activity_at else s.created_at end as time
) place
where s.created_at > '-infinity'
  and ($1::text is null or s.agent_type = $1)
  and ($2::text is null or s.status = $2)
  and ($3::timestamptz is null or s.last_activity_at >= $3)
  and ($4::timestamptz is null or s.last_activity_at < $4)
  and case when $5::text = 'priority'
    then (~ s.priority, s.created_at, s.session_id) > (
      ~ coalesce($6, 2147483647), coalesce($7::text::timestamptz, '-infinity'),
      coalesce($8, '00000000-0000-0000-0000-000000000000'::uuid)
    )
    else (place.time, s.session_id) < (
      coalesce($7::text::timestamptz, 'infinity'),
      coalesce($8, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
  end
order by
  case when $5 = 'priority' then ~ s.priority end,
  case when $5 = 'priority' then s.created_at end,
  case when $5 = 'priority' then s.session_id end,
  place.time desc, s.session_id desc
limit $9;

-- name: list_narrowed
-- A tenant's sessions, or, where tenant_id is null, those of all: of a user, or whose metadata contains the given, or with messages that the
-- query finds, in any of the three orders. One of these must be given: the first of them
-- that is finds the candidates through an index, the others filter.
-- params: user_id text, metadata jsonb, query text, agent_type text, status text,
--   active_since timestamp with time zone, active_before timestamp with time zone,
--   order_name text, after_priority integer, after_time text, after_id uuid,
--   page bigint, tenant_id text
-- columns: thread_id text, session_id uuid, user_id text, agent_type text, status text,
--   priority integer, metadata jsonb, message_count integer, created_at text,
--   last_activity_at text, expires_at text, tenant_id text
-- shard: all, pages run over every session
with candidates as (
  select s.session_id from {schema}.agent_sessions s
  where $1::text is not null and left(s.user_id, 256) = left($1, 256) and s.user_id = $1
  union
  select s.session_id from {schema}.agent_sessions s
  where $1::text is null and $2::jsonb is not null and s.metadata @> $2
  union
  select m.session_id from {schema}.agent_messages m
  where $1::text is null and $2::jsonb is null and $3::text is not null
    and {schema}.pgsaga_message_words(m.content) @@ websearch_to_tsquery('simple'::regconfig, $3)
)
select
  s.thread_id, s.session_id, s.user_id, s.agent_type, s.status, s.priority, s.metadata,
  s.message_count, pg_catalog.to_jsonb(s.created_at) #>> '{}'::text[] as created_at,
  pg_catalog.to_jsonb(s.last_activity_at) #>> '{}'::text[] as last_activity_at,
  pg_catalog.to_jsonb(s.expires_at) #>> '{}'::text[] as expires_at, s.tenant_id
from candidates c
cross join lateral (
  select a.* from {schema}.agent_sessions a where a.session_id = c.session_id limit 1
) s
cross join lateral (
  select case when $8::text = 'activity' then s.last_activity_at else s.created_at end as time
) place
where ($2::jsonb is null or s.metadata @> $2)
  and (
    $3::text is null
    or ($1::text is null and $2::jsonb is null)
    or s.session_id in (
      select m.session_id from {schema}.agent_messages m
      where {schema}.pgsaga_message_words(m.content)
        @@ websearch_to_tsquery('simple'::regconfig, $3)
    )
  )
  and ($13::text is null or s.tenant_id = $13)
  and ($4::text is null or s.agent_type = $4)
  and ($5::text is null or s.status = $5)
  and ($6::timestamptz is null or s.last_activity_at >= $6)
  and ($7::timestamptz is null or s.last_activity_at < $7)
  and case when $8::text = 'priority'
    then (~ s.priority, s.created_at, s.session_id) > (
      ~ coalesce($9, 2147483647), coalesce($10::text::timestamptz, '-infinity'),
      coalesce($11, '00000000-0000-0000-0000-000000000000'::uuid)
    )
    else (place.time, s.session_id) < (
      coalesce($10::text::timestamptz, 'infinity'),
      coalesce($11, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
  end
order by
  case when $8 = 'priority' then ~ s.priority end,
  case when $8 = 'priority' then s.created_at end,
  case when $8 = 'priority' then s.session_id end,
  place.time desc, s.session_id desc
limit $12;

-- name: claim_expired
-- Locks sessions that have expired by the server's clock, those first that did so first: a
-- tenant's, or, where that is null, those of all.
-- params: page bigint, tenant_id text
-- columns: session_id uuid
-- shard: all, whatever has expired
select s.session_id from {schema}.agent_sessions s
where s.expires_at <= now()
  and ($2::text is null or s.tenant_id = $2)
order by s.expires_at
limit $1
for update skip locked;

-- name: count_expired
-- How many sessions of a tenant, or, where that is null, of all, have expired by the server's
-- clock, and so wait for a sweep.
-- params: tenant_id text
-- columns: expired bigint
-- shard: all, whatever has expired
select count(*) as expired
from {schema}.agent_sessions s
where s.expires_at <= now()
  and ($1::text is null or s.tenant_id = $1);

-- name: select_swept
-- The thousand sessions of a tenant (or, where tenant_id is null, of all) after after_id by id:
-- of '' through those of everybody, of another tenant by an index of its own. And what a policy says of each: whether it
-- was idle for max_idle by the server's clock (with keep_named, and has no named
-- checkpoint), whether it has more than keep_last checkpoints, of whatever namespaces, and
-- whether it has expired.
-- The policy is for the agent type, or, where that is null, for all but other_types; for
-- the others neither is so. Locks none. The limit is a constant: with another the planner
-- would rather read and sort the whole table for each page.
-- params: after_id uuid, agent_type text, other_types text[], max_idle interval,
--   keep_named boolean, keep_last integer, tenant_id text
-- columns: session_id uuid, is_idle boolean, is_long boolean, is_expired boolean
-- shard: all, pages run over every session
with page as materialized (
  (
    select s.session_id, s.agent_type, s.last_activity_at, s.expires_at
    from {schema}.agent_sessions s
    where coalesce($7, '') = ''::text
      and s.session_id > coalesce($1, '00000000-0000-0000-0000-000000000000'::uuid)
      and ($7::text is null or s.tenant_id = $7)
    order by s.session_id
    limit 1000
  )
  union all
  (
    select s.session_id, s.agent_type, s.last_activity_at, s.expires_at
    from {schema}.agent_sessions s
    where $7 <> ''::text
      and s.tenant_id = $7 and s.tenant_id <> ''::text
      and s.session_id > coalesce($1, '00000000-0000-0000-0000-000000000000'::uuid)
    order by s.session_id
    limit 1000
  )
)
select
  p.session_id,
  f.is_meant and $4::interval is not null and p.last_activity_at <= now() - $4
    and (not $5::boolean or not exists (
      select from {schema}.agent_states c
      where c.session_id = p.session_id and c.checkpoint_name is not null
    )) as is_idle,
  f.is_meant and $6::integer is not null and exists (
    select from {schema}.agent_states c where c.session_id = p.session_id offset $6
  ) as is_long,
  coalesce(p.expires_at <= now(), false) as is_expired
from page p
cross join lateral (
  select ($2::text is null or p.agent_type = $2) and p.agent_type <> all($3::text[]) as is_meant
) f
order by p.session_id;

-- name: claim_idle
-- Locks those of the sessions that still are as select_swept found them.
-- params: session_ids uuid[], max_idle interval, keep_named boolean
-- columns: session_id uuid
-- shard: all, those of a page
select s.session_id from {schema}.agent_sessions s
where s.session_id = any($1::uuid[])
  and s.last_activity_at <= now() - $2::interval
  and (not $3::boolean or not exists (
    select from {schema}.agent_states c
    where c.session_id = s.session_id and c.checkpoint_name is not null
  ))
for update of s skip locked;
