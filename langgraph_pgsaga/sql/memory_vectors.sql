-- Memories with vectors. The table is there once pgsaga_create_memory_vectors() made it.

-- name: store_vectors
-- The vectors of memories of one scope, given one after the other, each of dims. Where the scope
-- has some of the model that are of other dims it stores nothing and gives those.
-- params: scope_id uuid, memory_ids uuid[], model text, dims integer, vectors float4[],
--   is_half boolean
-- columns: other_dims integer
-- shard: all, memories are on one server
with other as materialized (
  select v.dims
  from {schema}.agent_memory_vectors v
  where v.scope_id = $1 and v.model = $3 and v.dims <> $4
  limit 1
),
stored as (
  insert into {schema}.agent_memory_vectors (
    scope_id, memory_id, model, dims, embedding, embedding_full
  )
  select
    $1, g.memory_id, $3, $4,
    case when $6 then {schema}.pgsaga_halfvec(
      ($5::real[])[(g.no - 1) * $4 + 1 : g.no * $4]) end,
    case when not $6 then {schema}.pgsaga_vector(
      ($5::real[])[(g.no - 1) * $4 + 1 : g.no * $4]) end
  from pg_catalog.unnest($2::uuid[]) with ordinality u (memory_id, place)
  cross join lateral (select u.memory_id, u.place::integer as no) g
  where not exists (select from other)
  order by g.memory_id
  on conflict (scope_id, memory_id, model) do nothing
)
select o.dims as other_dims from other o;

-- name: recall_by_vectors
-- The best of the memories of scopes, by words and vectors, recency and importance, in one moment.
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
--   half_life float8, k bigint, model text, vector float4[]
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb, score float8, text_score float8, semantic_score float8,
--   recency_score float8, moment timestamp with time zone, other_dims integer
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
asked_vector as materialized (
  select
    {schema}.pgsaga_halfvec($15) as half, {schema}.pgsaga_vector($15) as full_size,
    pg_catalog.cardinality($15) as dims
),
vectors as materialized (
  select
    v.scope_id, v.memory_id, v.dims,
    case
      when v.dims <> a.dims then null
      when v.embedding is null
        then 1::double precision - {schema}.pgsaga_cosine_distance(v.embedding_full, a.full_size)
      else 1::double precision - {schema}.pgsaga_cosine_distance(v.embedding, a.half)
    end as similarity
  from asked_vector a
  cross join {schema}.agent_memory_vectors v
  where v.scope_id = any($1) and v.model = $14
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
    union all
    select
      v.scope_id, v.memory_id, false, null::double precision, null::timestamptz, null::timestamptz,
      null::double precision, v.similarity
    from vectors v
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
  (select k.at from clock k) as moment,
  (select max(v.dims) from vectors v cross join asked_vector a where v.dims <> a.dims) as other_dims
from best p
join {schema}.agent_memory m on m.scope_id = p.scope_id and m.memory_id = p.memory_id
order by p.score desc, p.importance_score desc, p.created_at desc, p.memory_id;

-- name: compare_memories
-- How similar some memories are to each other, by their places among those given: of each that has
-- a vector to the others that have one.
-- params: scope_ids uuid[], memory_ids uuid[], model text
-- columns: place bigint, others bigint[], similarities float8[]
-- shard: all, memories are on one server
with given as materialized (
  select g.place, v.dims, v.embedding, v.embedding_full
  from rows from (
    pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::uuid[])
  ) with ordinality g (scope_id, memory_id, place)
  join {schema}.agent_memory_vectors v
    on v.scope_id = g.scope_id and v.memory_id = g.memory_id and v.model = $3
)
select
  a.place,
  pg_catalog.array_agg(b.place order by b.place) as others,
  pg_catalog.array_agg(
    1::double precision - coalesce(
      nullif(
        case
          when a.dims <> b.dims then 1::double precision
          when a.embedding is null or b.embedding is null then
            {schema}.pgsaga_cosine_distance(
              coalesce(a.embedding_full, {schema}.pgsaga_vector(a.embedding::real[])),
              coalesce(b.embedding_full, {schema}.pgsaga_vector(b.embedding::real[]))
            )
          else {schema}.pgsaga_cosine_distance(a.embedding, b.embedding)
        end,
        'NaN'::double precision
      ),
      1::double precision
    )
    order by b.place
  ) as similarities
