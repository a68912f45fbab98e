"""What tests of workers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests._limits import HANG_SECONDS


async def until(holds: Callable[[], bool]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(HANG_SECONDS):
        while not holds():
            await asyncio.sleep(0.002)
