-- The saver's tables: sessions, checkpoints, their values, pending writes and messages.
--
-- Locks: nothing that exists; every object here is new.
--
-- The model in a page:
--   A session is a LangGraph thread. Its id is derived from the thread id (see
--   pgsaga_session_id), so nobody looks it up first, and it is the distribution
--   column: it leads every key, and every statement of the saver carries it.
--   A checkpoint is a row of agent_states. What JSON holds exactly and is small
--   stands in its state_data; every other channel value has one row in
--   agent_state_values per version of the channel, so a channel that didn't
--   change costs nothing. A value is its bytes, or, where it is large, the hashes
--   of blobs that make the bytes one after the other and that the session holds
--   once each. A list of messages is runs over agent_messages: {1,450,452,460} is
--   the messages 1 to 450 and 452 to 460 in that order. Where messages stand
--   inside another value, its bytes have gaps that its runs fill.
--   A message is stored once per version (an edited message is a new version),
--   with its exact bytes and a readable projection of them.
--   There are no foreign keys: a write may arrive before its checkpoint, and
--   checks across rows would cost more than the rows.
--
-- Lock order: the agent_sessions row first, then anything else of that session.
-- Whoever deletes rows that others may refer to (values, blobs, messages) holds
-- that row `for update`; whoever refers to them holds it at least `for key share`.

create function {schema}.pgsaga_session_id(thread_id text) returns uuid
  language sql immutable strict parallel safe
  return encode(
    set_byte(
      set_byte(
        substr(sha256(convert_to(thread_id, 'UTF8')), 1, 16),
        6, (get_byte(sha256(convert_to(thread_id, 'UTF8')), 6) & 15) | 128
      ),
      8, (get_byte(sha256(convert_to(thread_id, 'UTF8')), 8) & 63) | 128
    ),
    'hex'
  )::uuid;

comment on function {schema}.pgsaga_session_id(text) is
  'The session of a LangGraph thread id: a UUID version 8 of the first 16 bytes of its SHA-256.';

create table {schema}.agent_sessions (
  session_id uuid not null,
  thread_id text collate "C" not null,
  user_id text collate "C" not null default '',
  agent_type text collate "C" not null default '',
  status text collate "C" not null default 'active',
  priority integer not null default 0,
  metadata jsonb not null default '{}',
  -- The highest message_no given out.
  message_count integer not null default 0,
  -- Changes whenever messages of the session are deleted: message numbers that a
  -- process remembers are good only under the epoch it learned them in. Its upper 32
  -- bits never change: a session that has others is another one under the same thread id.
  message_epoch bigint not null default floor(random() * 9007199254740992)::bigint,
  created_at timestamptz not null default now(),
  last_activity_at timestamptz not null default now(),
  expires_at timestamptz,
  -- Who may write: whoever has this lease, and others only where it has ended, which is
  -- after lease_expires_at or where that is null. Writing without a lease takes it away.
  lease_id uuid,
  lease_holder text,
  lease_expires_at timestamptz,
  constraint agent_sessions_pkey primary key (session_id),
  constraint agent_sessions_status_known
    check (status in ('active', 'paused', 'completed', 'failed'))
) with (fillfactor = 70);

-- A namespace longer than an index takes stands here, and in the tables below, as its
-- beginning and its hash; the checkpoint's exact data then has the whole.
create table {schema}.agent_states (
  session_id uuid not null,
  checkpoint_ns text collate "C" not null,
  checkpoint_id text collate "C" not null,
  parent_checkpoint_id text collate "C",
  checkpoint_name text,
  state_data jsonb not null,
  metadata jsonb not null,
  -- What JSON can't hold exactly, or may not hold in clear: the serialized
  -- {"checkpoint": ..., "metadata": ...} that then counts instead.
  exact_type text collate "C",
  exact bytea,
  created_at timestamptz not null default now(),
  constraint agent_states_pkey primary key (session_id, checkpoint_ns, checkpoint_id),
  constraint agent_states_exact_typed check ((exact is null) = (exact_type is null))
);

