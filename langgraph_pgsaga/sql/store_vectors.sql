-- The store's vectors, whose table is there once a store with an embedding was set up. The search by
-- an approximate index is in three statements, since an index is found by its own distance only.

-- name: create_store_vectors
-- Makes the table, and tells of what type it is.
-- params: dims integer, kind text
-- columns: stored text
-- shard: all, the store's tables are on one server
select {schema}.pgsaga_create_store_vectors($1, $2) as stored;

-- name: create_store_index
-- Makes the approximate index, unless there is one.
-- params: kind text, distance text, settings text
-- columns: made void
-- shard: all, the store's tables are on one server
select {schema}.pgsaga_create_store_index($1, $2, $3) as made;

-- name: find_vector_type
-- The type of the table's vectors, and the schema that pgvector is in; no row without the table.
-- params: table text
-- columns: home name, kind name
-- shard: all, reads catalogs only
select n.nspname as home, t.typname as kind
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where a.attrelid = pg_catalog.to_regclass($1::text) and a.attname = 'embedding'::name;

-- name: get_text_hashes
-- Of which texts there are vectors.
-- params: tenant_id text, namespaces text[], keys text[]
-- columns: namespace text, key text, path text, text_hash bytea
-- shard: all, the store's tables are on one server
select v.namespace, v.key, v.path, v.text_hash
from unnest($2::text[], $3::text[]) as w (namespace, key)
cross join lateral (
  select * from {schema}.agent_store_vectors v
  where v.tenant_id = $1 and v.namespace = w.namespace and v.key = w.key
  offset 0
) v;

-- name: put_indexed_items
-- put_items, and of these items the vectors. Items that are all new have none to keep or to drop.
-- params: tenant_id text, namespaces text[], keys text[], item_values jsonb[], ttls float8[], items bigint[], paths text[], hashes bytea[], vectors halfvec[]
-- columns: written bigint
-- shard: all, the store's tables are on one server
with written as (
  insert into {schema}.agent_store_items as i
    (tenant_id, namespace, key, value, expires_at, ttl_minutes)
  select
    $1, g.namespace, g.key, g.value,
    {schema}.pgsaga_after({schema}.pgsaga_now(), g.ttl_minutes * 60::double precision),
    g.ttl_minutes
  from unnest($2::text[], $3::text[], $4::jsonb[], $5::double precision[])
    as g (namespace, key, value, ttl_minutes)
  on conflict (tenant_id, namespace, key) do update set
    value = excluded.value,
    version = case when i.expires_at <= {schema}.pgsaga_now() then 1 else i.version + 1 end,
    created_at =
      case when i.expires_at <= {schema}.pgsaga_now() then now() else i.created_at end,
    updated_at = now(),
    expires_at = excluded.expires_at,
    ttl_minutes = excluded.ttl_minutes
  -- Locked before it was changed: it was there.
  returning i.xmax <> '0'::xid as was_there
),
-- Once all items are stored, and locked; the first texts come with their vectors.
placed as (
  insert into {schema}.agent_store_vectors as v
    (tenant_id, namespace, key, path, text_hash, embedding)
  select $1, ($2::text[])[w.item], ($3::text[])[w.item], w.path, w.text_hash, w.vector
  from unnest(
    $6::bigint[], $7::text[], $8::bytea[],
    -- An array of the column's type, which has no name that is the same everywhere.
    coalesce($9, (
      select pg_catalog.array_agg(e.embedding) from {schema}.agent_store_vectors e where false
    ))
  ) as w (item, path, text_hash, vector)
  where w.vector is not null
    and (select pg_catalog.count(*) from written) >= 0
  on conflict on constraint agent_store_vectors_pkey do update set
    text_hash = excluded.text_hash, embedding = excluded.embedding
  -- The same again would be a new entry of the approximate index.
  where v.text_hash <> excluded.text_hash
  returning 1
)
select case
    when w.were_there or pg_catalog.cardinality($9) < pg_catalog.cardinality($6)
      then {schema}.pgsaga_keep_vectors(
        $1, $2, $3, $6, $7, $8, pg_catalog.cardinality($9)::bigint
      )
    else p.placed
  end as written
from (select pg_catalog.bool_or(w.was_there) as were_there from written w) w
cross join (select pg_catalog.count(*) as placed from placed p) p;

