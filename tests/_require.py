"""What a test needs of the machine, where it may be missing."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import asyncpg
import pytest

from benchmarks.embedders import EMBEDDERS


def require_tool(name: str) -> str:
    """The path of a program; where it isn't installed the test is skipped.

    With PGSAGA_REQUIRE_ALL=1, as on a machine that is there to run everything, it fails.
    """
    path = shutil.which(
        name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    )
    if path is not None:
        return path
    return _missing(f"the program {name} isn't installed")


def require_package(name: str) -> Any:
    """A package of the `test` or `dev` extra; the same, or the module, where it isn't there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return _missing(f"the package {name} isn't installed")


def require_pgvector(dsn: str) -> None:
    """Skips the test where the server hasn't pgvector, as those of older versions here haven't."""

    async def is_there() -> bool:
        conn = await asyncpg.connect(dsn)
        try:
            asked = "select exists (select from pg_available_extensions where name = 'vector')"
            return bool(await conn.fetchval(asked))
        finally:
            await conn.close()

    # A thread has no event loop yet.
    with ThreadPoolExecutor() as pool:
        if not pool.submit(lambda: asyncio.run(is_there())).result():
            pytest.skip("this server has no pgvector")


def require_models() -> None:
    """The embedding models of the extra `dev`; they aren't loaded here."""
    for name in (name for one in EMBEDDERS for name in one.packages):
        if importlib.util.find_spec(name) is None:
            _missing(f"the package {name} of the extra dev isn't installed")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("PGSAGA_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and PGSAGA_REQUIRE_ALL=1 asks for every test")
    pytest.skip(reason, allow_module_level=True)
