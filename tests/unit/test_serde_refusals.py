"""What the serializer neither stores nor loads, and how it says so."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import pickle
import sys
import threading
import types
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import pytest
from langchain_core.runnables import RunnablePassthrough
from pydantic import ValidationError

from langgraph_pgsaga.errors import (
    BlockedTypeError,
    ChangedClassError,
    CorruptValueError,
    MissingTypeError,
    SerializationError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.serializer import (
    SafeSerializer,
)
from tests._limits import times_as_long
from tests.unit import _serde_types as sample
from tests.unit._serde_values import (
    HERE,
    SAFE,
    STRICT,
    again,
    name,
    record,
)

FORGED = [
    ("os", "system", "true"),
    ("posix", "system", "true"),
    ("builtins", "eval", "1+1"),
    ("builtins", "exec", "1"),
    ("builtins", "getattr", "1"),
    ("subprocess", "Popen", ["true"]),
    ("importlib", "import_module", "antigravity"),
    ("threading", "Thread", "x"),
    ("functools", "partial", "x"),
    ("pickle", "loads", b"."),
    ("re", "compile", "a"),
    (HERE, "function", {}),
    (HERE, "Caller", {}),
    (HERE, "Plain", {"n": 1}),
    (HERE, "Tags", ["a"]),
    (HERE, "FailureError", {"code": 1}),
    (HERE, "Outer", {}),
    (HERE, "dataclasses", {}),
    ("langchain_core.runnables.passthrough", "RunnablePassthrough", {}),
]


@pytest.mark.parametrize("code", [0, 1, 2, 4, 5])
@pytest.mark.parametrize(("module", "target", "payload"), FORGED)
def test_forged_names_are_blocked(code: int, module: str, target: str, payload: Any) -> None:
    """No function, and no class that isn't a data class, is called on a row's word."""
    if code == 1:
        payload = [payload]
    sys.modules.setdefault("subprocess", __import__("subprocess"))
    with pytest.raises((BlockedTypeError, CorruptValueError, MissingTypeError)) as found:
        SAFE.loads_typed(record(code, module, target, payload))

    if (module, target) != ("re", "compile"):
        assert isinstance(found.value, BlockedTypeError)
    with pytest.raises((BlockedTypeError, CorruptValueError)):
        STRICT.loads_typed(record(code, module, target, payload))


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 104])
def test_no_module_is_imported_on_a_rows_word(code: int, tmp_path: pathlib.Path) -> None:
    """A data class in a module that isn't imported is missing, and stays unimported."""
    (tmp_path / "forged_module.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    parts: list[Any] = ["forged_module", "Thing", [[1]], "fromisoformat"]
    if code == 104:
        parts = [*parts[:2], [2026, 1, 1, 0, 0, 0, 0], None, 0]
    try:
        with pytest.raises((MissingTypeError, BlockedTypeError)) as found:
            SAFE.loads_typed(record(code, *parts))
    finally:
        sys.path.remove(str(tmp_path))

    assert "forged_module" not in sys.modules
    assert isinstance(found.value, BlockedTypeError if code == 3 else MissingTypeError)


def test_a_modules_getattr_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking a name up doesn't run a module's `__getattr__`, which might import."""
    lazy = types.ModuleType("lazy_sample")
    asked: list[str] = []
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy_sample", lazy)

    with pytest.raises(MissingTypeError):
        SAFE.loads_typed(record(2, "lazy_sample", "Thing", {}))

    assert asked == []


@pytest.mark.parametrize("method", ["now", "strptime", "__class__", "fromtimestamp"])
def test_only_one_method_is_ever_called(method: str) -> None:
    """Of the methods a row may name, datetime.fromisoformat is the only one."""
    with pytest.raises(BlockedTypeError):
        SAFE.loads_typed(record(3, "datetime", "datetime", "x", method))


@pytest.mark.parametrize("entry", [("os", "system"), ("builtins", "eval"), (HERE, "function")])
def test_a_function_is_blocked_even_when_allowed(entry: tuple[str, str]) -> None:
    """Allowing a function by name has no effect: only classes are ever built."""
    serde = SafeSerializer(allow=[entry])

    with pytest.raises(BlockedTypeError):
        serde.loads_typed(record(0, *entry, "1"))


@pytest.mark.parametrize("args", [["a"], ["a", "b"], [1, 2], ["a", 0, 0], ["(", 0], "a"])
def test_patterns_take_a_text_and_flags_only(args: Any) -> None:
    """re.compile is called with one text and one number, or not at all."""
    with pytest.raises(CorruptValueError):
        SAFE.loads_typed(record(1, "re", "compile", args))


def test_enums_are_not_called_with_names() -> None:
    """A row can't make a new class by calling an enum with names."""
    with pytest.raises(ChangedClassError):
        SAFE.loads_typed(record(2, "enum", "Enum", {"value": "X", "names": "a b"}))
    assert "enum" in sys.modules


@pytest.mark.parametrize("tag", ["pickle", "json", "yaml", ""])
def test_other_tags_are_refused(tag: str) -> None:
    """Pickles and unknown type tags raise, and no pickle is loaded."""
    with pytest.raises(CorruptValueError, match="never loaded" if tag == "pickle" else "loads"):
        SAFE.loads_typed((tag, pickle.dumps(functools.partial(os.system, "true"))))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (("msgpack", b""), CorruptValueError),
        (("msgpack", b"\x92\x01"), CorruptValueError),
        (record(0, "uuid", "UUID", "payload"), CorruptValueError),
        (record(1, "datetime", "date", [2026, 13, "payload"]), CorruptValueError),
        (record(2, HERE, "Point", {"the payload": 1}), ChangedClassError),
        (record(2, HERE, "Point", {"x": 1, 2: "payload"}), ChangedClassError),
        (record(2, HERE, "Point", ["payload"]), CorruptValueError),
        (record(2, HERE, "Gone", {"payload": 1}), MissingTypeError),
        (record(2, "no.such", "Gone", {"payload": 1}), MissingTypeError),
        (record(0, HERE, "Colour", "payload"), ChangedClassError),
        (record(2, HERE, "Point"), CorruptValueError),
        (record(2, 1, "Point", {}), CorruptValueError),
        (record(99, "payload"), CorruptValueError),
        (record(101, "payload"), CorruptValueError),
        (record(102, [[]], [1, 2]), CorruptValueError),
    ],
)
def test_bad_rows_raise_without_their_payload(data: Any, kind: type[SerializationError]) -> None:
    """A row that can't become its value raises, and the error holds nothing of the payload."""
    for row in (data, ("msgpack", b"\x92\x01" + data[1])):
        with pytest.raises(SerializationError) as found:
            SAFE.loads_typed(row)

        assert isinstance(found.value, (kind, CorruptValueError))
        assert "payload" not in str(found.value)
        assert "wrong'" not in repr(found.value)
        assert found.value.__context__ is None


