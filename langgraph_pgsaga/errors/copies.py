"""One error for several callers."""

from __future__ import annotations

import copy
from typing import TypeVar

E = TypeVar("E", bound=Exception)


def copy_of(error: E) -> E:
    """The error for one more caller: raising one changes its traceback, and what it is from."""
    try:
        copied = copy.copy(error)
    except Exception:  # made with other arguments than it holds
        copied = type(error).__new__(type(error))
        copied.args = error.args
        vars(copied).update(vars(error))
    copied.__cause__, copied.__context__ = error.__cause__, error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(error.__traceback__)