from given a
join given b on b.place <> a.place
group by a.place
order by a.place;

-- name: find_duplicates
-- Of some live memories of a scope and type, in the order of their ids, those that come behind them
-- and are as similar as the threshold says: most pairs at most, as two lists. With one time at
-- which they hold; with is_rewritten, of one at least that was merged from no others.
-- params: scope_id uuid, memory_type text, model text, threshold float8, is_rewritten boolean,
--   after_id uuid, probes bigint, most bigint
-- columns: memory_ids uuid[], other_ids uuid[], probes bigint, last_id uuid
-- shard: all, memories are on one server
with clock as materialized (select {schema}.pgsaga_now() as at),
live as materialized (
  select
    m.memory_id, m.valid_from, m.valid_to, m.sources = '[]'::jsonb as is_own, v.dims, v.embedding,
    v.embedding_full
  from {schema}.agent_memory m
  cross join clock k
  join {schema}.agent_memory_vectors v
    on v.scope_id = m.scope_id and v.memory_id = m.memory_id and v.model = $3
  where m.scope_id = $1 and m.memory_type = $2
    and m.superseded_at is null and m.forgotten_at is null
    and (m.expires_at is null or m.expires_at > k.at)
    and m.memory_id > coalesce($6, '00000000-0000-0000-0000-000000000000'::uuid)
),
asked as materialized (
  select l.* from live l order by l.memory_id limit $7
),
pairs as (
  select a.memory_id, b.memory_id as other_id
  from asked a
  join live b on b.memory_id > a.memory_id and b.dims = a.dims
  where a.valid_from is not distinct from b.valid_from
    and a.valid_to is not distinct from b.valid_to
    and (not $5 or a.is_own or b.is_own)
    and 1::double precision - case
      when a.embedding is null or b.embedding is null then
        {schema}.pgsaga_cosine_distance(
          coalesce(a.embedding_full, {schema}.pgsaga_vector(a.embedding::real[])),
          coalesce(b.embedding_full, {schema}.pgsaga_vector(b.embedding::real[]))
        )
      else {schema}.pgsaga_cosine_distance(a.embedding, b.embedding)
    end between $4 and 2::double precision
  order by a.memory_id, b.memory_id
  limit $8
)
select
  (select pg_catalog.array_agg(p.memory_id order by p.memory_id, p.other_id) from pairs p)
    as memory_ids,
  (select pg_catalog.array_agg(p.other_id order by p.memory_id, p.other_id) from pairs p)
    as other_ids,
  (select count(*) from asked a) as probes,
  (select a.memory_id from asked a order by a.memory_id desc limit 1) as last_id;

-- name: get_vectors
-- The vectors of some memories by a model.
-- params: scope_ids uuid[], memory_ids uuid[], model text
-- columns: scope_id uuid, memory_id uuid, vector float4[]
-- shard: all, memories are on one server
select v.scope_id, v.memory_id, coalesce(v.embedding_full::real[], v.embedding::real[]) as vector
from rows from (
  pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::uuid[])
) g (scope_id, memory_id)
join {schema}.agent_memory_vectors v
  on v.scope_id = g.scope_id and v.memory_id = g.memory_id and v.model = $3;

