"""What `diff` says of two states."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel, PrivateAttr

from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.serde.placeholder import Placeholder
from langgraph_pgsaga.timetravel import Change, ChangeKind, diff
from tests._html import tags_of
from tests._limits import times_as_long

ADDED, REMOVED, EDITED = ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.EDITED


def shape(before: Any, after: Any) -> list[tuple[ChangeKind, tuple[str | int, ...]]]:
    return [(c.kind, c.path) for c in diff({"x": before}, {"x": after})]


def talk(*ids: str) -> list[AnyMessage]:
    return [HumanMessage(f"text of {id_}", id=id_) for id_ in ids]


def test_equal_states_have_no_changes() -> None:
    """A diff of nothing is empty and false."""
    found = diff({"x": [1, {"y": float("nan")}]}, {"x": [1, {"y": float("nan")}]})
    assert not found
    assert str(found) == "no changes"


def test_channels_come_and_go() -> None:
    """A channel that only one state has is added or removed."""
    assert [str(c) for c in diff({"a": 1}, {"b": 2})] == ["- a: 1", "+ b: 2"]


@pytest.mark.parametrize(
    ("before", "after"), [(1, True), (1, 1.0), ("1", 1), ([1], (1,)), ({1}, frozenset({1}))]
)
def test_a_change_of_type_is_a_change(before: Any, after: Any) -> None:
    """Also where Python holds the two for equal."""
    assert shape(before, after) == [(EDITED, ("x",))]


class Odd:
    """`==` says what it likes; without it, what the object holds counts."""

    def __init__(self, held: Any, answer: Any = NotImplemented) -> None:
        self.held = held
        self.answer = answer

    def __eq__(self, other: object) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<an odd one>"


class Secretive(BaseModel):
    name: str = "a"
    _own: int = PrivateAttr(default=0)


def secretive(own: int) -> Secretive:
    made = Secretive()
    made._own = own
    return made


def array(**changes: Any) -> Any:
    found = np.linspace(0, 1, 1536)
    for index, value in changes.items():
        found[int(index[1:])] = value
    return found


def ring(leaf: Any) -> Any:
    found: dict[str, Any] = {"leaf": leaf}
    found["again"] = [found]
    return found


def nest(depth: int, leaf: Any) -> Any:
    for level in range(depth):
        leaf = [leaf] if level % 2 else {"in": leaf}
    return leaf


APART: dict[str, tuple[Any, Any, str]] = {
    "an element of an array": (array(), array(n700=7.0), "[700]: "),
    "a shape": (np.zeros((2, 800)), np.zeros((800, 2)), ""),
    "a dtype": (np.zeros(2000), np.zeros(2000, np.float32), "dtype=float32"),
    "an array of objects": (np.array([1, "a"], object), np.array([True, "a"], object), ""),
    "an array in a dict": ({"v": array()}, {"v": array(n1535=0.5)}, "x['v']: [1535]: "),
    "a kind of number": (np.float64(1), 1.0, "np.float64(1.0) → 1.0"),
    "a kind that is written alike": (IntEnum("N", "ONE").ONE, 1, ""),  # type: ignore[attr-defined]
    "minus zero": (0.0, -0.0, "0.0 → -0.0"),
    "a late letter": ("y" * 5000 + "a", "y" * 5000 + "b", "[4990:]: 'yyyyyyyyyya' → "),
    "the end": ("z" * 500, "z" * 501, "[490:]: "),
    "late bytes": (b"y" * 900 + b"a", b"y" * 900 + b"b", "[890:]: b'"),
    "a key": ({1: "a"}, {True: "a"}, "- x[1]: 'a'"),
    "what an object holds": (Odd(1), Odd(2), ".held: 1 → 2"),
    "whose == raises": (Odd(1, ValueError()), Odd(2, ValueError()), ".held: 1 → 2"),
    "whose == has no answer": (Odd(1, array()), Odd(2, array()), ".held: 1 → 2"),
    "a private attribute": (secretive(1), secretive(2), "._own: 1 → 2"),
    "what a message carries": (
        AIMessage("a", id="1", additional_kwargs={"v": array()}),
        AIMessage("a", id="1", additional_kwargs={"v": array(n3=9.0)}),
        ".additional_kwargs['v'][3]: ",
    ),
    "a placeholder": (
        Placeholder(type_name="a.B", content=array()),
        Placeholder(type_name="a.B", content=array(n5=9.0)),
        "x['content']: [5]: ",
    ),
    "an exception": (ValueError("a"), ValueError("b"), "ValueError('a') → ValueError('b')"),
    "in a ring": (ring(1), ring(2), "x['leaf']: 1 → 2"),
    "far inside": (nest(500, 1), nest(500, 2), ""),
    "an element of a set": ({1, 2}, {True, 2}, "{1, 2} → {True, 2}"),
    "in a long list of arrays": (
        [array(n1=float(n)) for n in range(300)],
        [array(n1=float(n)) for n in range(1, 301)],
        "",
    ),
}


@pytest.mark.parametrize(("before", "after", "shown"), APART.values(), ids=APART)
def test_what_differs_is_a_change_and_shows_where(before: Any, after: Any, shown: str) -> None:
    """Also where the two are written alike, or can't be compared: in text and in HTML."""
    found = diff({"x": before}, {"x": after})
    assert found
    assert found == diff({"x": before}, {"x": after})
    assert shown in str(found)
    for line in str(found).splitlines():
        old, arrow, new = line.partition(" → ")
        assert not arrow or not old.endswith(f": {new}"), line
    html = found._repr_html_()
    assert "<ins>" in html or ChangeKind.EDITED not in {change.kind for change in found}


