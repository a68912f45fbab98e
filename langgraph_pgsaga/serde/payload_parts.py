"""Values in pieces: the messages in them, and the parts of large ones that stay as they were.

Everything here works on a value's bytes, so that what is put together again is the same to
the byte. Where the pieces can't be told, the value is one piece.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import ormsgpack
from langchain_core.messages import BaseMessage
from langgraph.types import Send

Encode: TypeAlias = Callable[[Any], bytes]

# Objects looked at for messages, and how deep they are nested.
MOST_LOOKED_AT = 5_000
_DEEPEST = 12
# Nothing is in these: isinstance asks the class of messages at length, for each object anew.
_LEAVES = frozenset({str, bytes, int, float, bool, type(None)})
# Messages that aren't where they are expected: each costs a search through the rest.
_MOST_MISSED = 8
_LENGTH_BYTES = 4

# Elements smaller than this are taken together, this many at a time.
_SMALL_ELEMENT_BYTES = 64
_SMALL_ELEMENTS = 64
_SMALLEST_CHUNK_BYTES = 512
_LARGEST_CHUNK_BYTES = 65_536
# A chunk may grow to so many times the size that is aimed at.
_MOST_TIMES = 4
# Containers in containers that are cut, too.
_DEEPEST_CUT = 4


def messages_in(value: Any) -> list[BaseMessage]:
    """The messages inside plain containers, Sends and dataclasses, in the order of encoding."""
    found: list[BaseMessage] = []
    left = MOST_LOOKED_AT
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting and left:
        item, depth = waiting.pop()
        left -= 1
        if type(item) in _LEAVES:
            continue
        if isinstance(item, BaseMessage):
            found.append(item)
        elif depth < _DEEPEST:
            inner = _inside(item)
            # The last is the first to be taken; the rest of a long list has to wait in vain.
            waiting.extend((part, depth + 1) for part in reversed(inner[:left]))
    return found


def _inside(value: Any) -> list[Any]:
    kind = type(value)
    if kind is list or kind is tuple:
        return list(value)
    if kind is dict:
        return list(value.values())
    if kind is Send:
        return [value.arg]
    if dataclasses.is_dataclass(kind):
        return [getattr(value, field.name, None) for field in dataclasses.fields(kind)]
    return []


def cut_out(data: bytes, parts: Sequence[bytes]) -> tuple[bytes, list[int]] | None:
    """`data` with gaps where parts stood, and the places in `parts` of those cut out.

    The parts are looked for one after the other. None where none was found.
    """
    kept: list[bytes] = []
    found: list[int] = []
    begin = missed = 0
    for place, part in enumerate(parts):
        at = data.find(part, begin)
        if at < 0:
            missed += 1
            if missed == _MOST_MISSED:
                break
            continue
        kept.append(data[begin:at])
        found.append(place)
        begin = at + len(part)
    if not found:
        return None
    lengths = ormsgpack.packb([len(piece) for piece in kept])
    head = len(lengths).to_bytes(_LENGTH_BYTES, "big")
    return b"".join([head, lengths, *kept, data[begin:]]), found


def fill(skeleton: bytes, parts: Sequence[bytes]) -> bytes:
    """The inverse of `cut_out`, given the parts that it cut out.

    Raises ValueError where these can't be the skeleton's.
    """
    begin = _LENGTH_BYTES + int.from_bytes(skeleton[:_LENGTH_BYTES], "big")
    lengths = ormsgpack.unpackb(skeleton[_LENGTH_BYTES:begin])
    if not isinstance(lengths, list) or len(lengths) != len(parts):
        raise ValueError("as many gaps as parts are needed")
    if any(type(length) is not int or length < 0 for length in lengths):
        raise ValueError("what stands before a gap has a length")
    pieces: list[bytes] = []
    for length, part in zip(lengths, parts, strict=True):
        pieces += (skeleton[begin : begin + length], part)
        begin += length
    return b"".join([*pieces, skeleton[begin:]])


def chunks(value: Any, data: bytes, encode: Encode) -> list[bytes]:
    """`data`, the bytes of `value`, in parts that mostly stay when a little of it changes.

    A list or dict, and a large one in it, is cut between its elements, behind those whose
    checksum says so (content-defined chunking, as in LBFS, Muthitacharoen et al. 2001): what
    comes in, goes or changes moves the cuts around itself only. A version then costs a chunk,
    and some 20 bytes for each of the others, in the pending write and in the value: least
    where a chunk has about the root of forty times the whole.
    """
    root = 2 ** round(math.log2(40 * len(data) + 1) / 2)
    aim = min(max(root, _SMALLEST_CHUNK_BYTES), _LARGEST_CHUNK_BYTES)
    found = list(_cut(value, data, encode, aim, 0))
    # Never on the strength of a rule alone: what is stored is what was given.
    return found if b"".join(found) == data else [data]


def _cut(value: Any, data: bytes, encode: Encode, aim: int, depth: int) -> Iterator[bytes]:
    """The chunks of a container, and of large ones in it: cut alike wherever they stand."""
    if type(value) not in (list, dict) or not value or depth == _DEEPEST_CUT:
        yield data
        return
    value = value.copy()  # other threads may change it while an element is encoded
    begin = _header_bytes(len(value))
    at_once = 1 if len(data) >= _SMALL_ELEMENT_BYTES * len(value) else _SMALL_ELEMENTS
    cells = list(_cells(value, at_once, encode))
    if b"".join(cells) != data[begin:]:
        yield data  # not what is encoded element by element
        return
    yield data[:begin]
    group: list[bytes] = []
    size = 0
    insides = value.values() if type(value) is dict else value
    for cell, inside in zip(cells, islice(insides, 0, None, at_once), strict=True):
        is_large = at_once == 1 and len(cell) > _MOST_TIMES * aim
        if is_large and type(inside) in (list, dict):
            inner = encode(inside)
            if before := b"".join([*group, cell.removesuffix(inner)]):
                yield before
            yield from _cut(inside, inner, encode, aim, depth + 1)
            group, size = [], 0
            continue
        group.append(cell)
        size += len(cell)
        # The longer the cell, the likelier: so the groups are of the size that is aimed at.
        if zlib.crc32(cell) * aim < len(cell) << 32 or size >= _MOST_TIMES * aim:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)


def _cells(value: Any, at_once: int, encode: Encode) -> Iterator[bytes]:
    """The bytes of the elements, so many at once, without those of a list or dict around them."""
    make = type(value)
    elements = iter(value.items() if make is dict else value)
    while some := make(islice(elements, at_once)):
        yield encode(some)[_header_bytes(len(some)) :]


def _header_bytes(count: int) -> int:
    """The length of what stands before the elements of a msgpack array or map."""
    if count < 1 << 4:
        return 1
    return 3 if count < 1 << 16 else 5