def unstorable() -> list[Any]:
    return [
        sample.function,
        (n for n in range(3)),
        threading.Lock(),
        object(),
        sample.Plain(1),
        sample.Caller(),
        sample.Tags(["a"]),
        sample.Point,
        RunnablePassthrough(),
        range(3),
        iter([1]),
        os,
        Ellipsis,
        type("Late", (datetime,), {})(2026, 1, 1),
        {sample.Caller(): 1},
        {sample.Tags: 1},
    ]


@pytest.mark.parametrize("value", unstorable(), ids=name)
def test_what_could_not_be_loaded_is_refused_when_written(value: Any) -> None:
    """Objects that can't be loaded again raise when written, alone or nested."""
    for holder in (value, [value], {"a": {3: value}}, sample.Point(1, value)):
        with pytest.raises(UnstorableValueError) as found:
            SAFE.dumps_typed(holder)
        assert found.value.__context__ is None or found.value.__suppress_context__


def test_refusal_names_the_type_and_the_place() -> None:
    """The refusal says which type, and where in the value it stands."""
    value = {"a": [1, {"b": sample.Point(1, y=sample.function)}], "secret": "payload"}

    with pytest.raises(UnstorableValueError, match=r"of type builtins\.function") as found:
        SAFE.dumps_typed(value)

    assert found.value.where == "value['a'][1]['b'].y"
    assert "payload" not in str(found.value)


