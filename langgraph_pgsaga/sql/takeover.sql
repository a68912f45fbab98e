-- Taking threads over from another saver: one taker per thread, and which threads are whole.
--
-- Lock order: the advisory lock of a thread, then what the saver's own statements lock.
-- Nothing that holds a row of agent_sessions waits for the advisory lock.

-- name: lock_takeover
-- Waits until nobody else takes this thread over; held to the end of the transaction.
-- params: session_id uuid
-- columns: pg_advisory_xact_lock void
select pg_advisory_xact_lock(hashtextextended('pgsaga takeover ' || $1::uuid::text, 0));

-- name: mark_taken_over
-- The thread is whole here up to this checkpoint of the other saver. The mark goes with the
-- session's row when the thread is deleted; a copy of the thread has none.
-- params: session_id uuid, checkpoint_id text
update {schema}.agent_sessions
set taken_over_to = $2
where session_id = $1
  and taken_over_to is distinct from $2;

-- name: select_taken_over
-- Up to which checkpoint the thread was taken over, and whether it has newer ones here; no
-- row where it wasn't, or not whole.
-- params: session_id uuid
-- columns: checkpoint_id text, went_on boolean
select
  t.taken_over_to as checkpoint_id,
  exists (
    select from {schema}.agent_states s
    where s.session_id = $1 and s.checkpoint_id > t.taken_over_to
  ) as went_on
from {schema}.agent_sessions t
where t.session_id = $1
  and t.taken_over_to is not null;
