-- The store: items by namespace and key. What has expired is given by no statement.
--
-- Lock order: the items of a statement in the order of namespace and key, in which they are passed;
-- a batch's puts before its deletions.

-- name: get_items
-- The items that are there of those that are asked for.
-- params: tenant_id text, namespaces text[], keys text[]
-- columns: namespace text, key text, value jsonb, version bigint, created_at timestamp with time zone, updated_at timestamp with time zone, ttl_minutes float8
-- shard: all, the store's tables are on one server
select i.namespace, i.key, i.value, i.version, i.created_at, i.updated_at, i.ttl_minutes
from unnest($2::text[], $3::text[]) as w (namespace, key)
cross join lateral (
  select * from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = w.namespace and i.key = w.key
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
  offset 0
) i;

-- name: refresh_items
-- Items that were read live on; those that somebody changes just now are left to him.
-- params: tenant_id text, namespaces text[], keys text[]
-- shard: all, the store's tables are on one server
with read as materialized (
  select i.namespace, i.key
  from unnest($2::text[], $3::text[]) as w (namespace, key)
  cross join lateral (
    select i.namespace, i.key from {schema}.agent_store_items i
    where i.tenant_id = $1 and i.namespace = w.namespace and i.key = w.key
      and i.ttl_minutes is not null and i.expires_at > {schema}.pgsaga_now()
    for no key update skip locked
  ) i
)
update {schema}.agent_store_items i
set expires_at = {schema}.pgsaga_after({schema}.pgsaga_now(), i.ttl_minutes * 60::double precision)
from read r
where i.tenant_id = $1 and i.namespace = r.namespace and i.key = r.key;

-- name: put_items
-- Stores items. What has expired begins anew.
-- params: tenant_id text, namespaces text[], keys text[], item_values jsonb[], ttls float8[]
-- shard: all, the store's tables are on one server
insert into {schema}.agent_store_items as i
  (tenant_id, namespace, key, value, expires_at, ttl_minutes)
select
  $1, g.namespace, g.key, g.value,
  {schema}.pgsaga_after({schema}.pgsaga_now(), g.ttl_minutes * 60::double precision), g.ttl_minutes
from unnest($2::text[], $3::text[], $4::jsonb[], $5::double precision[])
  as g (namespace, key, value, ttl_minutes)
on conflict (tenant_id, namespace, key) do update set
  value = excluded.value,
  version = case when i.expires_at <= {schema}.pgsaga_now() then 1 else i.version + 1 end,
  created_at =
    case when i.expires_at <= {schema}.pgsaga_now() then now() else i.created_at end,
  updated_at = now(),
  expires_at = excluded.expires_at,
  ttl_minutes = excluded.ttl_minutes;

-- name: put_new_item
-- Stores an item where there is none; else there is no row.
-- params: tenant_id text, namespace text, key text, value jsonb, ttl_minutes float8
-- columns: version bigint
-- shard: all, the store's tables are on one server
insert into {schema}.agent_store_items as i
  (tenant_id, namespace, key, value, expires_at, ttl_minutes)
values
  ($1, $2, $3, $4, {schema}.pgsaga_after({schema}.pgsaga_now(), $5::double precision * 60::double precision), $5)
on conflict (tenant_id, namespace, key) do update set
  value = excluded.value, version = 1, created_at = now(), updated_at = now(),
  expires_at = excluded.expires_at, ttl_minutes = excluded.ttl_minutes
where i.expires_at <= {schema}.pgsaga_now()
returning i.version;

-- name: put_item_at
-- Stores an item that has the expected version; else there is no row.
-- params: tenant_id text, namespace text, key text, value jsonb, ttl_minutes float8, expected_version bigint
-- columns: version bigint
-- shard: all, the store's tables are on one server
update {schema}.agent_store_items i
set value = $4, version = i.version + 1, updated_at = now(),
  expires_at = {schema}.pgsaga_after({schema}.pgsaga_now(), $5::double precision * 60::double precision), ttl_minutes = $5
where i.tenant_id = $1 and i.namespace = $2 and i.key = $3 and i.version = $6
  and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
returning i.version;

-- name: delete_items
-- Deletes items.
-- params: tenant_id text, namespaces text[], keys text[]
-- shard: all, the store's tables are on one server
with chosen as materialized (
  select i.namespace, i.key
  from unnest($2::text[], $3::text[]) as w (namespace, key)
  cross join lateral (
    select i.namespace, i.key from {schema}.agent_store_items i
    where i.tenant_id = $1 and i.namespace = w.namespace and i.key = w.key
    for update
  ) i
)
delete from {schema}.agent_store_items i
using chosen c
where i.tenant_id = $1 and i.namespace = c.namespace and i.key = c.key;

