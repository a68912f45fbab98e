"""What a forked child must not take over from its parent."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forgetting(Protocol):
    """An object that begins anew in a forked child."""

    def after_fork(self) -> None:
        """In the child: replaces locks, which a thread that the child lacks may hold, and what
        is the parent's alone."""


_live: weakref.WeakSet[Forgetting] = weakref.WeakSet()


def watch(forgetting: Forgetting) -> None:
    """Has its `after_fork` called in every child, as long as it lives."""
    _live.add(forgetting)


def _after_fork_in_child() -> None:
    for forgetting in list(_live):
        forgetting.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
