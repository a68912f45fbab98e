-- serves: 0007
--
-- A session is a tenant's. Its id is derived from the ids of tenant and thread, so that the
-- config of one tenant names no thread of another, and no statement has to look for a tenant.
--
-- Why: a thread id that came from outside named whoever's thread it was.
--
-- '' is no tenant. Its sessions have the ids that they had, so nothing that is there changes,
-- and processes of releases before, which know no tenants, go on with what is theirs.
--
-- Indexes: those by which sessions are listed begin with the tenant now, and are as many as
-- before. The one that is new, for reading through a tenant's sessions one by one, has none
-- of ''. As before, no index is on what a superstep updates.
--
-- The views ask with the rights of who asks them: whoever reads them needs the right to read the
-- tables below, and row security there counts. PostgreSQL 15 is the first that can do so.
--
-- Locks: agent_sessions against everything while three of its indexes are built anew, which is
-- two seconds for a million sessions; the views, for a moment.

alter table {schema}.agent_sessions
  add column tenant_id text collate "C" not null default '';

comment on column {schema}.agent_sessions.tenant_id is
  'Whose session it is; '''' is nobody''s. With thread_id it makes session_id.';

create function {schema}.pgsaga_session_id(tenant_id text, thread_id text) returns uuid
  language sql immutable strict parallel safe
  return (
    select
      encode(
        set_byte(
          set_byte(h.digest, 6, (get_byte(h.digest, 6) & 15) | 128),
          8, (get_byte(h.digest, 8) & 63) | 128
        ),
        'hex'
      )::uuid
    from (
      select substr(
        sha256(
          -- No text has the byte 255, so that no two pairs make the same bytes.
          case when tenant_id = '' then ''::bytea else convert_to(tenant_id, 'UTF8') || '\xff' end
          || convert_to(thread_id, 'UTF8')
        ),
        1, 16
      ) as digest
    ) h
  );

comment on function {schema}.pgsaga_session_id(text, text) is
  'The session of a tenant''s thread: a UUID version 8 of the first 16 bytes of the SHA-256 of '
  'tenant id, byte 255 and thread id, or of the thread id alone where the tenant is ''''.';

create or replace function {schema}.pgsaga_session_id(thread_id text) returns uuid
  language sql immutable strict parallel safe
  return {schema}.pgsaga_session_id(''::text, thread_id);

