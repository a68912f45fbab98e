"""States of a graph: where a thread stands, or stood."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata
from langgraph.pregel import Pregel
from langgraph.types import Interrupt, PregelTask, StateSnapshot

from langgraph_pgsaga._arguments import checked_instance, checked_limit
from langgraph_pgsaga.errors import InvalidArgumentError, MissingCheckpointError
from langgraph_pgsaga.threads import Address, configurable_of
from langgraph_pgsaga.timetravel import _state_html, _state_text
from langgraph_pgsaga.timetravel.steps import Graph, Step, history, saver_of

_FIRST_PAGE = 16
_LARGEST_PAGE = 256


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class State:
    """A state of a graph, with the names of LangGraph's StateSnapshot.

    `config` names its checkpoint, and keeps what else stood in the config by which it was
    found (recursion_limit, callbacks, keys of `configurable`), so that a run that goes on
    from here runs by the same. It prints as text, and shows itself in a notebook.
    """

    graph: Graph
    config: RunnableConfig
    snapshot: StateSnapshot

    @property
    def values(self) -> Any:
        """The values of the channels; of a graph whose state is one value, that."""
        return self.snapshot.values

    @property
    def next(self) -> tuple[str, ...]:
        """The nodes that the run goes on with; none where it ended."""
        return self.snapshot.next

    @property
    def metadata(self) -> CheckpointMetadata | None:
        """LangGraph's: source, step, parents; None where the thread has no checkpoint."""
        return self.snapshot.metadata

    @property
    def created_at(self) -> str | None:
        """When it was saved, as ISO text."""
        return self.snapshot.created_at

    @property
    def parent_config(self) -> RunnableConfig | None:
        """The config of the state that it came from."""
        return self.snapshot.parent_config

    @property
    def tasks(self) -> tuple[PregelTask, ...]:
        """What the next superstep runs, with errors, interrupts and results so far."""
        return self.snapshot.tasks

    @property
    def interrupts(self) -> tuple[Interrupt, ...]:
        """The questions that were asked here; of a thread's latest state, those still open."""
        return self.snapshot.interrupts

    @property
    def thread_id(self) -> str:
        """The thread that it is a state of."""
        return Address.of(self.config).thread_id

    @property
    def checkpoint_id(self) -> str | None:
        """Its checkpoint; None where the thread has none."""
        return Address.of(self.config).checkpoint_id

    def __str__(self) -> str:
        return _state_text.text(shown_of(self))

    def __repr__(self) -> str:
        return f"<State {self.checkpoint_id} of thread {self.thread_id!r}>"

    def _repr_html_(self) -> str:
        return _state_html.page(shown_of(self))


# What names a state: LangGraph's config, a step of a history, or a state of before.
Place: TypeAlias = RunnableConfig | Step | State


def get_state(graph: Graph, config: Place) -> State:
    """The state that `config` names; without a checkpoint id, the thread's latest.

    Of a thread without checkpoints it is empty, as LangGraph's is.

    Raises:
        MissingCheckpointError: `config` names a checkpoint that isn't there.
        InvalidArgumentError: the graph has no PostgresSaver.
    """
    given = config_of(graph, config)
    return state_of(graph, given, graph.get_state(given))


async def aget_state(graph: Graph, config: Place) -> State:
    """`get_state` for async callers."""
    given = config_of(graph, config)
    return state_of(graph, given, await graph.aget_state(given))


def at(
    graph: Graph,
    config: RunnableConfig,
    *,
    step: int | None = None,
    checkpoint_id: str | None = None,
    name: str | None = None,
    node: str | None = None,
    time: datetime | None = None,
) -> State:
    """The latest past state that fits all that is given: see `History.at`.

    Raises:
        MissingCheckpointError: none fits.
        InvalidArgumentError: nothing is given, `time` has no time zone, or the graph has
            no PostgresSaver.
    """
    found = history(graph, config).at(
        step=step, checkpoint_id=checkpoint_id, name=name, node=node, time=time
    )
    return get_state(graph, moved(config, found.config))


async def aat(
    graph: Graph,
    config: RunnableConfig,
    *,
    step: int | None = None,
    checkpoint_id: str | None = None,
    name: str | None = None,
    node: str | None = None,
    time: datetime | None = None,
) -> State:
    """`at` for async callers."""
    steps = await history(graph, config).load()
    found = steps.at(step=step, checkpoint_id=checkpoint_id, name=name, node=node, time=time)
    return await aget_state(graph, moved(config, found.config))


def list_states(
    graph: Graph,
    config: RunnableConfig,
    *,
    filter: dict[str, Any] | None = None,
    before: Place | None = None,
    limit: int | None = None,
) -> Iterator[State]:
    """The thread's states, newest first, fetched as they are asked for.

    Args:
        graph: the compiled graph.
        config: the thread; with a namespace, a subgraph's states.
        filter: metadata that they must have, as `get_state_history` takes it.
        before: only those older than this one.
        limit: how many at most.
    """
    pages = _Pages(graph, config, before, limit)
    while pages.size:
        found = graph.get_state_history(config, filter=filter, **pages.place())
        yield from pages.states(list(found))


