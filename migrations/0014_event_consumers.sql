-- serves: 0007
--
-- Who follows the log of events, how far each has come, and what couldn't be handled.
--
-- Why: a consumer's place is a row, so that it survives its process, and so that effects in this
-- database are committed with it.
--
-- A consumer has one or more partitions, which share the aggregates by a hash of their names
-- (pgsaga_event_partition); each is claimed by one worker at a time, as 0012 says. What a
-- partition's owner writes (its place, its dead letters) locks the partition's row first and
-- looks at the fence.
--
-- A dead letter is one aggregate that waits, for one consumer: its event `version` failed, and it
-- and those that follow up to the partition's place are handled in their order once it is due.
-- due_at null: it isn't tried any more, until somebody says so.
--
-- Lock order: a partition's row, then its dead letters.
--
-- Locks: none of what was there before.

create table {schema}.event_consumers (
  tenant_id text collate "C" not null default '',
  name text collate "C" not null,
  partition integer not null,
  partition_count integer not null,
  era integer not null,
  tx xid8 not null,
  position bigint not null,
  due_at timestamptz not null default now(),
  attempts integer not null default 0,
  deaths integer not null default 0,
  last_error text,
  claimed_by uuid,
  claim_expires_at timestamptz,
  fence bigint not null default 0,
  created_at timestamptz not null default now(),
  moved_at timestamptz not null default now(),
  retired_at timestamptz,
  constraint event_consumers_pkey primary key (tenant_id, name, partition),
  constraint event_consumers_partition_check check (partition between 0 and partition_count - 1)
);

comment on table {schema}.event_consumers is
  'How far each consumer of events has come, by partition, and which worker is at it.';
comment on column {schema}.event_consumers.tenant_id is 'Whose events it gets; '''' is nobody''s.';
comment on column {schema}.event_consumers.position is
  'With era and tx: everything before has been handled, or waits in event_dead_letters.';
comment on column {schema}.event_consumers.attempts is
  'How often it was claimed since it last came further.';
comment on column {schema}.event_consumers.deaths is
  'How often its worker died since it last came further.';
comment on column {schema}.event_consumers.retired_at is
  'Since then another one is in its place, and it gets no more events.';

create table {schema}.event_dead_letters (
  tenant_id text collate "C" not null default '',
  consumer text collate "C" not null,
  aggregate_type text collate "C" not null,
  aggregate_id text collate "C" not null,
  partition integer not null,
  version integer not null,
  event_id text collate "C",
  event_type text collate "C",
  attempts integer not null default 0,
  due_at timestamptz,
  error text,
  first_failed_at timestamptz not null default now(),
  failed_at timestamptz not null default now(),
  constraint event_dead_letters_pkey
    primary key (tenant_id, consumer, aggregate_type, aggregate_id),
  constraint event_dead_letters_consumer_fkey
    foreign key (tenant_id, consumer, partition)
    references {schema}.event_consumers (tenant_id, name, partition) on delete cascade
);

create index event_dead_letters_due_idx
  on {schema}.event_dead_letters (tenant_id, consumer, partition, due_at);

comment on table {schema}.event_dead_letters is
  'Aggregates that wait, each for one consumer, for an event that couldn''t be handled.';
comment on column {schema}.event_dead_letters.tenant_id is 'Whose it is; '''' is nobody''s.';
comment on column {schema}.event_dead_letters.version is
  'Of the aggregate''s event that is handled next; later ones wait for it.';
comment on column {schema}.event_dead_letters.event_id is
  'The event that failed; null once the aggregate has come further.';
comment on column {schema}.event_dead_letters.due_at is
  'When it is tried again; null: not by itself.';
comment on column {schema}.event_dead_letters.error is
  'The error''s class and where it was raised, without its text, which may quote anything.';

create function {schema}.pgsaga_event_partition(
  aggregate_type text, aggregate_id text, partition_count integer
) returns integer
  language sql immutable parallel safe
  return case when partition_count = 1 then 0 else (
    pg_catalog.get_byte(pg_catalog.sha256(
      pg_catalog.convert_to(aggregate_type || chr(10) || aggregate_id, 'UTF8')
    ), 0) * 256
    + pg_catalog.get_byte(pg_catalog.sha256(
      pg_catalog.convert_to(aggregate_type || chr(10) || aggregate_id, 'UTF8')
    ), 1)
  ) % partition_count end;

comment on function {schema}.pgsaga_event_partition(text, text, integer) is
  'Which partition of a consumer an aggregate is in: the same on every server and version.';