-- name: delete_item_at
-- Deletes an item that has the expected version; else there is no row.
-- params: tenant_id text, namespace text, key text, expected_version bigint
-- columns: version bigint
-- shard: all, the store's tables are on one server
delete from {schema}.agent_store_items i
where i.tenant_id = $1 and i.namespace = $2 and i.key = $3 and i.version = $4
  and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
returning i.version;

-- name: search_items
-- The items of a namespace, and of those below it, that fit a filter; newest first.
-- Those of the namespace itself come by their index, newest first, which has the condition on the
-- version that each item meets; those below it by their range.
-- params: tenant_id text, namespace text, after text, before text, contained jsonb, steps jsonb, limit_count bigint, offset_count bigint
-- columns: namespace text, key text, value jsonb, version bigint, created_at timestamp with time zone, updated_at timestamp with time zone, ttl_minutes float8
-- shard: all, the store's tables are on one server
with found as (
  (
    select * from {schema}.agent_store_items i
    where i.tenant_id = $1 and i.namespace = $2 and i.version > 0
      and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
      and ($5::jsonb is null or i.value @> $5)
      and ($6::jsonb is null or {schema}.pgsaga_matches(i.value, $6))
    order by i.updated_at desc, i.key
    limit $7::bigint + $8::bigint
  )
  union all
  (
    select * from {schema}.agent_store_items i
    where i.tenant_id = $1 and i.namespace > $3 and i.namespace < $4
      and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
      and ($5::jsonb is null or i.value @> $5)
      and ($6::jsonb is null or {schema}.pgsaga_matches(i.value, $6))
    order by i.updated_at desc, i.namespace, i.key
    limit $7::bigint + $8::bigint
  )
)
select f.namespace, f.key, f.value, f.version, f.created_at, f.updated_at, f.ttl_minutes
from found f
order by f.updated_at desc, f.namespace, f.key
limit $7 offset $8;

-- name: list_namespaces
-- The namespaces that have items and fit both paths ('*' is any label), cut to a depth.
-- It goes from one namespace to the next by the primary key, past all that has one beginning.
-- params: tenant_id text, namespace text, after text, before text, prefix text[], suffix text[], max_depth integer, limit_count bigint, offset_count bigint
-- columns: labels text[]
-- shard: all, the store's tables are on one server
with recursive walk as (
  select f.namespace
  from (
    (
      select i.namespace from {schema}.agent_store_items i
      where i.tenant_id = $1 and i.namespace = $2
        and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
      order by i.namespace limit 1
    )
    union all
    (
      select i.namespace from {schema}.agent_store_items i
      where i.tenant_id = $1 and i.namespace > $3 and i.namespace < $4
        and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
      order by i.namespace limit 1
    )
  ) f
  union all
  select n.namespace
  from walk w
  cross join lateral (
    select pg_catalog.string_to_array(w.namespace, '.'::text) as labels
  ) s
  cross join lateral (
    select i.namespace from {schema}.agent_store_items i
    where i.tenant_id = $1 and i.namespace < $4
      and i.namespace >= case
        -- All that begins like it is the same once it is cut.
        when pg_catalog.cardinality(s.labels) > $7::integer and $6::text[] is null
          and pg_catalog.cardinality($5::text[]) <= $7
          then pg_catalog.array_to_string(s.labels[:$7], '.'::text) || '/'
        else w.namespace || pg_catalog.chr(1)
      end
      and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    order by i.namespace limit 1
  ) n
  where w.namespace is distinct from $2
)
select distinct
  case when $7 is null then s.labels else s.labels[:$7] end collate "C" as labels
from walk w
cross join lateral (
  select pg_catalog.string_to_array(w.namespace, '.'::text) as labels
) s
where pg_catalog.cardinality(s.labels) >= pg_catalog.cardinality($5)
  and not exists (
    select from pg_catalog.unnest($5) with ordinality as p (label, place)
    where p.label <> '*' and p.label <> s.labels[p.place]
  )
  and (
    $6 is null
    or pg_catalog.cardinality(s.labels) >= pg_catalog.cardinality($6)
    and not exists (
      select from pg_catalog.unnest($6) with ordinality as p (label, place)
      where p.label <> '*'
        and p.label
          <> s.labels[pg_catalog.cardinality(s.labels) - pg_catalog.cardinality($6) + p.place]
    )
  )
order by labels
limit $8 offset $9;

-- name: sweep_items
-- Deletes items that have expired, those first that did so first; others' sweeps are passed over.
-- params: tenant_id text, batch bigint
-- columns: namespace text, key text
-- shard: all, the store's tables are on one server
with expired as materialized (
  select i.tenant_id, i.namespace, i.key from {schema}.agent_store_items i
  where i.expires_at <= {schema}.pgsaga_now() and ($1::text is null or i.tenant_id = $1)
  order by i.expires_at
  limit $2
  for update skip locked
)
delete from {schema}.agent_store_items i
using expired e
where i.tenant_id = e.tenant_id and i.namespace = e.namespace and i.key = e.key
returning i.namespace, i.key;
