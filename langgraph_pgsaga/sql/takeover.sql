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
-- The thread is whole here: what the other saver has of it no longer counts. The mark goes
-- with the session's row when the thread is deleted.
-- params: session_id uuid
update {schema}.agent_sessions
set metadata = metadata || '{"pgsaga_taken_over": true}'
where session_id = $1
  and not metadata @> '{"pgsaga_taken_over": true}';

-- name: is_taken_over
-- One row where the thread was taken over whole, else none.
-- params: session_id uuid
-- columns: is_taken_over boolean
select true as is_taken_over
from {schema}.agent_sessions
where session_id = $1
  and metadata @> '{"pgsaga_taken_over": true}';
