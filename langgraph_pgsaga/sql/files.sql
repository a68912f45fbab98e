-- Files, as deepagents has them: items of the store whose keys are paths, in one namespace. What is in
-- a directory is one range of the primary key, as '0' is the character behind '/'.
--
-- A file's text is value.content, in old ones its lines as a list. An item without it is no file.

-- name: list_directory
-- The files of a directory, and the directories in it, by their paths. It goes from one entry to the
-- next by the primary key, past all that is in one directory.
-- params: tenant_id text, namespace text, directory text, before text
-- columns: path text, is_dir boolean, size integer, modified_at text
-- shard: all, the store's tables are on one server
with recursive walk as (
  (
    select i.key from {schema}.agent_store_items i
    where i.tenant_id = $1 and i.namespace = $2 and i.key >= $3 and i.key < $4
      and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    order by i.key limit 1
  )
  union all
  select n.key
  from walk w
  cross join lateral (
    select pg_catalog.substr(w.key, pg_catalog.length($3::text) + 1) as below
  ) s
  cross join lateral (
    select i.key from {schema}.agent_store_items i
    where i.tenant_id = $1 and i.namespace = $2 and i.key < $4
      and i.key >= case
        when pg_catalog.strpos(s.below, '/'::text) > 0
          then $3 || pg_catalog.split_part(s.below, '/'::text, 1) || '0'
        else w.key || pg_catalog.chr(1)
      end
      and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    order by i.key limit 1
  ) n
),
entries as (
  select w.key, pg_catalog.substr(w.key, pg_catalog.length($3) + 1) as below from walk w
)
select
  e.key as path, false as is_dir, pg_catalog.octet_length(f.content) as size, f.modified_at
from entries e
cross join lateral (
  select
    case pg_catalog.jsonb_typeof(i.value -> 'content'::text)
      when 'string' then i.value ->> 'content'::text
      when 'array' then coalesce((
        select pg_catalog.string_agg(l.line, pg_catalog.chr(10) order by l.place)
        from pg_catalog.jsonb_array_elements_text(i.value -> 'content'::text)
          with ordinality as l (line, place)
      ), ''::text)
    end as content,
    i.value ->> 'modified_at'::text as modified_at
  from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = $2 and i.key = e.key
  offset 0
) f
where pg_catalog.strpos(e.below, '/'::text) = 0 and f.content is not null
union all
select $3 || pg_catalog.split_part(e.below, '/'::text, 1) || '/', true, 0, null
from entries e
where pg_catalog.strpos(e.below, '/'::text) > 0
order by path;

-- name: find_files
-- The file of a path, or where there is none those of a range of paths whose names end with a text;
-- those that were put last first.
-- params: tenant_id text, namespace text, path text, after text, before text, suffix text
-- columns: path text, size integer, modified_at text
-- shard: all, the store's tables are on one server
with one as materialized (
  select i.key, i.value, i.updated_at from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = $2 and i.key = $3
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    and i.value -> 'content'::text is not null
),
chosen as (
  select o.key, o.value, o.updated_at from one o
  union all
  select i.key, i.value, i.updated_at from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = $2 and i.key >= $4 and i.key < $5
    and pg_catalog.right(
      pg_catalog.rtrim(i.key, '/.'::text), pg_catalog.length($6::text)
    ) = $6
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    and not exists (select from one)
)
select c.key as path, pg_catalog.octet_length(f.content) as size,
  c.value ->> 'modified_at'::text as modified_at
from chosen c
cross join lateral (
  select case pg_catalog.jsonb_typeof(c.value -> 'content'::text)
      when 'string' then c.value ->> 'content'::text
      when 'array' then coalesce((
        select pg_catalog.string_agg(l.line, pg_catalog.chr(10) order by l.place)
        from pg_catalog.jsonb_array_elements_text(c.value -> 'content'::text)
          with ordinality as l (line, place)
      ), ''::text)
    end as content
  offset 0
) f
where f.content is not null
order by c.updated_at desc, c.key;

-- name: find_lines
-- The lines that have a text in them, of the files that find_files gives; none of binary files.
-- params: tenant_id text, namespace text, path text, after text, before text, suffix text, pattern text, limit_count bigint
-- columns: path text, line bigint, text text
-- shard: all, the store's tables are on one server
with one as materialized (
  select i.key, i.value, i.updated_at from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = $2 and i.key = $3
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    and i.value -> 'content'::text is not null
),
chosen as (
  select o.key, o.value, o.updated_at from one o
  union all
  select i.key, i.value, i.updated_at from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = $2 and i.key >= $4 and i.key < $5
    and pg_catalog.right(
      pg_catalog.rtrim(i.key, '/.'::text), pg_catalog.length($6::text)
    ) = $6
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
    and not exists (select from one)
)
select c.key as path, l.line, l.text
from chosen c
cross join lateral (
  select case pg_catalog.jsonb_typeof(c.value -> 'content'::text)
      when 'string' then c.value ->> 'content'::text
      when 'array' then coalesce((
        select pg_catalog.string_agg(l.line, pg_catalog.chr(10) order by l.place)
        from pg_catalog.jsonb_array_elements_text(c.value -> 'content'::text)
          with ordinality as l (line, place)
      ), ''::text)
    end collate "C" as content
  offset 0
) f
cross join lateral (
  select s.text, s.line
  from pg_catalog.string_to_table(f.content, pg_catalog.chr(10)) with ordinality as s (text, line)
  where f.content <> ''
  union all
  select ''::text, 1 where f.content = ''
) l
where c.value ->> 'encoding'::text is distinct from 'base64'
  and pg_catalog.strpos(f.content, $7::text) > 0
  and pg_catalog.strpos(l.text, $7) > 0
order by c.updated_at desc, c.key, l.line
limit $8;

-- name: delete_files
-- Deletes what is at a path, and what is in it.
-- params: tenant_id text, namespace text, path text, after text, before text
-- columns: path text
-- shard: all, the store's tables are on one server
with chosen as materialized (
  select i.key from {schema}.agent_store_items i
  where i.tenant_id = $1 and i.namespace = $2
    and i.key = any (array(
      select o.key from {schema}.agent_store_items o
      where o.tenant_id = $1 and o.namespace = $2 and o.key = $3
      union all
      select o.key from {schema}.agent_store_items o
      where o.tenant_id = $1 and o.namespace = $2 and o.key >= $4 and o.key < $5
    ))
    and (i.expires_at is null or i.expires_at > {schema}.pgsaga_now())
  order by i.key
  for update
)
delete from {schema}.agent_store_items i
using chosen c
where i.tenant_id = $1 and i.namespace = $2 and i.key = c.key
returning i.key as path;