create unique index agent_states_name_idx on {schema}.agent_states (session_id, checkpoint_name)
  where checkpoint_name is not null;
-- For listings across threads only. As an expression, since a plan made while the table
-- was small could else take it for one thread's latest checkpoint, and read everybody's.
create index agent_states_recent_idx on {schema}.agent_states ((checkpoint_id || ''));
create index agent_states_metadata_idx on {schema}.agent_states
  using gin (metadata jsonb_path_ops);

create table {schema}.agent_state_values (
  session_id uuid not null,
  checkpoint_ns text collate "C" not null,
  channel text collate "C" not null,
  version text collate "C" not null,
  type text collate "C" not null,
  payload bytea,
  blob_hashes bytea[],
  message_runs integer[],
  constraint agent_state_values_pkey primary key (session_id, checkpoint_ns, channel, version),
  constraint agent_state_values_one_form check (
    num_nonnulls(payload, blob_hashes) = 1
    or (num_nonnulls(payload, blob_hashes) = 0 and message_runs is not null)
  )
);

create table {schema}.agent_state_blobs (
  session_id uuid not null,
  hash bytea not null,
  payload bytea not null,
  constraint agent_state_blobs_pkey primary key (session_id, hash)
);

create table {schema}.agent_state_writes (
  session_id uuid not null,
  checkpoint_ns text collate "C" not null,
  checkpoint_id text collate "C" not null,
  task_id text collate "C" not null,
  idx integer not null,
  task_path text collate "C" not null,
  channel text collate "C" not null,
  type text collate "C" not null,
  payload bytea,
  blob_hashes bytea[],
  message_runs integer[],
  constraint agent_state_writes_pkey
    primary key (session_id, checkpoint_ns, checkpoint_id, task_id, idx),
  constraint agent_state_writes_one_form check (
    num_nonnulls(payload, blob_hashes) = 1
    or (num_nonnulls(payload, blob_hashes) = 0 and message_runs is not null)
  )
);

create table {schema}.agent_messages (
  session_id uuid not null,
  message_no integer not null,
  message_id text collate "C",
  parent_message_no integer,
  message_type text collate "C" not null,
  role text collate "C" not null,
  content text not null,
  metadata jsonb not null,
  digest bytea not null,
  payload_type text collate "C" not null,
  payload bytea not null,
  created_at timestamptz not null default now(),
  constraint agent_messages_pkey primary key (session_id, message_no),
  constraint agent_messages_digest_key unique (session_id, digest)
);

-- What a process sends of new rows, as arrays of these: one parameter for each table.

create type {schema}.pgsaga_new_session as (
  session_id uuid,
  thread_id text,
  user_id text,
  agent_type text,
  priority integer,
  metadata jsonb,
  message_epoch bigint,
  -- The message_count that the new messages' numbers follow; null where there are none.
  message_count integer,
  new_messages integer,
  is_new boolean,
  -- Null leaves the status as it is.
  status text,
  -- The lease that is written under; without lease_seconds it ends. is_claim: it may be
  -- taken now, from nobody, or (is_superseding) from base_lease_id; is_based: only if that
  -- was the last one. Where is_claim is null, leases don't matter.
  lease_id uuid,
  lease_holder text,
  lease_seconds double precision,
  is_claim boolean,
  is_superseding boolean,
  is_based boolean,
  base_lease_id uuid
);

create type {schema}.pgsaga_new_state as (
  session_id uuid,
  checkpoint_ns text,
  checkpoint_id text,
  parent_checkpoint_id text,
  state_data jsonb,
  metadata jsonb,
  exact_type text,
  exact bytea
);

create type {schema}.pgsaga_new_value as (
  session_id uuid,
  checkpoint_ns text,
  channel text,
  version text,
  type text,
  payload bytea,
  blob_hashes bytea[],
  message_runs integer[]
);

