"""Everything of memories, tried from the wrong tenant with another one's ids.

Which these are, `OF_MEMORY` says; tests/db/test_wrong_tenant.py counts them.
"""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from langgraph_pgsaga import Database, sync
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory import AgentMemory, ForgettingPolicy, Memory
from tests._embedders import DIMS, hashed
from tests._require import require_pgvector
from tests.db._tenants import fetch
from tests.db._wrong_tenant import OF_MEMORY, SECRET, finished

# What is done by vectors, and what goes over all of a tenant's.
OF_VECTORS = {"consolidate", "consolidate_job", "delete_vectors", "reembed"}
OF_TENANTS = {
    "consolidate_job",
    "delete_vectors",
    "export",
    "import_",
    "reembed",
    "forget_user",
    "job",
    "sweep",
}


@pytest.mark.parametrize("name", sorted(OF_MEMORY))
def test_the_wrong_tenant_gets_and_changes_no_memory(dsn: str, name: str) -> None:
    """As with threads: "b" calls everything with the ids of "a"'s memories, and then "a" does."""
    if name.rpartition(".")[2] in OF_VECTORS:
        require_pgvector(dsn)
    with Database(dsn) as db:
        of_a = _memory(db, sync.AgentMemory, "a", name)
        of_a.setup()
        memory = of_a.remember(SECRET, user_id="u", thread_id="t")
        of_a.remember(SECRET.upper(), user_id="u", thread_id="t")

        def rows() -> list[Any]:
            asked = "select m::text from agent_memory m where tenant_id = 'a' order by 1"
            found = [tuple(row) for row in fetch(dsn, asked)]
            if name.rpartition(".")[2] in OF_VECTORS:
                asked = "select v::text from agent_memory_vectors v order by 1"
                found += [tuple(row) for row in fetch(dsn, asked)]
            return found

        file = io.StringIO()
        of_a.export(file)
        line = next(line for line in file.getvalue().splitlines() if SECRET in line)
        line = line.replace(str(memory.memory_id), str(uuid4()))
        before = rows()
        assert SECRET not in _call(db, name, "b", memory, line)
        assert rows() == before
        assert SECRET in _call(db, name, "a", memory, line) or rows() != before


def _memory(db: Database, cls: Any, tenant: str, name: str, model: str = "") -> Any:
    """The memory of a tenant, with vectors where something is done by them."""
    if name.rpartition(".")[2] not in OF_VECTORS:
        return cls(db, tenant=tenant)
    return cls(db, tenant=tenant, embed=hashed, dims=DIMS, model=model)


def _call(db: Database, name: str, tenant: str, memory: Memory, line: str) -> str:
    """What a tenant gets of it."""
    prefix, _, method = name.rpartition(".")
    cls: Any = sync.AgentMemory if prefix.startswith("sync") else AgentMemory
    model = "other" if method in ("delete_vectors", "reembed") else ""
    own = _memory(db, cls, tenant, name, model)
    file = io.StringIO(line.replace(SECRET, f"{SECRET} too") if method == "import_" else "")
    scope: dict[str, Any] = {"user_id": "u", "thread_id": "t"}
    text = SECRET if tenant == "a" else "b"
    given: dict[str, tuple[Any, ...]] = {
        "remember": (text,),
        "remember_many": ([text],),
        "recall": (SECRET,),
        "get": (memory.memory_id,),
        "forget": (memory.memory_id,),
        "forget_user": ("u",),
        "delete_vectors": ("",),
        "export": (file,),
        "import_": (file,),
        "sweep": ([ForgettingPolicy(max_age=timedelta(0))],),
        "job": ([ForgettingPolicy(max_age=timedelta(0))],),
    }
    named = {} if method in OF_TENANTS else scope
    if method == "recall":
        named = {**scope, "touch": False}
    try:
        found = finished(getattr(own, method)(*given.get(method, ()), **named))
    except InvalidArgumentError as error:
        assert (method, tenant) == ("import_", "b")
        return str(error)
    return repr(found) + (file.getvalue() if method == "export" else "")
