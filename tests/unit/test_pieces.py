"""Values in pieces: what is put together again is the same to the byte."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.types import Command, Overwrite, Send

from langgraph_pgsaga.serde import payload_parts
from langgraph_pgsaga.serde.serializer import SafeSerializer

SERDE = SafeSerializer()
ENTRIES = {
    f"/src/module_{n}.py": f"file {n}: {random.Random(n).randbytes(300).hex()}" for n in range(200)
}


def encoded(value: Any) -> bytes:
    return SERDE.dumps_typed(value)[1]


def cut(value: Any) -> list[bytes]:
    return payload_parts.chunks(value, encoded(value), SERDE.encode_part)


def new_bytes(before: Any, after: Any) -> int:
    """What the second value has that the first hasn't."""
    have = set(cut(before))
    return sum(len(chunk) for chunk in cut(after) if chunk not in have)


_scalars = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats()
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner)
)


@given(
    st.lists(_values, max_size=40).map(lambda items: items * 5)
    | st.dictionaries(st.text() | st.tuples(st.integers(), st.text()), _values)
    | _values
)
def test_chunks_make_the_value(value: Any) -> None:
    """Whatever the value, its chunks one after the other are its bytes."""
    data = encoded(value)
    assert b"".join(payload_parts.chunks(value, data, SERDE.encode_part)) == data


def test_many_small_elements_with_a_container_first_are_whole() -> None:
    """Elements that are taken together aren't told apart: none of them is cut by itself."""
    value = [[], *(["x" * 55] for _ in range(63)), []] * 3
    assert b"".join(cut(value)) == encoded(value)
    assert len(cut(value)) > 1


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 70_000])
@pytest.mark.parametrize("kind", [list, dict])
def test_every_size_of_header_is_left_out(count: int, kind: type) -> None:
    """Small, medium and large containers are all cut, and make the whole."""
    numbers = range(count)
    value = list(numbers) if kind is list else {str(n): n for n in numbers}
    parts = cut(value)
    assert b"".join(parts) == encoded(value)
    assert len(parts) > 1 or not count


def test_a_changed_entry_costs_its_chunk() -> None:
    """Of two hundred entries one is changed, comes or goes: a small part of the whole is new."""
    whole = len(encoded(ENTRIES))
    names = list(ENTRIES)
    changed = {**ENTRIES, names[77]: "rewritten"}
    longer = {**ENTRIES, "/new.py": "text"}
    shorter = {name: text for name, text in ENTRIES.items() if name != names[3]}
    for after in (changed, longer, shorter):
        assert 0 < new_bytes(ENTRIES, after) < whole / 12


def test_an_element_in_front_moves_no_cut_but_the_first() -> None:
    """Cuts follow the content, not the place."""
    texts = list(ENTRIES.values())
    assert new_bytes(texts, ["in front", *texts]) < len(encoded(texts)) / 12


@pytest.mark.parametrize("depth", [1, 2])
def test_a_large_value_in_another_is_cut_as_it_is_alone(depth: int) -> None:
    """So that a version of it costs as little there, and one that was seen alone costs nothing."""

    def wrapped(files: dict[str, str]) -> Any:
        return {"files": files, "turn": 1} if depth == 1 else {"a": [1, {"files": files}], "b": 2}

    whole = len(encoded(ENTRIES))
    changed = {**ENTRIES, next(iter(ENTRIES)): "rewritten"}
    assert new_bytes(wrapped(ENTRIES), wrapped(changed)) < whole / 12
    assert new_bytes(ENTRIES, wrapped(ENTRIES)) < whole / 12


def test_a_list_of_small_elements_grows_at_its_end() -> None:
    """Elements of a few bytes are taken together, and what is there stays as it is."""
    numbers = list(range(50_000))
    assert new_bytes(numbers, [*numbers, 1, 2, 3]) < len(encoded(numbers)) / 20


def test_a_subclass_of_dict_is_one_piece() -> None:
    """What may be encoded in a way of its own isn't cut."""

    class Ordered(dict[str, str]):
        pass

    assert len(cut(Ordered(ENTRIES))) == 1


@dataclass
class Notes:
    title: str
    said: Sequence[BaseMessage]


SAID: list[BaseMessage] = [
    HumanMessage("how are you? " * 5, id="1"),
    AIMessage("fine " * 20, id="2", tool_calls=[{"name": "look", "args": {"at": 1}, "id": "c"}]),
    HumanMessage("the same", id=None),
]
PLACES = {
    "send": Send("node", {"messages": SAID, "n": 1}),
    "command": Command(update={"messages": SAID}, goto="x"),
    "overwrite": Overwrite(SAID),
    "dataclass": Notes("t", SAID),
    "nested": [[{"a": [SAID[0]]}], {"b": (SAID[1], "text", SAID[2])}],
    "one": {"message": SAID[0]},
}


@pytest.mark.parametrize("place", PLACES)
def test_messages_are_cut_out_and_put_back(place: str) -> None:
    """Wherever messages stand in a value, its bytes are cut at them and made again."""
    value = PLACES[place]
    found = payload_parts.messages_in(value)
    assert found == (SAID[:1] if place == "one" else SAID)
    parts = [encoded(message) for message in found]
    data = encoded(value)
    done = payload_parts.cut_out(data, parts)
    assert done is not None
    skeleton, places = done
    assert places == list(range(len(parts)))
    assert len(skeleton) <= len(data) - sum(map(len, parts)) + 10
    assert payload_parts.fill(skeleton, parts) == data


@given(st.binary(), st.lists(st.binary(min_size=1), max_size=12))
def test_filling_is_the_inverse_of_cutting(data: bytes, parts: list[bytes]) -> None:
    """For any bytes and parts, found or not."""
    done = payload_parts.cut_out(data, parts)
    if done is not None:
        skeleton, places = done
        assert payload_parts.fill(skeleton, [parts[place] for place in places]) == data


def test_parts_that_are_not_there_are_left_out() -> None:
    """A message that the value doesn't hold in these bytes stays where it is."""
    assert payload_parts.cut_out(b"abcdef", [b"xy", b"cd", b"zz"]) == (
        b"\0\0\0\2\x91\x02abef",
        [1],
    )
    assert payload_parts.cut_out(b"abcdef", [b"xy"]) is None


@pytest.mark.parametrize(
    ("skeleton", "parts"),
    [
        (b"\0\0\0\2\x91\x02abef", []),
        (b"\0\0\0\1\x05ab", [b"x"]),
        (b"\0\0\0\2\xc1", [b"x"]),
        (b"\0\0\0\2\x91\xffab", [b"x"]),
        (b"\0\0\0\3\x92\x02\xfeab", [b"x", b"y"]),
        (b"\0\0\0\2\x91\xc3ab", [b"x"]),
        (b"", []),
    ],
)
def test_what_does_not_fit_is_refused(skeleton: bytes, parts: list[bytes]) -> None:
    """Altered bytes, or messages that are too few, are an error, not another value."""
    with pytest.raises(ValueError):  # noqa: PT011 - msgpack's own, too
        payload_parts.fill(skeleton, parts)


def test_the_search_for_messages_ends() -> None:
    """Values that hold themselves, nest deeply or are very long are looked at only so far."""
    loop: list[Any] = [1]
    loop.append(loop)
    deep: Any = SAID[0]
    for _ in range(50):
        deep = [deep]
    assert payload_parts.messages_in(loop) == payload_parts.messages_in(deep) == []
    assert len(payload_parts.messages_in([SAID[0]] * 100_000)) < 10_000
