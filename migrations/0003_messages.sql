-- Reading conversations: full-text search over messages, and views for analysts.
--
-- Why: without an index a search reads, and takes apart, every message of every thread.
-- The index is over an expression, so the table keeps its columns and a put its statement.
--
-- Locks: agent_messages against writes (reads go on) while the index is built, which takes
-- about a second for 50,000 messages of 40 words. Where that is too long, stop the writers
-- or run the file by hand at a quiet time (`pgsaga migrate sql`).

-- A tsvector takes 1 MB and refuses more, which would fail the put. No text of 50,000
-- characters comes near that, whatever it is made of.
create function {schema}.pgsaga_message_words(content text) returns tsvector
  language sql immutable parallel safe
  return to_tsvector('pg_catalog.simple', left(content, 50000));

comment on function {schema}.pgsaga_message_words(text) is
  'What full-text search sees of a message: the words of its first 50,000 characters, as they are.';

create index agent_messages_words_idx on {schema}.agent_messages
  using gin ({schema}.pgsaga_message_words(content));

-- For people: every stored message with the thread it belongs to, also those that an edit
-- or a removal took out of the conversation.
create view {schema}.agent_message_log as
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
  m.created_at
from {schema}.agent_messages m
join {schema}.agent_sessions t on t.session_id = m.session_id;

comment on view {schema}.agent_message_log is
  'Every stored version of every message, with its thread and user.';
comment on column {schema}.agent_message_log.session_id is
  'pgsaga_session_id(thread_id): filter by this one, it is the key.';
comment on column {schema}.agent_message_log.message_no is
  'The order in which the thread''s messages were stored.';
comment on column {schema}.agent_message_log.message_id is
  'LangChain''s id. An edited message is a version more under the same id.';
comment on column {schema}.agent_message_log.parent_message_no is
  'The message before it in its list when it was stored; null at the beginning.';
comment on column {schema}.agent_message_log.content is
  'The text; blocks without text by their kind, as [image]. Empty where messages are encrypted.';
comment on column {schema}.agent_message_log.metadata is
  'name, tool_calls, tool_call_id, status, usage and model, where the message has them.';

-- For people: what each thread's messages come to. A message that was edited counts once,
-- as its newest version has it.
create view {schema}.agent_message_statistics as
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
  s.last_message_at
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

comment on view {schema}.agent_message_statistics is
  'Per thread: messages by role, tool calls, tokens, first and last. An edited message counts once.';
comment on column {schema}.agent_message_statistics.session_id is
  'pgsaga_session_id(thread_id): filter by this one, it is the key.';
comment on column {schema}.agent_message_statistics.messages is
  'Messages that the thread has or had; those that are removed count while they are stored.';
comment on column {schema}.agent_message_statistics.versions is
  'Rows of agent_messages: each edit of a message is one more.';
comment on column {schema}.agent_message_statistics.other_messages is
  'Messages of roles of their own.';
comment on column {schema}.agent_message_statistics.tool_calls is
  'Calls that messages ask for, whether or not they were answered.';
comment on column {schema}.agent_message_statistics.input_tokens is
  'The sum of usage_metadata''s input_tokens, over the messages that have it.';
comment on column {schema}.agent_message_statistics.output_tokens is
  'The sum of usage_metadata''s output_tokens, over the messages that have it.';
comment on column {schema}.agent_message_statistics.total_tokens is
  'The sum of usage_metadata''s total_tokens, over the messages that have it.';

comment on view {schema}.agent_conversations is
  'Each thread''s conversation as the latest checkpoint of its root graph has it, in order.';
comment on column {schema}.agent_conversations.position is
  'The place in the channel''s list, from 1.';