SAME: dict[str, tuple[Any, Any]] = {
    "arrays": (array(n1=float("nan")), array(n1=float("nan"))),
    "order of keys": ({"a": 1, "b": array()}, {"b": array(), "a": 1}),
    "objects": (Odd([1]), Odd([1])),
    "an == that says yes": (Odd(1, answer=True), Odd(2, answer=True)),
    "rings": (ring(1), ring(1)),
    "far inside": (nest(500, [1.5]), nest(500, [1.5])),
    "exceptions": (ValueError("a", 1), ValueError("a", 1)),
    "models": (secretive(1), secretive(1)),
}


@pytest.mark.parametrize(("before", "after"), SAME.values(), ids=SAME)
def test_what_is_the_same_is_no_change(before: Any, after: Any) -> None:
    """By content where there is no `==` that says so."""
    assert str(diff({"x": before, "y": [before]}, {"x": after, "y": [after]})) == "no changes"


@pytest.mark.alone
@pytest.mark.parametrize(
    "make",
    [lambda v: v, lambda v: nest(100, v), lambda v: dict.fromkeys(map(str, v), 1)],
    ids=["wide", "deep", "dict"],
)
def test_wide_and_deep_values_take_no_quadratic_time(make: Callable[[list[int]], Any]) -> None:
    """Four times the elements, also with a hundred levels over them, take about four times."""

    def compared(count: int) -> Callable[[], object]:
        wide = [*range(count)]
        before, after = make(wide), make([*wide[:500], -1, *wide[501:]])
        assert diff({"x": before}, {"x": after})
        return lambda: diff({"x": before}, {"x": after})

    assert times_as_long(compared(40_000), compared(10_000)) < 10


def test_a_message_is_found_again_by_its_id() -> None:
    """An edited message is edited in its place, whatever was added or removed around it."""
    before, after = talk("a", "b", "c", "d"), talk("new", "a", "c", "d", "e")
    after[2].content = "another text"
    assert shape(before, after) == [
        (ADDED, ("x", 0)),
        (REMOVED, ("x", 1)),
        (EDITED, ("x", 2)),
        (ADDED, ("x", 4)),
    ]


def test_an_edited_message_keeps_both_versions() -> None:
    """A message is one part: its change holds what it was and what it is."""
    (change,) = diff({"x": [AIMessage("I won't", id="a")]}, {"x": [AIMessage("I will", id="a")]})
    assert (change.before.content, change.after.content) == ("I won't", "I will")
    assert str(change) == "~ x[0]: assistant: I won't → assistant: I will"


def test_a_message_without_id_is_found_by_what_it_holds() -> None:
    """Equal messages without ids belong together; a different one is another message."""
    before = [HumanMessage("one"), HumanMessage("two")]
    after = [HumanMessage("zero"), HumanMessage("one"), HumanMessage("2")]
    assert shape(before, after) == [(ADDED, ("x", 0)), (REMOVED, ("x", 1)), (ADDED, ("x", 2))]


