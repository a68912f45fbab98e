"""Tables for people: whole in a file, folded into the width of a terminal."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence

from langgraph_pgsaga._text import shown
from langgraph_pgsaga.cli.output import write

_GAP = 3
# Of a word, as much is kept on one line: a status, a date, the beginning of an id.
_UNBROKEN = 18


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table. Cells are folded where a terminal has less room than they take.

    Where it hasn't even the room for their words, each row is a list of its own.
    """
    cells = [[shown(cell) for cell in row] for row in rows]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    widths = _widths([list(column) for column in zip(columns, *cells, strict=True)], room)
    if widths is None:
        write("\n".join(_listed(columns, row) for row in cells))
    else:
        write(_drawn(columns, cells, widths))


def _widths(columns: Sequence[Sequence[str]], room: int | None) -> list[int] | None:
    """How wide each column may be; None where the room isn't enough."""
    from rich.cells import cell_len

    wanted = [max(map(cell_len, column)) for column in columns]
    if room is None:
        return wanted
    room -= _GAP * (len(columns) - 1)
    least = [
        max(min(cell_len(word), _UNBROKEN) for cell in column for word in [*cell.split(), ""])
        for column in columns
    ]
    if sum(least) > room:
        return None
    widths, spare = list(least), room - sum(least)
    # Who wants little more gets it, the others share what is left.
    hungry = sorted(range(len(columns)), key=lambda i: wanted[i] - least[i])
    for number, i in enumerate(hungry):
        more = min(wanted[i] - least[i], spare // (len(hungry) - number))
        widths[i] += more
        spare -= more
    return widths


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, width in zip(columns, widths, strict=True):
        table.add_column(name, overflow="fold", width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(
        file=io.StringIO(),
        force_terminal=sys.stdout.isatty(),
        width=sum(widths) + _GAP * len(widths),
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _listed(columns: Sequence[str], row: Sequence[str]) -> str:
    """A line for each column that holds something."""
    longest = max(map(len, columns))
    pairs = zip(columns, row, strict=True)
    return "".join(f"{name:<{longest}}  {cell}\n" for name, cell in pairs if cell)
