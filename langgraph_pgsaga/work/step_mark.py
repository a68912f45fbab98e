"""Where what is to be stored with a step waits: among the writes of its task."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol
from uuid import UUID

from langgraph_pgsaga import _langgraph
from langgraph_pgsaga.database import Connection, Database
from langgraph_pgsaga.errors import NoStepError, StepEndedError


class Rider(Protocol):
    """Something that is done in the transaction that stores a step.

    Where the transaction is repeated (the connection was lost, two waited for each other), so
    is this.
    """

    def __call__(self, conn: Connection, /) -> Awaitable[object]:
        """Does it, by a connection in that transaction."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Level:
    """A task that a step is part of: its node's own, or one whose subgraph the node is in.

    `checkpoint_id` is the checkpoint of its graph at which it was planned, `step` that of the
    superstep that it runs in, whose checkpoint has its result. `writes` are those of its
    attempt, which the next one clears; `send` adds some, until a time-out closes it.
    """

    session_id: UUID
    checkpoint_ns: str
    checkpoint_id: str
    step: int
    task_id: str
    writes: deque[tuple[str, Any]]
    send: Callable[[list[tuple[str, Any]]], None]

    def is_finishing(self, mark: StepMark) -> bool:
        """Whether that attempt gives the task's result, if the task has one."""
        writes = tuple(self.writes)
        given = (channel for channel, value in writes if type(value) is not StepMark)
        return not _langgraph.has_failed(given) and any(value is mark for _, value in writes)

    def goes_on(self, mark: StepMark) -> bool:
        """Whether that attempt hasn't given anything yet."""
        writes = tuple(self.writes)
        is_open = all(
            type(value) is StepMark or _langgraph.is_answer(channel) for channel, value in writes
        )
        return is_open and any(value is mark for _, value in writes)


class StepMark(list[Any]):
    """Stands among the writes of a task, and of those whose subgraph it is in, for its riders.

    So it is cleared with the writes of an attempt that failed, and comes to the saver with
    those that are stored. It is a list with nothing in it, since writes can go elsewhere, too:
    a cache keeps them, and makes an empty list of it. A saver stores none.
    """

    __slots__ = (
        "__weakref__",
        "_lock",
        "_riders",
        "called_by",
        "callers",
        "control",
        "heard",
        "held_at",
        "is_closed",
        "is_going",
        "is_stored_at_exit",
        "levels",
        "node",
        "settled",
        "stored",
    )

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        callers: Collection[str],
        called_by: Collection[str],
        node: str,
        control: object,
        is_stored_at_exit: bool,
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        # The ids of the tasks whose results may be made of this one's.
        self.callers = callers
        # Of these those of its own graph.
        self.called_by = called_by
        # The steps that it may have heard of before it acted.
        self.heard: Sequence[StepMark] = ()
        self.node = node
        self.control = control
        self.is_stored_at_exit = is_stored_at_exit
        # The level whose graph has the result stored, where that can't be reached yet.
        self.held_at: int | None = None
        self.is_closed = False
        # Whether the call that stores the step has begun.
        self.is_going = False
        # How it went, for who waits for it; None where nothing was to be stored, too.
        self.settled: Future[None] = Future()
        # Whether its result is stored, and what it did waits for what makes that found.
        self.stored: Future[None] = Future()
        self._riders: list[Rider] = []
        self._lock = threading.Lock()

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy stands for nothing."""
        return list, ()

    def add(self, rider: Rider) -> None:
        """Has it stored with the step.

        Raises:
            StepEndedError: the attempt has ended.
        """
        with self._lock:
            if self.is_closed or not all(level.goes_on(self) for level in self.levels):
                raise StepEndedError(node=self.node)
            self._riders.append(rider)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be stored."""
        return not self._riders

    def close(self) -> list[Rider]:
        """What is to be stored; nothing can be added from here on."""
        with self._lock:
            self.is_closed = True
            return list(self._riders)

    def drop(self) -> None:
        """Nothing of it is stored."""
        self.close()
        self.settle(None)

    def settle(self, error: BaseException | None) -> None:
        """Tells those who wait how it went."""
        if self.settled.done():
            return
        self.note_stored()
        if error is None:
            self.settled.set_result(None)
        else:
            self.settled.set_exception(error)

    def note_stored(self) -> None:
        """Its result is stored, or never will be."""
        if not self.stored.done():
            self.stored.set_result(None)

    def has_finished_below(self, index: int) -> bool:
        """Whether the tasks below a level gave what the level's own result is made of."""
        return all(level.is_finishing(self) for level in self.levels[:index])


