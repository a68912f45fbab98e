"""step_is_stored(): what acts outside the database waits until its step can't be forgotten."""

from __future__ import annotations

from langgraph_pgsaga.errors import StepNotStoredError
from langgraph_pgsaga.work.step_mark import FoundStep, find_step


async def step_is_stored() -> None:
    """Returns when the running node would be executed again as the same task after a crash.

    That is when the checkpoint at which it was planned is committed, in a subgraph those of
    the graphs above, too: then `RunContext.task_id` is a key by which something outside is
    done once. No round trip where this process knows it already, as it does under durability
    "sync".

    Raises:
        NoStepError: no node is running, or its graph's saver isn't a PostgresSaver.
        StepNotStoredError: the run's durability is "exit"; or the checkpoint couldn't be
            stored, or wasn't for 30 s.
    """
    found = stored_step("step_is_stored")
    await found.keeper.wait_until_stored(found.levels, found.control)


def stored_step(call: str) -> FoundStep:
    """The running step, of a run that stores its steps; raises as `step_is_stored`."""
    found = find_step(call)
    if found.is_stored_at_exit:
        problem = (
            'is stored when the run has ended, since its durability is "exit": a crash would '
            'begin it anew, by other task ids. Run it with durability="async" or "sync"; or key '
            "what you do by something of your own, such as an order's number"
        )
        raise StepNotStoredError(checkpoint_id=found.levels[0].checkpoint_id, problem=problem)
    return found