-- name: put_vectors
-- The vectors of items that this transaction has stored.
-- params: tenant_id text, namespaces text[], keys text[], items bigint[], paths text[], hashes bytea[], vectors halfvec[]
-- columns: written bigint
-- shard: all, the store's tables are on one server
with placed as (
  insert into {schema}.agent_store_vectors as v
    (tenant_id, namespace, key, path, text_hash, embedding)
  select $1, ($2::text[])[w.item], ($3::text[])[w.item], w.path, w.text_hash, w.vector
  from unnest(
    $4::bigint[], $5::text[], $6::bytea[],
    coalesce($7, (
      select pg_catalog.array_agg(e.embedding) from {schema}.agent_store_vectors e where false
    ))
  ) as w (item, path, text_hash, vector)
  where w.vector is not null
  on conflict on constraint agent_store_vectors_pkey do update set
    text_hash = excluded.text_hash, embedding = excluded.embedding
  where v.text_hash <> excluded.text_hash
  returning 1
)
select {schema}.pgsaga_keep_vectors(
  $1, $2, $3, $4, $5, $6, pg_catalog.cardinality($7)::bigint
) as written
from (select pg_catalog.count(*) as placed from placed p) p;

-- name: count_vectors
-- How many vectors there are in a namespace and below it, up to a bound.
-- params: tenant_id text, namespace text, after text, before text, most bigint
-- columns: vectors bigint
-- shard: all, the store's tables are on one server
select pg_catalog.count(*) as vectors
from (
  (
    select from {schema}.agent_store_vectors v
    where v.tenant_id = $1 and v.namespace = $2
    limit $5
  )
  union all
  (
    select from {schema}.agent_store_vectors v
    where v.tenant_id = $1 and v.namespace > $3 and v.namespace < $4
    limit $5
  )
) v;

-- name: search_exactly
-- The items whose best vector is nearest; distance 1 is cosine, 2 is l2, 3 the negative inner product.
-- All vectors of the scope are read by the primary key; items are looked up from the nearest on.
-- params: tenant_id text, namespace text, after text, before text, contained jsonb, steps jsonb, limit_count bigint, offset_count bigint, query text, distance integer
-- columns: namespace text, key text, value jsonb, version bigint, created_at timestamp with time zone, updated_at timestamp with time zone, ttl_minutes float8, score float8
-- shard: all, the store's tables are on one server
with asked as materialized (
  select {schema}.pgsaga_store_vector($9) as v
),
measured as (
  (
    select v.namespace, v.key, case $10::integer
        when 1 then {schema}.pgsaga_cosine_distance(v.embedding, a.v)
        when 2 then {schema}.pgsaga_l2_distance(v.embedding, a.v)
        else {schema}.pgsaga_negative_inner_product(v.embedding, a.v)
      end as distance
    from asked a cross join {schema}.agent_store_vectors v
    where v.tenant_id = $1 and v.namespace = $2
  )
  union all
  (
    select v.namespace, v.key, case $10::integer
        when 1 then {schema}.pgsaga_cosine_distance(v.embedding, a.v)
        when 2 then {schema}.pgsaga_l2_distance(v.embedding, a.v)
        else {schema}.pgsaga_negative_inner_product(v.embedding, a.v)
      end as distance
    from asked a cross join {schema}.agent_store_vectors v
    where v.tenant_id = $1 and v.namespace > $3 and v.namespace < $4
  )
),
nearest as (
  -- A vector of zeros has no angle: as one at a right angle.
  select m.namespace, m.key,
    min(coalesce(nullif(m.distance, 'NaN'::double precision), 1::double precision)) as distance
  from measured m
  group by m.namespace, m.key
  order by 3, 1, 2
)
select
  i.namespace, i.key, i.value, i.version, i.created_at, i.updated_at, i.ttl_minutes,
  case $10 when 1 then 1::double precision - n.distance else - n.distance end as score
from nearest n
cross join lateral (
  select * from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = n.namespace and i.key = n.key
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    and ($5::jsonb is null or i.value @> $5)
    and ($6::jsonb is null or {schema}.pgsaga_matches(i.value, $6))
  offset 0
) i
order by n.distance, n.namespace, n.key
limit $7 offset $8;

-- name: search_nearest_cosine
-- As search_exactly, of the vectors that the approximate index gives first. The scope is asked for in
-- a way that no other index has.
-- params: tenant_id text, namespace text, after text, before text, contained jsonb, steps jsonb, limit_count bigint, offset_count bigint, query text, fetched bigint
-- columns: namespace text, key text, value jsonb, version bigint, created_at timestamp with time zone, updated_at timestamp with time zone, ttl_minutes float8, score float8
-- shard: all, the store's tables are on one server
with asked as materialized (
  select {schema}.pgsaga_store_vector($9) as v
),
fetched as materialized (
  select v.namespace, v.key,
    {schema}.pgsaga_cosine_distance(v.embedding, (select a.v from asked a)) as distance
  from {schema}.agent_store_vectors v
  where v.tenant_id || '' = $1
    and (v.namespace || '' = $2 or (v.namespace || '' > $3 and v.namespace || '' < $4))
  order by {schema}.pgsaga_cosine_distance(v.embedding, (select a.v from asked a))
  limit $10
),
nearest as (
  select f.namespace, f.key,
    min(coalesce(nullif(f.distance, 'NaN'::double precision), 1::double precision)) as distance
  from fetched f
  group by f.namespace, f.key
  order by 3, 1, 2
)
select
  i.namespace, i.key, i.value, i.version, i.created_at, i.updated_at, i.ttl_minutes,
  1::double precision - n.distance as score
