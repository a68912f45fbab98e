-- serves: 0007
--
-- The store: items that agents keep by namespace and key, across threads, as LangGraph's BaseStore
-- has them.
--
-- Why: a graph's `store=` needs a place in the database that its state is in already.
--
-- A namespace is its labels, joined by '.', which no label holds. In the order of collation "C" what
-- is below 'a.b' lies between 'a.b.' and 'a.b/', so a prefix is one range of the primary key, and
-- 'a.bc' isn't in it.
--
-- An item that has expired is there for nobody: no statement gives it, a put begins anew. It is
-- deleted by a sweep.
--
-- The vectors of items stand in a table of their own, agent_store_vectors, which
-- pgsaga_create_store_vectors() makes once a store has an embedding: one row for each text of an item
-- that is indexed, with the hash of that text. All are of one type and length, which the server
-- checks. Its primary key begins as that of the items does, so that the vectors of a namespace
-- are one range, which is read exactly.
--
-- Locks: nothing that exists.

create table {schema}.agent_store_items (
  tenant_id text collate "C" not null default '',
  namespace text collate "C" not null,
  key text collate "C" not null,
  value jsonb not null,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  expires_at timestamptz,
  ttl_minutes double precision,
  constraint agent_store_items_pkey primary key (tenant_id, namespace, key)
);

comment on table {schema}.agent_store_items is
  'Items by namespace and key: what agents keep across threads.';
comment on column {schema}.agent_store_items.namespace is 'Its labels, joined by dots.';
comment on column {schema}.agent_store_items.version is
  'How often it was put since it was made; by it an update that would be lost is refused.';
comment on column {schema}.agent_store_items.expires_at is
  'Since then it is there for nobody; null is never.';
comment on column {schema}.agent_store_items.ttl_minutes is
  'How long it lives after it was last put, or read by who refreshes it.';

create index agent_store_items_newest_idx on {schema}.agent_store_items
  (tenant_id, namespace, updated_at desc, key);
create index agent_store_items_expiry_idx on {schema}.agent_store_items (expires_at)
  where expires_at is not null;

create function {schema}.pgsaga_matches(value jsonb, steps jsonb) returns boolean
  language plpgsql immutable parallel safe
as $$
declare
  -- What a text that says a number looks like.
  numeral constant text := '^ *[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]{1,3})? *$';
  answers boolean[] := '{}'::boolean[];
  answer boolean;
  step jsonb;
  operator text;
  operand jsonb;
  part jsonb;
  kind text;
  said text;
  number numeric;
  size integer;
  given integer;
begin
  for n in 0 .. pg_catalog.jsonb_array_length(steps) - 1 loop
    step := steps -> n;
    operator := step ->> 0;
    if operator = 'must'::text then
      if answers[1] is not true then
        return false;
      end if;
      answers := '{}'::boolean[];
      continue;
    end if;
    size := coalesce(pg_catalog.array_length(answers, 1), 0);
    if operator in ('and'::text, 'or'::text, 'not'::text) then
      given := (step ->> 1)::integer;
      if operator = 'not'::text then
        answer := not answers[size];
      elsif operator = 'and'::text then
        answer := true = all(answers[size - given + 1 : size]);
      else
        answer := true = any(answers[size - given + 1 : size]);
      end if;
      answers := answers[1 : size - given];
      size := size - given;
    else
      -- A field that isn't there is as one that is null.
      part := value #> (step ->> 1)::text[];
      operand := step -> 2;
      kind := pg_catalog.jsonb_typeof(part);
      case operator
        when 'eq'::text then
          answer := coalesce(part, 'null'::jsonb) = operand;
        when 'in'::text then
          answer := coalesce(part, 'null'::jsonb) in (
            select pg_catalog.jsonb_array_elements(operand)
          );
        when 'exists'::text then
          answer := (part is not null) = operand::boolean;
        when 'object'::text then
          answer := coalesce(kind = 'object'::text, false);
        when 'length'::text then
          answer := case when kind = 'array'::text
            then pg_catalog.jsonb_array_length(part) = operand::integer else false end;
        else
          said := part #>> '{}'::text[];
          if kind = 'number'::text then
            number := said::numeric;
          elsif kind = 'boolean'::text then
            number := (said::boolean)::integer;
          elsif kind = 'string'::text
            and pg_catalog.length(said) < 400 and said ~ numeral then
            number := said::numeric;
          else
            number := null;
          end if;
          if number is not null and step ->> 3 is not null then
            answer := case operator
              when 'gt'::text then number > (step ->> 3)::numeric
              when 'gte'::text then number >= (step ->> 3)::numeric
              when 'lt'::text then number < (step ->> 3)::numeric
              when 'lte'::text then number <= (step ->> 3)::numeric
            end;
          elsif kind = 'string'::text and pg_catalog.jsonb_typeof(operand) = 'string'::text then
            answer := case operator
              when 'gt'::text then said collate "C" > (step ->> 2)
              when 'gte'::text then said collate "C" >= (step ->> 2)
              when 'lt'::text then said collate "C" < (step ->> 2)
              when 'lte'::text then said collate "C" <= (step ->> 2)
            end;
          else
            answer := false;
          end if;
      end case;
    end if;
    answers[size + 1] := answer;
  end loop;
  return true;
