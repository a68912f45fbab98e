"""Drives one and the same conversation with a graph through different savers, and compares."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from difflib import unified_diff
from pprint import pformat
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Interrupt, PregelTask, StateSnapshot

from langgraph_pgsaga import Database, PostgresSaver

Durability = Literal["sync", "async", "exit"]
Saver = BaseCheckpointSaver[Any]
_ID = re.compile(r"\b[0-9a-f]{32}\b|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Normaliser:
    """Values as plain data, types named, each generated id replaced by when it was first seen."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}

    def plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return _ID.sub(self._label, value)
        if isinstance(value, StateSnapshot):
            return self._snapshot(value)
        if isinstance(value, dict):
            # Interrupts of one step stand in the order in which they happened to arrive.
            value = {k: _sorted(v) if k == "__interrupt__" else v for k, v in value.items()}
            return {self.plain(k): self.plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return type(value).__name__, [self.plain(item) for item in value]
        if isinstance(value, BaseException):
            return repr(value)
        if isinstance(value, Interrupt):
            return "Interrupt", self.plain(value.value), self.plain(value.id)
        if isinstance(value, BaseMessage):
            return type(value).__qualname__, self.plain(value.__dict__)
        return value

    def _snapshot(self, snapshot: StateSnapshot) -> Any:
        """All of it but the time."""
        return {
            "values": self.plain(snapshot.values),
            "next": snapshot.next,
            "config": self.plain(_configurable(snapshot.config)),
            "parent": self.plain(_configurable(snapshot.parent_config)),
            "metadata": self.plain(snapshot.metadata),
            "tasks": [self._task(task) for task in snapshot.tasks],
            "interrupts": self.plain(snapshot.interrupts),
        }

    def _task(self, task: PregelTask) -> Any:
        state = task.state
        return {
            "id": self.plain(task.id),
            "name": task.name,
            "path": self.plain(task.path),
            "error": None if task.error is None else repr(task.error),
            "interrupts": self.plain(task.interrupts),
            "result": self.plain(task.result),
            "state": self.plain(_configurable(state) if isinstance(state, dict) else state),
        }

    def _label(self, match: re.Match[str]) -> str:
        return self._labels.setdefault(match[0], f"<id {len(self._labels)}>")


def _configurable(config: Any) -> dict[str, Any]:
    """What names the checkpoint; LangGraph adds live objects and maps of its own."""
    configurable = (config or {}).get("configurable") or {}
    return {k: configurable[k] for k in sorted(configurable) if not k.startswith("__")}


def normalised_history(history: Iterable[StateSnapshot]) -> list[Any]:
    """A thread's history as data that is equal for equal histories, whatever the ids."""
    normaliser = Normaliser()
    return [normaliser.plain(snapshot) for snapshot in reversed(list(history))]


@dataclass
class Run:
    """One conversation: every answer goes into the transcript.

    `saver` is to be asked for anew after `restart()`, which replaces it as another
    process would. Awaiting a method of a run that isn't `is_async` never suspends.
    """

    new_saver: Callable[[], Saver]
    durability: Durability
    is_async: bool
    transcript: list[Any] = field(default_factory=list)
    normaliser: Normaliser = field(default_factory=Normaliser)
    _saver: Saver | None = None

    @property
    def saver(self) -> Saver:
        if self._saver is None:
            self._saver = self.new_saver()
        return self._saver

    def restart(self) -> None:
        self._saver = None

    async def invoke(self, graph: Any, input: Any, thread: Any = "t", **options: Any) -> Any:
        """The graph's answer; `thread` is a thread id or a whole config."""
        arguments = {"durability": self.durability, **options}
        config = _config(thread)
        if self.is_async:
            answer = await graph.ainvoke(input, config, **arguments)
        else:
            answer = graph.invoke(input, config, **arguments)
        return self._noted(answer)

    async def failing(self, graph: Any, input: Any, error: type[Exception]) -> None:
        """A call that must raise."""
        try:
            await self.invoke(graph, input)
        except error as raised:
            self._noted(raised)
        else:
            raise AssertionError(f"it didn't raise {error.__name__}")

    async def stream(self, graph: Any, input: Any, modes: Any, **options: Any) -> list[Any]:
        arguments = {"stream_mode": modes, "durability": self.durability, **options}
        if self.is_async:
            parts = [p async for p in graph.astream(input, _config("t"), **arguments)]
        else:
            parts = list(graph.stream(input, _config("t"), **arguments))
        self._noted(parts)
        return parts

    async def state(
        self, graph: Any, thread: Any = "t", *, subgraphs: bool = False
    ) -> StateSnapshot:
        if self.is_async:
            found = await graph.aget_state(_config(thread), subgraphs=subgraphs)
        else:
            found = graph.get_state(_config(thread), subgraphs=subgraphs)
        self._noted(found)
        assert isinstance(found, StateSnapshot)
        return found

    async def update(
        self, graph: Any, values: Any, thread: Any = "t", as_node: str | None = None
    ) -> Any:
        if self.is_async:
            return await graph.aupdate_state(_config(thread), values, as_node=as_node)
        return graph.update_state(_config(thread), values, as_node=as_node)

    async def history(self, graph: Any, thread: Any = "t") -> list[StateSnapshot]:
        """The thread's snapshots, newest first."""
        if self.is_async:
            found = [s async for s in graph.aget_state_history(_config(thread))]
        else:
            found = list(graph.get_state_history(_config(thread)))
        self.transcript.append(normalised_history(found))
        return found

    def _noted(self, answer: Any) -> Any:
        self.transcript.append(self.normaliser.plain(answer))
        return answer


Scenario = Callable[[Run], Coroutine[Any, Any, None]]


def drive(scenario: Scenario, run: Run) -> list[Any]:
    """The transcript of the scenario: in a loop, or where there is none."""
    if run.is_async:
        asyncio.run(scenario(run))
        return run.transcript
    coroutine = scenario(run)
    try:
        coroutine.send(None)
    except StopIteration:
        return run.transcript
    finally:
        coroutine.close()
    raise AssertionError("a sync run waited for an event loop")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs scenarios against PostgreSQL and against memory."""

    dsn: str
    durability: Durability
    is_async: bool
    single_writer: bool = False

    def __call__(self, scenario: Scenario) -> None:
        """Every answer and snapshot of the two is the same, modulo generated ids and times."""
        memory = InMemorySaver()
        expected = drive(scenario, Run(lambda: memory, self.durability, self.is_async))
        with Database(self.dsn) as db:

            def new_saver() -> PostgresSaver:
                return PostgresSaver(db, single_writer=self.single_writer)

            found = drive(scenario, Run(new_saver, self.durability, self.is_async))
        assert len(expected) > 1
        for place, pair in enumerate(zip(expected, found, strict=True)):
            assert pair[0] == pair[1], f"answer {place} isn't memory's:\n{_difference(*pair)}"


def _sorted(interrupts: Iterable[Interrupt]) -> list[Interrupt]:
    return sorted(interrupts, key=lambda i: repr(i.value))


def _difference(expected: Any, found: Any) -> str:
    left, right = (pformat(part, width=100).splitlines() for part in (expected, found))
    return "\n".join(unified_diff(left, right, "memory", "PostgreSQL", lineterm="", n=6))


def _config(thread: Any) -> Any:
    return thread if isinstance(thread, dict) else {"configurable": {"thread_id": thread}}
