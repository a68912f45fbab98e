"""RunContext: what LangGraph says about the node that is running, read in one place."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga import _json, _langgraph


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The step of a run that this code is part of.

    `thread_id` is None without a checkpointer. `checkpoint_ns` and `checkpoint_id` name the
    checkpoint that the step was planned at, and at which its writes are stored: under
    durability "async" it may not be committed yet, under "exit" it never may be.

    `task_id` is the same when a task is executed again from a stored checkpoint, by another
    `attempt` (from 1) or after an interrupt. `node` is the node's name, or that of the
    `@task`. `step` is LangGraph's number of the superstep.

    `run_id` is the config's, which subgraphs aren't told of. `user_id` and `tenant_id` are
    the config's, as text; '' where it has none.
    """

    thread_id: str | None
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    node: str
    step: int
    attempt: int
    run_id: str | None
    user_id: str
    tenant_id: str

    @classmethod
    def current(cls) -> RunContext | None:
        """That of the node, task or tool that calls this; None outside of a run.

        Sync or async, in subgraphs too, and in threads that have the node's context, as
        `asyncio.to_thread` gives it; a thread that is started without has none.
        """
        found = _langgraph.running_task()
        if found is None:
            return None
        return cls(
            thread_id=found.thread_id,
            checkpoint_ns=found.checkpoint_ns,
            checkpoint_id=found.checkpoint_id,
            task_id=found.task_id,
            node=found.node,
            step=found.step,
            attempt=found.attempt,
            run_id=found.run_id,
            user_id=_text(found.given("user_id")),
            tenant_id=_text(found.given("tenant_id")),
        )


def _text(value: object) -> str:
    return "" if value is None else _json.shown(value)