end
$$;

comment on function {schema}.pgsaga_matches(jsonb, jsonb) is
  'Whether a value fits a filter of the store, as steps: [operator, path, operand, number], which '
  'answer, and ["and", 2], ["or", 2], ["not", 1], which take so many answers and give one. After '
  '["must"] the answer has to be true.';

create function {schema}.pgsaga_create_store_vectors(dims integer, kind text) returns text
  language plpgsql volatile
  set search_path from current
as $$
declare
  own name := pg_catalog.current_schema();
  home name;
  stored text;
begin
  home := pgsaga_create_vectors();
  select t.typname || '(' || a.atttypmod || ')' into stored
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_type t on t.oid = a.atttypid
  where a.attrelid = pg_catalog.to_regclass('agent_store_vectors'::text)
    and a.attname = 'embedding'::name;
  if stored is not null then
    if stored = kind || '(' || dims || ')' or exists (select from agent_store_vectors) then
      return stored;
    end if;
    drop table agent_store_vectors;
  end if;
  execute pg_catalog.format(
    'create table %3$I.agent_store_vectors ('
    'tenant_id text collate "C" not null default %4$L, '
    'namespace text collate "C" not null, key text collate "C" not null, '
    'path text collate "C" not null, text_hash bytea not null, '
    'embedding %2$I.%1$I(%5$s) not null, '
    'constraint agent_store_vectors_pkey primary key (tenant_id, namespace, key, path), '
    'constraint agent_store_vectors_item_fkey foreign key (tenant_id, namespace, key) '
    'references %3$I.agent_store_items on delete cascade)',
    kind, home, own, ''::text, dims);
  -- In the row while it fits its page, and out of it above.
  alter table agent_store_vectors alter column embedding set storage main;
  drop function if exists pgsaga_store_vector(text);
  execute pg_catalog.format(
    'create function %3$I.pgsaga_store_vector(text) returns %2$I.%1$I '
    'language sql immutable parallel safe return $1::%2$I.%1$I',
    kind, home, own);
  return kind || '(' || dims || ')';
end
$$;

comment on function {schema}.pgsaga_create_store_vectors(integer, text) is
  'Makes the table of the store''s vectors, unless it is there: of so many dimensions, as halfvec '
  'or vector. Returns what it has; one without rows is made anew.';

create function {schema}.pgsaga_create_store_index(
  kind text, distance text, settings text
) returns void
  language plpgsql volatile
  set search_path from current
as $$
declare
  own name := pg_catalog.current_schema();
  home name;
  vector_type name;
begin
  if pg_catalog.to_regclass('agent_store_vectors_nearest_idx'::text) is not null then
    return;
  end if;
  home := pgsaga_create_vectors();
  select t.typname into strict vector_type
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_type t on t.oid = a.atttypid
  where a.attrelid = pg_catalog.to_regclass('agent_store_vectors'::text)
    and a.attname = 'embedding'::name;
  execute pg_catalog.format(
    'create index if not exists agent_store_vectors_nearest_idx on %1$I.agent_store_vectors '
    'using %2$s (embedding %3$I.%4$I) %5$s',
    own, case kind when 'hnsw' then 'hnsw' else 'ivfflat' end, home,
    vector_type || case distance
      when 'l2' then '_l2_ops' when 'inner_product' then '_ip_ops' else '_cosine_ops' end,
    case when settings <> '' then 'with (' || settings || ')' else '' end);
end
$$;

comment on function {schema}.pgsaga_create_store_index(text, text, text) is
  'Makes the approximate index of the store''s vectors, unless there is one.';

create function {schema}.pgsaga_keep_vectors(
  tenant_id text, namespaces text[], keys text[], items bigint[], paths text[], hashes bytea[],
  stored bigint
) returns bigint
  language plpgsql volatile
  set search_path from current
as $$
begin
  -- Statements of their own, so that they see what was committed while the locks of the items,
  -- which the caller has by now, were waited for.
  delete from agent_store_vectors v
  using unnest($2, $3) with ordinality as i (namespace, key, place)
  where v.tenant_id = $1 and v.namespace = i.namespace and v.key = i.key
    -- Hashed once, in this form.
    and (i.place, v.path, v.text_hash) not in (
      select w.place, w.path, w.text_hash from unnest($4, $5, $6) as w (place, path, text_hash)
    );
  if $7 < pg_catalog.cardinality($4) and exists (
    select from unnest($4, $5) with ordinality as w (place, path, o)
    where w.o > $7 and not exists (
      select from agent_store_vectors v
      where v.tenant_id = $1 and v.namespace = $2[w.place] and v.key = $3[w.place]
        and v.path = w.path
    )
  ) then
    raise exception 'the texts of an item were put by somebody else meanwhile'
      using errcode = 'PSV01';
  end if;
  return $7;
end
$$;

comment on function {schema}.pgsaga_keep_vectors(
  text, text[], text[], bigint[], text[], bytea[], bigint) is
  'Leaves items whose rows are locked the vectors of these texts, and no others; an error where one '
  'isn''t there, but for the first, as many as were stored just now.';
