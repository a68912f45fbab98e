-- serves: 0007
--
-- Sessions by priority come as in a queue, and those of an agent type are found by it.
--
-- Why: of equal priority the newest came first, so that whoever took sessions from the front
-- never came to the old ones. An index is read in one direction, and the order of a queue has
-- two (the highest priority, then the oldest): ~priority falls as the priority rises. And
-- nothing but reading all of the table found the sessions of an agent type.
--
-- Each of the indexes has all rows, but is for such statements only as say so: a plan made
-- while there were few sessions took the earlier ones to find a session by its id, and read
-- all of the index for each, however many sessions there were by then.
--
-- Locks: agent_sessions against writes (reads go on) while the three indexes are built, which
-- is two seconds for a million sessions; at the end, for a moment, against everything.
--
-- As before, no index is on what a superstep updates. The status is such a column: an index
-- on it would make the first and the last checkpoint of each run touch all of the indexes.

-- Of the beginning only: an agent type may be longer than an index takes.
create index agent_sessions_type_idx on {schema}.agent_sessions
  ((left(agent_type, 256)), created_at, session_id) where created_at > '-infinity';
create index agent_sessions_queue_idx on {schema}.agent_sessions
  ((~ priority), created_at, session_id) where created_at > '-infinity';
create index agent_sessions_newest_idx on {schema}.agent_sessions
  (created_at, session_id) where created_at > '-infinity';
drop index {schema}.agent_sessions_priority_idx;
drop index {schema}.agent_sessions_created_idx;
