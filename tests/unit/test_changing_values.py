"""Values that another thread changes while they are encoded, as LangGraph's nodes may do.

What a field is asked for does here what the other thread would do between two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langgraph_pgsaga.checkpoint import encode
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec
from langgraph_pgsaga.serde import Codec, payload_parts
from langgraph_pgsaga.serde.serializer import SafeSerializer

MANY = 1_000
change: Callable[[], Any] = list


@dataclass
class Note:
    number: int

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            change()
        return super().__getattribute__(name)


class Told(HumanMessage):
    """A message that is looked at as Note is."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            change()
        return super().__getattribute__(name)


def changing(monkeypatch: pytest.MonkeyPatch, how: Callable[[], Any]) -> None:
    """The next look at a field changes something, once."""

    def once() -> None:
        monkeypatch.setitem(globals(), "change", list)
        how()

    monkeypatch.setitem(globals(), "change", once)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("is_shortened", [True, False])
@pytest.mark.parametrize("kind", [list, dict])
def test_containers_may_change_meanwhile(
    monkeypatch: pytest.MonkeyPatch, kind: type, depth: int, is_shortened: bool
) -> None:
    """What is stored is what was there when the encoding began; the process goes on."""
    notes: Any = kind(enumerate(map(Note, range(MANY))))
    value = notes
    for _ in range(depth):
        value = {"inner": [value]}
    before = SafeSerializer().dumps_typed(value)

    def replace() -> None:
        notes.clear()
        if not is_shortened:
            more = kind(enumerate(map(Note, range(3 * MANY))))
            notes.update(more) if kind is dict else notes.extend(more)

    changing(monkeypatch, replace)
    assert SafeSerializer().dumps_typed(value) == before


@pytest.mark.parametrize("kind", [list, dict])
def test_what_is_cut_may_change_meanwhile(kind: type) -> None:
    """The pieces are those of the bytes, whatever the value has become."""
    value: Any = kind((str(n), "x" * 100) for n in range(MANY))
    encode_part = SafeSerializer().encode_part
    data = encode_part(value)

    def encoded(part: Any) -> bytes:
        value.clear()
        return encode_part(part)

    assert b"".join(payload_parts.chunks(value, data, encoded)) == data


@pytest.mark.parametrize("how", ["clear", "append"])
def test_lists_of_messages_may_change_meanwhile(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Each message of then is stored, in the state and as a write."""
    codec = MessageCodec(Codec(SafeSerializer()))
    messages: list[Any] = [Told(content="x", id=str(n)) for n in range(10)]
    held = list(messages)
    changes = {"clear": messages.clear, "append": lambda: messages.append("no message")}
    changing(monkeypatch, changes[how])
    stored = encode._encode_value(codec, "messages", messages, {})
    assert len(stored.messages) == len(held)
    messages[:] = held
    changing(monkeypatch, changes[how])
    assert len(encode._encode_written(codec, "messages", messages).messages) == len(held)
