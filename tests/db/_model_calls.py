"""What the calls of random sequences are made of."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.types import (
    ERROR,
    INTERRUPT,
    RESUME,
    SCHEDULED,
    TASKS,
    _DeltaSnapshot,
)
from langgraph.types import Interrupt, Send

CHANNELS = ("a", "b", "messages")
DELTA = "delta"
ROOT_IDS_BEFORE_ANY = "00000000"


class Place(NamedTuple):
    """Where a checkpoint is, or will be; `parent_id` is what it is put under."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None

    @property
    def config(self) -> RunnableConfig:
        return config_of(self.thread_id, self.checkpoint_ns, self.checkpoint_id)


def config_of(
    thread_id: str, checkpoint_ns: str | None = None, checkpoint_id: str | None = None
) -> RunnableConfig:
    given = {"checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}
    there = {k: v for k, v in given.items() if v is not None}
    return {"configurable": {"thread_id": thread_id, **there}}


# What is stored


def long_text(size: int) -> str:
    return "".join(chr(97 + i % 23) for i in range(size))


# Long ones are mapped and large strategies are functions: hypothesis prints strategies,
# and warns where that takes many lines. The sizes are on both sides of what stands
# inline (256) and of what goes by hash (2048).
_texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from([0, 255, 256, 257, 2030, 2047, 2048, 9000]).map(long_text),
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0.0, -0.0, 1.0, 1e300, float("nan"), float("inf"), 2**53, -(2**53) + 1]),
    st.floats(allow_nan=True),
    _texts,
    st.binary(max_size=5),
    st.just(3000).map(bytes),
    st.sampled_from(
        [
            uuid.UUID(int=7),
            decimal.Decimal("1.10"),
            datetime.datetime(2024, 5, 17, 12, tzinfo=datetime.UTC),
            Send("node", {"n": 1}),
            Interrupt(value="why?", id="i-1"),
        ]
    ),
)
_message_ids = st.sampled_from([None, "m1", "m2", "m3", "m4"])
_contents = st.one_of(
    st.sampled_from(["", "hello", "nul\0", "émoji 🎉"]),
    st.just(3000).map(long_text),
    st.just([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": "x"}]),
)
_some_message: st.SearchStrategy[BaseMessage] = st.one_of(
    st.builds(HumanMessage, content=_contents, id=_message_ids),
    st.builds(SystemMessage, content=_contents, id=_message_ids),
    st.builds(AIMessage, content=_contents, id=_message_ids),
    st.builds(AIMessageChunk, content=_contents, id=_message_ids),
    st.builds(ChatMessage, content=_contents, id=_message_ids, role=st.just("critic")),
    st.builds(ToolMessage, content=_contents, id=_message_ids, tool_call_id=st.just("c1")),
    st.builds(
        AIMessage,
        content=_contents,
        id=_message_ids,
        tool_calls=st.just([{"name": "search", "args": {"q": 1.5}, "id": "c1"}]),
    ),
    st.sampled_from(["m1", "m2"]).map(lambda id_: RemoveMessage(id=id_)),
)


@st.composite
def _message(draw: st.DrawFn) -> BaseMessage:
    return draw(_some_message)


# Few enough that deleted messages come again.
_common_messages = st.sampled_from(
    [
        HumanMessage("hello", id="m1"),
        HumanMessage("hello", id="m2"),
        AIMessage("hello", id="m1"),
        HumanMessage("hello"),
    ]
)
_messages = st.one_of(_common_messages, _message())
_message_lists = st.lists(_messages, max_size=5)
_some_value = st.one_of(
    _scalars,
    st.lists(_scalars, max_size=3),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), _scalars, max_size=3),
    st.tuples(_scalars, _scalars),
    st.sets(st.integers(0, 5)),
    _message_lists,
    _messages,
    st.fixed_dictionaries({"inside": _message_lists}),
)


@st.composite
def _value(draw: st.DrawFn) -> Any:
    return draw(_some_value)


_values = _value()