from nearest n
cross join lateral (
  select * from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = n.namespace and i.key = n.key
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    and ($5::jsonb is null or i.value @> $5)
    and ($6::jsonb is null or {schema}.pgsaga_matches(i.value, $6))
  offset 0
) i
order by n.distance, n.namespace, n.key
limit $7 offset $8;

-- name: search_nearest_l2
-- As search_exactly, of the vectors that the approximate index gives first. The scope is asked for in
-- a way that no other index has.
-- params: tenant_id text, namespace text, after text, before text, contained jsonb, steps jsonb, limit_count bigint, offset_count bigint, query text, fetched bigint
-- columns: namespace text, key text, value jsonb, version bigint, created_at timestamp with time zone, updated_at timestamp with time zone, ttl_minutes float8, score float8
-- shard: all, the store's tables are on one server
with asked as materialized (
  select {schema}.pgsaga_store_vector($9) as v
),
fetched as materialized (
  select v.namespace, v.key,
    {schema}.pgsaga_l2_distance(v.embedding, (select a.v from asked a)) as distance
  from {schema}.agent_store_vectors v
  where v.tenant_id || '' = $1
    and (v.namespace || '' = $2 or (v.namespace || '' > $3 and v.namespace || '' < $4))
  order by {schema}.pgsaga_l2_distance(v.embedding, (select a.v from asked a))
  limit $10
),
nearest as (
  select f.namespace, f.key,
    min(coalesce(nullif(f.distance, 'NaN'::double precision), 1::double precision)) as distance
  from fetched f
  group by f.namespace, f.key
  order by 3, 1, 2
)
select
  i.namespace, i.key, i.value, i.version, i.created_at, i.updated_at, i.ttl_minutes,
  - n.distance as score
from nearest n
cross join lateral (
  select * from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = n.namespace and i.key = n.key
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    and ($5::jsonb is null or i.value @> $5)
    and ($6::jsonb is null or {schema}.pgsaga_matches(i.value, $6))
  offset 0
) i
order by n.distance, n.namespace, n.key
limit $7 offset $8;

-- name: search_nearest_inner_product
-- As search_exactly, of the vectors that the approximate index gives first. The scope is asked for in
-- a way that no other index has.
-- params: tenant_id text, namespace text, after text, before text, contained jsonb, steps jsonb, limit_count bigint, offset_count bigint, query text, fetched bigint
-- columns: namespace text, key text, value jsonb, version bigint, created_at timestamp with time zone, updated_at timestamp with time zone, ttl_minutes float8, score float8
-- shard: all, the store's tables are on one server
with asked as materialized (
  select {schema}.pgsaga_store_vector($9) as v
),
fetched as materialized (
  select v.namespace, v.key,
    {schema}.pgsaga_negative_inner_product(v.embedding, (select a.v from asked a)) as distance
  from {schema}.agent_store_vectors v
  where v.tenant_id || '' = $1
    and (v.namespace || '' = $2 or (v.namespace || '' > $3 and v.namespace || '' < $4))
  order by {schema}.pgsaga_negative_inner_product(v.embedding, (select a.v from asked a))
  limit $10
),
nearest as (
  select f.namespace, f.key,
    min(coalesce(nullif(f.distance, 'NaN'::double precision), 1::double precision)) as distance
  from fetched f
  group by f.namespace, f.key
  order by 3, 1, 2
)
select
  i.namespace, i.key, i.value, i.version, i.created_at, i.updated_at, i.ttl_minutes,
  - n.distance as score
from nearest n
cross join lateral (
  select * from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = n.namespace and i.key = n.key
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    and ($5::jsonb is null or i.value @> $5)
    and ($6::jsonb is null or {schema}.pgsaga_matches(i.value, $6))
  offset 0
) i
order by n.distance, n.namespace, n.key
limit $7 offset $8;

-- name: scan_on
-- Has the approximate indexes go on until enough of the scope is found, in this transaction.
-- columns: hnsw text, ivfflat text
-- shard: all, no rows
select
  pg_catalog.set_config('hnsw.iterative_scan', 'relaxed_order', true) as hnsw,
  pg_catalog.set_config('ivfflat.iterative_scan', 'relaxed_order', true) as ivfflat;
