"""`pgsaga`'s commands are put together once for each process, and for each of its forks.

Typer does it for each call: 50 ms, where most commands take as much for all the rest.
"""

from __future__ import annotations

import functools

import typer.main


def build_once() -> None:
    """From now on. What has imported Typer's function before goes on without."""
    typer.main.get_command = functools.cache(typer.main.get_command)
