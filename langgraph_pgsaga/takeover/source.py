"""Reading another saver through its public methods alone, whichever of them it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_pgsaga._arguments import checked_instance

T = TypeVar("T")
Saver: TypeAlias = BaseCheckpointSaver[Any]

# Their listings are in one order, whatever thread and namespace the checkpoints are of, so
# they can be read page by page: that of ids, and that of writing, where `before` is a place.
# Others order each thread for itself.
_BY_ID = ("langgraph.checkpoint.postgres", "langgraph.checkpoint.sqlite")
_BY_PLACE = ("langgraph_pgsaga",)


_LANGGRAPHS = JsonPlusSerializer()


class CheckpointKey(NamedTuple):
    """A checkpoint of a thread. Sorts by id: oldest first, as LangGraph makes ids."""

    checkpoint_id: str
    checkpoint_ns: str


def key_of(found: CheckpointTuple) -> CheckpointKey:
    """The tuple's key."""
    configurable = found.config["configurable"]
    return CheckpointKey(configurable["checkpoint_id"], configurable.get("checkpoint_ns") or "")


def thread_of(found: CheckpointTuple) -> str:
    """The tuple's thread, as text."""
    return str(found.config["configurable"]["thread_id"])


class SourceReader:
    """Calls a saver's async methods, or its sync ones on a worker thread.

    The sync ones where it has no async ones, and where it is bound to another event loop
    than the running one: its sync methods then find the way to that loop.
    """

    def __init__(self, argument: str, saver: Saver) -> None:
        hint = "Pass the saver they come from: of its from_conn_string, what the `with` block gives"
        self.saver = checked_instance(argument, saver, BaseCheckpointSaver, hint)
        modules = [cls.__module__ for cls in type(saver).__mro__]
        self.is_by_place = any(module.startswith(_BY_PLACE) for module in modules)
        self.is_ordered = self.is_by_place or any(m.startswith(_BY_ID) for m in modules)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the saver is bound to."""
        loop = getattr(self.saver, "loop", None)
        return loop if isinstance(loop, asyncio.AbstractEventLoop) else None

    def _is_elsewhere(self) -> bool:
        return self.loop not in (None, asyncio.get_running_loop())

    def stored(self, value: Any) -> object:
        """What the saver stores of a value, before it is encrypted.

        Of LangGraph's serializer and its kin, what LangGraph's own stores: one of ours may
        stand in for it to read what that has stored.
        """
        serde = self.saver.serde
        while isinstance(serde, EncryptedSerializer):
            serde = serde.serde
        if isinstance(serde, JsonPlusSerializer):
            serde = _LANGGRAPHS
        return serde.dumps_typed(value)

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The result of the saver's method `name`, or of its async form."""
        if not self._is_elsewhere():
            try:
                return await getattr(self.saver, f"a{name}")(*args, **kwargs)
            except NotImplementedError:
                pass  # it has but the sync one
        return await asyncio.to_thread(getattr(self.saver, name), *args, **kwargs)

    def in_order(self, keys: Sequence[CheckpointKey]) -> list[CheckpointKey]:
        """What the saver listed of a thread, oldest first as the saver has it."""
        return list(reversed(keys)) if self.is_by_place else sorted(keys)

    def is_after(self, checkpoint_id: str, other_id: str) -> bool:
        """Whether a thread whose newest checkpoint was that other one has gone on."""
        return checkpoint_id != other_id if self.is_by_place else checkpoint_id > other_id

    async def newest(self, thread_id: str) -> str | None:
        """The thread's newest checkpoint; None where the saver has nothing of it."""
        limit = 1 if self.is_ordered else None
        found = await self._page(key_of, thread_config(thread_id), limit=limit)
        return max(found).checkpoint_id if found else None

    async def pages(
        self,
        project: Callable[[CheckpointTuple], T],
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        size: int,
    ) -> AsyncIterator[list[T]]:
        """What `project` makes of the checkpoints that fit, in the saver's order, by pages.

        Between pages nothing of the saver is held: some hold a lock while they list.
        """
        while self.is_ordered and (limit is None or limit > 0):
            wanted = size if limit is None else min(size, limit)
            found = await self._page(
                lambda one: (one.config, key_of(one).checkpoint_id, project(one)),
                config,
                filter=filter,
                before=before,
                limit=wanted,
            )
            if len(found) < wanted or wanted == limit:
                yield [one for _, _, one in found]
                return
            # By id, another namespace may have the same, and the page end between the two.
            whole = [one for one in found if self.is_by_place or one[1] != found[-1][1]]
            if not whole:
                size *= 2
                continue
            yield [one for _, _, one in whole]
            before = whole[-1][0]
            limit = None if limit is None else limit - len(whole)
        if not self.is_ordered:
            yield await self._page(project, config, filter=filter, before=before, limit=limit)

    async def _page(
        self, project: Callable[[CheckpointTuple], T], config: RunnableConfig | None, **options: Any
    ) -> list[T]:
        if not self._is_elsewhere():
            try:
                return [project(one) async for one in self.saver.alist(config, **options)]
            except NotImplementedError:
                pass
        return await asyncio.to_thread(
            lambda: [project(one) for one in self.saver.list(config, **options)]
        )


def thread_config(thread_id: str) -> RunnableConfig:
    """The config of a thread and all its namespaces."""
    return {"configurable": {"thread_id": thread_id}}