def test_allowed_local_class_is_stored() -> None:
    """A class that was passed itself needs no name to be found by."""
    local = sample.local_class()

    assert again(local(1), SafeSerializer(allow=[local])) == local(1)


def test_redefined_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance of a class whose name now stands for another one is refused."""
    value = sample.Point(1)
    monkeypatch.setattr(sample, "Point", sample.Pair)

    with pytest.raises(UnstorableValueError, match="defined anew"):
        SafeSerializer().dumps_typed(value)


def test_circular_values_are_refused() -> None:
    """A value that contains itself raises instead of crashing the process."""
    in_list: list[Any] = []
    in_list.extend([in_list, in_list])
    in_dict: dict[Any, Any] = {}
    in_dict[frozenset()] = in_dict
    in_object = sample.Point(1)
    in_object.y = [in_object, {1: in_object}]

    for value in (in_list, in_dict, in_object, [in_object], {1: in_list}):
        with pytest.raises(UnstorableValueError, match="refers to itself"):
            SAFE.dumps_typed(value)


def test_depth_is_limited_to_what_loads() -> None:
    """Deep values either come back or are refused; a refusal doesn't take long."""

    def deep(levels: int, wrap: Callable[[Any], Any]) -> Any:
        return functools.reduce(lambda inner, _: wrap(inner), range(levels), 1)

    wraps: list[Callable[[Any], Any]] = [
        lambda v: [v],
        lambda v: {"a": v},
        lambda v: {1: v},
        sample.Point,
        lambda v: sample.Point(1, {1: v, 2: "\ud800"}),
        lambda v: sample.Kennel(first=sample.Animal(name="a"), extra=v),
        lambda v: {date(2026, 1, 1): v},
    ]
    for wrap in wraps:
        assert again(deep(50, wrap)) == deep(50, wrap)
        with pytest.raises(UnstorableValueError, match="nests too deeply"):
            SAFE.dumps_typed(deep(2_000, wrap))


@pytest.mark.alone
def test_deep_odd_keys_stay_cheap() -> None:
    """Nested objects that each need the second pass don't take twice the time per level."""

    def deep(levels: int) -> Callable[[], object]:
        value = functools.reduce(lambda inner, n: sample.Point(n, {n: inner}), range(levels), None)
        return lambda: SAFE.dumps_typed(value)

    assert times_as_long(deep(20), deep(10)) < 50


def test_a_failing_part_says_so_without_its_text() -> None:
    """An object that raises while its fields are read is refused, its message left out."""

    @dataclasses.dataclass
    class Broken:
        n: int = 0

        def __getattribute__(self, attribute: str) -> Any:
            if attribute == "n":
                raise KeyError("payload")
            return super().__getattribute__(attribute)

    with pytest.raises(UnstorableValueError, match="KeyError") as found:
        SafeSerializer(allow=[Broken]).dumps_typed(Broken())

    assert "payload" not in str(found.value)


def test_a_stop_from_outside_passes_through() -> None:
    """KeyboardInterrupt while writing is raised as itself."""

    @dataclasses.dataclass
    class Slow:
        n: int = 0

        def __getattribute__(self, attribute: str) -> Any:
            if attribute == "n":
                raise KeyboardInterrupt
            return super().__getattribute__(attribute)

    with pytest.raises(KeyboardInterrupt):
        SafeSerializer(allow=[Slow]).dumps_typed([Slow()])


def test_validation_errors_of_models_stay_inside() -> None:
    """A model whose rules grew stricter still loads what was once valid."""
    with pytest.raises(ValidationError):
        sample.Changed(n=-1)

    assert again(sample.Changed.model_construct(n=-1)).n == -1