def test_nested_parts_have_paths() -> None:
    """Dicts, lists, dataclasses and models are compared part by part."""

    @dataclass
    class Point:
        x: int
        y: int

    class Order(BaseModel):
        items: list[str]
        at: Any = None

    before = {"order": Order(items=["tea", "milk"], at=Point(1, 2)), "files": {"a.py": "1"}}
    after = {"order": Order(items=["tea", "oat"], at=Point(1, 3)), "files": {"a.py": "2"}}
    found = diff(before, after)
    assert [c.place for c in found] == [
        "order['items'][1]",
        "order['at']['y']",
        "files['a.py']",
    ]
    assert [c.path for c in found.within("order", "at")] == [("order", "at", "y")]


def test_an_element_in_front_is_one_change() -> None:
    """What merely moved along isn't reported."""
    assert shape(list("bcdef"), list("abcdef")) == [(ADDED, ("x", 0))]


def test_very_different_long_lists_are_compared_place_by_place() -> None:
    """Two lists of thousands that share nothing take no quadratic time."""
    found = shape(list(range(5000)), list(range(10_000, 15_001)))
    assert found == [*((EDITED, ("x", i)) for i in range(5000)), (ADDED, ("x", 5000))]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", 1.0]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=12,
)


def patched(before: list[str], changes: Sequence[Change]) -> list[str]:
    """The list with the changes applied: removals from the end, additions from the front."""
    found = list(before)
    for change in reversed([c for c in changes if c.kind is REMOVED]):
        del found[_index(change)]
    for change in changes:
        if change.kind is ADDED:
            found.insert(_index(change), change.after)
    for change in changes:
        if change.kind is EDITED:
            found[_index(change)] = change.after
    return found


def _index(change: Change) -> int:
    return int(change.path[-1])


@given(st.lists(st.sampled_from("abcdef"), max_size=12), st.lists(st.sampled_from("abcdef")))
def test_the_changes_lead_from_one_list_to_the_other(before: list[str], after: list[str]) -> None:
    """Applied to the earlier list, they give the later one."""
    assert patched(before, diff({"x": before}, {"x": after})) == after


@given(values, values)
def test_only_a_difference_is_a_change(before: Any, after: Any) -> None:
    """There is no change exactly where the values are equal, types and all."""
    assert (not diff({"x": before}, {"x": after})) == (typed(before) == typed(after))


def typed(value: Any) -> Any:
    if isinstance(value, list):
        return "list", [typed(item) for item in value]
    if isinstance(value, dict):
        return "dict", {key: typed(item) for key, item in value.items()}
    return type(value).__name__, value


def test_states_of_a_graph() -> None:
    """It takes the snapshots of a graph, of whatever branches, and a saver's tuples."""

    def reply(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("yes", id="reply")]}

    builder = StateGraph(MessagesState)
    builder.add_node("reply", reply)
    builder.add_edge(START, "reply")
    builder.add_edge("reply", END)
    saver = InMemorySaver()
    graph = builder.compile(checkpointer=saver)
    thread: Any = {"configurable": {"thread_id": "t"}}
    graph.invoke({"messages": [HumanMessage("no?", id="question")]}, thread)
    before = graph.get_state(thread)
    edited = graph.update_state(thread, {"messages": [RemoveMessage("question")]})
    after = graph.get_state(edited)
    expected = [(REMOVED, ("messages", 0))]
    assert [(c.kind, c.path) for c in diff(before, after)] == expected
    tuples = [saver.get_tuple(before.config), saver.get_tuple(after.config)]
    assert all(tuples)
    assert [(c.kind, c.path) for c in diff(*tuples).within("messages")] == expected  # type: ignore[arg-type]


def test_html_is_escaped_and_closed() -> None:
    """Nothing in a state becomes a tag, in keys, texts or marks."""
    evil = "<script>alert('x')</script>\" onload=y"
    before = {evil: {evil: 1}, "messages": [AIMessage(evil, id="a")]}
    after = {evil: {evil: evil}, "messages": [AIMessage(evil + " more", id="a")], "new": evil}
    html = diff(before, after)._repr_html_()
    assert tags_of(html) == {"style", "table", "tr", "th", "td", "ins", "del", "span"}


