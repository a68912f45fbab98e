"""Many tests at once, or one alone: what is marked `alone` measures time.

The locks are on two files of the tests, which are there in any case. They hold between the
workers of one run, and between several runs in one checkout.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOM = Path(__file__)
_DOOR = _ROOM.with_name("conftest.py")


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Holds a place among the tests that run, or the whole room."""
    with _DOOR.open() as door, _ROOM.open() as room:
        try:
            # Whoever waits for an empty room holds the door, so nobody else goes in.
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            if not alone:
                fcntl.flock(door, fcntl.LOCK_UN)
            yield
        finally:
            # Closing isn't enough: a process that the test forked has the files too.
            for file in (room, door):
                fcntl.flock(file, fcntl.LOCK_UN)
