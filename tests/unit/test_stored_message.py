"""A message is encoded once, and again when anything in it has changed."""

from __future__ import annotations

import array
import ctypes
import dataclasses
import gc
import mmap
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    ToolMessage,
)

from langgraph_pgsaga.checkpoint.mutation_check import Snapshot
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec
from langgraph_pgsaga.serde.codec import Codec
from langgraph_pgsaga.serde.serializer import SafeSerializer


class CountingCodec(Codec):
    """Counts how often it encodes and decodes."""

    encodings = decodings = 0

    def encode(self, value: Any, where: str) -> Any:
        self.encodings += 1
        return super().encode(value, where)

    def decode(self, encoded: Any) -> Any:
        self.decodings += 1
        return super().decode(encoded)


@pytest.fixture
def codec() -> MessageCodec:
    return MessageCodec(CountingCodec(SafeSerializer()))


def count(codec: MessageCodec) -> tuple[int, int]:
    assert isinstance(codec.values, CountingCodec)
    return codec.values.encodings, codec.values.decodings


def message() -> AIMessage:
    return AIMessage(
        [{"type": "text", "text": "hello", "n": 1, "x": 0.0}],
        id="1",
        additional_kwargs={"deep": {"list": [1, {"flag": True}]}},
        response_metadata={"model_name": "m", "logprobs": [0.0, -1.5]},
        tool_calls=[{"name": "look", "args": {"at": 1, "on": True}, "id": "c"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    )


class Mood(StrEnum):
    HELLO = "hello"


def set_attribute(name: str, value: Any) -> Callable[[Any], None]:
    return lambda m: setattr(m, name, value)


CHANGES: dict[str, Callable[[Any], None]] = {
    "id": set_attribute("id", "2"),
    "no id": set_attribute("id", None),
    "name": set_attribute("name", "n"),
    "content": set_attribute("content", "hello"),
    "text in a block": lambda m: m.content[0].update(text="hullo"),
    "a block more": lambda m: m.content.append("more"),
    "deep inside": lambda m: m.additional_kwargs["deep"]["list"].append(2),
    "a key more": lambda m: m.response_metadata.update(more=None),
    "an argument": lambda m: m.tool_calls[0]["args"].update(at=2),
    "tokens": lambda m: m.usage_metadata.update(total_tokens=4),
    "1 becomes True": lambda m: m.content[0].update(n=True),
    "1 becomes 1.0": lambda m: m.content[0].update(n=1.0),
    "True becomes 1": lambda m: m.additional_kwargs["deep"]["list"][1].update(flag=1),
    "0.0 becomes -0.0": lambda m: m.content[0].update(x=-0.0),
    "a list becomes a tuple": lambda m: m.additional_kwargs["deep"].update(
        list=(1, {"flag": True})
    ),
    "the order of keys": lambda m: m.content[0].update(type=m.content[0].pop("type")),
    "text becomes an enum": lambda m: m.content[0].update(text=Mood.HELLO),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(codec: MessageCodec, change: str) -> None:
    """Whatever changes in a message, in whatever depth, its next encoding has it."""
    said = message()
    codec.stored(said, "here")
    CHANGES[change](said)
    fresh = MessageCodec(Codec(SafeSerializer()))
    assert codec.stored(said, "here").encoded == fresh.stored(said, "here").encoded
    assert count(codec)[0] == 2, "the change left no trace"


def test_an_unchanged_message_is_encoded_once(codec: MessageCodec) -> None:
    """Time and again, and again after a change that was taken back."""
    said = message()
    stored = codec.stored(said, "here")
    said.id = "other"
    said.id = "1"
    assert codec.stored(said, "here") is stored
    assert count(codec) == (1, 0)


def test_a_decoded_message_is_not_encoded_again(codec: MessageCodec) -> None:
    """Reading once and writing on costs one decoding; each reader has an object of its own."""
    stored = MessageCodec(codec.values).stored(message(), "here")
    first, second = codec.fresh(stored), codec.fresh(stored)
    assert first == second == message()
    assert first is not second
    assert codec.stored(first, "here") is codec.stored(second, "here") is stored
    assert count(codec) == (1, 1)


@pytest.mark.parametrize("change", CHANGES)
def test_a_reader_changes_nobody_elses_message(codec: MessageCodec, change: str) -> None:
    """What is done to a message that was read shows in no other reading of it."""
    stored = codec.stored(message(), "here")
    for _ in range(3):
        read = codec.fresh(stored)
        assert read == message()
        CHANGES[change](read)


def test_copies_are_like_decoded_messages(codec: MessageCodec) -> None:
    """Field by field, set fields included, and by what pydantic and LangChain do with them."""
    for said in (
        message(),
        HumanMessage("hi"),
        ToolMessage("done", tool_call_id="c", artifact={"a": [1]}, status="error"),
        AIMessageChunk(content="part", id="x"),
        ChatMessage(content="hm", role="critic"),
    ):
        stored = codec.stored(said, "here")
        decoded, copied = codec.fresh(stored), codec.fresh(stored)
        assert type(copied) is type(decoded) is type(said)
        assert copied.__dict__ == decoded.__dict__
        assert copied.model_fields_set == decoded.model_fields_set
        assert copied.model_dump() == decoded.model_dump()
        assert copied.model_copy(update={"id": "y"}).id == "y"
        assert repr(copied) == repr(decoded)


def test_what_is_not_plain_is_encoded_every_time(codec: MessageCodec) -> None:
    """Objects in a message may change in ways that can't be seen: no snapshot is made."""
    said = HumanMessage("x", additional_kwargs={"when": {1, 2}, "who": Mood.HELLO})
    for _ in range(2):
        codec.stored(said, "here")
    assert count(codec)[0] == 2
    assert Snapshot.of(said) is None


class Memory(bytes):
    """Shows its memory, and is a subclass of bytes."""


@dataclasses.dataclass
class Shown(bytearray):
    """A dataclass that shows its memory."""

    n: int = 0


class Number(np.float64, Enum):  # type: ignore[misc]
    """A member that shows its memory and has a plain value."""

    HALF = 0.5

    def __new__(cls, value: float) -> Number:
        made: Number = np.float64.__new__(cls, value)
        made._value_ = 1
        return made


BUFFERS: list[Callable[[], Any]] = [
    lambda: b"bytes",
    lambda: Memory(b"bytes"),
    lambda: bytearray(b"bytes"),
    lambda: memoryview(b"bytes"),
    lambda: array.array("d", [0.5]),
    lambda: mmap.mmap(-1, 8),
    ctypes.c_char * 3,
    lambda: np.array([0.5]),
    lambda: np.arange(4)[::2],
    lambda: np.float64(0.5),
    lambda: np.int64(1),
    lambda: np.bool_(True),
    lambda: np.str_("a"),
    lambda: np.bytes_(b"a"),
    lambda: np.complex128(1),
    lambda: np.datetime64("2026-01-01"),
    lambda: np.void(b"a"),
    Shown,
    lambda: Number.HALF,
    lambda: Ellipsis,
    lambda: StopIteration,
    lambda: (lambda: None).__code__,
    lambda: 1j,
    lambda: {1},
]


@pytest.mark.parametrize("make", BUFFERS, ids=lambda make: repr(type(make())))
def test_what_marshal_takes_for_bytes_is_not_plain(make: Callable[[], Any]) -> None:
    """marshal writes whatever shows its memory as bytes: nothing of that kind has a snapshot."""
    for said in (
        ToolMessage("x", tool_call_id="c", artifact=make()),
        HumanMessage("x", additional_kwargs={"deep": [{"a": make()}]}),
        AIMessage("x", response_metadata={"a": (make(),)}),
    ):
        assert Snapshot.of(said) is None


def test_a_value_that_becomes_an_array_of_its_bytes_is_seen(codec: MessageCodec) -> None:
    """A field that is replaced by something with the same bytes in memory is encoded anew."""
    vector = np.array([0.5, 1.5])
    said = ToolMessage("x", tool_call_id="c", artifact=vector.tobytes())
    before = codec.stored(said, "here")
    said.artifact = vector

    after = codec.stored(said, "here")

    assert after.data != before.data
    for _ in range(3):
        read = codec.fresh(after)
        assert isinstance(read.artifact, np.ndarray)
        assert read.artifact.tolist() == [0.5, 1.5]


def test_extra_fields_are_seen(codec: MessageCodec) -> None:
    """A field that the class doesn't have is stored, and its change is seen."""
    said = HumanMessage("x", mood="good")
    before = codec.stored(said, "here")
    said.mood = "bad"  # type: ignore[attr-defined]
    assert codec.stored(said, "here").data != before.data


def test_messages_that_are_gone_are_forgotten(codec: MessageCodec) -> None:
    """What is remembered of a message goes with it, so that nothing grows without end."""
    stored = [codec.stored(HumanMessage(str(n)), "here") for n in range(100)]
    kept = codec.fresh(stored[0])
    gc.collect()
    assert len(codec._seen) == 1
    assert codec.stored(kept, "here") is stored[0]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.text(), st.dictionaries(st.text(), _json), st.dictionaries(st.text(), _json))
def test_equal_bytes_mean_an_equal_message(
    text: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """For any plain content: the remembered encoding is what encoding anew would give."""
    codec = MessageCodec(Codec(SafeSerializer()))
    said: BaseMessage = HumanMessage(text, additional_kwargs=before)
    codec.stored(said, "here")
    said.additional_kwargs = after
    fresh = MessageCodec(Codec(SafeSerializer()))
    assert codec.stored(said, "here").encoded == fresh.stored(said, "here").encoded
