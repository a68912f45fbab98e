"""What belongs to the tenant "a", and how "b" asks for it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_pgsaga import PostgresSaver, sync, takeover, timetravel
from langgraph_pgsaga.checkpoint.lease_block import LeaseBlock
from langgraph_pgsaga.events import AgentEvent
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.sessions import RetentionPolicy, Sessions, SessionStatus
from langgraph_pgsaga.takeover import ReadThroughSaver
from langgraph_pgsaga.work import Periodic
from tests import _cli as shops
from tests.db._puts import checkpoint_of, config_of, put
from tests.db._tenants import of

SECRET = "what a said"
NAME = "what a calls it"
_OF_EVENTS = {
    "append", "append_event", "fold", "forget_subject", "get_event", "get_events",
    "get_latest_snapshot", "guard", "lag", "prove", "read_all", "read_matching", "rewrap_keys",
    "rotate_subject", "save_snapshot", "seal", "seal_job", "sealed_root", "subscribe", "verify",
    "forget_consumer", "job", "list_consumers", "replace_consumer",
}  # fmt: skip
OF_EVENTS = {f"{room}EventStore.{name}" for room in ("", "sync.") for name in _OF_EVENTS}
OF_EVENTS |= {f"{room}DeadLetters.{n}" for room in ("", "sync.") for n in ("list", "retry", "skip")}
_OF_MEMORY = {"forget", "forget_user", "get", "job", "list", "recall", "remember", "remember_many"}
_OF_MEMORY |= {"consolidate", "consolidate_job", "delete_vectors", "export", "import_"}
_OF_MEMORY |= {"reembed", "sweep"}
OF_MEMORY = {f"{room}AgentMemory.{name}" for room in ("", "sync.") for name in _OF_MEMORY}
OF_EVENTS |= {"events.event_node", "events.recorded"}


class World:
    """A thread of the tenant "a", in the new saver and in an old one, as seen by `tenant`."""

    def __init__(self, saver: PostgresSaver, old: InMemorySaver, tenant: str) -> None:
        self.saver = saver
        self.both = ReadThroughSaver(saver, old, tenant="a")
        self.tenant = tenant
        self.graph: Any = shops.shop(saver)
        self.latest = saver.get_tuple(of("a"))
        assert self.latest is not None
        ids = self.latest.config["configurable"]["checkpoint_id"]
        self.config = of(tenant, checkpoint_id=ids)
        state = timetravel.get_state(self.graph, of("a", checkpoint_id=ids))
        self.state = dataclasses.replace(state, config=self.config)
        self.steps = timetravel.history(self.graph, of(tenant))
        self.a_steps = timetravel.history(self.graph, of("a"))
        self.file = io.StringIO()

    @classmethod
    def made(cls, dsn: str, tenant: str) -> World:
        saver = PostgresSaver.from_conn_string(dsn)
        said = {"messages": [HumanMessage(SECRET)], "note": SECRET}
        shops.shop(saver).invoke(said, of("a"))
        timetravel.name_checkpoint(saver, of("a"), NAME)
        put(saver, of("a", "of a run"), {"c": SECRET}, {"run_id": "run of a"})
        event = AgentEvent(event_type="said", event_data={"said": SECRET})
        sync.EventStore(saver.db, tenant="a").append("t", [event], aggregate_type="desk")
        old = InMemorySaver()
        made: Any = shops.shop
        made(old).invoke(said, config_of("old"))
        return cls(saver, old, tenant)

    def owner(self, prefix: str) -> Any:
        owners: dict[str, Callable[[], Any]] = {
            "PostgresSaver": lambda: self.saver,
            "ReadThroughSaver": lambda: self.both,
            "Sessions": lambda: Sessions(self.saver.db, tenant=self.tenant),
            "sync.Sessions": lambda: sync.Sessions(self.saver.db, tenant=self.tenant),
            "Messages": lambda: Messages(self.saver, tenant=self.tenant),
            "sync.Messages": lambda: sync.Messages(self.saver, tenant=self.tenant),
            "History": lambda: self.steps,
            "timetravel": lambda: timetravel,
            "takeover": lambda: takeover,
        }
        return owners[prefix]()

    def arguments(self, name: str) -> dict[str, Any]:
        """Those by which the tenant asks for what is "a"'s."""
        checkpoint = checkpoint_of(self.saver, {"c": 1})
        if name.endswith("put"):
            assert self.latest is not None
            checkpoint["id"] = self.latest.checkpoint["id"]
        return {
            "thread_id": "old" if "import" in name else "t",
            "config": self.config,
            "tenant": self.tenant,
            "graph": self.graph,
            "state": self.state,
            "checkpoint": checkpoint,
            "metadata": {},
            "new_versions": checkpoint["channel_versions"],
            "writes": [("__error__", "broken")],
            "task_id": "00000000-0000-0000-0000-000000000000",
            "channels": ["messages"],
            "run_ids": ["run of a"],
            "thread_ids": ["t"],
            "strategy": "delete",
            "source_thread_id": "t",
            "target_thread_id": "copy",
            "status": SessionStatus.COMPLETED,
            "text": SECRET,
            "file": self.file,
            "message_no": 1,
            "step": self.a_steps[1] if name.endswith("values") else None,
            "steps": self.steps,
            "predicate": bool,
            "name": NAME if name == "History.at" or name.endswith("at") else "taken by b",
            "variants": {"as it is": None},
            "values": {"total": 5},
            "as_node": "add_up",
            "source": self.saver.anew(tenant=self.tenant),
            "target": self.saver,
            "saver": self.saver,
            "policies": [RetentionPolicy(max_idle=timedelta(microseconds=1), keep_named=False)],
            "user_id": None if "list" in name or "search" in name else "b",
            "priority": 7,
        }


def finished(answer: Any) -> Any:
    """What comes of an answer when it is waited for, or gone through."""

    async def listed(found: AsyncIterator[Any]) -> list[Any]:
        return [one async for one in found]

    async def awaited(found: Awaitable[Any]) -> Any:
        return await found

    if isinstance(answer, AsyncIterator):
        return asyncio.run(listed(answer))
    if isinstance(answer, Awaitable):
        return asyncio.run(awaited(answer))
    if isinstance(answer, Periodic):
        return asyncio.run(awaited(answer.work()))
    if isinstance(answer, LeaseBlock):
        with answer:
            return None
    return list(answer) if isinstance(answer, Iterator | timetravel.History) else answer


A_DEAD_LETTER = (
    f"""
    insert into event_consumers (tenant_id, name, partition, partition_count, era, tx, position)
    select 'a', name, 0, 1, 0, '0', 0 from unnest(array['{SECRET}', 'new of a']) k (name)
    """,
    f"""
    insert into event_dead_letters
      (tenant_id, consumer, partition, aggregate_type, aggregate_id, version, event_id)
    values ('a', '{SECRET}', 0, 'desk', 'of a', 1, 'event of a')
    """,
)
