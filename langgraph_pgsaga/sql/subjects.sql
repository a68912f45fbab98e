-- Keys of personal data in events.
--
-- Lock order: keys of subjects, in the order of the subjects, before the events that they are for.
--
-- They are beside their tenant's events, on one server, so no statement is for a shard.

-- name: get_current_keys
-- The newest key of each subject that has one.
-- params: tenant_id text, subjects text[]
-- columns: subject text, key_id uuid, master_id text, wrapped_key bytea
-- shard: all, events are on one server
select k.subject, k.key_id, k.master_id, k.wrapped_key
from pg_catalog.unnest($2::text[]) s (subject)
cross join lateral (
  select e.subject, e.key_id, e.master_id, e.wrapped_key
  from {schema}.event_subjects e
  where e.tenant_id = $1 and e.subject = s.subject
  order by e.generation desc
  limit 1
) k;

-- name: get_keys
-- Keys by their ids; of those that were deleted nothing.
-- params: tenant_id text, key_ids uuid[]
-- columns: subject text, key_id uuid, master_id text, wrapped_key bytea
-- shard: all, events are on one server
select e.subject, e.key_id, e.master_id, e.wrapped_key
from pg_catalog.unnest($2::uuid[]) k (key_id)
cross join lateral (
  select s.subject, s.key_id, s.master_id, s.wrapped_key
  from {schema}.event_subjects s
  where s.tenant_id = $1 and s.key_id = k.key_id
  limit 1
) e;

-- name: insert_keys
-- First keys, each of another subject and in their order; nothing where somebody made that one
-- meanwhile.
-- params: tenant_id text, subjects text[], key_ids uuid[], master_id text, wrapped_keys bytea[]
-- shard: all, events are on one server
insert into {schema}.event_subjects (
  tenant_id, subject, generation, key_id, master_id, wrapped_key
)
select $1, n.subject, 1, n.key_id, $4, n.wrapped_key
from rows from (
  pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::uuid[]), pg_catalog.unnest($5::bytea[])
) n (subject, key_id, wrapped_key)
order by n.subject
on conflict (tenant_id, subject, generation) do nothing;

-- name: insert_next_key
-- A new key of a subject behind its newest; nothing where it has none, or somebody made that one
-- meanwhile. Where its keys are being deleted it waits for that.
-- params: tenant_id text, subject text, key_id uuid, master_id text, wrapped_key bytea
-- shard: all, events are on one server
with newest as materialized (
  select e.generation
  from {schema}.event_subjects e
  where e.tenant_id = $1 and e.subject = $2
  order by e.generation desc
  limit 1
  for key share of e
)
insert into {schema}.event_subjects (
  tenant_id, subject, generation, key_id, master_id, wrapped_key
)
select $1, $2, n.generation + 1, $3, $4, $5
from newest n
on conflict (tenant_id, subject, generation) do nothing;

-- name: delete_keys
-- Erases what a subject's keys encrypted; how many there were. It waits for who makes another one
-- of them, which is seen by the next statement alone.
-- params: tenant_id text, subject text
-- columns: keys bigint
-- shard: all, events are on one server
with gone as (
  delete from {schema}.event_subjects where tenant_id = $1 and subject = $2 returning generation
)
select count(*) as keys from gone;

-- name: list_keys_of_other_masters
-- Keys that another master key than one wraps, of a tenant: at most a page.
-- params: tenant_id text, master_id text, page bigint
-- columns: subject text, key_id uuid, master_id text, wrapped_key bytea
-- shard: all, events are on one server
select e.subject, e.key_id, e.master_id, e.wrapped_key
from {schema}.event_subjects e
where e.tenant_id = $1 and e.master_id <> $2
order by e.subject, e.generation
limit $3;

-- name: rewrap_keys
-- Has keys wrapped by another master key, where they are wrapped as they were.
-- params: tenant_id text, key_ids uuid[], old_keys bytea[], master_id text, wrapped_keys bytea[]
-- shard: all, events are on one server
update {schema}.event_subjects e
set master_id = $4, wrapped_key = n.wrapped_key
from rows from (
  pg_catalog.unnest($2::uuid[]), pg_catalog.unnest($3::bytea[]), pg_catalog.unnest($5::bytea[])
) n (key_id, old_key, wrapped_key)
where e.tenant_id = $1 and e.key_id = n.key_id and e.wrapped_key = n.old_key;

-- name: list_stored_data
-- The data of events as it is stored, by their ids; of what isn't there nothing.
-- params: tenant_id text, event_ids text[]
-- columns: event_id text, event_data jsonb
-- shard: all, events are on one server
select e.event_id, e.event_data
from pg_catalog.unnest($2::text[]) i (event_id)
cross join lateral (
  select a.tenant_id, a.event_id, a.event_data from {schema}.agent_events a
  where (a.tenant_id, a.event_id) >= ($1, i.event_id)
  order by a.tenant_id, a.event_id
  limit 1
) e
where e.tenant_id = $1 and e.event_id = i.event_id;
