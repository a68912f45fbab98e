"""Everything of memories, tried from the wrong tenant with another one's ids.

Which these are, `OF_MEMORY` says; tests/db/test_wrong_tenant.py counts them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from langgraph_pgsaga import Database, sync
from langgraph_pgsaga.memory import AgentMemory, ForgettingPolicy, Memory
from tests.db._tenants import fetch
from tests.db._wrong_tenant import OF_MEMORY, SECRET, finished


@pytest.mark.parametrize("name", sorted(OF_MEMORY))
def test_the_wrong_tenant_gets_and_changes_no_memory(dsn: str, name: str) -> None:
    """As with threads: "b" calls everything with the ids of "a"'s memories, and then "a" does."""
    with Database(dsn) as db:
        memory = sync.AgentMemory(db, tenant="a").remember(SECRET, user_id="u", thread_id="t")

        def rows() -> list[Any]:
            asked = "select m::text from agent_memory m where tenant_id = 'a' order by 1"
            return [tuple(row) for row in fetch(dsn, asked)]

        before = rows()
        assert SECRET not in _call(db, name, "b", memory)
        assert rows() == before
        assert SECRET in _call(db, name, "a", memory) or rows() != before


def _call(db: Database, name: str, tenant: str, memory: Memory) -> str:
    """What a tenant gets of it."""
    prefix, _, method = name.rpartition(".")
    cls: Any = sync.AgentMemory if prefix.startswith("sync") else AgentMemory
    own = cls(db, tenant=tenant)
    scope: dict[str, Any] = {"user_id": "u", "thread_id": "t"}
    text = SECRET if tenant == "a" else "b"
    given: dict[str, tuple[Any, ...]] = {
        "remember": (text,),
        "remember_many": ([text],),
        "recall": (SECRET,),
        "get": (memory.memory_id,),
        "forget": (memory.memory_id,),
        "forget_user": ("u",),
        "sweep": ([ForgettingPolicy(max_age=timedelta(0))],),
        "job": ([ForgettingPolicy(max_age=timedelta(0))],),
    }
    named = {} if method in ("forget_user", "sweep", "job") else scope
    if method == "recall":
        named = {**scope, "touch": False}
    return repr(finished(getattr(own, method)(*given.get(method, ()), **named)))
