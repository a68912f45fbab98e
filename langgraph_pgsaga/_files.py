"""Files of the user's that are written as a whole, and read line by line."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import required_text, shown
from langgraph_pgsaga.errors import InvalidArgumentError


@contextmanager
def written_file(file: Any) -> Iterator[TextIO]:
    """What is written to: a text file that is open as it is, and of a path a new file, which takes
    its place when the block ends, if it ends well."""
    if isinstance(file, str | os.PathLike):
        with _replacing(_file_path(file)) as opened:
            yield opened
        return
    _check_open("write", file)
    yield file


@contextmanager
def read_file(file: Any) -> Iterator[TextIO]:
    """What is read from: a text file that is open, or that of a path."""
    if isinstance(file, str | os.PathLike):
        path = _file_path(file)
        if not path.exists():
            raise InvalidArgumentError(argument="file", problem=f"{str(path)!r} isn't there")
        with path.open(encoding="utf-8") as opened:
            yield opened
        return
    _check_open("readline", file)
    yield file


def _check_open(method: str, file: Any) -> None:
    if isinstance(file, type) or not callable(getattr(file, method, None)):
        problem = f"must be a path or a text file that is open, not {shown(file)}"
        raise InvalidArgumentError(argument="file", problem=problem)


def json_line(value: dict[str, Any]) -> str:
    """A line of JSON Lines."""
    text = json.dumps(value, ensure_ascii=False)
    # A lone surrogate can't be written as UTF-8, but as an escape.
    return f"{text if _json.is_clean(text) else json.dumps(value)}\n"


def _file_path(file: str | os.PathLike[str]) -> Path:
    path = Path(required_text("file", os.fspath(file)))
    if path.is_dir():
        raise InvalidArgumentError(argument="file", problem=f"{str(path)!r} is a folder")
    if not path.parent.is_dir():
        problem = f"{str(path.parent)!r} is no folder that is there"
        raise InvalidArgumentError(argument="file", problem=problem)
    return path


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A new file beside `path` that takes its place when the block ends, if it ends well.

    A link stays, and what it leads to is replaced. A pipe or a device is written to.
    """
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    path = path.resolve()
    number, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