comment on function {schema}.pgsaga_session_id(text) is
  'The session of a thread of no tenant: that of the tenant ''''.';

-- Of the names that they had; each for such statements only as say so: see 0009.
drop index {schema}.agent_sessions_type_idx;
drop index {schema}.agent_sessions_queue_idx;
drop index {schema}.agent_sessions_newest_idx;
create index agent_sessions_type_idx on {schema}.agent_sessions
  (tenant_id, (left(agent_type, 256)), created_at, session_id) where created_at > '-infinity';
create index agent_sessions_queue_idx on {schema}.agent_sessions
  (tenant_id, (~ priority), created_at, session_id) where created_at > '-infinity';
create index agent_sessions_newest_idx on {schema}.agent_sessions
  (tenant_id, created_at, session_id) where created_at > '-infinity';

create index agent_sessions_tenant_idx on {schema}.agent_sessions (tenant_id, session_id)
  where tenant_id <> '';

create or replace view {schema}.agent_state_history
  with (security_invoker = true) as
select
  s.session_id,
  t.thread_id,
  s.checkpoint_ns,
  s.checkpoint_id,
  s.parent_checkpoint_id,
  s.checkpoint_name,
  s.position = max(s.position)
    over (partition by s.session_id, s.checkpoint_ns, t.tenant_id) as is_current,
  encode(sha256(convert_to((s.state_data -> 'channel_versions')::text, 'UTF8')), 'hex')
    as state_hash,
  s.metadata ->> 'source' as source,
  -- Metadata is the user's: one odd row must not fail the view for all.
  case when s.metadata ->> 'step' ~ '^-?[0-9]{1,9}$' then (s.metadata ->> 'step')::integer end
    as step,
  s.state_data,
  s.metadata,
  s.created_at,
  s.position,
  t.tenant_id
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id;

create or replace view {schema}.agent_conversations
  with (security_invoker = true) as
select
  t.thread_id,
  t.user_id,
  v.channel,
  row_number() over (
    partition by t.session_id, t.tenant_id, v.channel order by run.i, m.message_no
  )::integer as position,
  m.role,
  m.message_type,
  m.content,
  m.metadata,
  m.message_id,
  m.message_no,
  m.created_at,
  t.tenant_id
from {schema}.agent_sessions t
cross join lateral (
  select
    case when jsonb_typeof(s.state_data -> 'channel_versions') = 'object'
      then s.state_data -> 'channel_versions' end as versions
  from {schema}.agent_states s
  where s.session_id = t.session_id and s.checkpoint_ns = '' and s.position > 0
  order by s.position desc
  limit 1
) latest
cross join lateral jsonb_each_text(latest.versions) c (channel, version)
join {schema}.agent_state_values v
  on v.session_id = t.session_id and v.checkpoint_ns = ''
  and v.channel = c.channel and v.version = c.version
cross join lateral unnest(v.message_runs, v.message_runs[2:]) with ordinality
  run (first_no, last_no, i)
join {schema}.agent_messages m
  on m.session_id = t.session_id
  and m.message_no between run.first_no and run.last_no
where run.i % 2 = 1;

create or replace view {schema}.agent_message_log
  with (security_invoker = true) as
select
  t.thread_id,
  t.user_id,
  m.session_id,
  m.message_no,
  m.message_id,
  m.parent_message_no,
  m.message_type,
  m.role,
  m.content,
  m.metadata,
  m.created_at,
  t.tenant_id
from {schema}.agent_messages m
join {schema}.agent_sessions t on t.session_id = m.session_id;

create or replace view {schema}.agent_message_statistics
  with (security_invoker = true) as
select
  t.thread_id,
  t.user_id,
  t.session_id,
  s.messages,
  s.versions,
  s.user_messages,
  s.assistant_messages,
  s.system_messages,
  s.tool_messages,
  s.messages - s.user_messages - s.assistant_messages - s.system_messages - s.tool_messages
    as other_messages,
  s.tool_calls,
  s.input_tokens,
  s.output_tokens,
  s.total_tokens,
  s.first_message_at,
  s.last_message_at,
  t.tenant_id
from {schema}.agent_sessions t
cross join lateral (
  select
    count(*) filter (where v.is_newest) as messages,
    count(*) as versions,
    count(*) filter (where v.is_newest and v.role = 'user') as user_messages,
    count(*) filter (where v.is_newest and v.role = 'assistant') as assistant_messages,
    count(*) filter (where v.is_newest and v.role = 'system') as system_messages,
    count(*) filter (where v.is_newest and v.role = 'tool') as tool_messages,
    coalesce(sum(v.tool_calls) filter (where v.is_newest), 0) as tool_calls,
    coalesce(sum(v.input_tokens) filter (where v.is_newest), 0) as input_tokens,
    coalesce(sum(v.output_tokens) filter (where v.is_newest), 0) as output_tokens,
    coalesce(sum(v.total_tokens) filter (where v.is_newest), 0) as total_tokens,
    min(v.created_at) as first_message_at,
    max(v.created_at) as last_message_at
  from (
    select
      m.role,
      m.created_at,
      -- Messages without an id are each their own.
      m.message_no = max(m.message_no) over (
        partition by m.message_id, case when m.message_id is null then m.message_no end
      ) as is_newest,
      -- Metadata is the user's: one odd message must not fail the view for all.
      case when jsonb_typeof(m.metadata -> 'tool_calls') = 'array'
        then jsonb_array_length(m.metadata -> 'tool_calls') end as tool_calls,
      case when jsonb_typeof(m.metadata #> '{usage,input_tokens}') = 'number'
        then (m.metadata #> '{usage,input_tokens}')::numeric end as input_tokens,
      case when jsonb_typeof(m.metadata #> '{usage,output_tokens}') = 'number'
        then (m.metadata #> '{usage,output_tokens}')::numeric end as output_tokens,
      case when jsonb_typeof(m.metadata #> '{usage,total_tokens}') = 'number'
        then (m.metadata #> '{usage,total_tokens}')::numeric end as total_tokens
    from {schema}.agent_messages m
    where m.session_id = t.session_id
  ) v
) s;

comment on column {schema}.agent_state_history.tenant_id is
  'Whose thread it is; '''' is nobody''s.';
comment on column {schema}.agent_conversations.tenant_id is
  'Whose thread it is; '''' is nobody''s.';
comment on column {schema}.agent_message_log.tenant_id is
  'Whose thread it is; '''' is nobody''s.';
comment on column {schema}.agent_message_log.session_id is
  'pgsaga_session_id(tenant_id, thread_id): filter by this one, it is the key.';
comment on column {schema}.agent_message_statistics.tenant_id is
  'Whose thread it is; '''' is nobody''s.';
comment on column {schema}.agent_message_statistics.session_id is
  'pgsaga_session_id(tenant_id, thread_id): filter by this one, it is the key.';
