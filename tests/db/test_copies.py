"""Copies of savers, and of what has one."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.errors import CopyError
from langgraph_pgsaga.sync import Messages, Sessions
from langgraph_pgsaga.takeover import ReadThroughSaver

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}


class OwnSaver(PostgresSaver):
    """One of an application, with something of its own."""

    own = "default"


@pytest.fixture
def own(dsn: str) -> Iterator[OwnSaver]:
    """A saver that closes its database."""
    with OwnSaver.from_conn_string(dsn) as saver:
        assert isinstance(saver, OwnSaver)
        yield saver


def graph_of(saver: PostgresSaver) -> Any:
    """A chat whose answer comes from a subgraph with a memory of its own."""
    inner = StateGraph(MessagesState)
    inner.add_node("answer", lambda _: {"messages": [AIMessage("hello yourself")]})
    inner.set_entry_point("answer")
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.set_entry_point("inner")
    return outer.compile(checkpointer=saver)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": lambda graph: graph.copy(),
    "with_config": lambda graph: graph.with_config(tags=["a"]),
    "copy.copy": copy.copy,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_graph_is_copied_with_its_saver(own: OwnSaver, name: str) -> None:
    """By LangGraph's ways or Python's; when the copy goes, the graph goes on."""
    graph = graph_of(own)
    copied = COPIES[name](graph)
    assert len(copied.invoke({"messages": [HumanMessage("hello")]}, CONFIG)["messages"]) == 2
    del copied
    gc.collect()
    assert len(graph.invoke({"messages": [HumanMessage("again")]}, CONFIG)["messages"]) == 4


def of_base(saver: PostgresSaver) -> PostgresSaver:
    """As LangGraph's own savers make a copy for more types."""
    found = BaseCheckpointSaver.with_allowlist(saver, [("fractions", "Fraction")])
    assert isinstance(found, PostgresSaver)
    return found


@pytest.mark.parametrize("copied", [copy.copy, of_base], ids=["copy.copy", "with_allowlist"])
def test_a_copied_saver_closes_nothing(
    own: OwnSaver, copied: Callable[[PostgresSaver], PostgresSaver]
) -> None:
    """It is of the same class, with what the first has, on the same database."""
    own.own = "changed"
    with copied(own) as other:
        assert type(other) is OwnSaver
        assert (other.own, other.db) == ("changed", own.db)
        assert list(other.list(None)) == []
    del other
    gc.collect()
    assert list(own.list(None)) == []


DEEP: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "old pickle": lambda value: pickle.dumps(value, protocol=0),
}


@pytest.mark.parametrize("way", DEEP)
def test_what_has_connections_is_no_value(own: OwnSaver, way: str) -> None:
    """Copied deeply or pickled, alone or within something else, it says what to do instead."""
    inside = ([own], {"db": own.db}, Sessions(own.db), Messages(own))
    values: tuple[Any, ...] = (own, own.db, ReadThroughSaver(own, InMemorySaver()), *inside)
    for value in values:
        with pytest.raises(CopyError, match="Pass the object itself"):
            DEEP[way](value)
    with pytest.raises(TypeError, match="can't be pickled"):
        DEEP[way](own)


def test_a_graph_is_not_copied_deeply(own: OwnSaver) -> None:
    """Its saver is in the way, and says so."""
    with pytest.raises(CopyError, match="OwnSaver"):
        copy.deepcopy(graph_of(own))


def test_a_database_and_a_server_are_not_copied(own: OwnSaver) -> None:
    """Two of them would close, or stop, the same."""
    with pytest.raises(CopyError, match="Database"):
        copy.copy(own.db)
    with pytest.raises(CopyError, match="EmbeddedServer"):
        copy.copy(EmbeddedServer.__new__(EmbeddedServer))
