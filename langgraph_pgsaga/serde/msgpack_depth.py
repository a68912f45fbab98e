"""How deeply values may nest, so that neither writing nor loading one ends the process.

ormsgpack nests on the C stack: half a kilobyte for each container, and each object in an
object begins a count of its own. Its limits (255 when written, 1,022 when loaded) hold within
one object only, and 16,000 containers fill a stack of 8 MB.
"""

from __future__ import annotations

# Objects in objects. Loading nests as deep, on a stack that may be used already.
MAX_OBJECT_DEPTH = 100
# The same when loading: LangGraph's serializer nests further.
MAX_LOADED_DEPTH = 150
# Plain containers in plain containers: ormsgpack's own limit is a little above.
MAX_CONTAINER_DEPTH = 250

# Down to here containers nest in an object as far as ormsgpack loads them,
UNCHECKED_DEPTH = 4
# and to here as far as it writes them.
DEEP = 16
_MOST_WRITTEN = 256
_MOST_WHERE_DEEP = 16


def most_containers(object_depth: int) -> int:
    """How many containers may nest in an object at this depth."""
    return _MOST_WRITTEN if object_depth <= DEEP else _MOST_WHERE_DEEP


def nests_deeper(data: bytes, most: int) -> bool:
    """Whether more containers than this stand in one another, extensions not entered.

    The data is msgpack, and may be malformed.
    """
    if len(data.translate(None, _NO_CONTAINER)) <= most:
        return False
    # Of each container that is open, how many elements are still to come.
    left: list[int] = []
    at = 0
    while at < len(data):
        width, per_count, extra, count = _LAYOUT[data[at]]
        if width:
            count = int.from_bytes(data[at + 1 : at + 1 + width], "big")
        at += 1 + width + extra + (0 if per_count else count)
        count *= per_count
        if left:
            left[-1] -= 1
        if count:
            left.append(count)
            if len(left) > most:
                return True
        while left and not left[-1]:
            left.pop()
    return False


def _layout(first: int) -> tuple[int, int, int, int]:
    """What a first byte says: how many bytes of length follow; elements per count, 0 where
    the count is of bytes; bytes that follow in any case; and the count, if it says so itself."""
    if first < 0x80 or first >= 0xE0:
        return 0, 0, 0, 0
    if first < 0xA0:
        return 0, 2 if first < 0x90 else 1, 0, first & 0x0F
    if first < 0xC0:
        return 0, 0, 0, first & 0x1F
    return _LAYOUTS.get(first, (0, 0, 0, 0))


_LAYOUTS = {
    **{0xC4 + n: (2**n, 0, 0, 0) for n in range(3)},  # bin
    **{0xC7 + n: (2**n, 0, 1, 0) for n in range(3)},  # ext
    0xCA: (0, 0, 4, 0),
    0xCB: (0, 0, 8, 0),
    **{0xCC + n: (0, 0, 2**n, 0) for n in range(4)},  # uint
    **{0xD0 + n: (0, 0, 2**n, 0) for n in range(4)},  # int
    **{0xD4 + n: (0, 0, 1 + 2**n, 0) for n in range(5)},  # fixext
    **{0xD9 + n: (2**n, 0, 0, 0) for n in range(3)},  # str
    0xDC: (2, 1, 0, 0),
    0xDD: (4, 1, 0, 0),
    0xDE: (2, 2, 0, 0),
    0xDF: (4, 2, 0, 0),
}
_LAYOUT = tuple(map(_layout, range(256)))
_NO_CONTAINER = bytes(first for first in range(256) if not _LAYOUT[first][1])
