"""Rows that somebody forged or damaged: each ends in a value or an error of this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import ormsgpack
import pytest

from langgraph_pgsaga.errors import CorruptValueError, SerializationError, UnstorableValueError
from langgraph_pgsaga.serde.serializer import SafeSerializer
from tests._limits import HANG_SECONDS, times_as_long
from tests.unit import _forged
from tests.unit import _serde_types as sample

BIG = ormsgpack.Ext(101, ormsgpack.packb(b"\x01" * 9))


def in_a_process(*arguments: str) -> None:
    """Runs tests/unit/_forged.py, which may end as it likes."""
    command = [sys.executable, "-W", "ignore", "-m", _forged.__name__, *arguments]
    found = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=HANG_SECONDS
    )
    assert found.returncode == 0, f"at {found.stdout[-20:]}: {found.stderr[:2000]}"


def test_made_up_rows_end_in_an_error() -> None:
    """Rows made to end the process, or to take its time or memory, raise in seconds."""
    in_a_process("cases")


@pytest.mark.slow
def test_altered_encodings_load_or_raise_ours() -> None:
    """Encodings of every known type with parts or bytes replaced load, or raise our errors."""
    in_a_process("random", "600")


# Arguments that the constructors of known types take, but nothing ever writes.
FORGED: list[tuple[int, tuple[Any, ...]]] = [
    (0, ("numpy", "ndarray", [2, 2])),
    (1, ("numpy", "ndarray", [[1], "<i8"])),
    (1, ("numpy", "ndarray", [[1], "O", b"AAAAAAAA"])),
    (2, ("numpy", "ndarray", {"shape": [1], "buffer": b"A", "offset": -4096})),
    (1, ("datetime", "date", [b"\x07\xea\x00\x00"])),
    (1, ("datetime", "date", [2026, 1, True])),
    (1, ("datetime", "datetime", [b"\x07\xea\x00\x00\x00\x00\x00\x00\x00\x00"])),
    (1, ("datetime", "datetime", [2026, 1, 1])),
    (2, ("datetime", "date", {"year": 2026, "month": 1, "day": 1})),
    (0, ("datetime", "time", b"\x01\x00\x00\x00\x00\x00")),
    (1, ("datetime", "time", [1])),
    (2, ("datetime", "time", {"hour": b"\x01\x00\x00\x00\x00\x00", "minute": None})),
    (2, ("datetime", "time", {"hour": 1})),
    (1, ("datetime", "timedelta", [1.5, 0, 0])),
    (1, ("datetime", "timedelta", [1, 0, 0, 0, 0, 0, 1])),
    (2, ("datetime", "timedelta", {"weeks": 1})),
    (1, ("datetime", "timezone", [1])),
    (3, ("datetime", "datetime", 5, "fromisoformat")),
    (104, ("datetime", "datetime", [b"\x07\xea\x00\x00\x00\x00\x00\x00\x00\x00"], None, 0)),
    (104, ("datetime", "datetime", [2026, 1, 1], None, 0)),
    (104, ("datetime", "datetime", [2026, 1, 1, 0, 0, 0, 0], "UTC", 0)),
    (104, ("datetime", "datetime", [2026, 1, 1, 0, 0, 0, 0], None, True)),
    (0, ("uuid", "UUID", "{00000000-0000-0000-0000-000000000000}")),
    (1, ("uuid", "UUID", [None, b"a" * 16])),
    (2, ("uuid", "UUID", {"int": 1})),
    (0, ("decimal", "Decimal", 1.1)),
    (1, ("decimal", "Decimal", ["1"])),
    (0, ("builtins", "set", "abc")),
    (0, ("builtins", "frozenset", {"a": 1})),
    (1, ("builtins", "set", [[1]])),
    (0, ("collections", "deque", "abc")),
    (1, ("collections", "deque", [[1], True])),
    (1, ("collections", "deque", [[1], -1])),
    (1, ("collections", "deque", [[1], BIG])),
    (2, ("collections", "deque", {"iterable": [1]})),
    (0, ("ipaddress", "IPv4Address", 1)),
    (0, ("ipaddress", "IPv6Address", b"a" * 16)),
    (0, ("ipaddress", "IPv4Network", [0, 8])),
    (1, ("ipaddress", "IPv4Network", ["10.0.0.0/8", False])),
    (0, ("pathlib", "PurePosixPath", "a")),
    (1, ("pathlib", "PurePosixPath", ["a", b"b"])),
    (2, ("pathlib", "Path", {})),
    (0, ("zoneinfo", "ZoneInfo", "../../etc/passwd")),
    (0, ("zoneinfo", "ZoneInfo", "/etc/localtime")),
    (0, ("zoneinfo", "ZoneInfo", "Europe/\0Paris")),
    (1, ("zoneinfo", "ZoneInfo", ["UTC"])),
    (0, ("builtins", "complex", "1j")),
    (1, ("builtins", "complex", ["1", 0.0])),
    (2, ("builtins", "complex", {"real": 1.0})),
    (0, ("builtins", "slice", 1)),
    (1, ("builtins", "slice", [1])),
    (1, ("re", "compile", ["a", True])),
    (1, ("re", "compile", ["a", BIG])),
    (1, ("re", "compile", ["a" * 20_001, 32])),
    (0, ("pydantic.types", "SecretStr", 1)),
    (0, ("pydantic.types", "SecretBytes", "a")),
    (2, ("pydantic.types", "SecretStr", {"secret_value": "a"})),
    (0, ("pydantic.networks", "AnyUrl", 1)),
    (2, ("pydantic.networks", "AnyUrl", {"url": "https://a.b"})),
    (1, ("langgraph.types", "Send", ["n"])),
    (1, ("langgraph.types", "Send", [1, 2])),
    (1, ("langgraph.types", "Send", ["n", 1, 5.0])),
    (1, ("langgraph.store.base", "Item", [1])),
    (2, ("langgraph.store.base", "Item", {"key": "k"})),
    (0, ("langchain_core.messages.human", "HumanMessage", "hi")),
    (1, ("langchain_core.messages.human", "HumanMessage", ["hi"])),
    (1, ("langgraph.types", "Interrupt", [1])),
    (6, ("<i8", [True], "C", b"A" * 8)),
    (6, ("<i8", [1.0], "C", b"A" * 8)),
    (6, ("<i8", [-1], "C", b"")),
    (6, ("<i8", "\x01", "C", b"A" * 8)),
    (6, ("<i8", [1], "K", b"A" * 8)),
    (6, ("<i8", [1], "C", "A" * 8)),
    (6, ("<i8", [2**62, 4], "C", b"")),
    (6, ("|S0", [5], "C", b"")),
    (6, ("|V0", [5], "C", b"")),
    (6, ("i4,O", [1], "C", b"A" * 12)),
    (6, ("(2,2)i4", [1], "C", b"A" * 16)),
    (6, ("O", [1], "C", b"A" * 8)),
    (6, ("|b1", [1], "C", b"\x02")),
    (6, ("<U1", [1], "C", b"\xff\xff\xff\x7f")),
    (6, ("<i8", [1] * 100, "C", b"A" * 8)),
    (100, ("a",)),
    (101, (1, 2)),
    (103, (1,)),
    (105, ("<i8", b"A" * 16)),
    (105, ("O", b"A" * 8)),
    (105, ("|V0", b"")),
]


@pytest.mark.parametrize(("code", "parts"), FORGED)
@pytest.mark.parametrize("strict", [False, True])
def test_known_types_are_made_of_what_is_written_only(
    code: int, parts: tuple[Any, ...], strict: bool
) -> None:
    """A known type under another code, or with other arguments than are written, is refused."""
    inner = ormsgpack.packb(parts[0] if code == 103 else parts)
    data = ormsgpack.packb(ormsgpack.Ext(code, inner))

    with pytest.raises(CorruptValueError):
        SafeSerializer(strict=strict).loads_typed(("msgpack", data))


@pytest.mark.parametrize("kind", [np.memmap, np.matrix, np.recarray, np.ndarray, np.dtype])
@pytest.mark.parametrize("code", [0, 1, 2, 4, 5])
def test_an_allowed_class_is_not_called_in_a_form_it_is_never_written_in(
    kind: type[Any], code: int, tmp_path: Any
) -> None:
    """Allowing a class lets no row call its constructor as it likes: memmap opens files."""
    path = tmp_path / "file"
    path.write_bytes(b"A" * 16)
    arguments: dict[int, Any] = {0: str(path), 1: [str(path)]}
    data = _forged.record(
        code, kind.__module__, kind.__qualname__, arguments.get(code, {"filename": str(path)})
    )

    with pytest.raises(SerializationError):
        SafeSerializer(allow=[kind]).loads_typed(("msgpack", data))


@pytest.mark.parametrize("objects", [1, 16, 17, 60, 99])
@pytest.mark.parametrize("containers", [1, 14, 60, 240])
def test_what_nests_too_deeply_to_be_loaded_is_refused_when_written(
    objects: int, containers: int
) -> None:
    """Objects and containers in one another come back or are refused; the stack is never full."""
    value: Any = 1
    for _ in range(objects):
        for _ in range(containers):
            value = [value]
        value = sample.Point(1, value)
    serde = SafeSerializer()

    if objects > 16 and containers > 16:
        with pytest.raises(UnstorableValueError, match="nests too deeply"):
            serde.dumps_typed(value)
    else:
        data = serde.dumps_typed(value)
        assert serde.dumps_typed(serde.loads_typed(data)) == data


def test_a_pattern_that_takes_minutes_to_compile_is_refused_when_written() -> None:
    """A pattern that couldn't be loaded in seconds is refused, and others aren't."""
    import re

    serde = SafeSerializer()
    many = re.compile("(?:" + "|".join(f"word{n}[a-z-]" for n in range(900)) + ")", re.IGNORECASE)
    debug = re.compile("a", re.IGNORECASE)

    assert serde.loads_typed(serde.dumps_typed(many)) == many
    assert serde.loads_typed(serde.dumps_typed(debug)) == debug
    with pytest.raises(UnstorableValueError, match="too long to compile"):
        serde.dumps_typed(re.compile("a" * 20_001))


def test_a_stored_pattern_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The flag with which re.compile prints a pattern isn't followed."""
    data = _forged.record(1, "re", "compile", ["secret", 128 | 32])

    assert SafeSerializer().loads_typed(("msgpack", data)).pattern == "secret"
    assert capsys.readouterr().out == ""


@pytest.mark.alone
def test_checks_of_nesting_cost_little() -> None:
    """A broad tree of nested objects doesn't take twice the time per level for being looked at."""
    serde = SafeSerializer()

    def broad(levels: int) -> Callable[[], object]:
        tree: Any = sample.Point(1, [])
        for _ in range(levels):
            tree = sample.Point(1, [tree, {"a": list(range(300))}])
        data = serde.dumps_typed([tree] * 20)
        return lambda: serde.loads_typed(data)

    assert times_as_long(broad(16), broad(8)) < 20