async def alist_states(
    graph: Graph,
    config: RunnableConfig,
    *,
    filter: dict[str, Any] | None = None,
    before: Place | None = None,
    limit: int | None = None,
) -> AsyncIterator[State]:
    """`list_states` for async callers."""
    pages = _Pages(graph, config, before, limit)
    while pages.size:
        found = graph.aget_state_history(config, filter=filter, **pages.place())
        for state in pages.states([snapshot async for snapshot in found]):
            yield state


def update_state(graph: Graph, config: Place, values: Any, as_node: str | None = None) -> State:
    """LangGraph's `update_state` on the state that `config` names; the state that it made.

    Of an entrypoint, `values` are what the function would have returned: what is kept for
    its next call is the same, or what `entrypoint.final(value=..., save=...)` says.
    """
    given = config_of(graph, config)
    made = graph.update_state(given, values, as_node=as_node)
    return get_state(graph, moved(given, made))


async def aupdate_state(
    graph: Graph, config: Place, values: Any, as_node: str | None = None
) -> State:
    """`update_state` for async callers."""
    given = config_of(graph, config)
    made = await graph.aupdate_state(given, values, as_node=as_node)
    return await aget_state(graph, moved(given, made))


def checked_state(state: State) -> State:
    """InvalidArgumentError where it is something else."""
    return checked_instance("state", state, State, "Pass what get_state(graph, config) gives")


def config_of(graph: Graph, place: Place) -> RunnableConfig:
    """The config that a place is, or has; InvalidArgumentError where the graph can't use it."""
    saver_of(graph)
    if not isinstance(graph, Pregel):
        problem = "needs the compiled graph: the saver alone doesn't know its channels"
        raise InvalidArgumentError(argument="graph", problem=problem)
    config = place.config if isinstance(place, Step | State) else place
    Address.of(config)
    return config


def moved(given: RunnableConfig, to: RunnableConfig) -> RunnableConfig:
    """`given` with the thread, namespace and checkpoint of `to` in place of its own."""
    rest = {k: v for k, v in configurable_of(given).items() if k not in _PLACE}
    return {**given, "configurable": {**rest, **configurable_of(to)}}


_PLACE = ("checkpoint_ns", "checkpoint_id", "checkpoint_map")


def state_of(graph: Graph, given: RunnableConfig, snapshot: StateSnapshot) -> State:
    """The state of a snapshot that was found by the config `given`.

    Raises:
        MissingCheckpointError: `given` names a checkpoint that isn't there.
    """
    address = Address.of(given)
    if snapshot.metadata is None and address.checkpoint_id is not None:
        raise MissingCheckpointError(thread_id=address.thread_id)
    # Of nothing, LangGraph gives the config that it looked with, live objects and all.
    config = given if snapshot.metadata is None else moved(given, snapshot.config)
    return State(graph=graph, config=config, snapshot=snapshot)


class _Pages:
    """How far a listing is."""

    def __init__(
        self, graph: Graph, config: RunnableConfig, before: Place | None, limit: int | None
    ) -> None:
        self._graph = graph
        self._config = config_of(graph, config)
        self._before = None if before is None else config_of(graph, before)
        self._left = checked_limit(limit)
        self._page = _FIRST_PAGE

    @property
    def size(self) -> int:
        """How many states to fetch next; none when it is over."""
        return self._page if self._left is None else max(0, min(self._page, self._left))

    def place(self) -> dict[str, Any]:
        """LangGraph's arguments that lead to the next page."""
        return {"before": self._before, "limit": self.size}

    def states(self, snapshots: list[StateSnapshot]) -> list[State]:
        """The states of a page; what comes after it is next."""
        if len(snapshots) < self.size:
            self._left = 0
        else:
            self._before = snapshots[-1].config
            self._left = None if self._left is None else self._left - len(snapshots)
        self._page = min(2 * self._page, _LARGEST_PAGE)
        return [state_of(self._graph, self._config, snapshot) for snapshot in snapshots]


def shown_of(state: State) -> _state_text.Shown:
    """What is shown of a state."""
    values = state.values
    metadata: Mapping[str, Any] = state.metadata or {}
    return _state_text.Shown(
        thread_id=state.thread_id,
        checkpoint_id=state.checkpoint_id,
        step=metadata.get("step"),
        source=metadata.get("source"),
        created_at=state.created_at if isinstance(state.created_at, str) else None,
        # A graph whose state is one value has no channel to name.
        channels=dict(values) if isinstance(values, Mapping) else {"state": values},
        next=state.next,
        # A damaged row may have anything in the place of one.
        interrupts=tuple(getattr(asked, "value", asked) for asked in state.interrupts),
        # A serializer may have made text of the exception.
        errors=tuple((t.name, f"{t.error}") for t in state.tasks if t.error is not None),
    )
