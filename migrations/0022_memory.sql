-- serves: 0007
--
-- What agents remember: of a user, of a thread, or of a user in a thread.
--
-- Why: a memory is read by its scope, of which a recall takes every row: so the scope leads each
-- key, and the row is narrow. Its vector is in a table of its own, which
-- pgsaga_create_memory_vectors() makes where there are any: counts of accesses change often, and
-- each change would write the vector again. No index has a column of theirs, and pages have room,
-- so that such a change touches no index at all.
--
-- A memory isn't changed in what it says: a new one supersedes it, and both have their times. So
-- what was known at some time can be asked.
--
-- Locks: nothing that exists.

create function {schema}.pgsaga_memory_scope(tenant_id text, user_id text, session_id uuid)
  returns uuid
  language sql immutable parallel safe
  return (
    select encode(
      set_byte(
        set_byte(h.digest, 6, (get_byte(h.digest, 6) & 15) | 128),
        8, (get_byte(h.digest, 8) & 63) | 128
      ),
      'hex'
    )::uuid
    from (
      select substr(
        sha256(
          -- No text has the byte 255, so that no two scopes make the same bytes.
          convert_to(tenant_id, 'UTF8') || '\xff'
          || case when user_id is null then ''::bytea else convert_to(user_id, 'UTF8') end
          || '\xff' || case when session_id is null then ''::bytea else uuid_send(session_id) end
        ),
        1, 16
      ) as digest
    ) h
  );

comment on function {schema}.pgsaga_memory_scope(text, text, uuid) is
  'The scope of a memory: a UUID version 8 of the first 16 bytes of the SHA-256 of tenant id, '
  'byte 255, user id, byte 255 and the bytes of the session id; what is null has no bytes.';

create table {schema}.agent_memory (
  scope_id uuid not null,
  memory_id uuid not null,
  tenant_id text collate "C" not null default '',
  user_id text collate "C",
  session_id uuid,
  thread_id text collate "C",
  memory_type text collate "C" not null,
  content_text text not null,
  content_hash bytea not null,
  -- What was said around it, which is searched with it.
  context_text text,
  search_words tsvector not null,
  -- How many words those are, with each time that one is there.
  search_length integer not null,
  importance_score double precision not null default 0.0,
  access_count integer not null default 0,
  created_at timestamptz not null default now(),
  last_accessed_at timestamptz not null default now(),
  expires_at timestamptz,
  pinned boolean not null default false,
  metadata jsonb not null default '{}',
  source_thread_id text collate "C",
  source_checkpoint_ns text collate "C",
  source_checkpoint_id text collate "C",
  source_message_no integer,
  -- When it holds, and when it was known.
  valid_from timestamptz,
  valid_to timestamptz,
  recorded_at timestamptz not null default now(),
  superseded_at timestamptz,
  superseded_by uuid,
  forgotten_at timestamptz,
  constraint agent_memory_pkey primary key (scope_id, memory_id),
  constraint agent_memory_has_a_scope check (user_id is not null or session_id is not null),
  constraint agent_memory_scope_is_its_own
    check (scope_id = {schema}.pgsaga_memory_scope(tenant_id, user_id, session_id)),
  constraint agent_memory_names_its_thread check ((session_id is null) = (thread_id is null)),
  constraint agent_memory_content_hash_check check (octet_length(content_hash) = 32)
) with (fillfactor = 85);

comment on table {schema}.agent_memory is
  'What agents remember. A memory with a session_id is one of its thread, others are of their user.';
comment on column {schema}.agent_memory.scope_id is
  'pgsaga_memory_scope(tenant_id, user_id, session_id): what a memory is read by.';
comment on column {schema}.agent_memory.content_hash is
  'The SHA-256 of content_text: of what is live, a scope has each content of a type once.';
comment on column {schema}.agent_memory.superseded_by is
  'The memory of the scope that took its place.';
comment on column {schema}.agent_memory.source_message_no is
  'Of agent_messages, in the session of source_thread_id.';

create unique index agent_memory_content_idx on {schema}.agent_memory
  (scope_id, memory_type, content_hash) where superseded_at is null and forgotten_at is null;
create index agent_memory_importance_idx on {schema}.agent_memory
  (scope_id, importance_score, memory_id) where superseded_at is null and forgotten_at is null;
create index agent_memory_created_idx on {schema}.agent_memory
  (scope_id, created_at, memory_id) where superseded_at is null and forgotten_at is null;
create index agent_memory_expires_idx on {schema}.agent_memory (expires_at)
  where expires_at is not null;
create index agent_memory_session_idx on {schema}.agent_memory (session_id)
  where session_id is not null;
create index agent_memory_user_idx on {schema}.agent_memory (tenant_id, user_id)
  where user_id is not null;

create function {schema}.pgsaga_create_memory_vectors() returns void
  language plpgsql
  set search_path from current
as $function$
declare
  own constant name := pg_catalog.current_schema();
  home constant name := pgsaga_create_vectors();
begin
  if pg_catalog.to_regclass(pg_catalog.format('%I.agent_memories', own)) is not null then
    return;
  end if;
  execute pg_catalog.format(
    'create table %2$I.agent_memory_vectors ('
    '  scope_id uuid not null,'
    '  memory_id uuid not null,'
    '  model text collate "C" not null default %3$L,'
    '  dims integer not null,'
    '  embedding %1$I.halfvec,'
    '  embedding_full %1$I.vector,'
    '  constraint agent_memory_vectors_pkey primary key (scope_id, memory_id, model),'
    '  constraint agent_memory_vectors_memory_fkey foreign key (scope_id, memory_id)'
    '    references %2$I.agent_memory (scope_id, memory_id) on delete cascade,'
    '  constraint agent_memory_vectors_has_one'
    '    check ((embedding is null) <> (embedding_full is null))'
    ')',
    home, own, '');
  -- In the row for as long as that fits its page.
  execute pg_catalog.format(
    'alter table %I.agent_memory_vectors'
    ' alter embedding set storage main, alter embedding_full set storage main', own);
  execute pg_catalog.format(
    'comment on table %I.agent_memory_vectors is '
    '''What memories mean, as vectors: one for each model that embeds them.''', own);
  execute pg_catalog.format(
    'create view %2$I.agent_memories with (security_invoker = true) as '
    'select m.memory_id, m.session_id, m.user_id, m.memory_type, m.content_text,'
    '  coalesce(v.embedding_full, v.embedding::%1$I.vector) as content_vector,'
    '  m.importance_score, m.access_count, m.created_at, m.last_accessed_at, m.expires_at '
    'from %2$I.agent_memory m '
    'left join %2$I.agent_memory_vectors v'
    '  on v.scope_id = m.scope_id and v.memory_id = m.memory_id and v.model = %3$L '
    'where m.superseded_at is null and m.forgotten_at is null',
    home, own, '');
  execute pg_catalog.format(
    'comment on view %I.agent_memories is '
    '''The live memories with their vectors, in the columns of one table.''', own);
end
$function$;

comment on function {schema}.pgsaga_create_memory_vectors() is
  'Makes the table of memories'' vectors and the view of both, unless they are there; with pgvector.';