-- name: list_unembedded
-- A page of the memories of a tenant, or of some of these, that have no vector by a model, behind a
-- place.
-- params: tenant_id text, model text, scope_ids uuid[], memory_ids uuid[], after_scope uuid,
--   after_id uuid, page bigint
-- columns: scope_id uuid, memory_id uuid, content_text text
-- shard: all, memories are on one server
select m.scope_id, m.memory_id, m.content_text
from {schema}.agent_memory m
where m.tenant_id = $1
  and ($3::uuid[] is null or (m.scope_id = any($3) and m.memory_id = any($4)))
  and (m.scope_id, m.memory_id) > (
    coalesce($5, '00000000-0000-0000-0000-000000000000'::uuid),
    coalesce($6, '00000000-0000-0000-0000-000000000000'::uuid)
  )
  and not exists (
    select from {schema}.agent_memory_vectors v
    where v.scope_id = m.scope_id and v.memory_id = m.memory_id and v.model = $2
  )
order by m.scope_id, m.memory_id
limit $7;

-- name: count_unembedded
-- How many memories of a tenant have no vector by a model, how many there are, and the dimensions
-- of the vectors of the model where they are others.
-- params: tenant_id text, model text, dims integer
-- columns: memories bigint, unembedded bigint, other_dims integer
-- shard: all, memories are on one server
select
  count(*) as memories,
  count(*) filter (where v.dims is null) as unembedded,
  max(case when v.dims <> $3 then v.dims end) as other_dims
from {schema}.agent_memory m
left join {schema}.agent_memory_vectors v
  on v.scope_id = m.scope_id and v.memory_id = m.memory_id and v.model = $2
where m.tenant_id = $1;

-- name: store_each_vector
-- store_vectors, of memories of any scopes; those that are gone, or have one, are left out.
-- params: scope_ids uuid[], memory_ids uuid[], model text, dims integer, vectors float4[],
--   is_half boolean
-- columns: other_dims integer
-- shard: all, memories are on one server
with other as materialized (
  select v.dims
  from {schema}.agent_memory_vectors v
  where v.scope_id = any($1) and v.model = $3 and v.dims <> $4
  limit 1
),
there as materialized (
  select m.scope_id, m.memory_id, g.place::integer as no
  from rows from (
    pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::uuid[])
  ) with ordinality g (scope_id, memory_id, place)
  join {schema}.agent_memory m on m.scope_id = g.scope_id and m.memory_id = g.memory_id
  where not exists (select from other)
  order by m.scope_id, m.memory_id
  for key share of m
),
stored as (
  insert into {schema}.agent_memory_vectors (
    scope_id, memory_id, model, dims, embedding, embedding_full
  )
  select
    t.scope_id, t.memory_id, $3, $4,
    case when $6 then {schema}.pgsaga_halfvec(
      ($5::real[])[(t.no - 1) * $4 + 1 : t.no * $4]) end,
    case when not $6 then {schema}.pgsaga_vector(
      ($5::real[])[(t.no - 1) * $4 + 1 : t.no * $4]) end
  from there t
  on conflict (scope_id, memory_id, model) do nothing
)
select o.dims as other_dims from other o;

-- name: delete_vectors
-- Deletes vectors of a tenant's memories by a model, as many at once.
-- params: tenant_id text, model text, most bigint
-- columns: vectors bigint
-- shard: all, memories are on one server
with chosen as materialized (
  select v.scope_id, v.memory_id
  from {schema}.agent_memory m
  join {schema}.agent_memory_vectors v on v.scope_id = m.scope_id and v.memory_id = m.memory_id
  where m.tenant_id = $1 and v.model = $2
  limit $3
),
gone as (
  delete from {schema}.agent_memory_vectors v
  using chosen c
  where v.scope_id = c.scope_id and v.memory_id = c.memory_id and v.model = $2
  returning 1
)
select count(*) as vectors from gone;

