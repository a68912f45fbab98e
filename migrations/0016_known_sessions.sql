-- serves: 0007
--
-- What a process says that it knows of a session, so that the server looks whether it is there.
--
-- Why: a server that lost what it had acknowledged (a standby took over that was behind, an older
-- copy was put in its place) has the epoch of before. Who went on with what it remembered of the
-- session showed messages that were gone, and stored values whose parts were.
--
-- Locks: none on tables.

create type {schema}.pgsaga_known_session as (
  known_ns text,
  known_id text,
  known_no integer,
  known_digest bytea,
  known_hash bytea
);

comment on type {schema}.pgsaga_known_session is
  'The latest checkpoint, message and blob that a process knows of a session: while they are there, '
  'all that came before is.';
