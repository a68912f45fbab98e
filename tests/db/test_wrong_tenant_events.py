"""Everything public of events, tried from the wrong tenant with another one's ids.

Which these are, `OF_EVENTS` says; tests/db/test_wrong_tenant.py counts them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from langgraph_pgsaga import Database, sync
from langgraph_pgsaga.errors import MissingConsumerError, MissingVersionError
from langgraph_pgsaga.events import (
    AgentEvent,
    Aggregate,
    Condition,
    Consumer,
    DeadLetters,
    EventStore,
    SubjectKeys,
)
from langgraph_pgsaga.work import Worker
from tests.conftest import execute
from tests.db._tenants import fetch
from tests.db._wrong_tenant import A_DEAD_LETTER, OF_EVENTS, SECRET, finished

_OF_SEALED = {"prove", "sealed_root", "verify"}
_OF_SUBJECTS = {"forget_subject", "rewrap_keys", "rotate_subject"}


@pytest.mark.parametrize("name", sorted(OF_EVENTS - {"events.event_node", "events.recorded"}))
def test_the_wrong_tenant_gets_and_changes_no_event(dsn: str, name: str) -> None:
    """As with threads: "b" calls everything with the ids of "a"'s events, and then "a" does."""
    with Database(dsn) as db:
        of_a = sync.EventStore(db, tenant="a")
        event = AgentEvent(event_type="said", event_data={"said": SECRET}, tags=["t"])
        [event] = of_a.append("t", [event], aggregate_type="desk")
        of_a.save_snapshot("t", "desk", {"said": SECRET}, 1)
        if name.rpartition(".")[2] in _OF_SUBJECTS:
            before_keys = sync.EventStore(db, tenant="a", subjects=_subjects(bytes(32)))
            told = AgentEvent(event_type="told", event_data={"said": SECRET}, subject="s")
            before_keys.append("t", [told], aggregate_type="desk")
        while name.rpartition(".")[2] in _OF_SEALED and not of_a.seal():
            pass  # another transaction of the server is open
        asyncio.run(execute(dsn, *A_DEAD_LETTER))

        def rows() -> list[Any]:
            tables = ["agent_events", "event_snapshots", "event_guards", "event_seals"]
            tables += ["event_consumers", "event_dead_letters", "event_subjects"]
            asked = "select r::text from {} r where tenant_id = 'a' order by 1"
            return [tuple(map(tuple, fetch(dsn, asked.format(table)))) for table in tables]

        before = rows()
        shown = _event_call(db, name, "b", event)
        assert SECRET not in shown
        assert rows() == before
        shown = _event_call(db, name, "a", event)
        assert SECRET in shown or re.search("(events|seals)=1", shown) or rows() != before


def _subjects(master_key: bytes) -> SubjectKeys:
    """With the other one of two master keys as a former one."""
    both = [bytes(32), bytes(range(32))]
    return SubjectKeys(master_key=master_key, former_master_keys=both, personal={"told": ["said"]})


def _event_call(db: Database, name: str, tenant: str, event: AgentEvent) -> str:
    """What a tenant gets of it."""
    prefix, _, method = name.rpartition(".")
    owner, _, cls = prefix.rpartition(".")
    here: Any = {"EventStore": EventStore, "DeadLetters": DeadLetters}[cls]
    more_keys = {"subjects": _subjects(bytes(range(32)))} if cls == "EventStore" else {}
    store: Any = (getattr(sync, cls) if owner == "sync" else here)(db, tenant=tenant, **more_keys)
    is_own = tenant == "a"
    more = AgentEvent(
        event_id="more",
        event_type="said",
        aggregate_id="t",
        aggregate_type="desk",
        event_data={"said": SECRET if is_own else "b"},
    )
    aggregate: Aggregate[Any] = Aggregate(
        aggregate_type="desk", initial=dict, apply=lambda state, event: event.event_data
    )
    arguments: dict[str, tuple[Any, ...]] = {
        "append": ("t", [more]),
        "append_event": (more,),
        "fold": (aggregate, "t"),
        "get_event": (event.event_id,),
        "get_events": ("t",),
        "get_latest_snapshot": ("t",),
        "guard": (["said"],),
        "read_matching": (Condition(types=["said"], tags=["t"]),),
        "save_snapshot": ("t", "desk", {}, 1),
        "prove": (event.event_id,),
        "forget_consumer": (SECRET,),
        "replace_consumer": (SECRET, "new of a"),
        "retry": (SECRET, "event of a"),
        "skip": (SECRET, "event of a"),
        "forget_subject": ("s",),
        "rotate_subject": ("s",),
    }
    if method == "seal_job":
        return repr(db.portal.call(store.seal_job().work))
    if method == "job":
        return asyncio.run(_consumed(db, store, tenant))
    named = {"aggregate_type": "desk"} if method == "append" else {}
    try:
        answer = getattr(store, method)(*arguments.get(method, ()), **named)
        if method != "subscribe":
            return repr(finished(answer))
    except (MissingConsumerError, MissingVersionError):  # it says what was asked for
        return ""
    ended = EventStore(db, tenant=tenant)
    finished(ended.append("end", [AgentEvent(event_type="end")], aggregate_type="desk"))
    if isinstance(answer, AsyncIterator):
        return repr(asyncio.run(_first(answer)))
    return repr(next(answer))


async def _consumed(db: Database, store: Any, tenant: str) -> str:
    """What a consumer of the tenant's is given, up to an event of its own."""
    found: list[str] = []
    is_over = asyncio.Event()

    async def handle(event: AgentEvent) -> None:
        found.append(repr(event.event_data))
        if event.aggregate_id == "end":
            is_over.set()

    end = AgentEvent(event_type="end")
    await EventStore(db, tenant=tenant).append("end", [end], aggregate_type="desk")
    async with Worker(db, store.job(Consumer(name=f"of {tenant}", handler=handle))):
        await is_over.wait()
    return "".join(found)


async def _first(answer: Any) -> Any:
    try:
        return await anext(answer)
    finally:
        await answer.aclose()
