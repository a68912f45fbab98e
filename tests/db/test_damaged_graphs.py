"""Checkpoints of real graphs that somebody damaged: LangGraph never gets to see one from which
it couldn't go on."""

from __future__ import annotations

import asyncio
import json
import operator
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import CorruptValueError, PgSagaError, UnstorableValueError
from langgraph_pgsaga.threads import session_id_of
from tests.conftest import execute, with_database
from tests.db._puts import config_of

VALUES: list[Any] = [None, 1.5, "7", ["x", [2]], {"a": [1], "note": {"b": 1}, "work": 5}]
PARTS = (
    *("channel_versions", "channel_values", "versions_seen", "updated_channels", "pending_sends"),
    *("v", "ts", "id", "versions_seen,work", "versions_seen,__input__"),
    *("versions_seen,work,branch:to:work", "versions_seen,__interrupt__,note"),
    *("channel_versions,note", "channel_versions,branch:to:ask"),
    *("channel_values,__pregel_tasks", "channel_values,branch:to:ask"),
)
ENTRIES = ("step", "source", "parents", "run_id", "counters_since_delta_snapshot")


class State(TypedDict, total=False):
    items: Annotated[list[str], operator.add]
    note: int


def graph_on(saver: PostgresSaver) -> Any:
    """A graph with channels of all kinds, which asks a question beside nodes that were sent."""

    def work(state: State) -> dict[str, Any]:
        return {"items": ["work"], "note": 1}

    def ask(state: State) -> dict[str, Any]:
        return {"items": [interrupt("well?")]}

    builder = StateGraph(State)
    builder.add_node("work", work)
    builder.add_node("ask", ask)
    builder.add_node("sent", lambda state: {"items": ["sent"]})
    builder.add_edge(START, "work")
    builder.add_edge("work", "ask")
    builder.add_conditional_edges("work", lambda state: [Send("sent", {})])
    return builder.compile(checkpointer=saver, interrupt_before=["sent"])


@pytest.fixture(scope="module")
def source(server_dsn: str, template_database: str) -> Iterator[PostgresSaver]:
    """A saver with the sound thread `t`, whose copies are damaged."""
    name = f"pgsaga_graphs_{os.getpid()}"
    asyncio.run(execute(server_dsn, f'create database "{name}" template "{template_database}"'))
    with PostgresSaver.from_conn_string(with_database(server_dsn, name)) as saver:
        graph_on(saver).invoke({"items": []}, config_of("t"))
        yield saver
    asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


def damaged(saver: PostgresSaver, column: str, **parts: Any) -> str:
    """A copy of the thread, with other values at these paths."""
    thread_id = str(uuid4())
    saver.copy_thread("t", thread_id)
    value = column
    for path, part in parts.items():
        value = f"jsonb_set({value}, '{{{path}}}', $${json.dumps(part)}$$)"
    where = f"session_id = '{session_id_of(thread_id)}'"
    statement = f"update agent_states set {column} = {value} where {where}"
    asyncio.run(execute(saver.db.dsn, statement))
    return thread_id


def uses(saver: PostgresSaver, thread_id: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What a graph does with a thread, each by a saver that remembers nothing."""
    config: RunnableConfig = {**config_of(thread_id), "recursion_limit": 5}

    def graph() -> Any:
        return graph_on(PostgresSaver(saver.db))

    yield "state", lambda: graph().get_state(config, subgraphs=True)
    yield "history", lambda: list(graph().get_state_history(config))
    yield "update", lambda: graph().update_state(config, {"note": 2}, as_node="work")
    yield "go on", lambda: graph().invoke(None, config)
    yield "answer", lambda: list(graph().stream(Command(resume=1), config, stream_mode="debug"))
    yield "begin", lambda: graph().invoke({"items": ["x"]}, config)


def errors_of(saver: PostgresSaver, thread_id: str) -> list[PgSagaError]:
    """The errors that come of it, each typed, and saying which checkpoint it is."""
    found: list[PgSagaError] = []
    for _, use in uses(saver, thread_id):
        try:
            use()
        except PgSagaError as error:
            found.append(error)
    corrupt = [error for error in found if isinstance(error, CorruptValueError)]
    assert all(error.thread_id == thread_id and error.checkpoint_id for error in corrupt)
    return found


@pytest.mark.parametrize("part", PARTS)
def test_a_graph_meets_no_damaged_checkpoint(source: PostgresSaver, part: str) -> None:
    """Whatever stands in a part of it, whoever uses the thread goes on or gets a typed error."""
    for value in VALUES:
        errors_of(source, damaged(source, "state_data", **{part: value}))


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_graph_meets_no_damaged_metadata(source: PostgresSaver, entry: str) -> None:
    """The same for the entries of the metadata."""
    for value in VALUES:
        errors_of(source, damaged(source, "metadata", **{entry: value}))


@pytest.mark.parametrize("value", [5, "x", {"a": 1}, [1], True])
def test_sends_of_early_formats_are_looked_at(source: PostgresSaver, value: Any) -> None:
    """What stands where they once stood is a list, or a typed error."""
    errors_of(source, damaged(source, "state_data", v=1, pending_sends=value))


@pytest.mark.parametrize("value", ["x", None, 1.5, [1], {"a": 1}])
def test_a_damaged_step_is_told(source: PostgresSaver, value: Any) -> None:
    """With the part, the thread and the checkpoint, whatever is done with the thread."""
    thread_id = damaged(source, "metadata", step=value)
    found = errors_of(source, thread_id)
    assert len(found) == len(list(uses(source, thread_id)))
    assert all("its metadata's step was altered" in str(error) for error in found)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("v", None),
        ("v", "4"),
        ("versions_seen", {"n": 5}),
        ("versions_seen", {"n": {"c": 5}}),
        ("channel_versions", {"c": "1", "d": 2}),
        ("updated_channels", 5),
        ("channel_values", {"__pregel_tasks": 5}),
    ],
)
def test_what_would_be_refused_when_loaded_is_refused_when_stored(
    source: PostgresSaver, part: str, value: Any
) -> None:
    """A checkpoint from which no graph could go on isn't accepted, and nothing is stored."""
    checkpoint: Any = {**empty_checkpoint(), "channel_versions": {"c": "1"}, part: value}
    metadata: CheckpointMetadata = {"source": "input", "step": 0, "parents": {}}
    with pytest.raises(UnstorableValueError, match="LangGraph couldn't go on"):
        source.put(config_of("other"), checkpoint, metadata, {})
    assert source.get_tuple(config_of("other")) is None


@pytest.mark.parametrize(
    "entry",
    [
        {"step": "1"},
        {"step": None},
        {"parents": [1]},
        {"parents": {"": 1}},
        {"counters_since_delta_snapshot": {"c": 1}},
    ],
)
def test_metadata_that_would_be_refused_when_loaded_is_refused_when_stored(
    source: PostgresSaver, entry: Any
) -> None:
    """The same for its metadata, also where it comes from the config."""
    checkpoint = {**empty_checkpoint(), "channel_versions": {"c": "1"}}
    other: Any = config_of("other")
    for config, metadata in ((other, entry), ({**other, "metadata": {"step": "1"}}, {})):
        with pytest.raises(UnstorableValueError, match="LangGraph couldn't go on"):
            source.put(config, checkpoint, metadata, {})  # type: ignore[arg-type]
    assert source.get_tuple(other) is None
