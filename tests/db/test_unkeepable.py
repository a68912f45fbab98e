"""Values of which no store gives back what was put: they come over as their own saver has them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from pydantic import BaseModel, PrivateAttr, field_validator

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import TakeoverMismatchError
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from tests._graphs import Saver
from tests.db._histories import config_of

pytestmark = pytest.mark.anyio


class Tracked(BaseModel):
    """Each object that is loaded has another id."""

    text: str
    tags: list[str] = []
    _id: str = PrivateAttr(default_factory=lambda: uuid.uuid4().hex)


class Locked(BaseModel):
    """A lock is made anew with each object."""

    text: str
    _lock: Any = PrivateAttr(default_factory=threading.Lock)


class Shouting(BaseModel):
    """Its check changes what it is given, each time."""

    text: str

    @field_validator("text")
    @classmethod
    def shout(cls, text: str) -> str:
        return f"{text}!"


@dataclass
class Counting:
    """Counts how often it was made."""

    text: str
    count: int = 0

    def __post_init__(self) -> None:
        self.count += 1


class Things(TypedDict):
    things: list[Any]
    seen: int


MAKERS: list[Callable[[str], Any]] = [
    lambda text: Tracked(text=text),
    lambda text: Locked(text=text),
    lambda text: Shouting(text=text),
    lambda text: Counting(text=text),
]


def graph_of(saver: Saver, make: Callable[[str], Any]) -> Any:
    def work(state: Things) -> Any:
        seen = state.get("seen", 0) + 1
        return {
            "things": [*state["things"], make(f"made {seen}"), {"in": make("side")}],
            "seen": seen,
        }

    builder: Any = StateGraph(Things)
    builder.add_node("work", work)
    builder.add_edge(START, "work")
    return builder.compile(checkpointer=saver)


def texts(things: list[Any]) -> list[Any]:
    return [thing["in"].text if isinstance(thing, dict) else thing.text for thing in things]


@pytest.mark.parametrize("make", MAKERS, ids=["private", "lock", "validator", "post_init"])
async def test_what_no_store_keeps_doesnt_keep_a_thread_back(
    saver: PostgresSaver, make: Callable[[str], Any]
) -> None:
    """It is verified as far as the source keeps it, again and again, and the next turn runs."""
    old = InMemorySaver()
    config = config_of("t")
    await graph_of(old, make).ainvoke({"things": [make("first")]}, config)
    there = (await graph_of(old, make).aget_state(config)).values
    for _ in range(2):
        assert (await import_threads(old, saver)).failed == ()
    here = (await graph_of(saver, make).aget_state(config)).values
    assert texts(here["things"]) == texts(there["things"])
    await graph_of(old, make).ainvoke({"things": [make("first")]}, config_of("u"))
    both = graph_of(ReadThroughSaver(saver, old), make)
    found = await both.ainvoke({"things": [make("again")]}, config_of("u"))
    assert found["seen"] == 2


class LossySaver(PostgresSaver):
    """Loses a part of each value that no store keeps whole."""

    async def aput(
        self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any, **_: Any
    ) -> Any:
        values = dict(checkpoint["channel_values"])
        if things := values.get("things"):
            values["things"] = [*things[:-1], lossy(things[-1])]
        changed: Any = {**checkpoint, "channel_values": values}
        return await super().aput(config, changed, metadata, new_versions)


def lossy(thing: Any) -> Any:
    return {"in": lossy(thing["in"])} if isinstance(thing, dict) else Tracked(text="lost")


async def test_the_rest_of_what_no_store_keeps_is_verified(dsn: str) -> None:
    """A random private attribute excuses nothing but itself."""
    old = InMemorySaver()
    graph = graph_of(old, lambda text: Tracked(text=text))
    await graph.ainvoke({"things": [Tracked(text="first")]}, config_of("t"))
    async with LossySaver.from_conn_string(dsn) as target:
        (thread,) = (await import_threads(old, target)).failed
    places = [error.place for error in thread.errors if isinstance(error, TakeoverMismatchError)]
    assert "channel 'things'" in places
