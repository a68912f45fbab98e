-- serves: 0007
--
-- What runs in the background: who is alive, what comes at its time again and again, and the
-- one clock of timers.
--
-- Why: systems with work of their own (consumers of events, sagas, runs) share one way to have
-- rows worked at by one process at a time. A row that can be claimed has
--   claimed_by uuid            who works at it, null where nobody does
--   claim_expires_at timestamptz  when that ends, unless it is renewed
--   fence bigint               how often it was claimed; who writes to the row says which claim
--                              it has, and changes nothing where a later one was made
--   due_at timestamptz         not before then; null is never
--   attempts integer           how often it was begun without having been finished
-- agent_jobs is the first such table.
--
-- The clock: pgsaga_now() is now(), unless the setting pgsaga.now is a time, such as
-- '2026-01-02 03:04:05+00'. Claims, deadlines, due times and backoffs are decided by it, so that
-- a test waits for none of them:
--   begin; set local pgsaga.now = '2026-01-02 03:04:05+00'; ...
-- Times that say when something happened (created_at and the like) are always those of now().
-- Anybody may have a setting of that name, for statements of his own alone: it gives nobody a
-- right that he hasn't. Who may update a row that can be claimed may set its times as well, and
-- nobody else's statements look at that setting. So nothing may depend on this clock that keeps
-- its user out: no policy of row security, and no function that has its owner's rights (security
-- definer). Behind a pooler in transaction mode a setting that isn't `local` is the next client's.
--
-- It is stable, so that an index finds what is due. Where tables are distributed, no stable
-- function may stand in what changes a row: read the clock once, as
--   with clock as materialized (select pgsaga_now() as at)
-- and compute with pgsaga_after(at, seconds).
--
-- Locks: nothing that exists.

create function {schema}.pgsaga_now() returns timestamptz
  language sql stable parallel safe
  return coalesce(nullif(current_setting('pgsaga.now', true), '')::timestamptz, now());

comment on function {schema}.pgsaga_now() is
  'The clock of timers, deadlines, backoffs and claims: now(), or what the setting pgsaga.now says.';

create table {schema}.agent_workers (
  worker_id uuid not null,
  host text not null,
  pid integer not null,
  version text not null,
  jobs text[] not null,
  started_at timestamptz not null default now(),
  heartbeat_at timestamptz not null default now(),
  -- Since then it takes on nothing new.
  draining_at timestamptz,
  constraint agent_workers_pkey primary key (worker_id)
);

comment on table {schema}.agent_workers is
  'Processes that work in the background. One that ended as it should has no row.';
comment on column {schema}.agent_workers.heartbeat_at is
  'Every ten seconds; who is silent for a minute is dead, or cut off.';

create table {schema}.agent_jobs (
  tenant_id text collate "C" not null default '',
  name text collate "C" not null,
  due_at timestamptz not null,
  attempts integer not null default 0,
  last_error text,
  finished_at timestamptz,
  claimed_by uuid,
  claim_expires_at timestamptz,
  fence bigint not null default 0,
  constraint agent_jobs_pkey primary key (tenant_id, name)
);

comment on table {schema}.agent_jobs is
  'What comes again and again, such as sweeps: when it is due, and who is at it.';
comment on column {schema}.agent_jobs.finished_at is 'When it was last done without an error.';