# How a channel changes. Edits say what happens to the list of messages that is there.
_places_in_list = st.integers(0, 40)
some_edits = st.lists(
    st.one_of(
        st.tuples(st.just("append"), _messages),
        st.tuples(st.just("extend"), _message_lists),
        st.tuples(st.just("edit"), _places_in_list, _messages),
        st.tuples(st.just("remove"), _places_in_list),
        st.tuples(st.just("duplicate"), _places_in_list),
        st.tuples(st.just("trim"), _places_in_list),
        st.tuples(st.just("reverse")),
    ),
    min_size=1,
    max_size=4,
)
GONE = "no value"
some_updates = st.fixed_dictionaries(
    {},
    optional={
        "a": st.one_of(_values, st.just(_DeltaSnapshot(True))),
        "b": st.one_of(_values, st.just(GONE)),
        "messages": st.one_of(some_edits, st.just(GONE)),
        DELTA: st.one_of(
            st.just(GONE), _values.map(_DeltaSnapshot), _message_lists.map(_DeltaSnapshot)
        ),
    },
)
some_metadata = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["input", "loop", "update", "fork"]),
        "step": st.integers(-1, 3),
    },
    optional={
        "flag": st.booleans(),
        "nothing": st.none(),
        "score": st.sampled_from([0.5, 1.0, 2]),
        "tags": st.lists(st.sampled_from(["x", "y", 1]), max_size=3),
        "nested": st.fixed_dictionaries(
            {}, optional={"k": st.integers(0, 1), "l": st.lists(st.integers(0, 1), max_size=2)}
        ),
        # JSON can't hold these, so the whole goes to bytes.
        "odd": st.sampled_from([float("nan"), ["nul\0"], {"deep": float("inf")}, 2**60]),
        "text": st.sampled_from(["nul\0 is dropped", "quote ' percent % \\"]),
    },
)
_filters = st.fixed_dictionaries(
    {},
    optional={
        "source": st.sampled_from(["input", "loop", "no such"]),
        "step": st.one_of(st.integers(-1, 3), st.sampled_from([True, 1.0])),
        "flag": st.one_of(st.booleans(), st.just(1)),
        "nothing": st.none(),
        "score": st.sampled_from([0.5, 1, 2.0]),
        "tags": st.lists(st.sampled_from(["x", "y", 1]), max_size=2),
        "nested": st.sampled_from([{}, {"k": 1}, {"l": []}, {"l": [1]}, {"k": 0, "l": [0]}]),
        "absent": st.just("x"),
    },
)
few_filters: st.SearchStrategy[dict[str, Any]] = st.one_of(st.just({}), _filters)
some_runs = st.sampled_from(["r1", "r2", "r3"])
some_namespaces = st.sampled_from(["", "", "", "kept", "child:1", "child:2", "child:1|grand:1"])
some_threads = st.sampled_from(["t1", 't\'2 %s "é"', "t3"])
# Some large ones, since these go by another statement.
_written = st.one_of(_values, _texts, st.sampled_from([2048, 9000]).map(long_text))
some_writes = st.lists(
    st.tuples(
        st.sampled_from(
            ["a", "messages", DELTA, DELTA, ERROR, INTERRUPT, RESUME, SCHEDULED, TASKS, TASKS]
        ),
        _written,
    ),
    max_size=4,
)
some_task_ids = st.sampled_from(["task-1", "0-task", "ffff-task"])
some_task_paths = st.sampled_from(["", "~__pregel_pull, a", "~__pregel_push, é"])


def edited_by(messages: Any, edits: Iterable[tuple[Any, ...]]) -> list[Any]:
    """`messages` (or none, where the channel holds no list) after the edits."""
    result = list(messages) if isinstance(messages, list) else []
    for edit in edits:
        _edit(result, *edit)
    return result


def _edit(messages: list[Any], kind: str, *arguments: Any) -> None:
    match kind:
        case "append":
            messages.append(arguments[0])
        case "extend":
            messages.extend(arguments[0])
        case _ if not messages:
            return
        case "edit":
            messages[arguments[0] % len(messages)] = arguments[1]
        case "remove":
            del messages[arguments[0] % len(messages)]
        case "duplicate":
            messages.append(messages[arguments[0] % len(messages)])
        case "trim":
            del messages[: arguments[0] % len(messages)]
        case _:
            messages.reverse()
