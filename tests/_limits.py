"""How long a test waits, and how it tells that something takes too long."""

from __future__ import annotations

import time
from collections.abc import Callable

# What isn't there by then has hung. Where all is well a wait takes a hundredth of this, so no
# machine is too slow, or too busy, for it.
HANG_SECONDS = 300.0


def times_as_long(work: Callable[[], object], as_other: Callable[[], object]) -> float:
    """How much more of the processor one call takes than another, whatever the machine does else.

    Of each the shortest of some goes, in turns.
    """
    pairs = [(_seconds_of(work), _seconds_of(as_other)) for _ in range(_GOES)]
    return min(first for first, _ in pairs) / min(other for _, other in pairs)


_GOES = 3


def _seconds_of(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