create type {schema}.pgsaga_new_blob as (
  session_id uuid,
  hash bytea,
  payload bytea
);

create type {schema}.pgsaga_new_message as (
  session_id uuid,
  message_no integer,
  message_id text,
  parent_message_no integer,
  message_type text,
  role text,
  content text,
  metadata jsonb,
  digest bytea,
  payload_type text,
  payload bytea
);

create type {schema}.pgsaga_new_write as (
  session_id uuid,
  checkpoint_ns text,
  checkpoint_id text,
  task_id text,
  idx integer,
  task_path text,
  channel text,
  type text,
  payload bytea,
  blob_hashes bytea[],
  message_runs integer[],
  -- Whether it is stored only where the session's row is as expected.
  is_dependent boolean
);

create function {schema}.pgsaga_joined_blobs(session_id uuid, hashes bytea[]) returns bytea
  language sql stable strict
  return (
    select
      case when count(*) = cardinality(hashes) then string_agg(b.payload, '' order by h.place) end
    from unnest(hashes) with ordinality h (hash, place)
    join {schema}.agent_state_blobs b
      on b.session_id = pgsaga_joined_blobs.session_id and b.hash = h.hash
  );

comment on function {schema}.pgsaga_joined_blobs(uuid, bytea[]) is
  'The bytes of a session''s blobs one after the other; null where one is missing.';

create function {schema}.pgsaga_stored_channels(
  state {schema}.agent_states, channels text[]
) returns text[]
  language sql stable
  return coalesce(
    (
      select array_agg(c)
      from unnest(channels) c
      where (state).state_data -> 'channel_values' ? c
        or exists (
          select from {schema}.agent_state_values v
          where v.session_id = (state).session_id
            and v.checkpoint_ns = (state).checkpoint_ns
            and v.channel = c
            and v.version = (state).state_data -> 'channel_versions' ->> c
        )
    ),
    '{}'
  );

comment on function {schema}.pgsaga_stored_channels({schema}.agent_states, text[]) is
  'Those of the channels that have a stored value at the checkpoint, inline or in agent_state_values.';

-- For people: which checkpoint each (thread, namespace) stands at, and a hash that is
-- equal exactly where the channel versions, and so the states, are equal.
create view {schema}.agent_state_history as
select
  s.session_id,
  t.thread_id,
  s.checkpoint_ns,
  s.checkpoint_id,
  s.parent_checkpoint_id,
  s.checkpoint_name,
  s.checkpoint_id = max(s.checkpoint_id)
    over (partition by s.session_id, s.checkpoint_ns) as is_current,
  encode(sha256(convert_to((s.state_data -> 'channel_versions')::text, 'UTF8')), 'hex')
    as state_hash,
  s.metadata ->> 'source' as source,
  -- Metadata is the user's: one odd row must not fail the view for all.
  case when s.metadata ->> 'step' ~ '^-?[0-9]{1,9}$' then (s.metadata ->> 'step')::integer end
    as step,
  s.state_data,
  s.metadata,
  s.created_at
from {schema}.agent_states s
join {schema}.agent_sessions t on t.session_id = s.session_id;

-- For people: the conversation as the latest checkpoint of the thread's root graph has
-- it, one row per message in order, for every channel that holds messages.
create view {schema}.agent_conversations as
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
  select s.state_data -> 'channel_versions' as versions
  from {schema}.agent_states s
  where s.session_id = t.session_id and s.checkpoint_ns = ''
  order by s.checkpoint_id desc
  limit 1
) latest
cross join lateral jsonb_each_text(latest.versions) c (channel, version)
join {schema}.agent_state_values v
  on v.session_id = t.session_id and v.checkpoint_ns = ''
  and v.channel = c.channel and v.version = c.version
cross join lateral generate_series(1, cardinality(v.message_runs), 2) run (i)
join {schema}.agent_messages m
  on m.session_id = t.session_id
  and m.message_no between v.message_runs[run.i] and v.message_runs[run.i + 1];
