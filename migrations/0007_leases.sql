-- serves: 0007
--
-- A lease is given to whoever found the thread as it still is.
--
-- Why: a run takes its thread's lease with the first thing it stores, where the lease of then
-- is still the last one. That stays the same from a run's first checkpoint to its last: another
-- run that loaded the state in between went on from there, and what followed was off the
-- latest branch. The last position says what the lease's id doesn't: it rises with every
-- checkpoint.
--
-- Locks: none on tables.

alter type {schema}.pgsaga_new_session
  -- The last_position under which a claim is made.
  add attribute base_position bigint;
