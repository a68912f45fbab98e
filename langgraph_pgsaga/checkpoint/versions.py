"""Channel versions: they keep increasing, and no two branches draw the same one."""

from __future__ import annotations

import base64
import os

from langgraph_pgsaga._arguments import shown
from langgraph_pgsaga.errors import InvalidArgumentError

_DIGITS = 8
_BRANCH_CHARACTERS = 6
_BRANCHES_AT_ONCE = 512


def next_version(current: str | int | None) -> str:
    """The version after `current`: a zero-padded counter, and 36 random bits.

    It sorts after `current`, whatever saver made that (for the first hundred
    million steps of a thread). That two branches from one version draw the same
    next one has a chance of 1 in 69 billion.
    """
    digits, _, _ = ("" if current is None else str(current)).partition(".")
    width = max(len(digits), _DIGITS) if isinstance(current, str) else _DIGITS
    try:
        return f"{int(digits or 0) + 1:0{width}}.{_next_branch()}"
    except ValueError:
        problem = f"must be a version that a saver gave, or None, not {shown(current)}"
        raise InvalidArgumentError(argument="current", problem=problem) from None


# The system's random bytes, many at a time: each channel of each step takes six characters.
_branches: list[str] = []


def _next_branch() -> str:
    try:
        return _branches.pop()  # one at a time, whatever the thread
    except IndexError:
        size = _BRANCHES_AT_ONCE * _BRANCH_CHARACTERS
        text = base64.urlsafe_b64encode(os.urandom(size * 3 // 4)).decode()
        first, *others = (
            text[i : i + _BRANCH_CHARACTERS] for i in range(0, size, _BRANCH_CHARACTERS)
        )
        _branches.extend(others)
        return first


if hasattr(os, "register_at_fork"):
    # A child must not draw what its parent draws.
    os.register_at_fork(after_in_child=_branches.clear)