def test_the_value_of_an_entrypoint_is_called_state_whatever_it_is() -> None:
    """One change tells that it was none and is a dict, a dict and is text, not there and there."""

    @entrypoint(checkpointer=InMemorySaver())
    def echo(given: Any) -> Any:
        return given

    def shapes(before: Any, after: Any) -> list[str]:
        return [str(change) for change in diff(before, after)]

    thread: RunnableConfig = {"configurable": {"thread_id": "1"}}
    nothing = echo.get_state(thread)
    for value in ({"r": 1}, {"r": 2}, "text"):
        echo.invoke(value, thread)
    text, _, two, _, one, asked = echo.get_state_history(thread)
    assert shapes(asked, one) == ["~ state: None → {'r': 1}"]
    assert shapes(one, two) == ["~ r: 1 → 2"]
    assert shapes(two, text) == ["~ state: {'r': 2} → 'text'"]
    assert shapes({"r": 2}, text) == ["~ state: {'r': 2} → 'text'"]
    assert shapes(nothing, text) == ["+ state: 'text'"]
    assert shapes(text, nothing) == ["- state: 'text'"]


@pytest.mark.parametrize("states", [("text", {}), ({}, "text")])
def test_what_is_no_state_is_told(states: tuple[Any, Any]) -> None:
    """Whatever else is given is an argument's error, which names the argument and what to pass."""
    wrong = "before" if states[0] else "after"
    with pytest.raises(InvalidArgumentError, match=f"{wrong}: must be a State or a dict of values"):
        diff(*states)


def test_text_has_nothing_that_a_terminal_obeys() -> None:
    """One line per change, without escape sequences."""
    text = str(
        diff({}, {"a\x1b[2J": "\x1b[31m", "m": HumanMessage("\x1b]0;title\x07\nline", id="1")})
    )
    assert len(text.splitlines()) == 2
    assert not any(ord(character) < 32 for character in text.replace("\n", ""))


def test_a_long_conversation_is_compared_quickly() -> None:
    """Thousands of messages of which two changed are two changes."""
    before = talk(*map(str, range(3000)))
    after = talk(*map(str, range(3000)))
    for index in random.Random(1).sample(range(3000), 2):
        after[index].content = "changed"
    assert [kind for kind, _ in shape(before, after)] == [EDITED, EDITED]


def looking_alike(number: float) -> Any:
    array = np.zeros(1536)
    array[700] = number
    return array


ALIKE: dict[str, tuple[list[Any], list[Any]]] = {
    "arrays": ([looking_alike(n) for n in range(300)], [looking_alike(n + 7) for n in range(300)]),
    "lists": (
        [[0] * 300 + [n] + [0] * 300 for n in range(300)],
        [[0] * 300 + [n + 7] + [0] * 300 for n in range(300)],
    ),
}


@pytest.mark.parametrize(("before", "after"), ALIKE.values(), ids=ALIKE)
def test_elements_that_look_alike_are_told_apart_soon(before: list[Any], after: list[Any]) -> None:
    """Each is looked at once, not with each other one, and still found where it is now."""
    began = time.process_time()
    found = diff({"x": before}, {"x": after})
    assert time.process_time() - began < 3
    assert [(c.kind.value, c.path[1]) for c in found] == [
        *(("removed", n) for n in range(7)),
        *(("added", n) for n in range(293, 300)),
    ]


class Undecided:
    """Has no hash, and no look but its class."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, number: float) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Undecided) and self.number == other.number


TOO_MANY: dict[str, tuple[list[Any], list[Any]]] = {
    "of which nothing is known": (
        [Undecided(n) for n in range(1000)],
        [Undecided(n + 0.5) for n in range(1000)],
    ),
    "that repeat": (["a"] * 1000, ["b", "a"] * 500),
}


@pytest.mark.parametrize(("before", "after"), TOO_MANY.values(), ids=TOO_MANY)
def test_where_aligning_takes_too_long_lists_are_compared_place_by_place(
    before: list[Any], after: list[Any]
) -> None:
    """Soon, and what is found is right: it leads from one list to the other."""
    began = time.process_time()
    found = diff({"x": before}, {"x": after})
    assert time.process_time() - began < 3
    assert {c.kind.value for c in found} == {"edited"}
    assert all(before[c.path[1]] is c.before and after[c.path[1]] is c.after for c in found)  # type: ignore[index]
    assert len(found) == sum(a != b for a, b in zip(before, after, strict=True))


def test_of_a_text_with_lines_those_that_changed_are_marked() -> None:
    """A file of code whose lines have no spaces isn't marked as another file."""
    before, after = ({"file": f"first()\n{name}()\nlast()\n"} for name in ("old", "new"))
    html = diff(before, after)._repr_html_()
    assert "first()\n<del>old()\n</del><ins>new()\n</ins>last()" in html
