"""Loads altered encodings, in a process of its own: what goes wrong may end it.

`python -m tests.unit._forged random 1000` alters the encodings of all kinds of values at
random, so many times; `... cases` loads those that are made up, and names each first.
"""

from __future__ import annotations

import copy
import faulthandler
import logging
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import ormsgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_pgsaga.errors import SerializationError
from langgraph_pgsaga.serde.serializer import SafeSerializer

_MEMORY = 4_000_000_000
# Of the processor's time.
_SECONDS = 20
_SERIALIZERS = (SafeSerializer(), SafeSerializer(strict=True))


class Part:
    """An extension, its code and content to be altered."""

    def __init__(self, code: int, content: Any) -> None:
        self.code, self.content = code, content


def nested(inner: bytes, code: int, levels: int, containers: int) -> bytes:
    for _ in range(levels):
        inner = packed(code, b"\x91" * (containers + 1) + inner)
    return inner


def packed(code: int, data: bytes) -> bytes:
    return ormsgpack.packb(ormsgpack.Ext(code, data))


def record(code: int, *parts: Any) -> bytes:
    return packed(code, ormsgpack.packb(parts))


CASES: dict[str, Callable[[], bytes]] = {
    # Read through to its pointers it ends the process.
    "pointers": lambda: record(1, "numpy", "ndarray", [[1], "O", b"A" * 8]),
    "heap": lambda: record(2, "numpy", "ndarray", {"shape": [1], "offset": -4096, "buffer": b"A"}),
    # As deep as ormsgpack goes, in object upon object: beyond the C stack.
    "deep": lambda: nested(b"\x01", 103, 100, 1_000),
    "deep as written": lambda: nested(b"\x01", 103, 100, 250),
    # Each level is a copy of all that is inside.
    "copies": lambda: nested(b"\xc6\x01\x00\x00\x00" + b"A" * 16_777_216, 103, 80, 0),
    # Five bytes that announce 4 billion elements.
    "long": lambda: b"\x91" * 100 + b"\xdd\xff\xff\xff\xff",
    "long and begun": lambda: b"\xdd\xff\xff\xff\xff\x01",
    "alike": lambda: record(
        0,
        "builtins",
        "set",
        [
            ormsgpack.Ext(101, ormsgpack.packb((n * (2**61 - 1)).to_bytes(12, "big")))
            for n in range(1, 60_000)
        ],
    ),
    "pattern": lambda: record(1, "re", "compile", ["[\0-\uffff]" * 2_000, 2]),
    "empty items": lambda: record(6, "|S0", [2**40], "C", b""),
    "dimensions": lambda: record(6, "<i8", [2**63] * 100_000 + [0], "C", b""),
}


def load(data: bytes) -> None:
    """Loads it and looks at all of it; an error of this package is fine, too."""
    for serializer in _SERIALIZERS:
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        try:
            loaded = serializer.loads_typed(("msgpack", data))
            # What a class of the application says of forged fields is its own affair.
            with suppress(Exception):
                repr(loaded)
        except (SerializationError, RecursionError):
            continue
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def values() -> list[Any]:
    from tests.unit import _serde_values as known

    arrays = [np.arange(6).reshape(2, 3), np.array(["a", "bc"]), np.array([True]), np.float32(1)]
    return [
        *known.PLAIN[3:],
        *known.STANDARD,
        *known.OWN,
        *known.MESSAGES,
        *known.GRAPH,
        *arrays,
        np.array(["2026-01-01"], dtype="datetime64[ns]"),
    ]


def encodings() -> list[bytes]:
    theirs = JsonPlusSerializer(allowed_msgpack_modules=True)
    found = []
    for value in values():
        found.append(SafeSerializer().dumps_typed([value, {"a": value}])[1])
        try:
            found.append(theirs.dumps_typed(value)[1])
        except TypeError:
            continue
    return found


def opened(data: bytes) -> Any:
    return ormsgpack.unpackb(
        data,
        ext_hook=lambda code, inner: Part(code, opened(inner)),
        option=ormsgpack.OPT_NON_STR_KEYS,
    )


def closed(value: Any) -> bytes:
    def close(part: Any) -> Any:
        return ormsgpack.Ext(part.code, closed(part.content))

    return ormsgpack.packb(value, close, ormsgpack.OPT_NON_STR_KEYS)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each container or extension, and a key under which something stands in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Part):
            found += [(part, "code"), (part, "content")]
            waiting.append(part.content)
        elif isinstance(part, list | dict):
            keys = part if isinstance(part, dict) else range(len(part))
            found += [(part, key) for key in keys]
            waiting += [part[key] for key in keys]
    return found


WORDS = (
    "numpy ndarray memmap builtins eval re compile pathlib Path fields datetime enum Enum slice "
    "|O |S0 <U4 ../x /etc/passwd"
)
ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, 0, -1, 2**31, 2**63, -(2**63), 1.5, float("nan"), b"A" * 8]),
    st.sampled_from(["", "x" * 300, b"", [], [[]], {}, {"a": 1}, ["numpy", "ndarray"]]),
    st.sampled_from(WORDS.split()),
    st.integers(-(2**63), 2**64 - 1),
    st.text(max_size=5),
    st.binary(max_size=20),
)


@st.composite
def altered(draw: st.DrawFn, found: list[bytes]) -> bytes:
    """An encoding with some of its parts, and then some of its bytes, replaced."""
    tree = [opened(draw(st.sampled_from(found)))]
    for _ in range(draw(st.integers(0, 3))):
        part, key = draw(st.sampled_from(places(tree)))
        if key == "code" and isinstance(part, Part):
            part.code = draw(st.sampled_from([*range(9), *range(100, 107)]))
        elif isinstance(part, Part):
            part.content = copy.deepcopy(draw(ODD))
        else:
            others = places(tree)
            other, place = draw(st.sampled_from(others))
            is_taken = draw(st.booleans()) and not isinstance(other, Part) and other is not part
            part[key] = opened(closed(other[place])) if is_taken else copy.deepcopy(draw(ODD))
    data = bytearray(closed(tree[0]))
    for _ in range(draw(st.integers(0, 2)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def main(kind: str, times: str = "") -> None:
    faulthandler.enable()
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    if kind == "cases":
        for name, made in CASES.items():
            print(name, flush=True)
            load(made())
        return

    @settings(max_examples=int(times), deadline=None, suppress_health_check=list(HealthCheck))
    @given(altered(encodings()))
    def loads_or_raises_ours(data: bytes) -> None:
        load(data)

    loads_or_raises_ours()


if __name__ == "__main__":
    main(*sys.argv[1:])
