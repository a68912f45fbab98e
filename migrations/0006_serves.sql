-- serves: 0005
--
-- Each migration's record says which releases it still serves, so that during a rolling
-- deployment processes of the release before can start again.
--
-- The first line of a file says it: the release whose newest migration is the one of that
-- number, and all between, work on what this file leaves. Without such a line it serves
-- none but its own.
--
-- Locks: pgsaga_migrations, which nobody reads but at a start.

alter table {schema}.pgsaga_migrations
  add column serves integer,
  add column release text;

comment on column {schema}.pgsaga_migrations.serves is
  'The lowest number that may be a release''s newest migration for it to work still; null: its own.';
comment on column {schema}.pgsaga_migrations.release is
  'The release of langgraph_pgsaga that applied it.';
