-- serves: 0007
--
-- What a memory was made of, where several became one.
--
-- Why: memories that say the same are merged, by their vectors or by a function of the user's. The
-- one that is left says where all of them came from, also when those that it superseded are erased
-- later on.
--
-- Locks: agent_memory, for a moment: the column has a default that isn't written to its rows.

alter table {schema}.agent_memory add column sources jsonb not null default '[]';

comment on column {schema}.agent_memory.sources is
  'The memories that were merged into it: their ids, when they were recorded, and where they came '
  'from. [] of a memory that is its own.';
