-- Indexes for listing sessions, and for finding those that have expired.
--
-- Locks: each index holds off writes to agent_sessions (not reads) while it is built. The
-- table has one narrow row per thread, so that is a second or two for a million of them.
--
-- No index here is on what a superstep updates (last_activity_at, message_count): that
-- update must go on touching no index. So sessions by their activity are sorted, not read
-- in order.

-- Of the beginning only: a user id may be longer than an index takes.
create index agent_sessions_user_idx on {schema}.agent_sessions ((left(user_id, 256)));
create index agent_sessions_metadata_idx on {schema}.agent_sessions
  using gin (metadata jsonb_path_ops);
create index agent_sessions_created_idx on {schema}.agent_sessions (created_at, session_id);
create index agent_sessions_priority_idx on {schema}.agent_sessions
  (priority, created_at, session_id);
create index agent_sessions_expires_idx on {schema}.agent_sessions (expires_at)
  where expires_at is not null;
