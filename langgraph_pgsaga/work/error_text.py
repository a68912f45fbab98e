"""What logs and tables say of an error: never what it may quote."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from langgraph_pgsaga.errors import PgSagaError

# What raises in these is called by a line of the application, which is where to look.
_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
_LIBRARIES = (Path(__file__).parents[1], *(Path(sysconfig.get_path(name)) for name in _PATHS))


def described(error: BaseException) -> str:
    """The error's class and place; of ours, whose texts have no payload, the text.

    Of what a library raised the place is the line of the application that called it, and then the
    library's.
    """
    if isinstance(error, PgSagaError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    told = f"{type(error).__name__} at {_place(frames[-1])}"
    callers = [frame for frame in frames if _is_of_the_application(frame)]
    if not callers or callers[-1] is frames[-1]:
        return told
    return f"{type(error).__name__} at {_place(callers[-1])}, raised at {_place(frames[-1])}"


def _place(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno} in {frame.name}"


def _is_of_the_application(frame: traceback.FrameSummary) -> bool:
    path = Path(frame.filename)
    return path.is_absolute() and not any(path.is_relative_to(one) for one in _LIBRARIES)
