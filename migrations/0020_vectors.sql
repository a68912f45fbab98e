-- serves: 0007
--
-- What systems with vectors share: how they name the types and distances of pgvector.
--
-- Why: pgvector is an extension that a server may not have, and that may be in any schema. So nothing
-- of it stands in a migration: pgsaga_create_vectors() makes what needs it, when the first system that
-- has vectors is set up. It makes the extension, too, where it is missing; pgvector is trusted, so
-- who may create in the database may do that. Called again it does nothing, or makes what is new.
-- Tables of vectors are made in the same way, by functions that call this one first.
--
-- A vector comes as real[], which each driver can send without knowing pgvector's types, and is made
-- halfvec (two bytes per dimension) or vector (four) once per statement. The functions below are one
-- expression each, which the planner puts in their place: so an index on the distance is found, and
-- search_path decides nothing.
--
-- Locks: none.

create function {schema}.pgsaga_create_vectors() returns text
  language plpgsql
  set search_path from current
as $function$
declare
  own name := pg_catalog.current_schema();
  home name;
  kind text;
  distance text[];
begin
  -- One at a time: of two that make the same the second would fail.
  perform pg_catalog.pg_advisory_xact_lock(
    pg_catalog.hashtextextended('langgraph_pgsaga vectors', 0));
  if not exists (select from pg_catalog.pg_extension e where e.extname = 'vector') then
    if not exists (select from pg_catalog.pg_available_extensions a where a.name = 'vector') then
      raise exception 'this server has no pgvector'
        using errcode = 'feature_not_supported',
          hint = 'Install the extension''s package for this version of PostgreSQL.';
    end if;
    -- Where the application finds it, too, if this user may.
    execute pg_catalog.format(
      'create extension if not exists vector with schema %I',
      coalesce((
        select n.nspname from pg_catalog.pg_namespace n
        where n.nspname = 'public' and pg_catalog.has_schema_privilege(n.oid, 'create')
      ), own));
  end if;
  select n.nspname into strict home
  from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
  where e.extname = 'vector';
  -- Who finds all of them needn't be their owner.
  if (
    select pg_catalog.count(*)
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = own and p.proname in (
      'pgsaga_halfvec', 'pgsaga_vector',
      'pgsaga_cosine_distance', 'pgsaga_l2_distance', 'pgsaga_negative_inner_product')
  ) = 8 then
    return home;
  end if;
  foreach kind in array array['halfvec', 'vector'] loop
    execute pg_catalog.format(
      'create or replace function %3$I.pgsaga_%1$s(real[]) returns %2$I.%1$I '
      'language sql immutable parallel safe return $1::%2$I.%1$I',
      kind, home, own);
    foreach distance slice 1 in array array[
      array['cosine_distance', '<=>'],
      array['l2_distance', '<->'],
      array['negative_inner_product', '<#>']
    ] loop
      execute pg_catalog.format(
        'create or replace function %5$I.pgsaga_%3$s(%2$I.%1$I, %2$I.%1$I) '
        'returns double precision language sql immutable parallel safe '
        'return $1 operator(%2$I.%4$s) $2',
        kind, home, distance[1], distance[2], own);
    end loop;
  end loop;
  return home;
end
$function$;

comment on function {schema}.pgsaga_create_vectors() is
  'Makes the extension pgvector, unless it is there, and the functions by which it is used here. '
  'Returns the schema that the extension is in.';
