"""What the commands print: lines for people, JSON for programs, progress on stderr.

Whatever was stored may hold anything, so nothing of it reaches a terminal before `shown`
or `shown_block` took out what a terminal would obey.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

import typer

from langgraph_pgsaga._text import safe_json, shown

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_IN_ASCII = str.maketrans(
    {
        **dict.fromkeys("─—", "-"), **dict.fromkeys("├└┼╰╯┴┤", "+"), "│": "|", "┊": ":", "●": "*",
        "…": "...", "→": "->", "»": ">>", "«": "<<", "“": '"', "”": '"',
    }
)  # fmt: skip
_LINE_EVERY_SECONDS = 2.0
_TIMED_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-6[0-9a-f]{3}")


class ExitCode(IntEnum):
    """What the process ends with."""

    OK = 0
    ERROR = 1
    USAGE = 2
    ATTENTION = 3
    INTERRUPTED = 130
    BROKEN_PIPE = 141


def shown_time(moment: datetime | None) -> str:
    """A time for people, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


def shown_id(checkpoint_id: str) -> str:
    """On a terminal its beginning, which holds the time, to a tenth of a microsecond."""
    match = _TIMED_ID.match(checkpoint_id) if sys.stdout.isatty() else None
    return match[0] if match else checkpoint_id


def in_lines(parts: Sequence[str], *, before: str = "") -> str:
    """The parts after one another; on a terminal in as many lines as they take."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    first, *others = map(shown, parts)
    lines = [f"{before}{first}"]
    for part in others:
        longer = f"{lines[-1]}, {part}"
        if room is None or _width(longer) < room:
            lines[-1] = longer
        else:
            lines[-1] += ","
            lines.append(f"{' ' * (len(before) or 2)}{part}")
    return "\n".join(lines)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def counted(number: int, what: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def open_streams() -> None:
    """Makes stdout and stderr such that no text fails for its characters, nor for their lack."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8"))
        # A text that the terminal's encoding lacks is no reason to fail.
        getattr(getattr(sys, name), "reconfigure", lambda **_: None)(errors="backslashreplace")


def give_up_stdout() -> None:
    """What couldn't be written is dropped: the interpreter would try again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(text: str) -> None:
    """Prints a whole piece of output; who stopped reading it ends the command quietly.

    Raises OSError where it can't be written, which `main` tells.
    """
    try:
        sys.stdout.write(_in_its_encoding(text))
        sys.stdout.flush()
    except BrokenPipeError:
        give_up_stdout()
        raise typer.Exit(ExitCode.BROKEN_PIPE) from None


def write_line(text: str = "") -> None:
    """`write` of one line (or more) that is safe to print."""
    write(f"{text}\n")


def write_json(value: Any) -> None:
    """Prints a JSON document. Times become ISO 8601."""
    write_line(_json_out(json.dumps(value, ensure_ascii=False, indent=2, default=_json_default)))


def json_lines_out() -> TextIO:
    """Stdout as a file for JSON Lines."""
    return cast("TextIO", _JsonLinesOut())


def note(text: str) -> None:
    """A line for people on stderr, beside what is printed; lost where nobody can read it."""
    with suppress(OSError):
        print(shown(text), file=sys.stderr, flush=True)


def needs_question(*, yes: bool) -> bool:
    """Whether something is destroyed only after an answer.

    Where there is no terminal to ask at, `--yes` must have been given.
    """
    if not yes and not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise typer.BadParameter("nobody is there to ask. Pass --yes to go on", param_hint="--yes")
    return not yes


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something is destroyed; without a yes the command ends."""
    if not needs_question(yes=yes):
        return
    try:
        agreed = typer.confirm(shown(question), err=True)
    except typer.Abort:
        note("")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if not agreed:
        note("nothing was done")
        raise typer.Exit(ExitCode.ERROR)


class Tell(Protocol):
    """Says how far some work is."""

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None: ...


@contextmanager
def progress() -> Iterator[Tell]:
    """How far long work is, on stderr: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)


class _JsonLinesOut(io.TextIOBase):
    def write(self, text: str) -> int:
        write(_json_out(text))
        return len(text)


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_EVERY_SECONDS

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY_SECONDS
            note(f"{text} ({done} of {total})" if total is not None else text)


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task("", total=None)

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        self._bar.update(self._task, description=shown(text, 60), completed=done or 0, total=total)


def _fits(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _in_its_encoding(text: str) -> str:
    """With our own drawing and punctuation in ASCII where stdout can't have it."""
    return text if _fits(text) else text.translate(_IN_ASCII)


def _json_out(text: str) -> str:
    """JSON text that stdout can have, and that gives no orders."""
    text = safe_json(text)
    if _fits(text):
        return text
    return _BEYOND_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
