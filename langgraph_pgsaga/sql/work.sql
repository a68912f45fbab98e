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
  jobs = excluded.jobs,
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

-- name: notify
-- Tells who listens that there are news; each payload names topics.
-- params: channel text, payloads text[]
-- columns: pg_notify void
-- shard: all, reads no table
select pg_catalog.pg_notify($1, p.payload) from pg_catalog.unnest($2::text[]) p (payload);

-- name: insert_job
-- A job that is due at once, where it isn't known yet.
-- params: tenant_id text, name text
-- shard: all, on the server that is asked
insert into {schema}.agent_jobs (tenant_id, name, due_at)
values ($1, $2, {schema}.pgsaga_now())
on conflict (tenant_id, name) do nothing;

-- name: claim_job
-- Takes a job that is due, unless somebody is at it.
-- params: claimed_by uuid, lease_seconds float8, page bigint, tenant_id text, name text
-- columns: tenant_id text, name text, fence bigint, attempts integer
-- shard: all, on the server that is asked
with clock as materialized (
  select {schema}.pgsaga_now() as at
),
due as materialized (
  select j.tenant_id, j.name
  from {schema}.agent_jobs j
  cross join clock k
  where j.tenant_id = $4 and j.name = $5 and j.due_at <= k.at
    and (j.claim_expires_at is null or j.claim_expires_at <= k.at)
  order by j.due_at
  limit $3
  for update of j skip locked
)
update {schema}.agent_jobs j set
  claimed_by = $1,
  claim_expires_at = {schema}.pgsaga_after(k.at, $2),
  fence = j.fence + 1,
  attempts = j.attempts + 1
from due d
cross join clock k
where j.tenant_id = d.tenant_id and j.name = d.name
returning j.tenant_id, j.name, j.fence, j.attempts;

-- name: renew_jobs
-- Makes claims last for a while longer. Gives those that are had still; what is locked just now
-- is passed over.
-- params: claimed_by uuid, lease_seconds float8, tenant_ids text[], names text[], fences bigint[]
-- columns: tenant_id text, name text, is_renewed boolean
-- shard: all, on the server that is asked
with clock as materialized (
  select {schema}.pgsaga_now() as at
),
had as materialized (
  select j.tenant_id, j.name
  from unnest($3::text[], $4::text[], $5::bigint[]) i (tenant_id, name, fence)
  join {schema}.agent_jobs j
    on j.tenant_id = i.tenant_id and j.name = i.name and j.fence = i.fence and j.claimed_by = $1
),
free as materialized (
  select j.tenant_id, j.name
  from had h
  join {schema}.agent_jobs j on j.tenant_id = h.tenant_id and j.name = h.name
  for update of j skip locked
),
renewed as (
  update {schema}.agent_jobs j
  set claim_expires_at = {schema}.pgsaga_after(k.at, $2)
  from unnest($3::text[], $4::text[], $5::bigint[]) i (tenant_id, name, fence)
  join free f on f.tenant_id = i.tenant_id and f.name = i.name
  cross join clock k
  where j.tenant_id = i.tenant_id and j.name = i.name and j.fence = i.fence and j.claimed_by = $1
  returning j.tenant_id, j.name
)
select h.tenant_id, h.name, r.name is not null as is_renewed
from had h
left join renewed r on r.tenant_id = h.tenant_id and r.name = h.name;

-- name: release_jobs
-- Gives claims back, as if they hadn't been made.
-- params: claimed_by uuid, tenant_ids text[], names text[], fences bigint[]
-- shard: all, on the server that is asked
update {schema}.agent_jobs j set
  claimed_by = null,
  claim_expires_at = null,
  attempts = j.attempts - 1
from unnest($2::text[], $3::text[], $4::bigint[]) i (tenant_id, name, fence)
where j.tenant_id = i.tenant_id and j.name = i.name and j.fence = i.fence and j.claimed_by = $1;

-- name: fail_job
-- What was tried failed: due again after a while.
-- params: claimed_by uuid, tenant_id text, name text, fence bigint, error text,
--   delay_seconds float8
-- columns: fence bigint
-- shard: all, on the server that is asked
update {schema}.agent_jobs set
  claimed_by = null,
  claim_expires_at = null,
  last_error = $5,
  due_at = {schema}.pgsaga_after({schema}.pgsaga_now(), $6)
where tenant_id = $2 and name = $3 and fence = $4 and claimed_by = $1
returning fence;

-- name: finish_job
-- It is done, and due again after a while.
-- params: claimed_by uuid, tenant_id text, name text, fence bigint, every_seconds float8
-- columns: fence bigint
-- shard: all, on the server that is asked
update {schema}.agent_jobs set
  claimed_by = null,
  claim_expires_at = null,
  attempts = 0,
  last_error = null,
  finished_at = now(),
  due_at = {schema}.pgsaga_after({schema}.pgsaga_now(), $5)
where tenant_id = $2 and name = $3 and fence = $4 and claimed_by = $1
returning fence;
