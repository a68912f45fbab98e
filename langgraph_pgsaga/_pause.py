"""A wait that has an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress


async def pause(seconds: float | None, *, until: Awaitable[object]) -> None:
    """Returns once `until` is done, or after so many seconds, which cancel it; None is no end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await until
