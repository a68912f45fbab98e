-- serves: 0007
--
-- An approximate index of memories' vectors, for scopes of many thousands.
--
-- Why: a recall reads all vectors of its scopes, which is exact, and quick to some thousands. Above
-- that an HNSW index finds those that are near. It is of one model and its dimensions, as the table
-- has vectors of several, so its definition has their values; and so have statements that are to use
-- it. That is why they are made here, anew at each call: with its values a plan can be made that
-- uses the index, and none is kept that other scopes would be searched by.
--
-- Locks: nothing that exists. pgsaga_create_memory_index() has writes of vectors wait while the index
-- is built.

create function {schema}.pgsaga_memory_index_name(model text, dims integer, is_half boolean)
  returns name
  language sql immutable parallel safe
  return (
    'agent_memory_vectors_'
    || left(encode(sha256(convert_to(model || '/' || dims || '/' || is_half, 'UTF8')), 'hex'), 12)
    || '_idx'
  )::name;

comment on function {schema}.pgsaga_memory_index_name(text, integer, boolean) is
  'The name of the approximate index of the vectors of a model, by their dimensions and type.';

create function {schema}.pgsaga_create_memory_index(model text, dims integer, is_half boolean)
  returns name
  language plpgsql
  set search_path from current
as $function$
declare
  own constant name := pg_catalog.current_schema();
  made constant name := pgsaga_memory_index_name(model, dims, is_half);
  home constant name := pgsaga_create_vectors();
  kind constant text := case when is_half then 'halfvec' else 'vector' end;
begin
  execute pg_catalog.format(
    'create index if not exists %1$I on %2$I.agent_memory_vectors '
    'using hnsw ((%3$I::%4$I.%5$I(%6$s)) %4$I.%5$s_cosine_ops) '
    'where model = %7$L and dims = %6$s and %3$I is not null',
    made, own, case when is_half then 'embedding' else 'embedding_full' end, home, kind, dims,
    model);
  return made;
end
$function$;

comment on function {schema}.pgsaga_create_memory_index(text, integer, boolean) is
  'Makes the approximate index (HNSW) of the vectors of a model, unless it is there. Returns its name.';

create function {schema}.pgsaga_nearest_memories(
  scope_ids uuid[], model text, vector real[], is_half boolean, fetched integer
) returns table (scope_id uuid, memory_id uuid)
  language plpgsql
  set search_path from current
  -- So that nothing but the index gives an order.
  set enable_sort = off
  set enable_seqscan = off
as $function$
declare
  own constant name := pg_catalog.current_schema();
  home constant name := (
    select n.nspname
    from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'vector'
  );
  kind constant text := case when is_half then 'halfvec' else 'vector' end;
begin
  -- On, until as many of the scope were found.
  perform pg_catalog.set_config('hnsw.iterative_scan', 'relaxed_order', true);
  perform pg_catalog.set_config(
    'hnsw.ef_search', least(greatest(fetched, 100), 1000)::text, true);
  return query execute pg_catalog.format(
    'select v.scope_id, v.memory_id from %1$I.agent_memory_vectors v '
    'where v.model = %2$L and v.dims = %3$s and v.%4$I is not null '
    -- In a way that no other index has.
    'and v.scope_id::text = any($1::text[]) '
    'order by v.%4$I::%5$I.%6$I(%3$s) operator(%5$I.<=>) $2::%5$I.%6$I(%3$s) '
    'limit $3',
    own, model, pg_catalog.cardinality(vector),
    case when is_half then 'embedding' else 'embedding_full' end, home, kind)
  using scope_ids, vector, fetched;
end
$function$;

comment on function {schema}.pgsaga_nearest_memories(uuid[], text, real[], boolean, integer) is
  'The memories of scopes whose vectors by a model are nearest, as its approximate index finds them.';