class StepKeeper(Protocol):
    """What a saver has for steps: see `this_step`."""

    @property
    def db(self) -> Database:
        """Where it stores them."""

    def session_of(self, config: Any) -> UUID:
        """The session of a task's config."""

    def open(self, mark: StepMark) -> None:
        """A step may get riders from here on."""

    async def wait_until_stored(self, levels: Sequence[Level], control: object) -> None:
        """Returns when the checkpoints at which these tasks were planned are stored."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundStep:
    """The step that the caller is part of."""

    keeper: StepKeeper
    node: str
    levels: tuple[Level, ...]
    callers: frozenset[str]
    called_by: frozenset[str]
    control: object
    is_stored_at_exit: bool


# By the namespace of each subgraph that the context is in, the tasks that it is in.
_above: ContextVar[Mapping[str, tuple[Level, ...]]] = ContextVar(
    "_above", default=MappingProxyType({})
)


def enter_subgraph(
    keeper: StepKeeper, checkpoint_ns: str
) -> tuple[tuple[Level, ...], frozenset[str]]:
    """A saver is asked for the state of a subgraph, by the task that runs it, in its context.

    Returns the tasks that it is in, and the ids of these and of those that called them.
    """
    found = _langgraph.running_task()
    if found is None or (level := _level(keeper, found)) is None:
        return (), frozenset()
    known = _above.get()
    above = known.get(level.checkpoint_ns, ()) if level.checkpoint_ns else ()
    if level.checkpoint_ns and not above:
        return (), frozenset()  # in a subgraph of which nothing is stored
    # By its name alone one with a state of its own isn't below the graph that calls it.
    kept = {each.checkpoint_ns for each in (level, *above)} & known.keys()
    _above.set({**{ns: known[ns] for ns in kept}, checkpoint_ns: (level, *above)})
    return (level, *above), found.callers | {found.task_id}


def find_step(call: str) -> FoundStep:
    """The step that the caller is part of; `call` is what needs it.

    Raises:
        NoStepError: there is none that is stored.
    """
    found = _langgraph.running_task()
    if found is None:
        raise NoStepError(problem=_outside(call))
    saver = _langgraph.saver_of(found.config)
    keeper: StepKeeper | None = getattr(saver, "steps", None)
    if not saver or keeper is None:
        raise NoStepError(problem=_of_saver(call, found.node, saver))
    level = _level(keeper, found)
    if level is None:
        problem = f"{call}() doesn't know this version of LangGraph. Use one that is tested"
        raise NoStepError(problem=problem)
    above = _above.get().get(found.checkpoint_ns, ()) if found.checkpoint_ns else ()
    if found.checkpoint_ns and not above:
        problem = (
            f"{call}() of node {found.node!r}: its subgraph is compiled with checkpointer=False, "
            "so no step of it is stored. Compile it without, or do this in the node that calls it"
        )
        raise NoStepError(problem=problem)
    return FoundStep(
        keeper=keeper,
        node=found.node,
        levels=(level, *above),
        callers=found.callers,
        called_by=found.called_by,
        control=_langgraph.control_of(found.config),
        is_stored_at_exit=_langgraph.is_stored_at_exit(found.config),
    )


def _level(keeper: StepKeeper, found: _langgraph.RunningTask) -> Level | None:
    writes = _langgraph.task_writes(found.config)
    if writes is None:
        return None
    return Level(
        session_id=keeper.session_of(found.config),
        checkpoint_ns=found.checkpoint_ns,
        checkpoint_id=found.checkpoint_id,
        step=found.step,
        task_id=found.task_id,
        writes=writes.found,
        send=writes.send,
    )


def _outside(call: str) -> str:
    outside = (
        f"{call}() is called outside of a node, or in a thread that hasn't its context. Call it"
    )
    if call != "this_step":
        return f"{outside} in the node, before it acts; elsewhere there is no step to wait for"
    return (
        f"{outside} in the node, and pass on what it gives; elsewhere pass a connection of "
        "db.transaction()"
    )


def _of_saver(call: str, node: str, saver: object) -> str:
    if not saver:
        problem = "its graph is compiled without a checkpointer, so no step of it is stored"
    else:
        problem = f"its checkpointer, a {type(saver).__name__}, stores nothing with a step"
    return f"{call}() of node {node!r}: {problem}. Compile the graph with a PostgresSaver"
