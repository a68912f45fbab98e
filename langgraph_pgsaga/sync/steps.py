"""`step_is_stored` for sync nodes."""

from __future__ import annotations

import asyncio

from langgraph_pgsaga.errors import BlockingCallError
from langgraph_pgsaga.work import stored_step


def step_is_stored() -> None:
    """`langgraph_pgsaga.work.step_is_stored` for sync nodes.

    Raises:
        BlockingCallError: called from a running event loop, which may be what stores the step.
    """
    found = stored_step("step_is_stored")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        waiting = found.keeper.wait_until_stored
        found.keeper.db.portal.call(waiting, found.levels, found.control)
        return
    raise BlockingCallError(call="step_is_stored")
