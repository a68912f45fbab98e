-- Work in the background: who is alive, and what comes at its time again and again.
--
-- None of it is distributed: the tables are small, on the server that is asked.

-- name: upsert_worker
-- A worker says that it is alive, and, with is_draining, that it takes on nothing new.
-- params: worker_id uuid, host text, pid integer, version text, jobs text[], is_draining boolean
-- shard: all, on the server that is asked
insert into {schema}.agent_workers as w (worker_id, host, pid, version, jobs, draining_at)
values ($1, $2, $3, $4, $5, case when $6::boolean then now() end)
on conflict (worker_id) do update set
  heartbeat_at = now(),
  draining_at = coalesce(w.draining_at, excluded.draining_at);

-- name: delete_worker
-- A worker that ended as it should.
-- params: worker_id uuid
-- shard: all, on the server that is asked
delete from {schema}.agent_workers where worker_id = $1;

-- name: delete_dead_workers
-- Those that said nothing for so long.
-- params: silent_seconds float8
-- shard: all, on the server that is asked
delete from {schema}.agent_workers
where heartbeat_at < {schema}.pgsaga_after(now(), -$1::double precision);

-- name: list_workers
-- All that have a row, the oldest first; is_alive where one was heard within so many seconds.
-- params: silent_seconds float8
-- columns: worker_id uuid, host text, pid integer, version text, jobs text[],
--   started_at timestamp with time zone, heartbeat_at timestamp with time zone,
--   draining_at timestamp with time zone, is_alive boolean
-- shard: all, on the server that is asked
select
  w.worker_id, w.host, w.pid, w.version, w.jobs, w.started_at, w.heartbeat_at, w.draining_at,
  w.heartbeat_at >= {schema}.pgsaga_after(now(), -$1::double precision) as is_alive
from {schema}.agent_workers w
order by w.started_at, w.worker_id;
