-- serves: 0007
--
-- A row that somebody damaged or forged fails no view for everybody, and takes its time only.
--
-- Why: agent_conversations raised an error for all threads where the channel versions of one
-- are no object, and took a list's runs of messages apart anew for each of them.
--
-- Locks: agent_conversations, for a moment.

create or replace view {schema}.agent_conversations as
select
  t.thread_id,
  t.user_id,
  v.channel,
  row_number() over (
    partition by t.session_id, v.channel order by run.i, m.message_no
  )::integer as position,
  m.role,
  m.message_type,
  m.content,
  m.metadata,
  m.message_id,
  m.message_no,
  m.created_at
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
