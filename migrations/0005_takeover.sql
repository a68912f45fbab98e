-- The mark of a thread that was taken over from another saver gets a column of its own. It
-- stood in the session's metadata, which its users replace, and with it the mark.
--
-- Locks: agent_sessions against everything for the moment that a new column takes, and, where
-- threads were taken over, for one read of the table (one narrow row per thread).

alter table {schema}.agent_sessions add column taken_over_to text collate "C";

comment on column {schema}.agent_sessions.taken_over_to is
  'Up to which checkpoint of another saver the thread came over whole; null where it didn''t.';

update {schema}.agent_sessions set
  taken_over_to = metadata ->> 'pgsaga_taken_over',
  metadata = metadata - 'pgsaga_taken_over'
where jsonb_typeof(metadata -> 'pgsaga_taken_over') = 'string';
