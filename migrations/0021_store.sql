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
