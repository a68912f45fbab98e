"""What a role must be allowed to do with the tables, and what it isn't allowed."""

from __future__ import annotations

import asyncpg

from langgraph_pgsaga.database import Database, load_statements

_LIST_MISSING = load_statements("doctor")["list_missing_privileges"]

# What the statements in sql/ do, but for those that migrate. A test takes away one after the
# other and sees which of them fails.
_ALL = ("select", "insert", "update", "delete")
NEEDED = {
    ("table", "agent_sessions"): _ALL,
    ("table", "agent_states"): _ALL,
    ("table", "agent_state_values"): ("select", "insert", "delete"),
    ("table", "agent_state_writes"): _ALL,
    ("table", "agent_state_blobs"): ("select", "insert", "delete"),
    ("table", "agent_messages"): _ALL,
    ("table", "agent_workers"): _ALL,
    ("table", "agent_jobs"): ("select", "insert", "update"),
    ("table", "agent_store_items"): _ALL,
    ("table", "agent_events"): ("select", "insert"),
    ("table", "agent_memory"): _ALL,
    # With pgvector.
    ("table", "agent_memory_vectors"): ("select", "insert", "delete"),
    ("table", "event_consumers"): _ALL,
    ("table", "event_dead_letters"): _ALL,
    ("table", "event_eras"): ("select", "insert"),
    ("table", "event_guards"): ("select",),
    ("table", "event_seal_heads"): ("select", "insert", "update"),
    ("table", "event_seals"): ("select", "insert"),
    ("table", "event_subjects"): _ALL,
    ("table", "event_snapshots"): ("select", "insert", "update"),
    ("table", "pgsaga_migrations"): ("select",),
    ("function", "pgsaga_after"): ("execute",),
    ("function", "pgsaga_append_each"): ("execute",),
    ("function", "pgsaga_append_is_allowed"): ("execute",),
    ("function", "pgsaga_event_matches"): ("execute",),
    ("function", "pgsaga_event_partition"): ("execute",),
    ("function", "pgsaga_guard_events"): ("execute",),
    ("function", "pgsaga_lock_keys"): ("execute",),
    ("function", "pgsaga_matches"): ("execute",),
    ("function", "pgsaga_create_memory_index"): ("execute",),
    ("function", "pgsaga_create_memory_vectors"): ("execute",),
    ("function", "pgsaga_memory_index_name"): ("execute",),
    ("function", "pgsaga_nearest_memories"): ("execute",),
    ("function", "pgsaga_memory_scope"): ("execute",),
    ("function", "pgsaga_halfvec"): ("execute",),
    ("function", "pgsaga_vector"): ("execute",),
    ("function", "pgsaga_cosine_distance"): ("execute",),
    ("function", "pgsaga_message_words"): ("execute",),
    ("function", "pgsaga_now"): ("execute",),
}
WRITING = {"insert", "update", "delete"}


async def missing(db: Database, schema: str) -> list[asyncpg.Record]:
    """What of it the connection's role may not do: rows of role, kind, name and privilege."""
    asked = [(*at, privilege) for at, every in NEEDED.items() for privilege in every]
    kinds, names, privileges = map(list, zip(*asked, strict=True))
    look = _LIST_MISSING.bind(schema_name=schema, kinds=kinds, names=names, privileges=privileges)
    return await db.fetch(look)
