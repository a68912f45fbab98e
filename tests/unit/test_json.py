"""What goes into jsonb columns: exactly, or as a projection that jsonb always takes."""

from __future__ import annotations

import enum
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_pgsaga import _json
from langgraph_pgsaga.errors import CorruptValueError

TEXT = st.text()  # with NUL and lone surrogates
KEYS = TEXT | st.integers() | st.floats() | st.booleans() | st.none() | st.tuples(st.integers())
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | TEXT
    | st.binary()
    | st.just(object())
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.frozensets(st.integers())
    )


ANYTHING = st.recursive(SCALARS, _containers, max_leaves=15)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.sampled_from(["", "a", "b"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


class Mode(str, enum.Enum):  # noqa: UP042 - StrEnum is the kind that makes no trouble
    FAST = "fast"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


def circular() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


def fits_jsonb(value: Any) -> bool:
    """Whether jsonb takes the parsed JSON: clean text and finite numbers all through."""
    if isinstance(value, dict):
        return all(fits_jsonb(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(map(fits_jsonb, value))
    if isinstance(value, str):
        return "\0" not in value and not any(0xD800 <= ord(c) <= 0xDFFF for c in value)
    return not isinstance(value, float) or math.isfinite(value)


@given(ANYTHING)
def test_a_projection_is_always_json_that_jsonb_holds(value: Any) -> None:
    """No value makes the readable columns fail."""
    assert fits_jsonb(json.loads(_json.dump(_json.project(value))))


@given(ANYTHING)
def test_exact_means_equal(value: Any) -> None:
    """What is called exact loads to an equal value, but for tuples, which become lists."""
    text = _json.dump_exact(value)
    if text is not None:
        assert fits_jsonb(json.loads(text))
        assert _json.load(text) == _as_lists(value)


def _as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "value",
    [
        "a\0",
        "\ud800",
        math.nan,
        math.inf,
        -0.0,
        1e-7,
        1e15,
        2**53,
        -(2**53),
        10**5000,
        b"a",
        {1: "a"},
        {"a\0": 1},
        {1, 2},
        Mode.FAST,
        {"a": [{"b": object()}]},
        nested(101),
        circular(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_jsonb_changes_or_refuses_is_not_exact(value: Any) -> None:
    """Such values go to bytes instead."""
    assert _json.dump_exact(value) is None


@pytest.mark.parametrize(
    "value", [None, True, 0, 2**53 - 1, 0.0, 1.0, 0.1, 123456.789, "", "\U0001f600", {}, nested(99)]
)
def test_plain_values_are_exact_type_and_all(value: Any) -> None:
    """True isn't 1 and 1.0 isn't 1 when they come back."""
    text = _json.dump_exact(value)
    assert text is not None
    assert repr(_json.load(text)) == repr(value)


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("a\0b\ud800", "a\ufffdb\ufffd"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (2**60, str(2**60)),
        (10**5000, hex(10**5000)),
        (Mode.FAST, "fast"),
        (b"a", "bytes"),
        ((1, [2]), [1, [2]]),
        ({(1, 2): 1, None: 2, 10**5000: 3}, {"(1, 2)": 1, "None": 2, hex(10**5000): 3}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_exact_is_approximated(value: Any, becomes: Any) -> None:
    """People find text, numbers and structure where they look for them."""
    assert _json.project(value) == becomes


def test_a_projection_cuts_text_and_depth() -> None:
    """Long text ends in an ellipsis; what refers to itself, or nests too deeply, is named."""
    assert _json.project({"a": ["x" * 9]}, longest=3) == {"a": ["xxx\u2026"]}
    for value in (circular(), nested(5000)):
        assert len(_json.dump(_json.project(value))) < 10_000


@given(JSON, JSON)
def test_contained_means_mergeable(whole: Any, part: Any) -> None:
    """A value contains itself and what is left of it; a different scalar isn't contained."""
    assert _json.contains(whole, whole)
    assert _json.contains({"a": whole, "b": part}, {"a": whole})
    assert _json.contains([part, whole], [whole])
    if not isinstance(whole, dict | list) and not isinstance(part, dict | list):
        assert _json.contains(whole, part) == (repr(whole) == repr(part))


@pytest.mark.parametrize(
    ("whole", "part", "answer"),
    [
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": math.nan}, {"a": math.nan}, True),
        ({"a": "x\0"}, {"a": "x\ufffd"}, False),
        ({"a": [1, [2, 3]]}, {"a": [[3]]}, True),
        ({"a": ["x"]}, {"a": "x"}, False),
        ({"a": None}, {"b": None}, False),
        ({}, {}, True),
    ],
)
def test_containment_is_jsonbs(whole: Any, part: Any, answer: bool) -> None:
    """Booleans aren't numbers, arrays are sets, and only arrays match arrays."""
    assert _json.contains(whole, part) is answer


@given(TEXT)
def test_clean_text_is_changed_only_where_it_must_be(text: str) -> None:
    """Clean text stays; the rest keeps its length and every other character."""
    clean = _json.clean_text(text)
    assert _json.is_clean(clean)
    assert len(clean) == len(text)
    assert all(
        a == b or (b == "\ufffd" and not _json.is_clean(a))
        for a, b in zip(text, clean, strict=True)
    )


@pytest.mark.parametrize("inner", ["1e400", "1" + "0" * 400, "[" * 1500 + "]" * 1500, "{"])
def test_what_no_reader_takes_is_a_typed_error(inner: str) -> None:
    """jsonb holds some of it. The error keeps nothing of the text; an object is an empty one."""
    text = '{"x": ' + inner + ', "secret": 1}'
    with pytest.raises(CorruptValueError) as caught:
        _json.load(text)
    assert caught.value.__context__ is None
    assert _json.load_object(text) == {}
