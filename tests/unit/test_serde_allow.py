"""What a serializer's user allows, and what stays as it was."""

from __future__ import annotations

import ipaddress
import pathlib
import sys
import uuid
from collections import deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from langchain_core.messages import (
    HumanMessage,
)
from langgraph.types import Send
from pydantic import AnyUrl, SecretBytes, SecretStr

from langgraph_pgsaga.errors import (
    BlockedTypeError,
    InvalidArgumentError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.serializer import (
    SafeSerializer,
    as_safe,
)
from tests._require import require_package
from tests.unit import _serde_types as sample
from tests.unit._serde_values import (
    HERE,
    MESSAGES,
    SAFE,
    STRICT,
    again,
    name,
)


def test_strict_refuses_unlisted_types_on_both_sides() -> None:
    """Strict: a data class that isn't allowed is neither stored nor loaded."""
    with pytest.raises(UnstorableValueError, match=r"allow=\[Point\]"):
        STRICT.dumps_typed(sample.Point(1))
    with pytest.raises(BlockedTypeError, match="Point"):
        STRICT.loads_typed(SAFE.dumps_typed(sample.Point(1)))
    for value in MESSAGES[:3]:
        assert again(value, STRICT) == value


@pytest.mark.parametrize("entry", [sample.Tags, (HERE, "Tags")])
def test_allowed_types_come_back(entry: Any) -> None:
    """An allowed class, passed itself or by name, is stored and loaded, also when strict."""
    for strict in (False, True):
        serde = SafeSerializer(allow=[entry], strict=strict)
        assert again(sample.Tags(["a"]), serde) == {"a"}
        assert type(again(sample.Tags(["a"]), serde)) is sample.Tags


def stamp(nanosecond: int) -> sample.Stamp:
    found = sample.Stamp(2026, 1, 1, tzinfo=UTC)
    found.nanosecond = nanosecond
    return found


def labelled(label: str) -> sample.Labelled:
    found = sample.Labelled(["a"])
    if label:
        found.label = label
    return found


@pytest.mark.parametrize(
    ("kept", "lost"),
    [
        (sample.Stamp(2026, 1, 1, tzinfo=UTC), stamp(5)),
        (labelled(""), labelled("mine")),
        (sample.Money("1.25"), sample.Money("1.255")),
    ],
    ids=name,
)
def test_each_value_of_an_allowed_type_comes_back_equal_or_is_refused(kept: Any, lost: Any) -> None:
    """Of an allowed subclass, values that its base's form doesn't hold are refused, others not,
    whichever comes first."""
    serde = SafeSerializer(allow=[type(kept)])

    for _ in range(2):
        with pytest.raises(UnstorableValueError, match="doesn't come back equal") as found:
            serde.dumps_typed({"a": [lost]})
        assert found.value.where == "value['a'][0]"
        assert type(found.value) is UnstorableValueError
        assert again([kept], serde) == [kept]
        assert type(again(kept, serde)) is type(kept)


def test_allow_is_advised_only_where_it_helps() -> None:
    """The refusal of a type that isn't allowed says to allow it, unless that changes nothing."""
    for helped in (sample.Stamp(2026, 1, 1), sample.Tags(["a"]), sample.Tags([sample.Stamp.min])):  # type: ignore[list-item]
        with pytest.raises(UnstorableValueError, match=r"Pass allow=\["):
            SAFE.dumps_typed(helped)
    hopeless = [stamp(5), sample.Span("1"), sample.Missing(2026, 1, 1), Fraction(1, 3), object()]
    for value in hopeless:
        for allow in ([], [type(value)]):
            with pytest.raises(UnstorableValueError) as found:
                SafeSerializer(allow=allow).dumps_typed([value])
            assert "allow=" not in str(found.value)
            assert "Keep" in str(found.value)


def test_allowlist_of_langgraph_names_nested_classes_shortly() -> None:
    """An entry with a nested class's last name allows the class."""
    serde = STRICT.with_msgpack_allowlist({(HERE, "Inner")})

    assert again(sample.Outer.Inner(1), serde) == sample.Outer.Inner(1)


@pytest.mark.parametrize("entry", ["os.system", ("a",), ("a", "b", "c"), (1, 2)])
def test_bad_allow_entries_are_refused(entry: Any) -> None:
    """An entry that is neither a class nor a pair of names is refused at once."""
    with pytest.raises(InvalidArgumentError, match="allow"):
        SafeSerializer(allow=[entry])


def test_allowlist_makes_a_copy_only_when_something_is_new() -> None:
    """Deriving with known types returns the same object, otherwise one with more rights."""
    assert STRICT.with_msgpack_allowlist([HumanMessage]) is STRICT

    derived = STRICT.with_msgpack_allowlist([sample.Point])

    assert derived.strict
    assert derived.with_msgpack_allowlist([(HERE, "Point")]) is derived
    assert again(sample.Point(1), derived) == sample.Point(1)
    with pytest.raises(UnstorableValueError):
        STRICT.dumps_typed(sample.Point(1))


def test_langgraphs_strict_mode_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where LangGraph's strict mode is on, the default serializer is strict."""
    monkeypatch.setattr("langgraph_pgsaga._langgraph.STRICT_MSGPACK_ENABLED", True)

    serde = as_safe(None)

    assert isinstance(serde, SafeSerializer)
    assert serde.strict


# One of each class whose subclasses have to be allowed, made as the base is.
LEAVES: list[tuple[type, tuple[Any, ...]]] = [
    (set, ([1, 2],)),
    (frozenset, ([1],)),
    (deque, ([1, 2], 3)),
    (datetime, (2026, 1, 2, 3, 4, 5, 6, ZoneInfo("Europe/Berlin"))),
    (date, (2026, 1, 2)),
    (time, (1, 2, 3, 4)),
    (timedelta, (1, 2, 3)),
    (ZoneInfo, ("Europe/Berlin",)),
    (uuid.UUID, ("12345678123456781234567812345678",)),
    (Decimal, ("1.250",)),
    (complex, (1, -0.5)),
    (pathlib.PurePosixPath, ("a", "b")),
    (ipaddress.IPv4Address, ("10.0.0.1",)),
    (ipaddress.IPv4Network, ("10.0.0.0/8",)),
    (ipaddress.IPv4Interface, ("10.0.0.1/8",)),
    (ipaddress.IPv6Address, ("::1",)),
    (ipaddress.IPv6Network, ("::/8",)),
    (AnyUrl, ("https://example.com/a",)),
    (SecretStr, ("secret",)),
    (SecretBytes, (b"secret",)),
    (Send, ("node", {"a": 1})),
]


@pytest.mark.parametrize(
    ("base", "arguments"), LEAVES, ids=lambda given: getattr(given, "__name__", "")
)
def test_a_subclass_of_each_leaf_is_kept_once_it_is_allowed(
    base: type, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before, with the advice to allow it, and then equal and of its own class."""
    own = type("Own", (base,), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "Own", own, raising=False)
    value = own(*arguments)
    with pytest.raises(UnstorableValueError, match=r"Pass allow=\[Own\]"):
        SAFE.dumps_typed([value])
    back = again([value], SafeSerializer(allow=[own]))
    assert back == [value]
    assert type(back[0]) is own


@pytest.mark.parametrize(
    "made",
    [
        lambda pandas: pandas.Timestamp("2026-01-02 03:04:05.678901"),
        lambda pandas: pandas.Timestamp("2026-01-02", tz="UTC"),
        lambda pandas: pandas.Timestamp("2026-01-02", tz="Europe/Berlin"),
        lambda pandas: pandas.Timestamp("2026-01-02T03:04+05:30"),
        # The hour that comes twice, once with each offset.
        lambda pandas: pandas.Timestamp("2026-10-25 00:30", tz="UTC").tz_convert("Europe/Berlin"),
        lambda pandas: pandas.Timestamp("2026-10-25 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        lambda pandas: pandas.Timestamp("2026-01-02").as_unit("ns"),
    ],
)
def test_a_timestamp_of_pandas_is_kept_once_it_is_allowed(made: Any) -> None:
    """As the page says; without, the refusal names the class."""
    value = made(require_package("pandas"))
    with pytest.raises(UnstorableValueError, match=r"Pass allow=\[Timestamp\]"):
        SAFE.dumps_typed({"at": value})
    back = again({"at": value}, SafeSerializer(allow=[type(value)]))["at"]
    assert (type(back), back, str(back), back.tz) == (type(value), value, str(value), value.tz)


@pytest.mark.parametrize(
    "made",
    [
        lambda pandas: pandas.Timestamp(1, unit="ns"),
        lambda pandas: pandas.Timedelta(days=1),
        lambda pandas: pandas.Timedelta(5, "ns"),
        lambda pandas: pandas.NaT,
        lambda pandas: pandas.NA,
        lambda pandas: pandas.Period("2026-01"),
        lambda pandas: pandas.Interval(1, 2),
        lambda pandas: pandas.Series([1]),
        lambda pandas: pandas.Index([1]),
        lambda pandas: pandas.Categorical(["a"]),
        lambda pandas: pandas.DataFrame({"a": [1]}),
    ],
)
def test_other_values_of_pandas_are_refused_whatever_is_allowed(made: Any) -> None:
    """As the page says; the refusal doesn't advise what changes nothing."""
    value = made(require_package("pandas"))
    for serde in (SAFE, SafeSerializer(allow=[type(value)])):
        with pytest.raises(UnstorableValueError, match="Keep") as found:
            serde.dumps_typed({"of": [value]})
        assert "allow=" not in str(found.value)
        assert found.value.where == "value['of'][0]"
