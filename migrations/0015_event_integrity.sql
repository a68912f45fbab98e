-- serves: 0007
--
-- Seals of the event log, and the keys of those whose personal data it has.
--
-- Why: that somebody changed, took out or put in an event after it was stored is to be found, and
-- where. And what an event says of a person is to become unreadable, though the event stays.
--
-- Seals. A batch of a tenant's events, in the order of reading, has a seal: the root of the Merkle
-- tree of their hashes, chained to the seal before. Only what is below the readers' horizon is
-- sealed, so nothing comes between later. The head says which seal is the last one; a seal is
-- stored together with its head, and only where the head is still the one before: so there is one
-- chain, however many seal.
--
-- Subjects. A field of personal data is encrypted by its subject's key, and that key by a master
-- key, which isn't here. Who deletes the row of the key has erased what it encrypted: from the
-- next vacuum on it is in no page of this table, but still in backups and archived WAL.
--
-- Locks: none of what was there before.

create table {schema}.event_seal_heads (
  tenant_id text collate "C" not null default '',
  number bigint not null,
  hash bytea not null,
  constraint event_seal_heads_pkey primary key (tenant_id)
);

comment on table {schema}.event_seal_heads is 'The last seal of each tenant''s log.';

create table {schema}.event_seals (
  tenant_id text collate "C" not null default '',
  number bigint not null,
  first_era integer not null,
  first_tx xid8 not null,
  first_position bigint not null,
  last_era integer not null,
  last_tx xid8 not null,
  last_position bigint not null,
  events integer not null,
  leaves bytea not null,
  root bytea not null,
  previous bytea not null,
  hash bytea not null,
  sealed_at timestamptz not null,
  constraint event_seals_pkey primary key (tenant_id, number),
  constraint event_seals_number_check check (number > 0)
);

create unique index event_seals_last_idx
  on {schema}.event_seals (tenant_id, last_era, last_tx, last_position);

comment on table {schema}.event_seals is
  'Hashes of the event log, batch by batch, each chained to the one before.';
comment on column {schema}.event_seals.number is 'From 1, without gaps.';
comment on column {schema}.event_seals.leaves is
  'The hashes of its events, of 32 bytes each, in the order of reading: which one isn''t as it was.';
comment on column {schema}.event_seals.root is 'The root of the Merkle tree of the leaves.';
comment on column {schema}.event_seals.previous is
  'The hash of the seal before; of the first one, zeros.';
comment on column {schema}.event_seals.hash is 'Of all other columns but the leaves.';

create table {schema}.event_subjects (
  tenant_id text collate "C" not null default '',
  subject text collate "C" not null,
  generation integer not null,
  key_id uuid not null,
  master_id text collate "C" not null,
  wrapped_key bytea not null,
  created_at timestamptz not null default now(),
  constraint event_subjects_pkey primary key (tenant_id, subject, generation),
  constraint event_subjects_key_id_key unique (tenant_id, key_id),
  constraint event_subjects_generation_check check (generation > 0)
);

comment on table {schema}.event_subjects is
  'Keys of personal data in events: of each subject one, or one after the other. Deleting a '
  'subject''s rows erases its data.';
comment on column {schema}.event_subjects.generation is
  'New events are encrypted by the key of the greatest one.';
comment on column {schema}.event_subjects.master_id is 'The master key that wrapped_key needs.';
comment on column {schema}.event_subjects.wrapped_key is 'The key, encrypted by the master key.';