-- name: recall_nearest
-- recall_by_vectors of those memories alone that are given as near: in large scopes, where the query
-- has no words that count.
-- params: scope_ids uuid[], types text[], language text, query text,
--   moment timestamp with time zone, as_of timestamp with time zone, form text,
--   text_weight float8, semantic_weight float8, recency_weight float8, importance_weight float8,
--   half_life float8, k bigint, model text, vector float4[],
--   near_scope_ids uuid[], near_ids uuid[]
-- columns: scope_id uuid, memory_id uuid, user_id text, thread_id text, memory_type text,
--   content_text text, context_text text, importance_score float8, access_count integer,
--   created_at timestamp with time zone, last_accessed_at timestamp with time zone,
--   expires_at timestamp with time zone, pinned boolean, metadata jsonb, source_thread_id text,
--   source_checkpoint_ns text, source_checkpoint_id text, source_message_no integer,
--   valid_from timestamp with time zone, valid_to timestamp with time zone,
--   recorded_at timestamp with time zone, superseded_at timestamp with time zone,
--   superseded_by uuid, sources jsonb, score float8, text_score float8, semantic_score float8,
--   recency_score float8, moment timestamp with time zone, other_dims integer
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
near as materialized (
  select n.scope_id, n.memory_id
  from rows from (
    pg_catalog.unnest($16::uuid[]), pg_catalog.unnest($17::uuid[])
  ) n (scope_id, memory_id)
),
live as materialized (
  select
    m.scope_id, m.memory_id, m.search_words, m.search_length, m.importance_score, m.created_at,
    m.last_accessed_at, m.search_words @@ a.words as is_hit
  from near n
  join {schema}.agent_memory m on m.scope_id = n.scope_id and m.memory_id = n.memory_id
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
asked_vector as materialized (
  select
    {schema}.pgsaga_halfvec($15) as half, {schema}.pgsaga_vector($15) as full_size,
    pg_catalog.cardinality($15) as dims
),
vectors as materialized (
  select
    v.scope_id, v.memory_id, v.dims,
    case
      when v.dims <> a.dims then null
      when v.embedding is null
        then 1::double precision - {schema}.pgsaga_cosine_distance(v.embedding_full, a.full_size)
      else 1::double precision - {schema}.pgsaga_cosine_distance(v.embedding, a.half)
    end as similarity
  from asked_vector a
  cross join near n
  join {schema}.agent_memory_vectors v on v.scope_id = n.scope_id and v.memory_id = n.memory_id
  where v.model = $14
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
    union all
    select
      v.scope_id, v.memory_id, false, null::double precision, null::timestamptz, null::timestamptz,
      null::double precision, v.similarity
    from vectors v
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
  (select k.at from clock k) as moment,
  (select max(v.dims) from vectors v cross join asked_vector a where v.dims <> a.dims) as other_dims
from best p
join {schema}.agent_memory m on m.scope_id = p.scope_id and m.memory_id = p.memory_id
order by p.score desc, p.importance_score desc, p.created_at desc, p.memory_id;

-- name: create_memory_index
-- Makes the approximate index of the vectors of a model, unless it is there; its name.
-- params: model text, dims integer, is_half boolean
-- columns: index_name name
-- shard: all, memories are on one server
select {schema}.pgsaga_create_memory_index($1, $2, $3) as index_name;

-- name: find_memory_index
-- Whether there is an approximate index of the vectors of a model that can be used.
-- params: schema_name text, model text, dims integer, is_half boolean
-- columns: is_there boolean
-- shard: all, reads catalogs only
select exists (
  select
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_index i on i.indexrelid = c.oid
  where c.relname = {schema}.pgsaga_memory_index_name($2, $3, $4)
    and n.nspname = coalesce($1, pg_catalog.current_schema()::text)
    and i.indisvalid
) as is_there;

-- name: count_memories
-- How many live memories there are in scopes, up to a bound.
-- params: scope_ids uuid[], most bigint
-- columns: memories bigint
-- shard: all, memories are on one server
select count(*) as memories
from (
  select
  from {schema}.agent_memory m
  where m.scope_id = any($1) and m.superseded_at is null and m.forgotten_at is null
  limit $2
) m;

-- name: list_nearest
-- The memories of scopes whose vectors the approximate index gives first.
-- params: scope_ids uuid[], model text, vector float4[], is_half boolean, fetched integer
-- columns: scope_id uuid, memory_id uuid
-- shard: all, memories are on one server
select n.scope_id, n.memory_id
from {schema}.pgsaga_nearest_memories($1, $2, $3, $4, $5) n;
